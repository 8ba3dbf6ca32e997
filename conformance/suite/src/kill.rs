//! The kill test's harness: a guest writes records to a disk, the program is killed at a random
//! moment, and every record that the guest acknowledged has to be in the image; again and again on
//! the same image, as it was left.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::record::{Lost, Slots};
use crate::{Guests, Kasane, run_parameter};

/// Of the disk; some hundred kills go around it more than once.
const DISK_LEN_BYTES: u64 = 256 << 20;
/// More than a guest writes in a run.
const COUNT: u64 = 10_000_000;
/// A kill comes within this time after the first record.
const WITHIN_MS: u64 = 1500;
/// Records that may be written when their acknowledgement is still on its way: what a terminal of
/// Linux holds back (4096 bytes of `ack N` lines), and a batch.
const ON_THE_WAY: u64 = 1024;

/// How the disk's image is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Byte by byte.
    Raw,
    /// QEMU's, whose tables have to stay whole as well.
    Qcow2,
}

impl Format {
    /// As `--disk` and `qemu-img` take it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// A series of kills on one image.
#[derive(Clone, Copy, Debug)]
pub struct Kills {
    /// How many.
    pub count: u32,
    /// The image.
    pub format: Format,
    /// Processors of the guest.
    pub cpus: u32,
    /// Where the random moments begin.
    pub seed: u64,
}

/// What became of a series without a loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Records that the guest was told to be there.
    pub acknowledged: u64,
    /// Kills after which the image was sound but had clusters that nothing uses: a cluster is
    /// taken before a table names it, so a kill in between leaves one.
    pub with_leaks: u32,
}

impl Kills {
    /// Does it, in a folder of its own that it removes.
    ///
    /// # Errors
    /// A sentence that says after which kill what was lost, or what could not be done.
    pub fn run(&self) -> Result<Outcome, String> {
        let Self { count, format, cpus, seed } = *self;
        let name = format!("kasane-kills-{}-{}-{cpus}", std::process::id(), format.name());
        let scratch = Scratch::new(std::env::temp_dir().join(name))?;
        let image = scratch.0.join(format!("disk.{}", format.name()));
        create(&image, format)?;
        let mut random = seed;
        let mut outcome = Outcome::default();
        for kill in 1..=count {
            let moment = Duration::from_millis(next_random(&mut random) % WITHIN_MS);
            let context = |error| format!("kill {kill} of {count}, seed {seed}: {error}");
            let run = self.start(&image, outcome.acknowledged + 1).map_err(context)?;
            outcome.acknowledged = killed(run, moment, outcome.acknowledged).map_err(context)?;
            outcome.with_leaks += u32::from(leaks(&image, format).map_err(context)?);
            let raw = as_raw(&image, format, &scratch.0).map_err(context)?;
            verify(&raw, outcome.acknowledged).map_err(context)?;
        }
        Ok(outcome)
    }

    fn start(&self, image: &Path, first: u64) -> Result<Child, String> {
        let guests = Guests::find();
        // The console is the records' alone.
        let script = format!("dmesg -n 1; kasane-records /dev/vda {first} {COUNT}");
        let append = format!("console=ttyS0 panic=-1 quiet {}", run_parameter(&script));
        let arguments = [
            ["run", "--no-reboot"],
            ["--kernel", &guests.image("cloud/vmlinuz")?.display().to_string()],
            ["--initrd", &guests.image("initramfs-virtio.gz")?.display().to_string()],
            ["--append", &append],
            ["--memory", "256M"],
            ["--cpus", &self.cpus.to_string()],
            ["--disk", &format!("{},format={}", image.display(), self.format.name())],
            ["--timeout", "600"],
        ];
        Kasane::find()?
            .start(arguments.as_flattened())
            .map_err(|error| format!("kasane did not start: {error}"))
    }
}

/// Removed at the end.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(folder: PathBuf) -> Result<Self, String> {
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _left_behind = fs::remove_dir_all(&self.0);
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Lets a run write for a while, kills it and gives the last record that was acknowledged.
fn killed(mut run: Child, moment: Duration, before: u64) -> Result<u64, String> {
    let output = run.stdout.take().ok_or("the console is no pipe")?;
    let mut console = Console { lines: BufReader::new(output), said: String::new() };
    let began = console.reaches("records begin");
    // Time only chooses the moment; nothing is judged by it.
    std::thread::sleep(moment);
    let killed = run.kill();
    let acknowledged = console.acknowledged(before);
    let ended = run.wait();
    began?;
    killed.and(ended).map_err(|error| format!("could not kill the program: {error}"))?;
    acknowledged
}

/// What a run says on its console, by whole lines: half of a number is none.
struct Console<R> {
    lines: BufReader<R>,
    said: String,
}

impl<R: Read> Console<R> {
    fn line(&mut self) -> Option<String> {
        let mut bytes = Vec::new();
        self.lines.read_until(b'\n', &mut bytes).ok()?;
        let line = String::from_utf8_lossy(bytes.strip_suffix(b"\n")?).trim_end().to_owned();
        self.said.push_str(&line);
        self.said.push('\n');
        Some(line)
    }

    fn reaches(&mut self, wanted: &str) -> Result<(), String> {
        while let Some(line) = self.line() {
            if line.starts_with("lost ") {
                return Err(format!("the guest finds that a record is {line}"));
            }
            if line == wanted {
                return Ok(());
            }
        }
        Err(format!("the guest never said `{wanted}`:\n{}", self.said))
    }

    /// Reads to the end. Records are acknowledged in order, from the one behind `before` on.
    fn acknowledged(&mut self, before: u64) -> Result<u64, String> {
        let mut last = before;
        while let Some(line) = self.line() {
            let Some(number) = line.strip_prefix("ack ") else {
                return Err(format!("the guest said `{line}` among its records"));
            };
            if number.parse() != Ok(last + 1) {
                return Err(format!("the guest acknowledged {number} after {last}"));
            }
            last += 1;
        }
        Ok(last)
    }
}

pub(crate) fn create(image: &Path, format: Format) -> Result<(), String> {
    match format {
        Format::Raw => File::create(image)
            .and_then(|file| file.set_len(DISK_LEN_BYTES))
            .map_err(|error| format!("{}: {error}", image.display())),
        Format::Qcow2 => {
            let mut command = Command::new("qemu-img");
            command.args(["create", "-q", "-f", "qcow2"]).arg(image);
            qemu_img(command.arg(DISK_LEN_BYTES.to_string())).map(drop)
        }
    }
}

/// Whether an image has clusters that nothing uses; an error if it is damaged.
pub(crate) fn leaks(image: &Path, format: Format) -> Result<bool, String> {
    match format {
        Format::Raw => Ok(false),
        Format::Qcow2 => {
            let mut command = Command::new("qemu-img");
            let code = qemu_img(command.args(["check", "-q", "-f", "qcow2"]).arg(image))?;
            Ok(code == ONLY_LEAKS)
        }
    }
}

/// The disk's content as a file.
pub(crate) fn as_raw(image: &Path, format: Format, folder: &Path) -> Result<PathBuf, String> {
    match format {
        Format::Raw => Ok(image.to_owned()),
        Format::Qcow2 => {
            let raw = folder.join("content");
            let mut command = Command::new("qemu-img");
            command.args(["convert", "-f", "qcow2", "-O", "raw"]).arg(image).arg(&raw);
            qemu_img(&mut command)?;
            Ok(raw)
        }
    }
}

/// The exit code of `qemu-img check` for an image that is whole but for clusters that nothing uses
/// (its manual page).
const ONLY_LEAKS: i32 = 3;

fn qemu_img(command: &mut Command) -> Result<i32, String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("qemu-img (package qemu-utils) did not start: {error}"))?;
    match output.status.code() {
        Some(code @ (0 | ONLY_LEAKS)) => Ok(code),
        code => {
            let said = [output.stdout, output.stderr].concat();
            Err(format!("{command:?} ended with {code:?}: {}", String::from_utf8_lossy(&said)))
        }
    }
}

/// Looks for all records up to `last` that a later lap can't have begun to overwrite.
fn verify(raw: &Path, last: u64) -> Result<(), String> {
    let unreadable = |error| format!("{}: {error}", raw.display());
    let slots = Slots::of_disk(DISK_LEN_BYTES).map_err(unreadable)?;
    let overwritten = (last + ON_THE_WAY).saturating_sub(slots.count());
    verify_all(raw, overwritten + 1..last + 1)
}

/// Looks for these records.
pub(crate) fn verify_all(raw: &Path, numbers: Range<u64>) -> Result<(), String> {
    let unreadable = |error| format!("{}: {error}", raw.display());
    let mut disk = File::open(raw).map_err(unreadable)?;
    let slots = Slots::of_disk(DISK_LEN_BYTES).map_err(unreadable)?;
    let last = numbers.end.saturating_sub(1);
    let lost = slots.lost(&mut disk, numbers).map_err(unreadable)?;
    match lost.as_slice() {
        [] => Ok(()),
        [Lost { sequence, found }, ..] => Err(format!(
            "{} of {last} acknowledged records are lost, the first is {sequence} with {found:?} in its place",
            lost.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::record;
    use std::io::{Seek, SeekFrom, Write};

    fn console(said: &str) -> Console<&[u8]> {
        Console { lines: BufReader::new(said.as_bytes()), said: String::new() }
    }

    #[test]
    fn only_whole_lines_are_acknowledgements() {
        assert_eq!(console("ack 8\r\nack 9\r\nack 1").acknowledged(7), Ok(9));
    }

    #[test]
    fn a_gap_is_an_error() {
        assert!(console("ack 8\r\nack 10\r\n").acknowledged(7).is_err());
    }

    #[test]
    fn a_guest_that_misses_a_record_is_heard() {
        let heard = console("boot\r\nlost 5\r\nrecords begin\r\n").reaches("records begin");

        assert!(heard.unwrap_err().contains("lost 5"));
    }

    #[test]
    fn a_lost_record_is_found_on_any_lap() {
        let path = std::env::temp_dir().join(format!("kasane-verify-{}", std::process::id()));
        let slots = Slots::of_disk(DISK_LEN_BYTES).unwrap();
        let last = slots.count() + 100;
        let mut disk = File::create(&path).unwrap();
        disk.set_len(DISK_LEN_BYTES).unwrap();
        let mut write = |sequence, bytes: &[u8]| {
            disk.seek(SeekFrom::Start(slots.offset(sequence))).unwrap();
            disk.write_all(bytes).unwrap();
        };
        (1..=last).for_each(|sequence| write(sequence, &record(sequence)));
        let whole = verify(&path, last);
        write(last, &record(last - 1)[..512]);

        let torn = verify(&path, last);

        assert_eq!(whole, Ok(()));
        assert!(torn.unwrap_err().contains(&format!("the first is {last} with Torn")));
        fs::remove_file(&path).unwrap();
    }
}
