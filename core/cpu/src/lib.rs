//! What a virtual processor is: its architectural state, the values it stops and goes on with
//! ([`Exit`], [`Entry`]), the traits every engine has ([`Partition`], [`Vcpu`]), address
//! translation, the local APIC and the CPUID models.
#![no_std]
extern crate alloc;

pub mod apic;
pub mod cpuid;
pub mod engine;
pub mod exit;
pub mod paging;
pub mod saved;
pub mod segment;
pub mod state;
pub mod vector_state;

pub use engine::{EngineFault, Partition, Vcpu};
pub use exit::{AccessSize, Entry, Exit};
pub use segment::{DescriptorTable, Seg, SegmentRegister};
pub use state::{Activity, CpuState, Gpr, InterruptShadow, StateSet};
pub use vector_state::VectorState;
