//! Saved state: versioned sections by stable names, independent of struct layout (DESIGN §4).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// One device's saved state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Section {
    /// Stable name: `pit`, `serial.0`, `virtio-blk.vda`.
    pub name: String,
    /// Version of `bytes`; each device counts its own from 1.
    pub version: u32,
    /// The state in postcard form.
    pub bytes: Vec<u8>,
}

impl Section {
    /// Encodes `state` under `name`.
    #[must_use]
    pub fn encode(name: &str, version: u32, state: &impl Serialize) -> Self {
        // Encoding into a growing vector has no failure that depends on the data: postcard
        // refuses only sequences of unknown length, which no saved form has.
        let bytes = postcard::to_allocvec(state).unwrap_or_default();
        Self { name: String::from(name), version, bytes }
    }

    /// Decodes the state of a section that must be called `name` and be of `version`.
    ///
    /// # Errors
    /// Another name, an unknown version, or bytes that don't decode.
    pub fn decode<T: DeserializeOwned>(&self, name: &str, version: u32) -> Result<T, RestoreError> {
        if self.name != name {
            return Err(RestoreError::Name {
                expected: String::from(name),
                found: self.name.clone(),
            });
        }
        if self.version != version {
            return Err(RestoreError::Version { name: self.name.clone(), found: self.version });
        }
        postcard::from_bytes(&self.bytes)
            .map_err(|_| RestoreError::Malformed { name: self.name.clone() })
    }
}

/// A section that a device could not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// The section belongs to another device.
    Name {
        /// The device's section name.
        expected: String,
        /// The section's name.
        found: String,
    },
    /// The section is of a version that this build doesn't know.
    Version {
        /// Section.
        name: String,
        /// Its version.
        found: u32,
    },
    /// The bytes don't decode, or hold values that the device can't have.
    Malformed {
        /// Section.
        name: String,
    },
    /// A device's section is missing.
    Missing {
        /// Section.
        name: String,
    },
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { expected, found } => {
                write!(f, "saved section `{found}` given to device `{expected}`")
            }
            Self::Version { name, found } => {
                write!(f, "saved section `{name}` has unknown version {found}")
            }
            Self::Malformed { name } => write!(f, "saved section `{name}` is malformed"),
            Self::Missing { name } => write!(f, "saved section `{name}` is missing"),
        }
    }
}

impl core::error::Error for RestoreError {}

/// A device whose state can be saved and taken back.
///
/// Times in saved states are guest nanoseconds: the home gives the restored machine a clock that
/// goes on where the saved one stood.
pub trait Saved: Send + Sync {
    /// The stable name of the device's section.
    fn section_name(&self) -> &str;
    /// From now on nothing comes in from the device's backend, so that neither its state nor guest
    /// memory changes by it. Returns when no call of the backend's is under way. As many calls of
    /// [`release`](Self::release) end it as there were of this.
    fn hold(&self) {}
    /// The device's backend may go on, and is told so.
    fn release(&self) {}
    /// Waits until what the device has under way elsewhere is done, so that it can be saved. No
    /// vCPU runs.
    fn settle(&self) {}
    /// The state now. The machine is paused: no vCPU runs, no deadline is being served, the device
    /// is held, and `settle` was called.
    fn save(&self) -> Section;
    /// Takes over a saved state and drives the output wires to their saved levels, without
    /// repeating one-time effects.
    ///
    /// # Errors
    /// A section that isn't this device's, of an unknown version, or malformed; the device then
    /// keeps its state.
    fn restore(&self, section: &Section) -> Result<(), RestoreError>;
}

/// Makes the saved form of a chip: a struct of its own, with each field of the chip named once,
/// so that the chip can't grow state that is forgotten. Fields after `not` are wiring or
/// configuration that a new machine has from its definition.
macro_rules! saved_form {
    ($form:ident of $chip:ident {
        $($field:ident: $type:ty),* $(,)?
    } $(not { $($skipped:ident),* $(,)? })?) => {
        #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
        pub(crate) struct $form {
            $($field: $type),*
        }
        impl $form {
            pub(crate) fn of(chip: &$chip) -> Self {
                let $chip { $($field,)* $($($skipped: _),*)? } = chip;
                Self { $($field: $field.clone()),* }
            }
            pub(crate) fn put(self, chip: &mut $chip) {
                let Self { $($field),* } = self;
                $(chip.$field = $field;)*
            }
        }
    };
}
pub(crate) use saved_form;
