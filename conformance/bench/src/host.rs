//! Where and when something was measured: figures without it mean nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The circumstances of a run.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// UTC.
    pub(crate) date: String,
    pub(crate) commit: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) kernel: String,
    /// Package of the guests' kernel.
    pub(crate) guest_kernel: String,
    pub(crate) qemu: String,
    pub(crate) compiler: String,
    /// The host's load over a minute, before and after.
    pub(crate) load_before: f64,
    pub(crate) load_after: f64,
}

impl Host {
    /// As it is now; `load_after` is filled in at the end.
    pub(crate) fn now(root: &Path, guest_kernel: &Path, qemu: Option<String>) -> Self {
        let unknown = || "unknown".to_owned();
        let package = guest_kernel.with_file_name("package");
        let load = load();
        Self {
            date: answer(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))
                .unwrap_or_else(unknown),
            commit: answer(
                Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(root),
            )
            .unwrap_or_else(unknown),
            cpu: fs::read_to_string("/proc/cpuinfo")
                .ok()
                .and_then(|text| cpu_model(&text))
                .unwrap_or_else(unknown),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| unknown(), |text| text.trim().to_owned()),
            guest_kernel: fs::read_to_string(package)
                .map_or_else(|_| unknown(), |text| text.trim().to_owned()),
            qemu: qemu.unwrap_or_else(unknown),
            compiler: answer(Command::new("cc").arg("--version"))
                .and_then(|text| text.lines().next().map(str::to_owned))
                .unwrap_or_else(unknown),
            load_before: load,
            load_after: load,
        }
    }

    /// The program itself keeps one processor busy, so more than that is the work of others.
    pub(crate) fn was_shared(&self) -> bool {
        self.load_before > 0.5 || self.load_after > 2.0
    }
}

fn answer(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// The load average of the last minute.
pub(crate) fn load() -> f64 {
    fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}

/// The name alone doesn't always say which processor it is, so family, model and stepping stand
/// beside it.
fn cpu_model(cpuinfo: &str) -> Option<String> {
    let field = |key: &str| {
        cpuinfo.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == key).then(|| value.trim())
        })
    };
    let mut text = field("model name")?.to_owned();
    if let (Some(family), Some(model), Some(stepping)) =
        (field("cpu family"), field("model"), field("stepping"))
    {
        text.push_str(&format!(" (family {family}, model {model}, stepping {stepping})"));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_has_its_name_and_its_numbers() {
        let text =
            "processor\t: 0\nmodel\t\t: 167\nmodel name\t: A CPU\ncpu family\t: 6\nstepping\t: 1\n";

        assert_eq!(cpu_model(text).as_deref(), Some("A CPU (family 6, model 167, stepping 1)"));
    }

    #[test]
    fn a_processor_without_numbers_has_its_name() {
        assert_eq!(cpu_model("model name : A CPU\n").as_deref(), Some("A CPU"));
    }
}
