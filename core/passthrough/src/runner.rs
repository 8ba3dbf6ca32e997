//! The `CodeRunner` port: what a home gives to those who generate code.
//!
//! A home implements two traits. [`CodeRunner`] makes arenas and says what the host's CPU can do.
//! [`CodeArena`] is executable memory: it is written through one address and run at another
//! (never writable and executable in one view), and a host exception whose instruction pointer
//! lies inside it is not the end of the process but an [`Outcome`].
//!
//! The contract of a run, which both the one-instruction stubs of this crate and a translator
//! keep:
//! - code is entered at [`CodeEntry::at`] by the System V calling convention with the state block
//!   in RDI, on every host, and returns with `ret`; it keeps the convention's callee-saved
//!   registers (or saves them itself) and leaves the upper halves of the YMM registers zero;
//! - on a host exception inside the arena the home continues at [`CodeEntry::recovery`] with every
//!   register as it was at the faulting instruction, RSP included. The recovery code brings the
//!   machine back to a state in which it can return from the run, and returns;
//! - then `run` reports the exception and the offset of the instruction that raised it.

use alloc::boxed::Box;
use core::fmt;

use crate::features::HostFeatures;

/// Why there is no arena, or why code can't be written into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArenaError {
    /// This home can't run generated code at all.
    Unavailable(&'static str),
    /// The host refused executable memory; the host's error number.
    Refused(i32),
    /// The bytes don't fit at that offset.
    OutOfRange,
}

impl fmt::Display for ArenaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(why) => write!(f, "generated code can't be run here: {why}"),
            Self::Refused(error) => write!(f, "the host refused executable memory (error {error})"),
            Self::OutOfRange => write!(f, "the code arena has no room at that offset"),
        }
    }
}

impl core::error::Error for ArenaError {}

/// Which host exception stopped the code (SDM vol. 3A §6.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// #DE.
    Divide,
    /// #UD.
    InvalidOpcode,
    /// #GP, #SS or #NP.
    Protection,
    /// #PF, with the address.
    Page {
        /// The address that was not accessible.
        address: u64,
    },
    /// #MF.
    X87,
    /// #AC.
    Alignment,
    /// #XM.
    Simd,
    /// Another vector.
    Other {
        /// Its number.
        vector: u8,
    },
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The code returned.
    Done,
    /// A host exception; the code returned by its recovery path.
    Fault {
        /// Which.
        kind: FaultKind,
        /// Offset in the arena of the instruction that raised it.
        offset: u32,
    },
}

/// Where a run begins, and where it goes on after a host exception. Offsets in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeEntry {
    /// First instruction.
    pub at: u32,
    /// First instruction after a fault.
    pub recovery: u32,
}

/// Executable memory.
///
/// # Safety
/// An implementation keeps the contract in the [module's head](crate::CodeRunner): the memory
/// stays mapped as long as the arena lives, and what [`CodeArena::write`] wrote is what
/// [`CodeArena::run`] executes.
pub unsafe trait CodeArena: Send + Sync {
    /// Size in bytes.
    fn capacity(&self) -> usize;
    /// The address at which offset 0 executes.
    fn address(&self) -> u64;
    /// Writes code. It can be run when this returns, by the thread that wrote it; another thread
    /// that ran the old bytes of that place must have been serialized in between.
    ///
    /// # Errors
    /// [`ArenaError::OutOfRange`].
    ///
    /// # Safety
    /// No thread executes the bytes that are overwritten.
    unsafe fn write(&self, offset: usize, code: &[u8]) -> Result<(), ArenaError>;
    /// Code will soon be written from `offset` on. A hint.
    fn prepare(&self, _offset: usize) {}
    /// Changes 4 bytes in one store. Threads that run there meanwhile find the old bytes or the new
    /// ones; this one finds the new ones for certain after [`CodeArena::serialize`].
    ///
    /// # Errors
    /// [`ArenaError::OutOfRange`].
    ///
    /// # Safety
    /// They don't lie in two words of 8 bytes, and are right as they were and as they become.
    unsafe fn patch(&self, offset: usize, bytes: [u8; 4]) -> Result<(), ArenaError>;
    /// From now on this thread runs what it wrote.
    fn serialize(&self);
    /// Runs code with `state` in RDI.
    ///
    /// # Safety
    /// Both offsets of `entry` are first bytes of code written before, which keeps the contract of
    /// the module, and `state` is what that code expects.
    unsafe fn run(&self, entry: CodeEntry, state: *mut u8) -> Outcome;
}

/// What a home gives to those who generate code.
pub trait CodeRunner: Send + Sync {
    /// What the host's CPU and its operating system let code use.
    fn features(&self) -> HostFeatures;
    /// A new arena of at least `capacity` bytes.
    ///
    /// # Errors
    /// When the home has none to give.
    fn arena(&self, capacity: usize) -> Result<Box<dyn CodeArena>, ArenaError>;
}

/// The runner of a home that can't run generated code: everything is refused.
#[derive(Clone, Copy, Debug)]
pub struct NoCodeRunner;

impl CodeRunner for NoCodeRunner {
    fn features(&self) -> HostFeatures {
        HostFeatures::default()
    }
    fn arena(&self, _capacity: usize) -> Result<Box<dyn CodeArena>, ArenaError> {
        Err(ArenaError::Unavailable("this home has no code runner"))
    }
}
