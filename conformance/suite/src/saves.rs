//! The harness of saving with a disk in use: a guest writes records to a disk and is saved at random
//! exits meanwhile, each time to go on in a new process with the same image; in the end every
//! record is there.

use std::path::{Path, PathBuf};

use crate::kill::{self, Scratch};
use crate::{Format, Guests, Kasane, Run, run_parameter};

/// Records that the guest writes; about twenty-five exits each.
const RECORDS: u64 = 400;
/// Exits before the first save: the guest has its disk by then, and hardly a record.
const BOOT_EXITS: u64 = 8_000;
/// Exits between saves, at most.
const STRIDE: u64 = 2_000;
/// Saves in all for each that comes while the guest writes, at most.
const TRIES: u64 = 4;

/// A guest that is saved again and again.
#[derive(Clone, Copy, Debug)]
pub struct Saves {
    /// How often while it writes; a few saves more come before.
    pub count: u64,
    /// The image.
    pub format: Format,
    /// Processors of the guest.
    pub cpus: u32,
    /// Taken in turns.
    pub engines: [&'static str; 2],
    /// Where the random moments begin.
    pub seed: u64,
}

impl Saves {
    /// Does it, in a folder of its own that it removes: how many of the saves came while the guest
    /// wrote.
    ///
    /// # Errors
    /// A sentence that says what was lost, or what could not be done.
    pub fn run(&self) -> Result<u64, String> {
        let Self { count, format, cpus, engines: [first, second], seed } = *self;
        let name = format!(
            "kasane-saves-{}-{}-{cpus}-{first}-{second}",
            std::process::id(),
            format.name()
        );
        let scratch = Scratch::new(std::env::temp_dir().join(name))?;
        let image = scratch.0.join(format!("disk.{}", format.name()));
        kill::create(&image, format)?;
        let mut random = seed;
        let (mut console, mut last, mut writing) = (String::new(), None::<PathBuf>, 0);
        for turn in 0.. {
            let engine = if turn % 2 == 0 { first } else { second };
            let boot = if turn == 0 { BOOT_EXITS } else { 0 };
            let exits = boot + 1 + kill::next_random(&mut random) % STRIDE;
            let next = scratch.0.join(format!("state.{}", turn % 2));
            let more = writing < count && turn < count * TRIES;
            let save = more.then_some((exits, next.as_path()));
            let part = self.part((&image, engine), last.as_deref(), save)?;
            console.push_str(&part.console);
            if part.code != 0 {
                return Err(format!(
                    "seed {seed}, turn {turn} by {engine} ended with {}\n{console}\n{}",
                    part.code, part.messages
                ));
            }
            if !part.messages.contains("kasane: saved") {
                break;
            }
            let began = console.contains("records begin");
            writing += u64::from(began && !console.contains("records end"));
            last = Some(next);
        }
        self.verify(&console, &image, &scratch.0)
            .map_err(|error| format!("seed {seed}: {error}"))?;
        Ok(writing)
    }

    /// One process: from the last state, or from the start, to the next save or the end.
    fn part(
        &self,
        (image, engine): (&Path, &str),
        from: Option<&Path>,
        save: Option<(u64, &Path)>,
    ) -> Result<Run, String> {
        let guests = Guests::find();
        // The console is the records' alone.
        let script = format!("dmesg -n 1; kasane-records /dev/vda 1 {RECORDS}");
        let append = format!("console=ttyS0 panic=-1 quiet {}", run_parameter(&script));
        let mut arguments = vec!["run".to_owned(), "--no-reboot".to_owned()];
        let mut flag = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        flag("--kernel", guests.image("cloud/vmlinuz")?.display().to_string());
        flag("--initrd", guests.image("initramfs-virtio.gz")?.display().to_string());
        flag("--append", append);
        flag("--memory", "256M".to_owned());
        flag("--cpus", self.cpus.to_string());
        flag("--engine", engine.to_owned());
        flag("--disk", format!("{},format={}", image.display(), self.format.name()));
        flag("--net", "nat".to_owned());
        flag("--timeout", "600".to_owned());
        if let Some(from) = from {
            flag("--restore", from.display().to_string());
        }
        if let Some((exits, to)) = save {
            flag("--save-after", exits.to_string());
            flag("--save-to", to.display().to_string());
        }
        let run = Kasane::find()?.run(&arguments);
        run.map_err(|error| format!("kasane did not start: {error}"))
    }

    /// Every record was acknowledged once, in order, and is on the disk.
    fn verify(&self, console: &str, image: &Path, folder: &Path) -> Result<(), String> {
        let said: Vec<&str> = console.lines().filter(|line| line.starts_with("ack ")).collect();
        let expected: Vec<String> = (1..=RECORDS).map(|number| format!("ack {number}")).collect();
        if said != expected || !console.contains("kasane-guest: exit 0") {
            return Err(format!("the guest did not write all records:\n{console}"));
        }
        if kill::leaks(image, self.format)? {
            return Err("the image has clusters that nothing uses".to_owned());
        }
        let raw = kill::as_raw(image, self.format, folder)?;
        kill::verify_all(&raw, 1..RECORDS + 1)
    }
}
