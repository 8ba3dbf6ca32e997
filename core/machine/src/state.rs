//! The header of a saved state: of which machine it is.

use alloc::string::{String, ToString};
use core::fmt;

use kasane_devices::{RestoreError, Section};
use serde::{Deserialize, Serialize};

use crate::config::MachineConfig;

/// The header's section.
const NAME: &str = "header";
/// Version of the header's own form.
const HEADER_VERSION: u32 = 2;
/// Version of the whole: which sections there are and how they belong together.
const FORMAT: u32 = 1;
const BOARD: &str = "pc";
/// Version of the board: what chips it has and how they are wired.
const BOARD_VERSION: u32 = 2;

/// Of which machine a saved state is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedHeader {
    /// Version of the whole.
    pub format: u32,
    /// The board's name.
    pub board: String,
    /// The board's version.
    pub board_version: u32,
    /// Processors.
    pub cpus: u32,
    /// RAM in bytes.
    pub memory_bytes: u64,
    /// Whether the configuration space is in memory too.
    pub ecam: bool,
    /// The CPU model's name.
    pub cpu_model: String,
    /// The processors' features, as a bit set.
    pub cpu_features: u128,
    /// Time-stamp counter's frequency in Hz.
    pub tsc_hz: u64,
    /// The devices beyond the board's own and their places, one after the other.
    pub devices: String,
    /// Guest time when the state was saved.
    pub time_ns: u64,
}

/// A saved state that this machine can't take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SavedStateError {
    /// Something about the machine is different.
    Different {
        /// What.
        what: &'static str,
        /// As it was saved.
        saved: String,
        /// As this machine has it.
        here: String,
    },
    /// The guest may be using features that this machine's processors lack.
    MissingFeatures {
        /// Bit set of those.
        features: u128,
    },
    /// A section is missing, of another version, or malformed.
    Section(RestoreError),
}

impl From<RestoreError> for SavedStateError {
    fn from(error: RestoreError) -> Self {
        Self::Section(error)
    }
}

impl fmt::Display for SavedStateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Different { what, saved, here } => {
                write!(f, "the saved machine's {what} is {saved}, this one's is {here}")
            }
            Self::MissingFeatures { features } => {
                write!(f, "the saved machine's processors have features (bits {features:#x}) ")?;
                write!(f, "that this one's lack")
            }
            Self::Section(_) => write!(f, "a part of the saved state can't be used"),
        }
    }
}

impl core::error::Error for SavedStateError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Different { .. } | Self::MissingFeatures { .. } => None,
            Self::Section(error) => Some(error),
        }
    }
}

impl SavedHeader {
    fn of(config: &MachineConfig, devices: &str, time_ns: u64) -> Self {
        Self {
            format: FORMAT,
            board: BOARD.into(),
            board_version: BOARD_VERSION,
            cpus: config.cpus,
            memory_bytes: config.memory_bytes,
            ecam: config.ecam,
            cpu_model: config.cpu_model.name().to_string(),
            cpu_features: config.cpu_model.features().bits(),
            tsc_hz: config.tsc_hz,
            devices: devices.into(),
            time_ns,
        }
    }

    /// Finds and decodes the header, so that a home can build the machine that it describes.
    ///
    /// # Errors
    /// When it is missing, of another version, or malformed.
    pub fn read(sections: &[Section]) -> Result<Self, SavedStateError> {
        let missing = || RestoreError::Missing { name: NAME.into() };
        let section = sections.iter().find(|section| section.name == NAME).ok_or_else(missing)?;
        Ok(section.decode(NAME, HEADER_VERSION)?)
    }
}

pub(crate) fn header(config: &MachineConfig, devices: &str, time_ns: u64) -> Section {
    Section::encode(NAME, HEADER_VERSION, &SavedHeader::of(config, devices, time_ns))
}

/// Whether the state is of a machine like `config` with these devices.
pub(crate) fn check(
    config: &MachineConfig,
    devices: &str,
    sections: &[Section],
) -> Result<(), SavedStateError> {
    let saved = SavedHeader::read(sections)?;
    let here = SavedHeader::of(config, devices, saved.time_ns);
    let same = |what, saved: &dyn fmt::Display, here: &dyn fmt::Display| {
        let (saved, here) = (saved.to_string(), here.to_string());
        if saved == here { Ok(()) } else { Err(SavedStateError::Different { what, saved, here }) }
    };
    same("format version", &saved.format, &here.format)?;
    same("board", &saved.board, &here.board)?;
    same("board version", &saved.board_version, &here.board_version)?;
    same("number of processors", &saved.cpus, &here.cpus)?;
    same("memory size", &saved.memory_bytes, &here.memory_bytes)?;
    same("ECAM window", &saved.ecam, &here.ecam)?;
    same("CPU model", &saved.cpu_model, &here.cpu_model)?;
    same("TSC frequency", &saved.tsc_hz, &here.tsc_hz)?;
    same("list of devices", &saved.devices, &here.devices)?;
    match saved.cpu_features & !here.cpu_features {
        0 => Ok(()),
        features => Err(SavedStateError::MissingFeatures { features }),
    }
}
