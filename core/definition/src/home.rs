//! What each home lends to the machine.

use alloc::borrow::{Cow, ToOwned};
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::num::{NonZeroU32, NonZeroU64};
use core::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Forward, NetChoice};

/// The `[home]` tables; each home reads its own and leaves the others alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HomeDefinition {
    /// When run as a process on an operating system.
    #[serde(default, skip_serializing_if = "HostedHome::is_default")]
    pub hosted: HostedHome,
    /// When run by the bare-metal hypervisor.
    #[serde(default, skip_serializing_if = "MetalHome::is_default")]
    pub metal: MetalHome,
}

impl HomeDefinition {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// `[home.hosted]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostedHome {
    /// What makes guest instructions run.
    #[serde(default)]
    pub engine: Engine,
    /// Where the first serial port goes.
    #[serde(default)]
    pub serial: Serial,
    /// Where the screen goes.
    #[serde(default)]
    pub display: Display,
    /// Where the virtio console goes.
    #[serde(default = "Serial::none")]
    pub console: Serial,
    /// What is behind each disk, by its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub disk: BTreeMap<String, HostedDisk>,
    /// What network each card is on, by its name; without an entry the NAT.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub net: BTreeMap<String, HostedNet>,
    /// What folder each share is, by its tag.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub share: BTreeMap<String, HostedShare>,
    /// The Unix socket by which programs reach the guest's sockets, relative to the definition
    /// file; without it `NAME.vsock` in the user's runtime folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<String>,
}

impl Default for HostedHome {
    fn default() -> Self {
        Self {
            engine: Engine::default(),
            serial: Serial::default(),
            display: Display::default(),
            console: Serial::None,
            disk: BTreeMap::new(),
            net: BTreeMap::new(),
            share: BTreeMap::new(),
            vsock: None,
        }
    }
}

/// The image behind a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostedDisk {
    /// The image, relative to the definition file.
    pub file: String,
    /// `raw` or `qcow2`; without it by what the file begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// The host doesn't cache it (`O_DIRECT`); raw images only.
    #[serde(default)]
    pub direct: bool,
    /// Bytes in a second at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<NonZeroU64>,
    /// Requests in a second at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations_per_second: Option<NonZeroU64>,
}

/// The network that a card is on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostedNet {
    /// `nat`, `lan:NAME`, `tap:INTERFACE` or `none` (a card without a cable).
    #[serde(default)]
    pub to: NetChoice,
    /// Ports of the host that lead into the guest: `tcp:[ADDRESS:]HOST_PORT:GUEST_PORT`. Of the
    /// NAT only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forward: Vec<Forward>,
    /// All frames are written to this file (pcap), relative to the definition file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<String>,
}

/// A shared folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostedShare {
    /// The folder, relative to the definition file.
    pub directory: String,
}

impl HostedHome {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// `[home.metal]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetalHome {
    /// When the machine starts.
    #[serde(default)]
    pub start: MetalStart,
    /// What makes guest instructions run.
    #[serde(default)]
    pub engine: MetalEngine,
    /// Share of the processors, relative to other machines' (100).
    #[serde(default = "MetalHome::ordinary_weight")]
    pub weight: NonZeroU32,
}

impl Default for MetalHome {
    fn default() -> Self {
        Self {
            start: MetalStart::default(),
            engine: MetalEngine::default(),
            weight: Self::ordinary_weight(),
        }
    }
}

impl MetalHome {
    const fn ordinary_weight() -> NonZeroU32 {
        NonZeroU32::MIN.saturating_add(99)
    }

    /// Whether nothing is said.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// When a machine on the bare-metal hypervisor starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MetalStart {
    /// When the monitor is told to.
    #[default]
    Command,
    /// As soon as the hypervisor runs.
    Boot,
}

/// What makes guest instructions run on the bare-metal hypervisor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MetalEngine {
    /// The best that the processor has.
    #[default]
    Auto,
    /// The interpreter.
    Interp,
    /// AMD-V, with nested paging.
    Svm,
    /// VT-x, with extended page tables.
    Vmx,
}

/// What makes guest instructions run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The best that works here.
    #[default]
    Auto,
    /// The interpreter.
    Interp,
    /// The binary translator: much faster, for machines with one processor so far.
    Translate,
    /// The binary translator with the interpreter doing everything again, to compare the two: for
    /// developers, very slow, one processor.
    Shadow,
}

impl Engine {
    /// The word in the file and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Interp => "interp",
            Self::Translate => "translate",
            Self::Shadow => "shadow",
        }
    }
}

/// Where the screen goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Display {
    /// Nowhere.
    #[default]
    None,
}

/// Where a serial port goes: `stdio`, `none` or `file:PATH`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Serial {
    /// The terminal that the program runs in.
    #[default]
    Stdio,
    /// Nowhere; nothing comes in.
    None,
    /// Output goes to a file, relative to the definition file; nothing comes in.
    File(String),
}

/// A word that is no [`Serial`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseSerialError(String);

impl fmt::Display for ParseSerialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no serial port: write `stdio`, `none` or `file:PATH`", self.0)
    }
}

impl core::error::Error for ParseSerialError {}

impl Serial {
    const fn none() -> Self {
        Self::None
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdio => f.write_str("stdio"),
            Self::None => f.write_str("none"),
            Self::File(path) => write!(f, "file:{path}"),
        }
    }
}

impl FromStr for Serial {
    type Err = ParseSerialError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.strip_prefix("file:")) {
            ("stdio", _) => Ok(Self::Stdio),
            ("none", _) => Ok(Self::None),
            (_, Some(path)) if !path.is_empty() => Ok(Self::File(path.to_owned())),
            (_, Some(_) | None) => Err(ParseSerialError(text.to_owned())),
        }
    }
}

impl Serialize for Serial {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_string())
    }
}

impl<'de> Deserialize<'de> for Serial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Serial {
    fn schema_name() -> Cow<'static, str> {
        "Serial".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Where a serial port goes: `stdio`, `none` or `file:PATH`.",
            "pattern": "^(stdio|none|file:.+)$",
        })
    }
}
