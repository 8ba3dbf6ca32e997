//! What the processor can do for guests' vector instructions.

use alloc::boxed::Box;

use kasane_metal_cpu::cpuid;
use kasane_passthrough::{ArenaError, CodeArena, CodeRunner, HostFeatures};

/// Knows the processor's features. It runs no code yet, so that the interpreter raises #UD for
/// vector instructions.
pub(crate) struct Runner;

impl CodeRunner for Runner {
    fn features(&self) -> HostFeatures {
        let [_, _, one, _] = cpuid(1, 0);
        let [_, seven, _, _] = cpuid(7, 0);
        let avx = one >> 28 & 1 != 0 && one >> 26 & 1 != 0;
        HostFeatures::default()
            .with(HostFeatures::SSE3, one & 1 != 0)
            .with(HostFeatures::SSSE3, one >> 9 & 1 != 0)
            .with(HostFeatures::SSE4_1, one >> 19 & 1 != 0)
            .with(HostFeatures::SSE4_2, one >> 20 & 1 != 0)
            .with(HostFeatures::AES, one >> 25 & 1 != 0)
            .with(HostFeatures::PCLMULQDQ, one >> 1 & 1 != 0)
            .with(HostFeatures::SHA, seven >> 29 & 1 != 0)
            .with(HostFeatures::AVX, avx)
            .with(HostFeatures::AVX2, avx && seven >> 5 & 1 != 0)
            .with(HostFeatures::FMA, avx && one >> 12 & 1 != 0)
            .with(HostFeatures::F16C, avx && one >> 29 & 1 != 0)
            .with(HostFeatures::BMI2, seven >> 8 & 1 != 0)
    }
    fn arena(&self, _capacity: usize) -> Result<Box<dyn CodeArena>, ArenaError> {
        Err(ArenaError::Unavailable("the bare machine runs no generated code yet"))
    }
}
