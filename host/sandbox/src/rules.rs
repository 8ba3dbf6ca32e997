//! What a vCPU thread may ask of the kernel.
//!
//! The list was measured on guests that used every device, and completed by reading what the
//! devices' back ends do on the thread that submits. All work on what is open already, on the
//! process's own memory, or on the thread itself.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{BackendError, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

/// Calls that are allowed with any arguments.
const ALWAYS: &[c_long] = &[
    // Waiting, waking and order among threads.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_membarrier,
    libc::SYS_restart_syscall,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    // Data of files, pipes and sockets that are open.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fstat,
    libc::SYS_close,
    // The disks' rings, which are restricted to reads, writes and flushes of their files.
    libc::SYS_io_uring_enter,
    // Memory; `mmap` and `mprotect` have conditions.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_getrandom,
    // The thread itself, its signals and its end.
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_getaffinity,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// The filter's rules: system call to the conditions of which one has to hold; none: always.
pub(crate) fn allowed() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALWAYS.iter().map(|call| (*call, Vec::new())).collect();
    let not_executable =
        || only(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0).map(|rule| vec![rule]);
    rules.insert(libc::SYS_mmap, not_executable()?);
    rules.insert(libc::SYS_mprotect, not_executable()?);
    // A thread that aborts signals itself; nobody else's process.
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![only(0, SeccompCmpOp::Eq, own)?]);
    // Handlers of faults give way to those before them; the one of refusals stays.
    let other = only(0, SeccompCmpOp::Ne, libc::SIGSYS as u64)?;
    rules.insert(libc::SYS_rt_sigaction, vec![other]);
    Ok(rules)
}

/// A rule about the low half of one argument.
fn only(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
    SeccompRule::new(vec![condition])
}
