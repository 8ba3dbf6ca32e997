//! CPUID: which processor the guest sees, by named models.

use alloc::vec::Vec;

/// Features that the software engines check by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuModelName {
    /// SSE4.2, POPCNT, CMPXCHG16B.
    X86_64V2,
    /// AVX2, BMI1/2, FMA, F16C, LZCNT, MOVBE.
    X86_64V3,
    /// All that the engine has on this host; does not promise to move between hosts.
    Max,
}

/// The values of one CPUID leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Leaf {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// What CPUID says.
#[derive(Clone, Debug)]
pub struct CpuModel {
    pub(crate) name: CpuModelName,
    pub(crate) physical_bits: u8,
    pub(crate) _leaves: Vec<Leaf>,
}

impl CpuModel {
    /// Physical address width.
    #[must_use]
    pub fn physical_bits(&self) -> u8 {
        self.physical_bits
    }
    /// The model's name.
    #[must_use]
    pub fn name(&self) -> CpuModelName {
        self.name
    }
}
