//! Ports: the little that the core needs from a home (DESIGN §2).
//!
//! A port is a trait that the core calls and a home (the hosted program, the bare-metal
//! hypervisor, a test) implements. Nothing here knows an operating system.
#![no_std]
extern crate alloc;

mod block;
mod net;
mod reclaim;
mod share;
mod trace;
mod vsock;
pub use block::{
    BlockBackend, BlockCompletion, BlockCompletions, BlockError, BlockInfo, BlockOperation,
    BlockRequest, GuestRange, ZeroedSpace,
};
pub use net::{
    FrameOffload, Given, NetBackend, NetDevice, NetGuestOffloads, NetInfo, NetOffloads,
    PartialChecksum, Segmentation, SegmentationKind,
};
pub use reclaim::PageReclaim;
pub use share::{ShareBackend, ShareCompletions, ShareRequest};
pub use trace::{NullTrace, Trace, TraceEvent, TraceId, TraceKind};
pub use vsock::{VsockBackend, VsockDevice, VsockOperation, VsockPacket};

/// Guest time, in nanoseconds since the machine was created.
///
/// A home may pause and shift it; it never runs backwards while a guest runs.
pub trait Clock: Send + Sync {
    /// Guest nanoseconds now.
    fn now_ns(&self) -> u64;
    /// How guest time follows from the host's time-stamp counter, where it does, and until the
    /// clock is next paused or set.
    fn ticks(&self) -> Option<Ticks> {
        None
    }
    /// Seconds since 1970-01-01 UTC, for the guest's real-time clock.
    fn wall_clock_s(&self) -> u64;
    /// The same in nanoseconds, where the home has them.
    fn wall_clock_ns(&self) -> u64 {
        self.wall_clock_s().saturating_mul(1_000_000_000)
    }
}

/// Guest nanoseconds are the high 64 bits of `counter * multiplier`, and `offset` (wrapping).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    /// Nanoseconds in a tick, times 2^64.
    pub multiplier: u64,
    /// Guest time at counter 0.
    pub offset: u64,
}

/// Random bytes for RDRAND, RDSEED and virtio-rng.
pub trait Entropy: Send + Sync {
    /// Fills `buf` with random bytes.
    fn fill(&self, buf: &mut [u8]);
}

/// The level of an interrupt wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Not asserted.
    #[default]
    Low,
    /// Asserted.
    High,
}

impl Level {
    /// `High` if `asserted`.
    #[must_use]
    pub const fn from_asserted(asserted: bool) -> Self {
        if asserted { Self::High } else { Self::Low }
    }
    /// Whether the wire is asserted.
    #[must_use]
    pub const fn is_high(self) -> bool {
        matches!(self, Self::High)
    }
}

/// One interrupt wire, as a device sees it.
pub trait IrqLine: Send + Sync {
    /// Drives the wire to `level`; driving it to the level it has is no event.
    fn set(&self, level: Level);
}

/// The A20 gate: while it is low, address bit 20 of every access of the processors is 0
/// (IBM PC/AT Technical Reference, "Address line A20").
pub trait A20Line: Send + Sync {
    /// Drives the gate.
    fn set(&self, level: Level);
}

/// A message-signalled interrupt: what the PCI device writes, and where
/// (PCI Local Bus 3.0 §6.8, SDM vol. 3A §11.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msi {
    /// Address; 0xFEEx_xxxx on x86.
    pub address: u64,
    /// Data: vector, delivery mode, trigger mode.
    pub data: u32,
}

/// Where message-signalled interrupts go.
pub trait MsiSink: Send + Sync {
    /// Delivers `msi` to the local APICs it addresses.
    fn signal(&self, msi: Msi);
}

/// A byte stream that a serial port or a debug port writes to.
/// Input goes the other way by a call on the device.
pub trait Console: Send + Sync {
    /// Takes bytes that the guest sent. Must not block for long.
    fn output(&self, bytes: &[u8]);
}

/// A memory barrier on every thread that runs a vCPU of this machine
/// (Linux: `membarrier(PRIVATE_EXPEDITED)`; bare metal: an IPI to each CPU).
///
/// It is the slow half of an asymmetric Dekker protocol: a store to guest memory followed by a
/// plain look at the page's code map is fast; marking a page as code pays for both.
pub trait HeavyBarrier: Send + Sync {
    /// Returns when every vCPU thread has executed a full barrier since the call.
    fn synchronize(&self);
    /// Passes a little time for a vCPU that waits for others to get to a safe point; a home whose
    /// threads share processors lets another one run.
    fn relax(&self) {
        core::hint::spin_loop();
    }
}

/// Wakes a vCPU out of `run`. A kick before `run` is never lost.
pub trait Kick: Send + Sync {
    /// Makes the vCPU's `run` return soon with `Exit::Kicked`, or wakes it from a halt.
    fn kick(&self);
}
