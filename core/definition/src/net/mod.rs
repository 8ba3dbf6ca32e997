//! Networks as people write them: which network a machine is on (`nat`, `lan:NAME`, `tap:IF`,
//! `none`), and what of the host is forwarded into it (`tcp:127.0.0.1:2222:22`).

mod choice;
mod forward;

pub use choice::{LanName, NetChoice, ParseNetError};
pub use forward::{Forward, ParseForwardError, Transport};

use alloc::borrow::Cow;
use alloc::string::{String, ToString};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

impl Serialize for NetChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_string())
    }
}

impl<'de> Deserialize<'de> for NetChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for NetChoice {
    fn schema_name() -> Cow<'static, str> {
        "NetChoice".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "The network: `nat`, `lan:NAME`, `tap:INTERFACE` or `none`.",
            "pattern": "^(nat|none|lan:[a-z0-9][a-z0-9._-]{0,31}|tap:.{1,15})$",
            "examples": ["nat", "lan:lab", "tap:tap0"],
        })
    }
}

impl Serialize for Forward {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_string())
    }
}

impl<'de> Deserialize<'de> for Forward {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Forward {
    fn schema_name() -> Cow<'static, str> {
        "Forward".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A port of the host that leads into the guest: `tcp:[ADDRESS:]HOST_PORT:GUEST_PORT`, or with `udp`. The address is 127.0.0.1 if none is given.",
            "pattern": "^(tcp|udp):(.+:)?[0-9]+:[0-9]+$",
            "examples": ["tcp:127.0.0.1:2222:22", "tcp:2222:22", "udp:[::1]:5353:53"],
        })
    }
}
