//! The definition itself: what the guest sees.

use alloc::borrow::{Cow, ToOwned};
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{BootDefinition, DefinitionError, DevicesDefinition, HomeDefinition, MemorySize};

/// A virtual machine's definition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Kasane VM definition")]
pub struct VmDefinition {
    /// The machine's name.
    #[serde(default)]
    pub name: VmName,
    /// The board that the machine is built on.
    #[serde(default)]
    pub board: Board,
    /// The guest's memory.
    #[serde(default)]
    pub memory: MemorySize,
    /// How many processors the guest has.
    #[serde(default)]
    pub cpus: CpuCount,
    /// What each processor can do.
    #[serde(default)]
    pub cpu: CpuModel,
    /// What the machine starts with.
    #[serde(default, skip_serializing_if = "BootDefinition::is_empty")]
    pub boot: BootDefinition,
    /// What devices the machine has besides its board's.
    #[serde(default, skip_serializing_if = "DevicesDefinition::is_default")]
    pub devices: DevicesDefinition,
    /// What each home lends to the machine.
    #[serde(default, skip_serializing_if = "HomeDefinition::is_default")]
    pub home: HomeDefinition,
}

impl VmDefinition {
    /// Reads a definition.
    ///
    /// # Errors
    /// The first fault of the text, with its place and a hint.
    pub fn parse(text: &str) -> Result<Self, DefinitionError> {
        toml::from_str(text).map_err(|error| DefinitionError::new(text, &error))
    }

    /// Writes the definition, every value spelled out.
    ///
    /// # Errors
    /// None that is known: every definition can be written as TOML.
    pub fn to_toml(&self) -> Result<String, impl core::error::Error + use<>> {
        toml::to_string(self)
    }

    /// The JSON schema of the file.
    #[must_use]
    pub fn schema() -> Schema {
        schemars::schema_for!(Self)
    }
}

/// A machine's name: 1 to 64 letters, digits, `.`, `_` and `-`, of which the first is a letter
/// or a digit, so that it is a file name and a host name everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmName(String);

/// A text that is no [`VmName`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidName(String);

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no name: 1 to 64 letters, digits, `.`, `_` and `-`, the first a letter or a digit",
            self.0.escape_debug()
        )
    }
}

impl core::error::Error for InvalidName {}

impl VmName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for VmName {
    fn default() -> Self {
        Self("vm".to_owned())
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for VmName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let sound = (1..=64).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if sound { Ok(Self(text.to_owned())) } else { Err(InvalidName(text.to_owned())) }
    }
}

impl Serialize for VmName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for VmName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for VmName {
    fn schema_name() -> Cow<'static, str> {
        "VmName".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A name that is a file name and a host name everywhere.",
            "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        })
    }
}

/// A board: which chips there are and how they are wired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Board {
    /// i440FX and PIIX3.
    #[default]
    Pc,
}

impl Board {
    /// The word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pc => "pc",
        }
    }
}

/// What a processor can do (the levels of the x86-64 psABI). Saved machines of a named level move
/// between hosts that have it; those of `max` don't.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CpuModel {
    /// SSE4.2, POPCNT, CMPXCHG16B.
    #[serde(rename = "x86-64-v2")]
    V2,
    /// And AVX2, BMI, FMA, MOVBE.
    #[serde(rename = "x86-64-v3")]
    V3,
    /// All that the engine has here.
    #[default]
    #[serde(rename = "max")]
    Max,
}

impl CpuModel {
    /// The word in the file and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2 => "x86-64-v2",
            Self::V3 => "x86-64-v3",
            Self::Max => "max",
        }
    }
}

/// How many processors: 1 to 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuCount(u32);

/// A number of processors that a machine can't have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfRange(String);

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cpus are out of range: 1 to 8", self.0)
    }
}

impl core::error::Error for OutOfRange {}

impl CpuCount {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for CpuCount {
    /// One.
    fn default() -> Self {
        Self(1)
    }
}

impl TryFrom<i64> for CpuCount {
    type Error = OutOfRange;

    fn try_from(number: i64) -> Result<Self, Self::Error> {
        match u32::try_from(number) {
            Ok(count @ 1..=8) => Ok(Self(count)),
            Ok(_) | Err(_) => Err(OutOfRange(number.to_string())),
        }
    }
}

impl FromStr for CpuCount {
    type Err = OutOfRange;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number: i64 = text.parse().map_err(|_| OutOfRange(format!("`{text}`")))?;
        Self::try_from(number)
    }
}

impl Serialize for CpuCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for CpuCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(i64::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for CpuCount {
    fn schema_name() -> Cow<'static, str> {
        "CpuCount".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "integer",
            "description": "How many processors the guest has.",
            "minimum": 1,
            "maximum": 8,
        })
    }
}
