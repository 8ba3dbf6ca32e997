//! The file, and its records.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kasane_passthrough::{CodeObserver, CodeOrigin, PlacedCode};

use super::JitDumpError;
use crate::arena::View;

const MAGIC: u32 = 0x4A69_5444;
const VERSION: u32 = 1;
const HEADER_BYTES: u32 = 40;
/// EM_X86_64.
const MACHINE: u32 = 62;
const LOAD: u32 = 0;
const CLOSE: u32 = 3;
const RECORD_BYTES: usize = 16;
/// Of JIT_CODE_LOAD, without name and code.
const LOAD_BYTES: usize = RECORD_BYTES + 40;
/// A block and its record have some hundred bytes.
const BUFFERED: usize = 256 << 10;

/// A file that is being written.
#[derive(Debug)]
pub struct JitDump {
    path: PathBuf,
    writer: Mutex<Writer>,
    /// `perf` finds the file by this.
    _mark: View,
}

#[derive(Debug)]
struct Writer {
    file: BufWriter<File>,
    /// The number of the next piece.
    number: u64,
    /// What went wrong first; nothing is written after that.
    outcome: io::Result<()>,
}

impl JitDump {
    /// Begins the file of this process in a folder; one that is there is written anew.
    ///
    /// # Errors
    /// The host's, with the file's path.
    pub fn create(folder: &Path) -> Result<Self, JitDumpError> {
        let path = folder.join(format!("jit-{}.dump", std::process::id()));
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        let begun = options.open(&path).and_then(|mut file| {
            file.write_all(&header())?;
            Ok(file)
        });
        let file = match begun {
            Ok(file) => file,
            Err(source) => return Err(JitDumpError::Create { path, source }),
        };
        let mark = match View::mark(&file) {
            Ok(mark) => mark,
            Err(source) => return Err(JitDumpError::Map { path, source }),
        };
        let file = BufWriter::with_capacity(BUFFERED, file);
        let writer = Mutex::new(Writer { file, number: 0, outcome: Ok(()) });
        Ok(Self { path, writer, _mark: mark })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ends the file; what is placed later is not in it.
    ///
    /// # Errors
    /// The first that there was in writing.
    pub fn finish(&self) -> io::Result<()> {
        let mut writer = self.writer();
        writer.write(&record(CLOSE, RECORD_BYTES));
        let ended = Err(io::Error::other("the file has ended"));
        let outcome = std::mem::replace(&mut writer.outcome, ended);
        outcome.and_then(|()| writer.file.flush())
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CodeObserver for JitDump {
    fn placed(&self, code: &PlacedCode<'_>) {
        let mut writer = self.writer();
        let load = load(code, writer.number);
        writer.number = writer.number.wrapping_add(1);
        writer.write(&load);
        writer.write(code.bytes);
    }
}

impl Writer {
    fn write(&mut self, bytes: &[u8]) {
        if self.outcome.is_ok() {
            self.outcome = self.file.write_all(bytes);
        }
    }
}

fn header() -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [MAGIC, VERSION, HEADER_BYTES, MACHINE, 0, std::process::id()] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(monotonic_ns().to_ne_bytes());
    bytes.extend(0u64.to_ne_bytes());
    bytes
}

/// A record's header.
fn record(kind: u32, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    bytes.extend(kind.to_ne_bytes());
    // A block has 64 KiB at most.
    bytes.extend((len as u32).to_ne_bytes());
    bytes.extend(monotonic_ns().to_ne_bytes());
    bytes
}

/// The record of a piece, up to its code.
fn load(code: &PlacedCode<'_>, number: u64) -> Vec<u8> {
    let name = match code.origin {
        CodeOrigin::Stubs => "stubs".to_owned(),
        CodeOrigin::Kernel(rip) => format!("guest kernel {rip:#x}"),
        CodeOrigin::User(rip) => format!("guest user {rip:#x}"),
    };
    let mut bytes = record(LOAD, LOAD_BYTES + name.len() + 1 + code.bytes.len());
    bytes.extend(std::process::id().to_ne_bytes());
    bytes.extend(thread().to_ne_bytes());
    for word in [code.address, code.address, code.bytes.len() as u64, number] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(name.as_bytes());
    bytes.push(0);
    bytes
}

fn thread() -> u32 {
    // SAFETY: it has no conditions and can't fail.
    (unsafe { libc::gettid() }) as u32
}

/// The clock of `perf record -k mono`.
fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is ours; the clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_its_own_length() {
        let code = PlacedCode {
            origin: CodeOrigin::User(0x40_1000),
            address: 0x7000,
            bytes: &[0x90, 0xC3],
        };
        let bytes = load(&code, 3);

        let len = u32::from_ne_bytes(bytes[4..8].try_into().unwrap());
        assert_eq!(len as usize, bytes.len() + 2);
        assert_eq!(&bytes[LOAD_BYTES..], b"guest user 0x401000\0");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folder = std::env::temp_dir().join("kasane-no-such-folder");
        let error = JitDump::create(&folder).unwrap_err();

        assert!(matches!(error, JitDumpError::Create { .. }), "{error}");
        assert!(error.to_string().contains("kasane-no-such-folder/jit-"), "{error}");
    }

    #[test]
    fn nothing_is_written_after_the_end() {
        let folder = std::env::temp_dir();
        let dump = JitDump::create(&folder).unwrap();
        dump.placed(&PlacedCode { origin: CodeOrigin::Stubs, address: 1, bytes: &[0xC3] });
        dump.finish().unwrap();
        let before = std::fs::metadata(dump.path()).unwrap().len();
        dump.placed(&PlacedCode { origin: CodeOrigin::Stubs, address: 1, bytes: &[0xC3] });
        let path = dump.path().to_owned();
        drop(dump);
        let after = std::fs::metadata(&path).unwrap().len();
        std::fs::remove_file(&path).unwrap();

        assert_eq!(before, after);
        assert_eq!(before, 40 + (56 + 6 + 1) + 16);
    }
}
