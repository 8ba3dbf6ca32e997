//! Signals: how the exceptions of a test come back.

use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::ptr::{addr_of, addr_of_mut, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Native, State};
use crate::case::VECTOR_BYTES;
use crate::layout::USER_CS64;

const SIGNALS: [libc::c_int; 5] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];
const STACK_BYTES: usize = 1 << 18;

/// Where the handler returns to.
static FINISH: AtomicU64 = AtomicU64::new(0);

/// What was installed before, by number of the signal: passed-through code of the interpreter
/// has handlers of its own.
static mut PREVIOUS: [MaybeUninit<libc::sigaction>; 32] = [const { MaybeUninit::zeroed() }; 32];

/// Order of the general registers in a signal's context, by encoding.
const ORDER: [libc::c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Installs the handlers on an alternate stack; `entry` is the trampoline's prologue for them.
pub(super) fn install(entry: u64, finish: u64) -> io::Result<()> {
    FINISH.store(finish, Ordering::Relaxed);
    let stack = Box::leak(vec![0u8; STACK_BYTES].into_boxed_slice());
    let stack =
        libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK_BYTES };
    // SAFETY: the stack is leaked, so it lives for ever.
    super::check(unsafe { libc::sigaltstack(&raw const stack, null_mut()) } == 0)?;
    for signal in SIGNALS {
        // SAFETY: all-zero is a valid `sigaction`, and the handler has the form that SA_SIGINFO
        // asks for. `PREVIOUS` is written before the first test and only read by the handler.
        unsafe {
            let mut action: libc::sigaction = zeroed();
            action.sa_sigaction = entry as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            let previous =
                addr_of_mut!(PREVIOUS).cast::<libc::sigaction>().add(signal as usize & 31);
            super::check(libc::sigaction(signal, &raw const action, previous) == 0)?;
        }
    }
    Ok(())
}

/// The handler, entered by way of the trampoline.
pub(super) unsafe extern "C" fn handler(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    let state = Native::state();
    // SAFETY: the state page is mapped before the handlers are installed.
    if unsafe { (*state).own.running } == 0 {
        // SAFETY: the kernel's own arguments.
        return unsafe { pass_on(signal, info, context) };
    }
    // SAFETY: the kernel gives a valid context, and the test that it interrupted is the only
    // other user of the state page.
    unsafe { take(&mut *state, &mut *context.cast::<libc::ucontext_t>()) };
}

/// Takes the test's state out of the context and makes the context return to the trampoline.
unsafe fn take(state: &mut State, context: &mut libc::ucontext_t) {
    let registers = &mut context.uc_mcontext.gregs;
    let get = |n: libc::c_int| registers.get(n as usize).map_or(0, |v| *v as u64);
    for (to, from) in state.output.gpr.iter_mut().zip(ORDER) {
        *to = get(from);
    }
    state.output.rip = get(libc::REG_RIP);
    state.output.rflags = get(libc::REG_EFL);
    state.own.vector = get(libc::REG_TRAPNO);
    state.own.error = get(libc::REG_ERR);
    state.own.address = get(libc::REG_CR2);
    state.own.signalled = 1;
    state.own.running = 0;
    if state.own.vectors != 0 && !context.uc_mcontext.fpregs.is_null() {
        let from = context.uc_mcontext.fpregs.cast::<u8>();
        // SAFETY: with XSAVE, which every CPU with AVX has, the kernel's area begins with the
        // standard format of at least these components.
        unsafe {
            std::ptr::copy_nonoverlapping(from, state.output_vectors.as_mut_ptr(), VECTOR_BYTES);
        }
    }
    if let Some(rip) = registers.get_mut(libc::REG_RIP as usize) {
        *rip = FINISH.load(Ordering::Relaxed) as libc::greg_t;
    }
    // A 32-bit test is left for 64-bit code.
    if let Some(selectors) = registers.get_mut(libc::REG_CSGSFS as usize) {
        *selectors = *selectors & !0xFFFF | libc::greg_t::from(USER_CS64);
    }
    if let Some(flags) = registers.get_mut(libc::REG_EFL as usize) {
        *flags = 0x202;
    }
}

/// A signal that is not a test's: what was installed before, or the default.
unsafe fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    type Action = unsafe extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
    // SAFETY: written once, before.
    let previous =
        unsafe { *addr_of!(PREVIOUS).cast::<libc::sigaction>().add(signal as usize & 31) };
    let address = previous.sa_sigaction;
    if address == libc::SIG_DFL || address == libc::SIG_IGN {
        // SAFETY: the fault comes again when the handler returns, and ends the process.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    // SAFETY: it was installed as a handler; those with SA_SIGINFO take three arguments, and
    // others ignore two of them.
    unsafe {
        let action: Action = std::mem::transmute::<usize, Action>(address);
        action(signal, info, context);
    }
}
