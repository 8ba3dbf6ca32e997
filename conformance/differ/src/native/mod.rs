//! The real CPU's side: runs one instruction in this process and catches what comes of it.
//!
//! # How
//! A trampoline at a fixed address loads the whole state and jumps to the instruction. Behind it
//! lies a jump to the trampoline's exit, which stores the whole state by absolute addresses,
//! without needing a register. Everything else in the code pages is INT3. Faults and INT3 come
//! as signals on an alternate stack; the handler takes the state out of the signal's context and
//! returns into the trampoline's end. So a test that completes needs no system call.
//!
//! The process that does this is sacrificed for it: see `worker`.

mod signals;
mod trampoline;

use std::io;
use std::ptr::null_mut;
use std::slice;

use crate::case::{Case, Fault, Outcome, Patterns, VECTOR_BYTES, Vectors};
use crate::layout::{
    CODE, CODE_PAGES, DATA, DATA_PAGES, INT3, PAGE, READ_ONLY, STATE, TRAMPOLINE, USER_CS32,
    USER_DS, WRITABLE_PAGES, in_code,
};

/// General registers and what goes with them, as the trampoline stores them.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Registers {
    gpr: [u64; 16],
    rflags: u64,
    rip: u64,
    fs: u64,
    gs: u64,
    /// RIP and a selector, for a far jump.
    far: u64,
    _unused: [u64; 11],
}

/// The page at [`STATE`]. The offsets are known to `trampoline`.
#[repr(C, align(4096))]
struct State {
    input: Registers,
    output: Registers,
    own: Own,
    _unused: [u8; 0x400 - 0x200 - size_of::<Own>()],
    input_vectors: [u8; 0x400],
    output_vectors: [u8; 0x400],
    _rest: [u8; 0x400],
}

/// Our own registers while the test has them, and the handler's notes.
#[repr(C)]
struct Own {
    rsp: u64,
    fs: u64,
    gs: u64,
    /// The test has a vector state.
    vectors: u64,
    /// A test runs.
    running: u64,
    /// 1 if a signal ended the test.
    signalled: u64,
    vector: u64,
    error: u64,
    address: u64,
    mxcsr: u64,
}

/// The real CPU's side. One per process.
pub struct Native {
    /// Code and data pages, writable, elsewhere in the address space.
    alias: *mut u8,
    entry: Entry,
    entry32: Entry,
}

type Entry = extern "sysv64" fn();

const SHARED_PAGES: usize = CODE_PAGES + DATA_PAGES;

fn check(ok: bool) -> io::Result<()> {
    if ok { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Maps part of a file (or, without one, zeroes) at a fixed address that must be free.
fn map_at(at: u64, len: usize, protection: i32, file: Option<(i32, usize)>) -> io::Result<()> {
    let (fd, offset, kind) = match file {
        Some((fd, offset)) => (fd, offset as libc::off_t, libc::MAP_SHARED | libc::MAP_POPULATE),
        None => (-1, 0, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS),
    };
    let flags = kind | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: a new mapping that replaces none.
    let got = unsafe { libc::mmap(at as *mut libc::c_void, len, protection, flags, fd, offset) };
    check(got as u64 == at)
}

impl Native {
    /// Maps everything and installs the signal handlers.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn new() -> io::Result<Self> {
        let bytes = SHARED_PAGES * PAGE;
        // SAFETY: the name is a C string.
        let fd = unsafe { libc::memfd_create(c"differ".as_ptr(), libc::MFD_CLOEXEC) };
        check(fd >= 0)?;
        // SAFETY: a file descriptor of ours.
        check(unsafe { libc::ftruncate(fd, bytes as libc::off_t) } == 0)?;
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping wherever there is room.
        let alias = unsafe { libc::mmap(null_mut(), bytes, rw, libc::MAP_SHARED, fd, 0) };
        check(alias != libc::MAP_FAILED)?;
        let code = CODE_PAGES * PAGE;
        let rx = libc::PROT_READ | libc::PROT_EXEC;
        map_at(CODE, code, rx, Some((fd, 0)))?;
        map_at(DATA, WRITABLE_PAGES * PAGE, rw, Some((fd, code)))?;
        let read_only = code + WRITABLE_PAGES * PAGE;
        map_at(READ_ONLY, PAGE, libc::PROT_READ, Some((fd, read_only)))?;
        // SAFETY: no more use of the descriptor; the mappings stay.
        unsafe { libc::close(fd) };
        map_at(STATE, PAGE, rw, None)?;
        map_at(TRAMPOLINE, PAGE, rw, None)?;
        let parts = trampoline::assemble(signals::handler as *const () as u64)
            .map_err(|error| io::Error::other(error.to_string()))?;
        // SAFETY: the trampoline's page was just mapped, and the code was checked to fit.
        unsafe {
            slice::from_raw_parts_mut(TRAMPOLINE as *mut u8, parts.code.len())
                .copy_from_slice(&parts.code);
            check(libc::mprotect(TRAMPOLINE as *mut libc::c_void, PAGE, rx) == 0)?;
        }
        let mut it = Self {
            alias: alias.cast(),
            // SAFETY: the trampoline begins with a function of this type.
            entry: unsafe { std::mem::transmute::<u64, Entry>(TRAMPOLINE) },
            // SAFETY: and there is a second one.
            entry32: unsafe { std::mem::transmute::<u64, Entry>(trampoline::ENTRY32) },
        };
        it.code().fill(INT3);
        // SAFETY: 64-bit code does not look at DS and ES; 32-bit tests do.
        unsafe {
            std::arch::asm!("mov ds, {0:x}", "mov es, {0:x}", in(reg) USER_DS,
                options(nomem, nostack, preserves_flags));
        }
        signals::install(parts.signal_entry, parts.finish)?;
        Ok(it)
    }

    fn state() -> *mut State {
        STATE as *mut State
    }

    fn code(&mut self) -> &mut [u8] {
        // SAFETY: the alias has all pages; nobody else writes while we hold `&mut self`.
        unsafe { slice::from_raw_parts_mut(self.alias, CODE_PAGES * PAGE) }
    }

    /// The data pages, as they are after [`Native::run`].
    pub fn data(&mut self) -> &mut [u8] {
        // SAFETY: as in `code`; tests only run inside `run`.
        unsafe { slice::from_raw_parts_mut(self.alias.add(CODE_PAGES * PAGE), DATA_PAGES * PAGE) }
    }

    /// Runs a case.
    pub fn run(&mut self, case: &Case, patterns: &Patterns) -> Outcome {
        patterns.apply(case, self.data());
        let at = case.rip.wrapping_sub(CODE) as usize;
        let whole = case.code();
        if let Some(place) = self.code().get_mut(at..at + whole.len()) {
            place.copy_from_slice(&whole);
        }
        self.enter(case);
        if let Some(place) = self.code().get_mut(at..at + whole.len()) {
            place.fill(INT3);
        }
        Self::outcome(case)
    }

    fn enter(&mut self, case: &Case) {
        // SAFETY: the state page is mapped and only touched here, by the trampoline and by the
        // handler, all on this thread.
        unsafe {
            let state = &mut *Self::state();
            state.input = Registers {
                gpr: case.gpr,
                rflags: case.rflags,
                rip: case.rip,
                fs: case.fs,
                gs: case.gs,
                far: case.rip & 0xFFFF_FFFF | u64::from(USER_CS32) << 32,
                _unused: [0; 11],
            };
            state.own.vectors = u64::from(case.vectors.is_some());
            if let Some(vectors) = &case.vectors
                && let Some(place) = state.input_vectors.get_mut(..VECTOR_BYTES)
            {
                place.copy_from_slice(&vectors.0);
            }
            state.own.mxcsr = 0x1F80;
            state.own.signalled = 0;
            state.own.running = 1;
        }
        if case.bits == 32 {
            (self.entry32)();
        } else {
            (self.entry)();
        }
        // SAFETY: as above.
        unsafe { (*Self::state()).own.running = 0 };
    }

    fn outcome(case: &Case) -> Outcome {
        // SAFETY: as in `enter`.
        let state = unsafe { &*Self::state() };
        let out = &state.output;
        let mut outcome = Outcome {
            gpr: out.gpr,
            rip: case.landing(),
            rflags: out.rflags,
            fs: out.fs,
            gs: out.gs,
            fault: None,
            vectors: None,
            missing: false,
        };
        if state.own.signalled != 0 {
            outcome.rip = out.rip;
            (outcome.fs, outcome.gs) = (case.fs, case.gs);
            let vector = state.own.vector as u8;
            let before = out.rip.wrapping_sub(1);
            if vector == 3 && in_code(before) {
                // It branched to INT3, and that is how we know.
                outcome.rip = before;
            } else {
                let page_fault = vector == 14;
                outcome.fault = Some(Fault {
                    vector,
                    error: if matches!(vector, 8 | 10..=14 | 17) {
                        state.own.error as u32
                    } else {
                        0
                    },
                    address: if page_fault { state.own.address } else { 0 },
                });
            }
        }
        if case.vectors.is_some() {
            let mut vectors = Box::<Vectors>::default();
            vectors.0.copy_from_slice(state.output_vectors.get(..VECTOR_BYTES).unwrap_or_default());
            vectors.normalize();
            outcome.vectors = Some(vectors);
        }
        outcome
    }
}
