//! Values on the command line that have no reader of their own.

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use kasane_definition::{CpuModel, Display, Engine, VirtioTransport};
use kasane_host_disks::DiskFormat;

/// One of the CPU models.
pub(super) fn cpu_model() -> impl TypedValueParser<Value = CpuModel> {
    const ALL: [CpuModel; 3] = [CpuModel::V2, CpuModel::V3, CpuModel::Max];
    PossibleValuesParser::new(ALL.map(CpuModel::as_str))
        .map(|word| ALL.into_iter().find(|one| one.as_str() == word).unwrap_or_default())
}

/// One of the engines.
pub(super) fn engine() -> impl TypedValueParser<Value = Engine> {
    const ALL: [Engine; 4] = [Engine::Auto, Engine::Interp, Engine::Translate, Engine::Shadow];
    PossibleValuesParser::new(ALL.map(Engine::as_str))
        .map(|word| ALL.into_iter().find(|one| one.as_str() == word).unwrap_or_default())
}

/// One of the formats of disk images.
pub(super) fn disk_format() -> impl TypedValueParser<Value = DiskFormat> {
    PossibleValuesParser::new(DiskFormat::ALL.map(DiskFormat::as_str))
        .map(|word| word.parse().unwrap_or(DiskFormat::Raw))
}

/// One of the transports of virtio devices.
pub(super) fn transport() -> impl TypedValueParser<Value = VirtioTransport> {
    const ALL: [VirtioTransport; 2] = [VirtioTransport::Pci, VirtioTransport::Mmio];
    PossibleValuesParser::new(ALL.map(VirtioTransport::as_str))
        .map(|word| ALL.into_iter().find(|one| one.as_str() == word).unwrap_or_default())
}

/// One of the displays.
pub(super) fn display() -> impl TypedValueParser<Value = Display> {
    PossibleValuesParser::new(["none"]).map(|_| Display::None)
}

/// A positive number of seconds, at most a year.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    const YEAR: f64 = 31_536_000.0;
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= YEAR => Ok(Duration::from_secs_f64(number)),
        Ok(_) | Err(_) => Err("write a number of seconds, more than 0, as `60` or `0.5`".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_positive() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(seconds("0").is_err());
        assert!(seconds("-1").is_err());
        assert!(seconds("1e99").is_err());
        assert!(seconds("NaN").is_err());
    }
}
