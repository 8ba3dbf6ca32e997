//! Ports of a processor that has no machine around it, and flat segments for it.

use kasane_cpu::SegmentRegister;
use kasane_ports::{Clock, Entropy, HeavyBarrier};

pub(crate) struct Quiet;
impl Clock for Quiet {
    fn now_ns(&self) -> u64 {
        0
    }
    fn wall_clock_s(&self) -> u64 {
        0
    }
}
impl Entropy for Quiet {
    fn fill(&self, buf: &mut [u8]) {
        buf.fill(0);
    }
}
impl HeavyBarrier for Quiet {
    fn synchronize(&self) {}
}

pub(crate) fn flat(access: u16) -> SegmentRegister {
    SegmentRegister { selector: 0x10, access, limit: u32::MAX, base: 0 }
}
