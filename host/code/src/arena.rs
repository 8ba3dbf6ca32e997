//! One memory file, mapped twice.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering};

use kasane_passthrough::{ArenaError, CodeArena, CodeEntry, Outcome};

use crate::signals;

/// Bytes that are asked for before they are written: a block of usual length.
const PREPARED: usize = 512;
/// Bytes that are given pages at once.
const POPULATED_AT_ONCE: usize = 256 << 10;

/// Executable memory of this process.
#[derive(Debug)]
pub(crate) struct HostArena {
    writable: View,
    executable: View,
    has_serialize: bool,
    /// Bytes from the start that have pages already.
    populated: AtomicUsize,
}

/// A mapping, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct View {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a view is only an address range; what is done with it is ruled by `CodeArena`'s contract.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    fn map(file: libc::c_int, len: usize, protection: libc::c_int) -> Result<Self, ArenaError> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe { libc::mmap(null_mut(), len, protection, libc::MAP_SHARED, file, 0) };
        if start == libc::MAP_FAILED {
            return Err(refused());
        }
        let start = NonNull::new(start.cast()).ok_or(ArenaError::Refused(0))?;
        Ok(Self { start, len })
    }
    /// The first page of a file, executable, though nobody runs it: tools that look at the
    /// process's mappings find the file by that.
    pub(crate) fn mark(file: &File) -> std::io::Result<Self> {
        const LEN: usize = 4096;
        let protection = libc::PROT_READ | libc::PROT_EXEC;
        let file = file.as_raw_fd();
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe { libc::mmap(null_mut(), LEN, protection, libc::MAP_PRIVATE, file, 0) };
        match NonNull::new(start.cast()) {
            Some(at) if start != libc::MAP_FAILED => Ok(Self { start: at, len: LEN }),
            _ => Err(std::io::Error::last_os_error()),
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: the range is this view's own mapping, and no one uses it after the drop.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

fn refused() -> ArenaError {
    ArenaError::Refused(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

impl HostArena {
    pub(crate) fn new(capacity: usize) -> Result<Self, ArenaError> {
        let len = capacity.max(1).checked_next_multiple_of(4096).ok_or(ArenaError::OutOfRange)?;
        let size = libc::off_t::try_from(len).map_err(|_| ArenaError::OutOfRange)?;
        // SAFETY: the name is a NUL-terminated string.
        let file = unsafe { libc::memfd_create(c"kasane-code".as_ptr(), libc::MFD_CLOEXEC) };
        if file < 0 {
            return Err(refused());
        }
        // SAFETY: the descriptor is open and ours.
        let sized = unsafe { libc::ftruncate(file, size) };
        let views = if sized == 0 { Self::map(file, len) } else { Err(refused()) };
        // SAFETY: the descriptor is ours; the mappings keep the file.
        unsafe { libc::close(file) };
        views
    }

    fn map(file: libc::c_int, len: usize) -> Result<Self, ArenaError> {
        Ok(Self {
            writable: View::map(file, len, libc::PROT_READ | libc::PROT_WRITE)?,
            executable: View::map(file, len, libc::PROT_READ | libc::PROT_EXEC)?,
            has_serialize: has_serialize(),
            populated: AtomicUsize::new(0),
        })
    }

    /// Gives the range up to `end` its pages, and some more: many at once take a fraction of the
    /// time that as many page faults take. Where it can't be done, the faults do it.
    fn populate(&self, end: usize) {
        let begin = self.populated.load(Ordering::Relaxed);
        if end <= begin {
            return;
        }
        let end = end.next_multiple_of(POPULATED_AT_ONCE).min(self.writable.len);
        self.populated.store(end, Ordering::Relaxed);
        // SAFETY: the range is inside the writable view; its content stays the same.
        let _refused = unsafe {
            let start = self.writable.start.as_ptr().add(begin).cast();
            libc::madvise(start, end.saturating_sub(begin), libc::MADV_POPULATE_WRITE)
        };
    }

    fn contains(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.writable.len)
    }
}

// SAFETY: both views are of the same file and live as long as the arena; `write` ends with a
// serializing instruction, so that this thread executes what it wrote (SDM vol. 3A §8.1.3).
unsafe impl CodeArena for HostArena {
    fn capacity(&self) -> usize {
        self.writable.len
    }

    fn address(&self) -> u64 {
        self.executable.start.as_ptr() as u64
    }

    unsafe fn write(&self, offset: usize, code: &[u8]) -> Result<(), ArenaError> {
        if !self.contains(offset, code.len()) {
            return Err(ArenaError::OutOfRange);
        }
        self.populate(offset.saturating_add(code.len()));
        // SAFETY: the range is inside the writable view (checked above), which is not the memory
        // of `code`; the caller says that nobody executes it.
        unsafe {
            let to = self.writable.start.as_ptr().add(offset);
            std::ptr::copy_nonoverlapping(code.as_ptr(), to, code.len());
        }
        serialize(self.has_serialize);
        Ok(())
    }

    fn prepare(&self, offset: usize) {
        let end = offset.saturating_add(PREPARED);
        if !self.contains(offset, PREPARED) {
            return;
        }
        self.populate(end);
        for line in (offset..end).step_by(64) {
            // SAFETY: PREFETCHW reads and writes nothing (SDM vol. 2B); it asks for the line, which
            // no other processor has. CPUs without it take it for a NOP.
            unsafe {
                let at = self.writable.start.as_ptr().add(line);
                asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags));
            }
        }
    }

    unsafe fn patch(&self, offset: usize, bytes: [u8; 4]) -> Result<(), ArenaError> {
        if !self.contains(offset, bytes.len()) {
            return Err(ArenaError::OutOfRange);
        }
        // SAFETY: the bytes are inside the writable view (checked above). One MOV within a word of 8
        // bytes, as the caller says, is atomic (SDM vol. 3A §9.1.1).
        unsafe {
            let to = self.writable.start.as_ptr().add(offset);
            asm!("mov dword ptr [{}], {:e}", in(reg) to, in(reg) u32::from_le_bytes(bytes),
                options(nostack, preserves_flags));
        }
        Ok(())
    }

    fn serialize(&self) {
        serialize(self.has_serialize);
    }

    unsafe fn run(&self, entry: CodeEntry, state: *mut u8) -> Outcome {
        let start = self.executable.start.as_ptr() as usize;
        let run = signals::Run {
            start,
            end: start.wrapping_add(self.executable.len),
            recovery: start.wrapping_add(entry.recovery as usize),
        };
        signals::begin(run);
        // SAFETY: the caller says that code begins at this offset and that it keeps the System V
        // convention.
        unsafe {
            let code: unsafe extern "sysv64" fn(*mut u8) =
                std::mem::transmute(start.wrapping_add(entry.at as usize));
            code(state);
        }
        signals::end(start)
    }
}

/// Whether the CPU has SERIALIZE (SDM vol. 2A, CPUID leaf 7).
fn has_serialize() -> bool {
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & 1 << 14 != 0
}

/// Serializes the instruction stream: bytes were changed through another address than they run at
/// (SDM vol. 3A §8.3). By SERIALIZE where there is one, else by IRET to the next instruction, which
/// takes three times as long; CPUID, the usual way, traps in a virtual machine and takes some
/// hundred times as long.
fn serialize(has_instruction: bool) {
    if has_instruction {
        // SAFETY: the instruction is there, and changes nothing (SDM vol. 2B, SERIALIZE).
        unsafe { asm!(".byte 0x0F, 0x01, 0xE8", options(nostack, preserves_flags)) };
        return;
    }
    // SAFETY: IRETQ pops exactly what was pushed before and goes on at label 2 with the same
    // stack, flags and segments.
    unsafe {
        asm!(
            "mov {t}, rsp",
            "mov {s:e}, ss",
            "push {s}",
            "push {t}",
            "pushfq",
            "mov {s:e}, cs",
            "push {s}",
            "lea {t}, [rip + 2f]",
            "push {t}",
            "iretq",
            "2:",
            t = out(reg) _,
            s = out(reg) _,
        );
    }
}
