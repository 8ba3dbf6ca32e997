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
    CODE, CODE_PAGES, DATA, DATA_PAGES, EXIT, INT3, OPEN_CODE, OPEN_PAGES, PAGE, READ_ONLY, STATE,
    TRAMPOLINE, USER_CS32, USER_DS, WRITABLE_PAGES, in_code,
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
    /// DS, ES, FS and GS of 32-bit code.
    selectors: [u16; 4],
    _unused: [u64; 10],
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
    /// Whether the kernel lets programs have segments that are not flat.
    pub local_segments: bool,
}

type Entry = extern "sysv64" fn();

const SHARED_PAGES: usize = CODE_PAGES + DATA_PAGES + OPEN_PAGES;

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
        Self::with_pages(false)
    }
    /// With the pages of code that may be written, which only blocks know of.
    ///
    /// # Errors
    /// As for `new`.
    pub fn for_blocks() -> io::Result<Self> {
        Self::with_pages(true)
    }
    fn with_pages(open_code: bool) -> io::Result<Self> {
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
        let open = (CODE_PAGES + DATA_PAGES) * PAGE;
        if open_code {
            map_at(OPEN_CODE, OPEN_PAGES * PAGE, rw | libc::PROT_EXEC, Some((fd, open)))?;
        }
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
            local_segments: false,
        };
        it.code().fill(INT3);
        it.open_code().fill(INT3);
        it.keep_own_bases();
        it.local_segments = crate::segments::install().is_ok();
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

    /// The pages of code that may be written.
    pub fn open_code(&mut self) -> &mut [u8] {
        // SAFETY: as in `code`; tests only run inside `run` and `run_block`.
        unsafe {
            slice::from_raw_parts_mut(
                self.alias.add((CODE_PAGES + DATA_PAGES) * PAGE),
                OPEN_PAGES * PAGE,
            )
        }
    }

    /// Before the first test a signal may come that is not a test's, and the way to its handler
    /// loads the bases of FS and GS.
    fn keep_own_bases(&mut self) {
        let (fs, gs): (u64, u64);
        // SAFETY: reads two registers.
        unsafe {
            std::arch::asm!("rdfsbase {}", "rdgsbase {}", out(reg) fs, out(reg) gs,
                options(nomem, nostack, preserves_flags));
            let state = &mut *Self::state();
            (state.own.fs, state.own.gs) = (fs, gs);
        }
    }

    /// The data pages, as they are after [`Native::run`].
    pub fn data(&mut self) -> &mut [u8] {
        // SAFETY: as in `code`; tests only run inside `run`.
        unsafe { slice::from_raw_parts_mut(self.alias.add(CODE_PAGES * PAGE), DATA_PAGES * PAGE) }
    }

    /// Runs a block: its bytes stand at its RIP and reach the exit by themselves. Its code in the
    /// pages that may be written stays as it left it.
    pub fn run_block(&mut self, case: &Case, patterns: &Patterns) -> Outcome {
        patterns.apply(case, self.data());
        let at = case.rip.wrapping_sub(CODE) as usize;
        let open = case.rip.wrapping_sub(OPEN_CODE) as usize;
        let len = case.bytes.len();
        if let Some(place) = self.open_code().get_mut(open..open.saturating_add(len)) {
            place.copy_from_slice(&case.bytes);
        } else if let Some(place) = self.code().get_mut(at..at.saturating_add(len)) {
            place.copy_from_slice(&case.bytes);
        }
        self.enter(case);
        if let Some(place) = self.code().get_mut(at..at.saturating_add(len)) {
            place.fill(INT3);
        }
        // SAFETY: as in `enter`.
        let (own, out) = unsafe { (&(*Self::state()).own, &(*Self::state()).output) };
        let mut outcome = Self::registers();
        if own.signalled == 0 {
            outcome.rip = EXIT;
        } else {
            outcome.rip = out.rip;
            outcome.fault = Some(Self::fault());
        }
        outcome.vectors = case.vectors.as_ref().map(|_| Self::vectors());
        outcome
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
        Self::set_segments();
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
                selectors: case.segments.unwrap_or([USER_DS, USER_DS, 0, 0]),
                _unused: [0; 10],
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

    /// DS and ES as Linux leaves them for 32-bit programs. A test that comes to run bytes that
    /// nobody meant as code may have loaded others.
    fn set_segments() {
        // SAFETY: 64-bit code does not look at DS and ES; 32-bit tests do.
        unsafe {
            std::arch::asm!("mov ds, {0:x}", "mov es, {0:x}", in(reg) USER_DS,
                options(nomem, nostack, preserves_flags));
        }
    }

    fn outcome(case: &Case) -> Outcome {
        let mut outcome = Outcome { rip: case.landing(), ..Self::registers() };
        // SAFETY: as in `enter`.
        let state = unsafe { &*Self::state() };
        if state.own.signalled != 0 {
            outcome.rip = state.output.rip;
            let fault = Self::fault();
            let before = outcome.rip.wrapping_sub(1);
            if fault.vector == 3 && in_code(before) {
                // It branched to INT3, and that is how we know.
                outcome.rip = before;
            } else {
                outcome.fault = Some(fault);
            }
        }
        outcome.vectors = case.vectors.as_ref().map(|_| Self::vectors());
        outcome
    }

    /// The registers that the trampoline or the handler stored.
    fn registers() -> Outcome {
        // SAFETY: as in `enter`.
        let out = unsafe { &(*Self::state()).output };
        Outcome { gpr: out.gpr, rflags: out.rflags, fs: out.fs, gs: out.gs, ..Outcome::default() }
    }
    /// The exception that the handler noted.
    fn fault() -> Fault {
        // SAFETY: as in `enter`.
        let own = unsafe { &(*Self::state()).own };
        let vector = own.vector as u8;
        Fault {
            vector,
            error: if matches!(vector, 8 | 10..=14 | 17) { own.error as u32 } else { 0 },
            address: if vector == 14 { own.address } else { 0 },
        }
    }
    fn vectors() -> Box<Vectors> {
        let mut vectors = Box::<Vectors>::default();
        // SAFETY: as in `enter`.
        let from = unsafe { &(*Self::state()).output_vectors };
        vectors.0.copy_from_slice(from.get(..VECTOR_BYTES).unwrap_or_default());
        vectors.normalize();
        vectors
    }
}
