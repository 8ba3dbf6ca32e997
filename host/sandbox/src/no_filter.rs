//! Systems without our filter: nothing is refused.

use std::convert::Infallible;

use crate::{Provocation, Refused, SandboxError};

/// No filter: there is none for this system.
#[derive(Clone, Copy, Debug)]
pub struct VcpuFilter(());

impl VcpuFilter {
    /// Nothing.
    ///
    /// # Errors
    /// None.
    pub fn new() -> Result<Self, SandboxError> {
        Ok(Self(()))
    }

    /// Does nothing.
    ///
    /// # Errors
    /// None.
    pub fn enter(&self, _vcpu: u32) -> Result<(), SandboxError> {
        Ok(())
    }
}

/// Does nothing: nothing is refused.
///
/// # Errors
/// None.
pub fn watch(
    _status: u8,
    _end: impl FnOnce(Refused) -> Infallible + Send + 'static,
) -> Result<(), SandboxError> {
    Ok(())
}

/// Does nothing.
pub fn provoke(_provocation: Provocation) {}
