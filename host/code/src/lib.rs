//! The hosted `CodeRunner` (see `kasane-passthrough`): executable memory, entering it, and host
//! exceptions inside it reported as values.
//!
//! On Linux an arena is one memory file mapped twice, once writable and once executable; signal
//! handlers for SIGFPE, SIGILL, SIGSEGV, SIGBUS and SIGTRAP recover from exceptions whose
//! instruction pointer lies in the arena that the thread runs, and pass all others on to the
//! handlers that were there before. On other hosts [`HostCode::new`] says that there is none.
//!
//! [`jitdump`] tells `perf` of code that is made.
//!
//! This crate needs `unsafe` for the mappings, the signal handlers and the call into the arena.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod arena;
pub mod jitdump;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod signals;
#[cfg(target_arch = "x86_64")]
pub mod ticks;

use kasane_passthrough::{ArenaError, CodeArena, CodeRunner, HostFeatures};

/// Gives arenas of executable memory of this process.
#[derive(Debug)]
pub struct HostCode {
    features: HostFeatures,
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
impl HostCode {
    /// Installs the signal handlers (once per process) and looks at the CPU.
    ///
    /// # Errors
    /// When the host refuses the handlers.
    pub fn new() -> Result<Self, ArenaError> {
        signals::install()?;
        Ok(Self { features: detect() })
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
impl CodeRunner for HostCode {
    fn features(&self) -> HostFeatures {
        self.features
    }
    fn arena(&self, capacity: usize) -> Result<Box<dyn CodeArena>, ArenaError> {
        Ok(Box::new(arena::HostArena::new(capacity)?))
    }
}

/// What the CPU has and the operating system saves.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn detect() -> HostFeatures {
    use std::is_x86_feature_detected as has;
    HostFeatures::default()
        .with(HostFeatures::SSE3, has!("sse3"))
        .with(HostFeatures::SSSE3, has!("ssse3"))
        .with(HostFeatures::SSE4_1, has!("sse4.1"))
        .with(HostFeatures::SSE4_2, has!("sse4.2"))
        .with(HostFeatures::AES, has!("aes"))
        .with(HostFeatures::PCLMULQDQ, has!("pclmulqdq"))
        .with(HostFeatures::SHA, has!("sha"))
        .with(HostFeatures::AVX, has!("avx"))
        .with(HostFeatures::AVX2, has!("avx2"))
        .with(HostFeatures::FMA, has!("fma"))
        .with(HostFeatures::F16C, has!("f16c"))
        .with(HostFeatures::BMI2, has!("bmi2"))
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
impl HostCode {
    /// There is none on this host yet.
    ///
    /// # Errors
    /// Always.
    pub fn new() -> Result<Self, ArenaError> {
        Err(ArenaError::Unavailable("only Linux on x86-64 runs guest vector instructions so far"))
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
impl CodeRunner for HostCode {
    fn features(&self) -> HostFeatures {
        self.features
    }
    fn arena(&self, _capacity: usize) -> Result<Box<dyn CodeArena>, ArenaError> {
        Err(ArenaError::Unavailable("only Linux on x86-64 runs guest vector instructions so far"))
    }
}
