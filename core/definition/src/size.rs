//! Sizes as people write them: `512M`, `4GiB`.

use alloc::borrow::{Cow, ToOwned};
use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// The guest's memory, in bytes: 16 MiB to 16 GiB, a multiple of 1 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemorySize(u64);

/// The size of a disk, in bytes: 1 KiB to 64 TiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DiskSize(u64);

/// A text that is no [`MemorySize`] or [`DiskSize`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseSizeError {
    /// Not a number with a unit.
    Form(String),
    /// A number without a unit.
    NoUnit(String),
    /// A unit in powers of ten (`MB`).
    DecimalUnit(String),
    /// Not between 16 MiB and 16 GiB.
    OutOfRange(String),
    /// Not a multiple of 1 MiB.
    Granularity(String),
    /// Not between 1 KiB and 64 TiB.
    DiskOutOfRange(String),
}

impl fmt::Display for ParseSizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form(text) => {
                write!(f, "`{text}` is no size: write a number and a unit, as `512M` or `4GiB`")
            }
            Self::NoUnit(text) => {
                write!(f, "`{text}` has no unit: write `{text}M` for mebibytes")
            }
            Self::DecimalUnit(text) => {
                write!(
                    f,
                    "`{text}` is in powers of ten: write K, M or G (or KiB, MiB, GiB), powers of 1024"
                )
            }
            Self::OutOfRange(text) => {
                write!(f, "`{text}` of memory is out of range: 16M to 16G")
            }
            Self::Granularity(text) => {
                write!(f, "`{text}` of memory is no multiple of 1 MiB")
            }
            Self::DiskOutOfRange(text) => {
                write!(f, "a disk of `{text}` is out of range: 1K to 64T")
            }
        }
    }
}

impl core::error::Error for ParseSizeError {}

impl MemorySize {
    /// The least: 16 MiB.
    pub const MIN: Self = Self(16 * MIB);
    /// The most: 16 GiB.
    pub const MAX: Self = Self(16 * GIB);

    /// A number of mebibytes, if it is in range.
    #[must_use]
    pub fn from_mib(mebibytes: u64) -> Option<Self> {
        let size = Self(mebibytes.checked_mul(MIB)?);
        (Self::MIN..=Self::MAX).contains(&size).then_some(size)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// The bytes that a text says; `None` if they are more than can be counted.
fn bytes_of(text: &str) -> Result<Option<u64>, ParseSizeError> {
    let form = || ParseSizeError::Form(text.to_owned());
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(end).ok_or_else(form)?;
    let number: u64 = digits.parse().map_err(|_| form())?;
    let scale = match unit.trim_start() {
        "K" | "KiB" => KIB,
        "M" | "MiB" => MIB,
        "G" | "GiB" => GIB,
        "T" | "TiB" => TIB,
        "" => return Err(ParseSizeError::NoUnit(text.to_owned())),
        "kB" | "KB" | "MB" | "GB" | "TB" => {
            return Err(ParseSizeError::DecimalUnit(text.to_owned()));
        }
        _ => return Err(form()),
    };
    Ok(number.checked_mul(scale))
}

impl DiskSize {
    /// The least: 1 KiB.
    pub const MIN: Self = Self(KIB);
    /// The most: 64 TiB.
    pub const MAX: Self = Self(64 * TIB);

    /// The number of bytes, a multiple of 1024.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for DiskSize {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let size = bytes_of(text)?.map(Self).filter(|size| (Self::MIN..=Self::MAX).contains(size));
        size.ok_or_else(|| ParseSizeError::DiskOutOfRange(text.to_owned()))
    }
}

impl Default for MemorySize {
    /// 512 MiB.
    fn default() -> Self {
        Self(512 * MIB)
    }
}

impl FromStr for MemorySize {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let out_of_range = || ParseSizeError::OutOfRange(text.to_owned());
        let size = Self(bytes_of(text)?.ok_or_else(out_of_range)?);
        if !(Self::MIN..=Self::MAX).contains(&size) {
            return Err(out_of_range());
        }
        if !size.0.is_multiple_of(MIB) {
            return Err(ParseSizeError::Granularity(text.to_owned()));
        }
        Ok(size)
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(GIB) {
            write!(f, "{}G", self.0 / GIB)
        } else {
            write!(f, "{}M", self.0 / MIB)
        }
    }
}

impl Serialize for MemorySize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_string())
    }
}

impl<'de> Deserialize<'de> for MemorySize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for MemorySize {
    fn schema_name() -> Cow<'static, str> {
        "MemorySize".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A size with its unit in powers of 1024, as `512M` or `4GiB`; 16M to 16G.",
            "pattern": "^[0-9]+ *(K|KiB|M|MiB|G|GiB)$",
            "examples": ["512M", "4GiB"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<MemorySize>().unwrap_err().to_string()
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!("512M".parse(), Ok(MemorySize(512 << 20)));
        assert_eq!("4GiB".parse(), Ok(MemorySize(4 << 30)));
        assert_eq!("32768 KiB".parse(), Ok(MemorySize(32 << 20)));
    }

    #[test]
    fn the_limits_themselves_are_allowed() {
        assert_eq!("16M".parse(), Ok(MemorySize::MIN));
        assert_eq!("16G".parse(), Ok(MemorySize::MAX));
    }

    #[test]
    fn each_wrong_size_says_what_is_wrong() {
        assert_eq!(
            error("lots"),
            "`lots` is no size: write a number and a unit, as `512M` or `4GiB`"
        );
        assert_eq!(error("512"), "`512` has no unit: write `512M` for mebibytes");
        assert_eq!(
            error("512MB"),
            "`512MB` is in powers of ten: write K, M or G (or KiB, MiB, GiB), powers of 1024"
        );
        assert_eq!(error("8M"), "`8M` of memory is out of range: 16M to 16G");
        assert_eq!(error("99999999999G"), "`99999999999G` of memory is out of range: 16M to 16G");
        assert_eq!(error("17000K"), "`17000K` of memory is no multiple of 1 MiB");
    }

    #[test]
    fn disks_have_wider_limits() {
        let error = |text: &str| text.parse::<DiskSize>().unwrap_err().to_string();

        assert_eq!("64T".parse(), Ok(DiskSize::MAX));
        assert_eq!("1 KiB".parse(), Ok(DiskSize::MIN));
        assert_eq!(error("0G"), "a disk of `0G` is out of range: 1K to 64T");
        assert_eq!(error("99999999T"), "a disk of `99999999T` is out of range: 1K to 64T");
        assert_eq!(error("1024"), "`1024` has no unit: write `1024M` for mebibytes");
    }

    #[test]
    fn the_shortest_unit_is_written() {
        assert_eq!(MemorySize(2 << 30).to_string(), "2G");
        assert_eq!(MemorySize(1536 << 20).to_string(), "1536M");
    }
}
