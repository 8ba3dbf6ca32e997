//! Host exceptions in an arena.
//!
//! A thread that enters an arena notes it in a thread-local [`Slot`]. The handler, which runs on
//! the same thread, compares the interrupted instruction pointer with the slot: inside, it notes
//! vector and address there and sends the thread to the recovery path; outside, the signal is
//! somebody else's and goes to the handler that was installed before.
//!
//! The handler touches nothing but the slot (constant-initialised thread-local storage without a
//! destructor, so that the access neither allocates nor registers anything) and its arguments.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, compiler_fence};

use kasane_passthrough::{ArenaError, FaultKind, Outcome};

/// What the thread runs: an arena's executable view and the recovery path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) recovery: usize,
}

/// The thread's note. Atomic only because a signal handler writes to it: no other thread does.
struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    recovery: AtomicUsize,
    /// Instruction pointer of the fault; 0: none.
    fault_at: AtomicUsize,
    vector: AtomicU64,
    address: AtomicU64,
}

thread_local! {
    static SLOT: Slot = const {
        Slot {
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            recovery: AtomicUsize::new(0),
            fault_at: AtomicUsize::new(0),
            vector: AtomicU64::new(0),
            address: AtomicU64::new(0),
        }
    };
}

/// Notes what this thread is about to run.
pub(crate) fn begin(run: Run) {
    SLOT.with(|slot| {
        slot.start.store(run.start, Ordering::Relaxed);
        slot.end.store(run.end, Ordering::Relaxed);
        slot.recovery.store(run.recovery, Ordering::Relaxed);
    });
    compiler_fence(Ordering::SeqCst);
}

/// The run is over: how?
pub(crate) fn end(start: usize) -> Outcome {
    compiler_fence(Ordering::SeqCst);
    SLOT.with(|slot| {
        slot.end.store(0, Ordering::Relaxed);
        let at = slot.fault_at.load(Ordering::Relaxed);
        if at == 0 {
            return Outcome::Done;
        }
        slot.fault_at.store(0, Ordering::Relaxed);
        let vector = slot.vector.load(Ordering::Relaxed);
        let address = slot.address.load(Ordering::Relaxed);
        Outcome::Fault {
            kind: kind(vector, address),
            offset: u32::try_from(at.wrapping_sub(start)).unwrap_or(u32::MAX),
        }
    })
}

/// Exception vectors, SDM vol. 3A table 6-1.
fn kind(vector: u64, address: u64) -> FaultKind {
    match vector {
        0 => FaultKind::Divide,
        6 => FaultKind::InvalidOpcode,
        11..=13 => FaultKind::Protection,
        14 => FaultKind::Page { address },
        16 => FaultKind::X87,
        17 => FaultKind::Alignment,
        19 => FaultKind::Simd,
        other => FaultKind::Other { vector: u8::try_from(other).unwrap_or(u8::MAX) },
    }
}

const SIGNALS: [libc::c_int; 5] =
    [libc::SIGFPE, libc::SIGILL, libc::SIGSEGV, libc::SIGBUS, libc::SIGTRAP];

/// The handlers that were there before, in the order of [`SIGNALS`].
struct Previous(UnsafeCell<[MaybeUninit<libc::sigaction>; SIGNALS.len()]>);

// SAFETY: written once, before any handler of ours is installed for that signal can see it
// (`sigaction` fills it in as it installs), read only afterwards.
unsafe impl Sync for Previous {}

static PREVIOUS: Previous = Previous(UnsafeCell::new([MaybeUninit::zeroed(); SIGNALS.len()]));
static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();

/// Installs the handlers, once per process.
pub(crate) fn install() -> Result<(), ArenaError> {
    INSTALLED.get_or_init(install_all).map_err(ArenaError::Refused)
}

fn install_all() -> Result<(), i32> {
    for (i, signal) in SIGNALS.iter().enumerate() {
        // SAFETY: an all-zero `sigaction` is a valid value.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        let previous = previous(i);
        // SAFETY: both pointers are to valid `sigaction`s; the handler is async-signal-safe.
        let result = unsafe { libc::sigaction(*signal, &raw const action, previous) };
        if result != 0 {
            return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0));
        }
    }
    Ok(())
}

/// Where the previous action of the `i`th signal is kept.
fn previous(i: usize) -> *mut libc::sigaction {
    PREVIOUS.0.get().cast::<libc::sigaction>().wrapping_add(i % SIGNALS.len())
}

/// The handler of all five signals.
///
/// # Safety
/// Only the kernel calls it.
unsafe extern "C" fn handler(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a `ucontext_t` to an SA_SIGINFO handler, and it is ours to change.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    // SAFETY: the kernel passes a valid `siginfo_t`.
    let raised_here = unsafe { (*info).si_code } > 0;
    if raised_here && recover(registers) {
        return;
    }
    // SAFETY: the arguments are the kernel's.
    unsafe { pass_on(signal, info, context) };
}

/// Recovers if the thread was in its arena.
fn recover(registers: &mut [libc::greg_t; 23]) -> bool {
    let [rip, vector, address] = [libc::REG_RIP, libc::REG_TRAPNO, libc::REG_CR2]
        .map(|index| registers.get(index as usize).copied().unwrap_or(0));
    let at = rip as usize;
    let recovery = SLOT.try_with(|slot| {
        let inside =
            slot.start.load(Ordering::Relaxed) <= at && at < slot.end.load(Ordering::Relaxed);
        // A second exception would be one of the recovery path: no way back from that.
        let second = slot.fault_at.load(Ordering::Relaxed) != 0;
        if !inside || second {
            return None;
        }
        slot.fault_at.store(at, Ordering::Relaxed);
        slot.vector.store(vector as u64, Ordering::Relaxed);
        slot.address.store(address as u64, Ordering::Relaxed);
        Some(slot.recovery.load(Ordering::Relaxed))
    });
    match (recovery, registers.get_mut(libc::REG_RIP as usize)) {
        (Ok(Some(recovery)), Some(rip)) => {
            *rip = recovery as libc::greg_t;
            true
        }
        (Ok(_) | Err(_), _) => false,
    }
}

/// Does what would have happened without us.
///
/// # Safety
/// The arguments are those of a signal handler.
unsafe fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(i) = SIGNALS.iter().position(|s| *s == signal) else { return };
    // SAFETY: filled in by `install_all`, or still zero, which is SIG_DFL.
    let action = unsafe { *previous(i) };
    match action.sa_sigaction {
        libc::SIG_DFL => {
            // SAFETY: as `action` was before us. A fault comes again when the handler returns and
            // then has its default effect; a signal that somebody sent has to be sent again.
            unsafe {
                libc::sigaction(signal, &raw const action, null_mut());
                if (*info).si_code <= 0 {
                    libc::raise(signal);
                }
            }
        }
        libc::SIG_IGN => {}
        function if action.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: it was installed as an SA_SIGINFO handler.
            unsafe {
                let function: unsafe extern "C" fn(
                    libc::c_int,
                    *mut libc::siginfo_t,
                    *mut libc::c_void,
                ) = std::mem::transmute(function);
                function(signal, info, context);
            }
        }
        function => {
            // SAFETY: it was installed as a plain handler.
            unsafe {
                let function: unsafe extern "C" fn(libc::c_int) = std::mem::transmute(function);
                function(signal);
            }
        }
    }
}
