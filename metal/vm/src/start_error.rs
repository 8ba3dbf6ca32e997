//! Why a machine can't be started.

use alloc::string::String;
use core::fmt;

use kasane_cpu::EngineFault;
use kasane_machine::MachineError;
use kasane_machine::boot::BootError;
use kasane_metal_memory::NoMemory;

/// Why a machine can't be started.
#[derive(Debug)]
pub enum StartError {
    /// It runs.
    Runs,
    /// The definition names no kernel.
    NoKernel,
    /// A file that the loader didn't bring.
    NoFile(String),
    /// Something that this home doesn't have yet.
    NotHere(&'static str),
    /// The engine that the definition wants.
    NoEngine(&'static str),
    /// The model promises what this processor lacks.
    Model(&'static str),
    /// Guest RAM.
    Ram(NoMemory),
    /// The wiring.
    Machine(MachineError),
    /// The kernel or its initial RAM disk.
    Boot(BootError),
    /// The engine.
    Engine(EngineFault),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs => f.write_str("it runs already"),
            Self::NoKernel => f.write_str("its definition names no kernel"),
            Self::NoFile(name) => write!(f, "the loader brought no file `{name}`"),
            Self::NotHere(what) => write!(f, "{what} are not there yet on the bare machine"),
            Self::NoEngine(name) => write!(f, "this processor has no `{name}`"),
            Self::Model(name) => write!(f, "this processor lacks something of the model {name}"),
            Self::Ram(error) => write!(f, "{error}"),
            Self::Machine(error) => write!(f, "it can't be built: {error}"),
            Self::Boot(error) => write!(f, "its kernel can't be booted: {error}"),
            Self::Engine(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for StartError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Ram(error) => Some(error),
            Self::Machine(error) => Some(error),
            Self::Boot(error) => Some(error),
            Self::Engine(error) => Some(error),
            Self::Runs
            | Self::NoKernel
            | Self::NoFile(_)
            | Self::NotHere(_)
            | Self::NoEngine(_)
            | Self::Model(_) => None,
        }
    }
}

impl From<NoMemory> for StartError {
    fn from(error: NoMemory) -> Self {
        Self::Ram(error)
    }
}

impl From<MachineError> for StartError {
    fn from(error: MachineError) -> Self {
        Self::Machine(error)
    }
}

impl From<BootError> for StartError {
    fn from(error: BootError) -> Self {
        Self::Boot(error)
    }
}

impl From<EngineFault> for StartError {
    fn from(error: EngineFault) -> Self {
        Self::Engine(error)
    }
}
