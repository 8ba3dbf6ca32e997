//! A guest's vector registers. The hypervisor's own code uses none, so they are the guest's from
//! entry to exit and nothing has to be kept of the host's.

use core::arch::asm;

use alloc::boxed::Box;
use kasane_cpu::VectorState;
use kasane_metal_cpu as cpu;

/// An XSAVE area in its standard form, as far as AVX (SDM vol. 1 §13.4).
#[repr(C, align(64))]
struct Area([u8; 1024]);

const XMM: usize = 160;
const HEADER: usize = 512;
const YMM_HIGH: usize = 576;

/// One processor's vector registers on their way.
pub(crate) struct Vectors {
    area: Box<Area>,
    /// State components of this host; 0 without XSAVE.
    mask: u64,
}

impl Vectors {
    pub(crate) fn new() -> Self {
        Self { area: Box::new(Area([0; 1024])), mask: cpu::extended_control_mask() }
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.area.0.get_mut(at..at.saturating_add(bytes.len())) {
            place.copy_from_slice(bytes);
        }
    }

    fn half(&self, at: usize) -> u64 {
        let bytes = self.area.0.get(at..at.saturating_add(8));
        bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
    }

    /// The guest's registers into the processor's, and its XCR0.
    pub(crate) fn load(&mut self, state: &VectorState, xcr0: u64) {
        self.put(0, state.fx.0.get(..XMM).unwrap_or_default());
        for (n, [a, b, c, d]) in state.ymm.iter().enumerate() {
            self.put(XMM + n * 16, &a.to_le_bytes());
            self.put(XMM + n * 16 + 8, &b.to_le_bytes());
            self.put(YMM_HIGH + n * 16, &c.to_le_bytes());
            self.put(YMM_HIGH + n * 16 + 8, &d.to_le_bytes());
        }
        // The processor's own bits of MXCSR; the guest's are checked when it loads them.
        self.put(28, &[0; 4]);
        let area = self.area.0.as_ptr();
        if self.mask == 0 {
            // SAFETY: an aligned FXSAVE image; MXCSR has no reserved bits, as no load of it has.
            unsafe { asm!("fxrstor64 [{}]", in(reg) area, options(nostack)) }
            return;
        }
        self.put(HEADER, &[0; 64]);
        self.put(HEADER, &self.mask.to_le_bytes());
        let area = self.area.0.as_ptr();
        let (low, high) = (self.mask as u32, (self.mask >> 32) as u32);
        // SAFETY: an aligned area with a header that names components which the host has switched
        // on. XCR0 is what the guest's own XSETBV was allowed to set, all of it the host's too.
        unsafe {
            asm!("xrstor64 [{}]", in(reg) area, in("eax") low, in("edx") high, options(nostack));
            cpu::set_extended_control(xcr0 & self.mask | 1);
        }
    }

    /// The processor's registers into the guest's.
    pub(crate) fn store(&mut self, state: &mut VectorState) {
        let area = self.area.0.as_mut_ptr();
        if self.mask == 0 {
            // SAFETY: an aligned area of 512 bytes.
            unsafe { asm!("fxsave64 [{}]", in(reg) area, options(nostack)) }
        } else {
            let (low, high) = (self.mask as u32, (self.mask >> 32) as u32);
            // SAFETY: an aligned area with room for these components, all of which the host has.
            unsafe {
                cpu::set_extended_control(self.mask);
                asm!("xsave64 [{}]", in(reg) area, in("eax") low, in("edx") high, options(nostack));
            }
        }
        // A component in its initial configuration is not written.
        let there = if self.mask == 0 { 3 } else { self.half(HEADER) };
        if there & 1 != 0 {
            // x87, without MXCSR and its mask at 24 to 31.
            copy(state, &self.area, 0, 24);
            copy(state, &self.area, 32, XMM - 32);
        } else {
            let mxcsr = state.mxcsr();
            *state = VectorState { ymm: state.ymm, ..VectorState::default() };
            state.set_mxcsr(mxcsr);
        }
        copy(state, &self.area, 24, 4);
        for n in 0..16 {
            let low = |at: usize| if there & 2 != 0 { self.half(XMM + n * 16 + at) } else { 0 };
            let high =
                |at: usize| if there & 4 != 0 { self.half(YMM_HIGH + n * 16 + at) } else { 0 };
            state.set_ymm(n as u8, [low(0), low(8), high(0), high(8)]);
        }
    }
}

fn copy(state: &mut VectorState, area: &Area, at: usize, len: usize) {
    let range = at..at.saturating_add(len);
    if let (Some(to), Some(from)) = (state.fx.0.get_mut(range.clone()), area.0.get(range)) {
        to.copy_from_slice(from);
    }
}
