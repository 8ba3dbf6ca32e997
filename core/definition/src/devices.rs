//! The devices that a machine has besides its board's: disks, network cards, shared folders and
//! the small virtio devices. What is behind each (a file, a network, a folder) is a home's to say.

use alloc::borrow::{Cow, ToOwned};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A disk, as the guest sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskDefinition {
    /// Its name; without one `vda`, `vdb` and so on by its place in the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<DeviceName>,
    /// Its slot on the PCI bus; without one the next that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<PciSlot>,
    /// Its serial number, which the guest finds it by (`/dev/disk/by-id/virtio-SERIAL`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<DiskSerial>,
    /// The guest can't write to it.
    #[serde(default)]
    pub read_only: bool,
}

/// A network card, as the guest sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetDefinition {
    /// Its name; without one `net0`, `net1` and so on by its place in the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<DeviceName>,
    /// Its slot on the PCI bus; without one the next that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<PciSlot>,
    /// Its Ethernet address; without one it follows from the machine's name and the card's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
}

/// A shared folder, as the guest sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareDefinition {
    /// What the guest mounts it by: `mount -t virtiofs TAG /mnt`.
    pub tag: DeviceName,
    /// Its slot on the PCI bus; without one the next that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<PciSlot>,
    /// The guest can't write to it.
    #[serde(default)]
    pub read_only: bool,
}

/// How the guest reaches its virtio devices (virtio 1.2 §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VirtioTransport {
    /// As functions of the PCI bus.
    #[default]
    Pci,
    /// As registers in memory, for guests without a driver for PCI.
    Mmio,
}

impl VirtioTransport {
    /// The word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pci => "pci",
            Self::Mmio => "mmio",
        }
    }
}

/// All of a machine's devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DevicesDefinition {
    /// How the guest reaches all of them.
    #[serde(default)]
    pub transport: VirtioTransport,
    /// Disks, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disk: Vec<DiskDefinition>,
    /// Network cards, in their order; without the key one, with an empty list none.
    #[serde(default = "one_net")]
    pub net: Vec<NetDefinition>,
    /// Shared folders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub share: Vec<ShareDefinition>,
    /// Whether there is a source of random numbers.
    #[serde(default = "yes")]
    pub rng: bool,
    /// Whether there is a balloon, by which the guest gives back memory that it doesn't use.
    #[serde(default = "yes")]
    pub balloon: bool,
    /// The context id of the guest's sockets to its host; without it there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<GuestCid>,
    /// Whether there is a virtio console (`hvc0`).
    #[serde(default)]
    pub console: bool,
}

fn one_net() -> Vec<NetDefinition> {
    alloc::vec![NetDefinition::default()]
}
const fn yes() -> bool {
    true
}

impl Default for DevicesDefinition {
    fn default() -> Self {
        Self {
            transport: VirtioTransport::Pci,
            disk: Vec::new(),
            net: one_net(),
            share: Vec::new(),
            rng: true,
            balloon: true,
            vsock: None,
            console: false,
        }
    }
}

impl DevicesDefinition {
    /// Whether it is as without the table.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A text that is no value of one of the types here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidDevice {
    text: String,
    expected: &'static str,
}

impl InvalidDevice {
    fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.to_owned(), expected }
    }
}

impl fmt::Display for InvalidDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is {}", self.text.escape_debug(), self.expected)
    }
}

impl core::error::Error for InvalidDevice {}

/// Types that stand as a text in the file and on the command line.
macro_rules! as_text {
    ($type:ty, $name:literal, $description:literal, $pattern:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.to_string())
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $description, "pattern": $pattern })
            }
        }
    };
}

/// A device's name: 1 to 36 of `a`-`z`, `A`-`Z`, `0`-`9`, `-`, `_` and `.`, the first a letter or
/// a digit (36 bytes are what a tag of virtio-fs has, virtio 1.2 §5.11.4).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceName(String);

impl DeviceName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DeviceName {
    type Err = InvalidDevice;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |c: char| c.is_ascii_alphanumeric();
        let sound = text.len() <= 36
            && text.starts_with(plain)
            && text.chars().all(|c| plain(c) || matches!(c, '-' | '_' | '.'));
        let expected = "no name of a device: 1 to 36 letters, digits, `-`, `_` and `.`, the first a letter or digit";
        if sound { Ok(Self(text.to_owned())) } else { Err(InvalidDevice::new(text, expected)) }
    }
}

as_text!(
    DeviceName,
    "DeviceName",
    "A device's name: 1 to 36 letters, digits, `-`, `_` and `.`.",
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,35}$"
);

/// A disk's serial number: 1 to 20 printable ASCII characters without spaces and commas
/// (virtio 1.2 §5.2.6, `VIRTIO_BLK_ID_BYTES`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSerial(String);

impl DiskSerial {
    /// As the device tells it: filled up with zeros.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 20] {
        let mut bytes = [0; 20];
        for (to, from) in bytes.iter_mut().zip(self.0.bytes()) {
            *to = from;
        }
        bytes
    }
}

impl fmt::Display for DiskSerial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DiskSerial {
    type Err = InvalidDevice;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let sound = (1..=20).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_graphic() && c != ',');
        let expected = "no serial number: 1 to 20 ASCII characters without spaces and commas";
        if sound { Ok(Self(text.to_owned())) } else { Err(InvalidDevice::new(text, expected)) }
    }
}

as_text!(
    DiskSerial,
    "DiskSerial",
    "A disk's serial number: 1 to 20 ASCII characters without spaces and commas.",
    "^[!-+\\--~]{1,20}$"
);

/// The Ethernet address of one card, not of a group: `52:54:00:12:34:56`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address of a card by its machine's name and its own: always the same, different for
    /// different names as far as 32 bits go, and locally administered.
    #[must_use]
    pub fn of(machine: &str, card: &str) -> Self {
        // FNV-1a, with a byte between the names that is in neither.
        let bytes = machine.bytes().chain([0]).chain(card.bytes());
        let hash = bytes.fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
        });
        let [a, b, c, d, ..] = (hash ^ hash >> 32).to_le_bytes();
        Self([0x52, 0x54, a, b, c, d])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = InvalidDevice;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "no Ethernet address of a card: write six bytes like `52:54:00:12:34:56`";
        let wrong = || InvalidDevice::new(text, expected);
        let byte = |part: &str| match part.len() {
            2 if part.chars().all(|c| c.is_ascii_hexdigit()) => u8::from_str_radix(part, 16).ok(),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        let bytes: [u8; 6] = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)?;
        let is_group = bytes.first().is_some_and(|first| first & 1 != 0);
        if is_group || bytes == [0; 6] { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}

as_text!(
    MacAddress,
    "MacAddress",
    "An Ethernet address: six bytes like 52:54:00:12:34:56.",
    "^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$"
);

/// Types that stand as a number in the file.
macro_rules! as_number {
    ($type:ident, $least:literal, $most:literal, $expected:literal, $description:literal) => {
        impl $type {
            /// The number.
            #[must_use]
            pub const fn get(self) -> u32 {
                self.0
            }
        }
        impl TryFrom<i64> for $type {
            type Error = InvalidDevice;

            fn try_from(number: i64) -> Result<Self, Self::Error> {
                match u32::try_from(number) {
                    Ok(number @ $least..=$most) => Ok(Self(number)),
                    Ok(_) | Err(_) => Err(InvalidDevice::new(&format!("{number}"), $expected)),
                }
            }
        }
        impl FromStr for $type {
            type Err = InvalidDevice;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let number: i64 = text.parse().map_err(|_| InvalidDevice::new(text, $expected))?;
                Self::try_from(number)
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_u32(self.0)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::try_from(i64::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "integer",
                    "description": $description,
                    "minimum": $least,
                    "maximum": $most,
                })
            }
        }
    };
}

/// A slot on the PCI bus that the board leaves free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciSlot(u32);

as_number!(PciSlot, 2, 31, "no free slot of the PCI bus: 2 to 31", "A slot on the PCI bus.");

/// The context id of a guest's sockets (virtio 1.2 §5.10.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestCid(u32);

as_number!(
    GuestCid,
    3,
    4_294_967_294u32,
    "no context id of a guest: 3 to 4294967294",
    "The context id of the guest's sockets."
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_cards_are_written_as_they_are_read() {
        let address: MacAddress = "52:54:00:AB:cd:ef".parse().unwrap();

        assert_eq!(address.to_string(), "52:54:00:ab:cd:ef");
        for wrong in
            ["", "52:54:00:12:34", "01:00:00:00:00:01", "+1:54:00:12:34:56", "00:00:00:00:00:00"]
        {
            assert!(wrong.parse::<MacAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn cards_of_different_machines_have_different_addresses_of_their_own() {
        let [a, b, c] = [("vm", "net0"), ("vm", "net1"), ("v", "mnet0")]
            .map(|(machine, card)| MacAddress::of(machine, card));

        assert!(a != b && a != c && b != c);
        assert_eq!(a, MacAddress::of("vm", "net0"));
        assert_eq!(a.0[0] & 3, 2, "locally administered, of one card");
    }

    #[test]
    fn serial_numbers_are_short_and_plain() {
        assert_eq!("ABC-1".parse::<DiskSerial>().unwrap().to_bytes()[..6], *b"ABC-1\0");
        for wrong in ["", "a b", "a,b", "123456789012345678901", "ä"] {
            assert!(wrong.parse::<DiskSerial>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn slots_and_context_ids_have_their_ranges() {
        assert!(PciSlot::try_from(2).is_ok() && PciSlot::try_from(1).is_err());
        assert!(PciSlot::try_from(31).is_ok() && PciSlot::try_from(32).is_err());
        assert!(GuestCid::try_from(2).is_err() && "3".parse::<GuestCid>().is_ok());
        assert!(GuestCid::try_from(0xFFFF_FFFF).is_err());
    }
}
