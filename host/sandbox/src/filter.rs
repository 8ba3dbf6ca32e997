//! The seccomp filter of vCPU threads.

use std::collections::BTreeMap;
use std::sync::Arc;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

use crate::{SandboxError, refusal, rules};

/// The filter, ready to be entered by any number of threads.
#[derive(Clone, Debug)]
pub struct VcpuFilter(Arc<BpfProgram>);

impl VcpuFilter {
    /// Translates the rules for the kernel.
    ///
    /// # Errors
    /// [`SandboxError::Filter`]; a bug.
    pub fn new() -> Result<Self, SandboxError> {
        let failed = |reason: String| SandboxError::Filter { what: "translated", reason };
        let rules: BTreeMap<_, _> = rules::allowed().map_err(|e| failed(e.to_string()))?;
        let filter = SeccompFilter::new(
            rules,
            SeccompAction::Trap,
            SeccompAction::Allow,
            TargetArch::x86_64,
        );
        let program = filter.and_then(BpfProgram::try_from);
        program.map(|program| Self(Arc::new(program))).map_err(|e| failed(e.to_string()))
    }

    /// From now on this thread makes the allowed calls only, for good; any other is reported to
    /// who [watches](crate::watch) with the number `vcpu`.
    ///
    /// # Errors
    /// [`SandboxError::Filter`] if the kernel refuses, as one without seccomp does.
    pub fn enter(&self, vcpu: u32) -> Result<(), SandboxError> {
        refusal::this_thread_is(vcpu);
        // The C library gives a thread its heap with the first allocation, and may read system
        // files for that.
        drop(std::hint::black_box(Vec::<u8>::with_capacity(4096)));
        // Also sets "no new privileges", for this thread.
        apply_filter(&self.0)
            .map_err(|e| SandboxError::Filter { what: "installed", reason: e.to_string() })
    }
}
