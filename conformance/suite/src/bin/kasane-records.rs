//! The guest's side of the kill test: writes numbered records to a disk until it dies, and says of
//! each that it is there only when the disk has said so.
//!
//! `kasane-records DISK FIRST COUNT` looks whether the records just before number FIRST can be
//! read (`lost N` if not), says `records begin`, writes COUNT records from FIRST on in batches of
//! one to eight, and says `ack N` for each after the batch's flush. Batches go in turns past the
//! page cache (O_DIRECT) and through it. `cargo xtask guests` links it statically and puts it
//! into the initramfs.

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    match linux::run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kasane-records: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("kasane-records: this program is one of Linux");
}

#[cfg(target_os = "linux")]
mod linux {
    use kasane_conformance::record::{LEN_BYTES, Slots, record};
    use std::env;
    use std::fs::{File, OpenOptions};
    use std::io::{self, Seek, SeekFrom, Write};
    use std::ops::Range;
    use std::os::unix::fs::{FileExt, OpenOptionsExt};

    /// Linux, x86-64: `O_DIRECT`.
    const O_DIRECT: i32 = 0o40_000;
    /// Looked at before the first is written.
    const LOOKED_AT: u64 = 64;
    const LONGEST_BATCH: u64 = 8;

    /// O_DIRECT wants memory that is aligned as the disk's sectors are.
    #[repr(align(4096))]
    struct Page([u8; LEN_BYTES]);

    pub(crate) fn run() -> io::Result<()> {
        let arguments: Vec<String> = env::args().skip(1).collect();
        let [disk, first, count] = arguments.as_slice() else {
            return Err(io::Error::other("usage: kasane-records DISK FIRST COUNT"));
        };
        let number = |text: &str| text.parse::<u64>().map_err(|_| io::Error::other("not a number"));
        let (first, count) = (number(first)?, number(count)?);
        let open = |flags| OpenOptions::new().read(true).write(true).custom_flags(flags).open(disk);
        let (mut buffered, direct) = (open(0)?, open(O_DIRECT)?);
        let slots = Slots::of_disk(buffered.seek(SeekFrom::End(0))?)?;
        for lost in slots.lost(&mut buffered, first.saturating_sub(LOOKED_AT).max(1)..first)? {
            println!("lost {}", lost.sequence);
        }
        println!("records begin");
        let (mut next, end) = (first, first.saturating_add(count));
        for way in [&direct, &buffered].into_iter().cycle() {
            if next == end {
                break;
            }
            let past = next.saturating_add(1 + next % LONGEST_BATCH).min(end);
            batch(way, slots, next..past)?;
            next = past;
        }
        println!("records end");
        Ok(())
    }

    /// Writes some records, has them flushed, and only then says that they are there.
    fn batch(way: &File, slots: Slots, sequences: Range<u64>) -> io::Result<()> {
        for sequence in sequences.clone() {
            let page = Page(record(sequence));
            way.write_all_at(&page.0, slots.offset(sequence))?;
        }
        way.sync_data()?;
        let mut console = io::stdout().lock();
        sequences.into_iter().try_for_each(|sequence| writeln!(console, "ack {sequence}"))
    }
}
