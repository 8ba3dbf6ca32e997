//! What the stub needs of the program that runs the guest.

use std::sync::Arc;

use kasane_cpu::engine::DebugControl;
use kasane_cpu::{CpuState, StateSet};
use kasane_memory::GuestMemory;

/// The machine has ended, or it runs where it should stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the machine does not stand still")]
pub struct TargetGone;

/// Which vCPUs go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// All of them.
    All,
    /// These only; the others stand.
    Only(Vec<u32>),
}

/// A vCPU stopped for the debugger: the fields of [`Exit::Debug`](kasane_cpu::Exit::Debug).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuStop {
    /// Which vCPU.
    pub vcpu: u32,
    /// RIP of its next instruction.
    pub rip: u64,
    /// DR6's bits: B0 to B3 for the watchpoints, BS for a single step, 0 for a breakpoint.
    pub dr6: u32,
}

/// How the machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As the guest or the person wanted.
    Normally,
    /// By a fault of the guest or the host.
    Crashed,
}

/// Something the debugger is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A vCPU stopped, and the machine pauses because of it.
    Vcpu(VcpuStop),
    /// The machine was reset; it stands before its first instruction and knows no breakpoint.
    Restarted,
    /// The machine is no more. Nothing comes after this.
    Ended(Ended),
}

/// What of a guest-physical address counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhysicalView {
    /// Physical address width, 36 to 52.
    pub bits: u8,
    /// All ones, or without bit 20 while A20 is off.
    pub a20_mask: u64,
}

/// A machine under a debugger.
///
/// All but `next_stop` are called by one thread at a time. Everything about a vCPU is asked only
/// while the machine is paused.
pub trait DebugTarget: Send + Sync {
    /// The number of vCPUs, at least 1; it never changes.
    fn vcpus(&self) -> u32;
    /// Guest memory.
    fn memory(&self) -> Arc<dyn GuestMemory>;
    /// How wide physical addresses are now.
    fn physical_view(&self) -> PhysicalView;
    /// What the machine is, for `monitor info`: a few lines.
    fn description(&self) -> String;

    /// Stops all vCPUs where their state is complete; returns when they stand.
    ///
    /// # Errors
    /// When the machine ended instead.
    fn pause(&self) -> Result<(), TargetGone>;
    /// Lets vCPUs of a paused machine go on.
    fn resume(&self, run: &Run);
    /// Parts of a vCPU's state; the others are of no meaning.
    ///
    /// # Errors
    /// When the machine is not paused.
    fn read(&self, vcpu: u32, set: StateSet) -> Result<CpuState, TargetGone>;
    /// Changes parts of a vCPU's state.
    ///
    /// # Errors
    /// When the machine is not paused.
    fn write(&self, vcpu: u32, set: StateSet, state: CpuState) -> Result<(), TargetGone>;
    /// Sets a vCPU's breakpoints, watchpoints and single step.
    ///
    /// # Errors
    /// When the machine is not paused.
    fn set_debug(&self, vcpu: u32, control: DebugControl) -> Result<(), TargetGone>;

    /// Resets the machine; it comes back paused, and [`Stop::Restarted`] tells when.
    fn reset(&self);
    /// Ends the machine.
    fn kill(&self);

    /// Waits for the next thing to tell. Called again and again by a thread of its own, and
    /// without waiting, by way of [`DebugTarget::pending_stop`], while the machine is paused.
    fn next_stop(&self) -> Stop;
    /// A stop that happened before the machine paused, if one is left.
    fn pending_stop(&self) -> Option<VcpuStop>;
}
