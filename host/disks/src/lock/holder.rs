//! The name of the program that has a lock.

use std::fmt;

/// Who has an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A process.
    Process {
        /// Its number.
        pid: u32,
        /// The program's name.
        program: String,
    },
    /// This process itself: the image is named twice.
    Ourselves,
    /// A process that we may not look at, or a host that doesn't say.
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, program } => write!(f, "`{program}` (process {pid})"),
            Self::Ourselves => f.write_str("this program itself (it is named twice)"),
            Self::Unknown => f.write_str("another program, of another user"),
        }
    }
}

/// Looks through the open files of every process that we may look at for one with a lock on byte
/// `byte` of the file: the kernel doesn't tell who has an open file description lock
/// (`l_pid` is -1), but shows in `/proc/PID/fdinfo` which descriptors have which locks.
#[cfg(target_os = "linux")]
pub(super) fn find(file: &std::fs::File, byte: i64) -> Holder {
    use std::os::unix::fs::MetadataExt;

    let Ok(metadata) = file.metadata() else { return Holder::Unknown };
    let device = metadata.dev();
    let id = format!(
        "{:02x}:{:02x}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device),
        metadata.ino()
    );
    let mut ourselves = false;
    for pid in numbers("/proc") {
        for fd in numbers(&format!("/proc/{pid}/fdinfo")) {
            let text = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}"));
            if !text.is_ok_and(|text| text.lines().any(|line| is_lock(line, &id, byte))) {
                continue;
            }
            if pid == std::process::id() {
                ourselves = true;
                continue;
            }
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            return Holder::Process { pid, program: name.trim_end().to_owned() };
        }
    }
    if ourselves { Holder::Ourselves } else { Holder::Unknown }
}

/// The names in a folder that are numbers.
#[cfg(target_os = "linux")]
fn numbers(folder: &str) -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// `lock: 1: OFDLCK  ADVISORY  READ -1 fe:00:1234 100 101`, with a tab behind the first colon
/// (proc_pid_fdinfo(5)).
#[cfg(target_os = "linux")]
fn is_lock(line: &str, id: &str, byte: i64) -> bool {
    let Some(rest) = line.strip_prefix("lock:") else { return false };
    let mut words = rest.split_whitespace().rev();
    let (end, start) = (words.next(), words.next());
    let first: Option<i64> = start.and_then(|word| word.parse().ok());
    let last = end.and_then(|word| if word == "EOF" { Some(i64::MAX) } else { word.parse().ok() });
    words.next() == Some(id)
        && first.zip(last).is_some_and(|(first, last)| (first..=last).contains(&byte))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let line = "lock:\t1: OFDLCK ADVISORY  READ -1 fe:00:1234 100 101";
        let whole = "lock:\t1: POSIX  ADVISORY  WRITE 77 fe:00:1234 0 EOF";

        assert!(is_lock(line, "fe:00:1234", 101));
        assert!(!is_lock(line, "fe:00:1234", 102));
        assert!(!is_lock(line, "fe:00:123", 101));
        assert!(is_lock(whole, "fe:00:1234", 203));
        assert!(!is_lock("pos:\t0", "fe:00:1234", 0));
    }
}
