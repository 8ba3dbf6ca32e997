//! What happens when the filter refuses a call: the kernel sends SIGSYS to the thread, the handler
//! tells the watching thread and lets the refused one never go on; the watching thread reports and
//! ends the program in order (a terminal has to be given back, for one). If it can't within a
//! time, the handler does it as well as a handler can.

use std::cell::Cell;
use std::convert::Infallible;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{FromRawFd, IntoRawFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::{Refused, SandboxError};

/// How long the watching thread has, in seconds.
const PATIENCE: libc::time_t = 5;

/// What the C library reads by itself, whenever its heap grows or shrinks, and can do without.
const LIBRARYS_OWN: [&CStr; 3] =
    [c"/proc/sys/vm/overcommit_memory", c"/sys/devices/system/cpu/online", c"/proc/stat"];

thread_local! {
    /// Without a destructor: the handler's access neither allocates nor registers anything.
    static VCPU: Cell<u32> = const { Cell::new(u32::MAX) };
}

/// Where handlers write what was refused; -1: nobody watches.
static REPORT: AtomicI32 = AtomicI32::new(-1);
static STATUS: AtomicI32 = AtomicI32::new(1);

/// Notes whose thread this is.
pub(crate) fn this_thread_is(vcpu: u32) {
    VCPU.with(|cell| cell.set(vcpu));
}

/// Starts a thread that waits for the first refused call and then calls `end`, which reports it
/// and ends the process, with `status` in all likelihood. To be called once, before any thread
/// enters the filter.
///
/// # Errors
/// [`SandboxError::Watch`]: the host gives no pipe, thread or handler.
pub fn watch(
    status: u8,
    end: impl FnOnce(Refused) -> Infallible + Send + 'static,
) -> Result<(), SandboxError> {
    let (mut from, to) = io::pipe().map_err(SandboxError::Watch)?;
    STATUS.store(i32::from(status), Ordering::Relaxed);
    let thread = std::thread::Builder::new().name("refusals".to_owned());
    thread
        .spawn(move || {
            let mut message = [0; 8];
            if from.read_exact(&mut message).is_ok() {
                let [a, b, c, d, e, f, g, h] = message;
                let vcpu = u32::from_ne_bytes([a, b, c, d]);
                let call = i32::from_ne_bytes([e, f, g, h]);
                match end(Refused { vcpu, call: name(call) }) {}
            }
        })
        .map_err(SandboxError::Watch)?;
    let old = REPORT.swap(std::os::fd::OwnedFd::from(to).into_raw_fd(), Ordering::SeqCst);
    if old >= 0 {
        // SAFETY: it came from `into_raw_fd` above, and nobody else has it.
        drop(unsafe { File::from_raw_fd(old) });
    }
    install().map_err(SandboxError::Watch)
}

fn install() -> io::Result<()> {
    // SAFETY: an all-zero `sigaction` is a valid value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the pointer is to a valid `sigaction`; the handler is async-signal-safe.
    match unsafe { libc::sigaction(libc::SIGSYS, &raw const action, null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Handles SIGSYS.
///
/// # Safety
/// Only the kernel calls it.
unsafe extern "C" fn handler(
    _signal: libc::c_int,
    _info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a `ucontext_t` to an SA_SIGINFO handler, and it is ours to change.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let of = |index: libc::c_int| registers.get(index as usize).copied().unwrap_or(0);
    let call = of(libc::REG_RAX);
    let path = match call {
        libc::SYS_open => of(libc::REG_RDI),
        libc::SYS_openat => of(libc::REG_RSI),
        _ => 0,
    };
    if LIBRARYS_OWN.iter().any(|own| is_text(path as usize, own)) {
        if let Some(result) = registers.get_mut(libc::REG_RAX as usize) {
            *result = -libc::c_longlong::from(libc::EACCES);
        }
        return;
    }
    let vcpu = VCPU.try_with(Cell::get).unwrap_or(u32::MAX);
    report(vcpu, call as i32);
}

/// Whether a C string of this text is at `address`.
fn is_text(address: usize, text: &CStr) -> bool {
    if address == 0 {
        return false;
    }
    text.to_bytes_with_nul().iter().enumerate().all(|(at, byte)| {
        let place = address.wrapping_add(at) as *const u8;
        // SAFETY: the address was passed to the kernel as that of a string, and no byte behind
        // the first that differs is read. Where the caller lied, the fault ends the process,
        // which is about to end anyway.
        let found = unsafe { place.read_volatile() };
        found == *byte
    })
}

/// Tells the watching thread; never returns. Makes no calls but those that the filter allows.
fn report(vcpu: u32, call: i32) -> ! {
    let mut message = [0_u8; 8];
    let bytes = vcpu.to_ne_bytes().into_iter().chain(call.to_ne_bytes());
    message.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    let mut left = libc::timespec { tv_sec: PATIENCE, tv_nsec: 0 };
    // SAFETY: the buffers are valid for their lengths; all three are async-signal-safe.
    unsafe {
        libc::write(REPORT.load(Ordering::Relaxed), message.as_ptr().cast(), message.len());
        while libc::nanosleep(&raw const left, &raw mut left) != 0 {}
        let text = b"kasane: a system call of a vCPU thread was refused\n";
        libc::write(2, text.as_ptr().cast(), text.len());
        libc::_exit(STATUS.load(Ordering::Relaxed));
    }
}

/// A system call's name, for calls that a program taken over would like to make; or its number.
fn name(call: i32) -> String {
    let known = match i64::from(call) {
        libc::SYS_open => "open",
        libc::SYS_openat => "openat",
        libc::SYS_openat2 => "openat2",
        libc::SYS_creat => "creat",
        libc::SYS_stat => "stat",
        libc::SYS_newfstatat => "newfstatat",
        libc::SYS_statx => "statx",
        libc::SYS_access => "access",
        libc::SYS_readlink => "readlink",
        libc::SYS_getcwd => "getcwd",
        libc::SYS_unlink => "unlink",
        libc::SYS_rename => "rename",
        libc::SYS_mkdir => "mkdir",
        libc::SYS_chmod => "chmod",
        libc::SYS_socket => "socket",
        libc::SYS_connect => "connect",
        libc::SYS_bind => "bind",
        libc::SYS_listen => "listen",
        libc::SYS_accept4 => "accept4",
        libc::SYS_sendto => "sendto",
        libc::SYS_sendmsg => "sendmsg",
        libc::SYS_recvfrom => "recvfrom",
        libc::SYS_recvmsg => "recvmsg",
        libc::SYS_execve => "execve",
        libc::SYS_execveat => "execveat",
        libc::SYS_fork => "fork",
        libc::SYS_vfork => "vfork",
        libc::SYS_clone => "clone",
        libc::SYS_clone3 => "clone3",
        libc::SYS_kill => "kill",
        libc::SYS_tkill => "tkill",
        libc::SYS_tgkill => "tgkill",
        libc::SYS_mmap => "mmap",
        libc::SYS_mprotect => "mprotect",
        libc::SYS_memfd_create => "memfd_create",
        libc::SYS_ioctl => "ioctl",
        libc::SYS_fcntl => "fcntl",
        libc::SYS_dup => "dup",
        libc::SYS_pipe2 => "pipe2",
        libc::SYS_poll => "poll",
        libc::SYS_epoll_ctl => "epoll_ctl",
        libc::SYS_epoll_wait => "epoll_wait",
        libc::SYS_prctl => "prctl",
        libc::SYS_ptrace => "ptrace",
        libc::SYS_process_vm_readv => "process_vm_readv",
        libc::SYS_process_vm_writev => "process_vm_writev",
        libc::SYS_bpf => "bpf",
        libc::SYS_io_uring_setup => "io_uring_setup",
        libc::SYS_io_uring_register => "io_uring_register",
        libc::SYS_rt_sigaction => "rt_sigaction",
        libc::SYS_prlimit64 => "prlimit64",
        libc::SYS_wait4 => "wait4",
        other => return format!("number {other}"),
    };
    known.to_owned()
}
