//! The process that runs cases, and what it tells the one that started it.
//!
//! A case may break the process that runs it (that is what it is for), so it is a child, and
//! what it has done is in memory shared with its parent: the parent knows the case by its number.

use std::io;
use std::path::PathBuf;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::compare::{Session, Verdict, text};
use crate::generate::Generator;

/// Room for the opcodes that iced knows.
pub const CODES: usize = 5120;

/// What one worker tells.
#[repr(C)]
pub struct Progress {
    /// Number of the case that runs.
    pub current: AtomicU64,
    /// Cases compared.
    pub compared: AtomicU64,
    /// Of them, how many raised an exception on the real CPU is not counted; differing ones are.
    pub different: AtomicU64,
    /// Of instructions that the interpreter lacks.
    pub missing: AtomicU64,
    /// The worker is to end.
    pub stop: AtomicBool,
    /// Compared without difference, by opcode.
    pub same_by_code: [AtomicU32; CODES],
    /// Different, by opcode.
    pub different_by_code: [AtomicU32; CODES],
    /// Missing, by opcode.
    pub missing_by_code: [AtomicU32; CODES],
}

/// Maps a value, all zero, that children share.
///
/// # Errors
/// What the operating system says.
pub(crate) fn shared<T: Shared>() -> io::Result<&'static T> {
    let len = size_of::<T>();
    let kind = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping wherever there is room.
    let at = unsafe { libc::mmap(null_mut(), len, rw, kind, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed, page-aligned, large enough, never unmapped; all fields are atomics, for
    // which zero is a value.
    Ok(unsafe { &*at.cast::<T>() })
}

/// A value that processes share.
///
/// # Safety
/// It consists of atomics only, which are valid when all zero.
pub(crate) unsafe trait Shared: Sync + 'static {}

// SAFETY: atomics only.
unsafe impl Shared for Progress {}

/// What a worker does.
#[derive(Clone, Debug)]
pub struct Job {
    /// First number.
    pub first: u64,
    /// From one to the next.
    pub step: u64,
    /// Ends before this number.
    pub end: u64,
    /// Where differences are stored.
    pub save: Option<PathBuf>,
    /// Compare undefined flags too.
    pub strict: bool,
}

fn count(counters: &[AtomicU32; CODES], code: usize) -> u32 {
    counters.get(code).map_or(0, |counter| counter.fetch_add(1, Ordering::Relaxed))
}

/// Runs cases until told to stop.
///
/// # Errors
/// When a side can't be set up.
pub fn work(generator: &Generator, job: &Job, progress: &Progress) -> anyhow::Result<()> {
    let mut session = Session::new()?;
    session.strict = job.strict;
    let mut n = job.first;
    while n < job.end && !progress.stop.load(Ordering::Relaxed) {
        progress.current.store(n, Ordering::Relaxed);
        if let Some(made) = generator.make(n) {
            let code = made.instr.code() as usize;
            match session.check(&made.case) {
                Verdict::Same => {
                    count(&progress.same_by_code, code);
                }
                Verdict::Missing => {
                    progress.missing.fetch_add(1, Ordering::Relaxed);
                    count(&progress.missing_by_code, code);
                }
                Verdict::Different(_) => {
                    progress.different.fetch_add(1, Ordering::Relaxed);
                    if count(&progress.different_by_code, code) < 3 {
                        report(&mut session, &made.case, n, job);
                    }
                }
            }
            progress.compared.fetch_add(1, Ordering::Relaxed);
        }
        n = n.saturating_add(job.step);
    }
    Ok(())
}

fn report(session: &mut Session, case: &crate::case::Case, n: u64, job: &Job) {
    let (case, why) = session.minimize(case);
    let instr = crate::generate::decode(&case);
    let file = case.to_file(text(&instr), why.clone());
    eprintln!("case {n}: {} ({:?})", file.text, instr.code());
    for line in &why {
        eprintln!("    {line}");
    }
    let Ok(json) = serde_json::to_string(&file) else { return };
    match &job.save {
        None => eprintln!("    {json}"),
        Some(folder) => {
            let path = folder.join(format!("{:?}-{n}.json", instr.code()));
            if let Err(error) = std::fs::write(&path, json + "\n") {
                eprintln!("    not stored: {error}");
            }
        }
    }
}
