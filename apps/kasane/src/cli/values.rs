//! Values on the command line that have no reader of their own.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use kasane_definition::{CpuModel, Display, Engine};

/// One of the CPU models.
pub(super) fn cpu_model() -> impl TypedValueParser<Value = CpuModel> {
    const ALL: [CpuModel; 3] = [CpuModel::V2, CpuModel::V3, CpuModel::Max];
    PossibleValuesParser::new(ALL.map(CpuModel::as_str))
        .map(|word| ALL.into_iter().find(|one| one.as_str() == word).unwrap_or_default())
}

/// One of the engines.
pub(super) fn engine() -> impl TypedValueParser<Value = Engine> {
    const ALL: [Engine; 2] = [Engine::Auto, Engine::Interp];
    PossibleValuesParser::new(ALL.map(Engine::as_str))
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

/// `ADDRESS:PORT`, or a port alone for this host only.
pub(super) fn gdb_address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = port.parse::<u16>() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse().map_err(|_| "write an address and a port, as `127.0.0.1:1234`".into())
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

    #[test]
    fn a_port_alone_is_of_this_host_only() {
        assert_eq!(gdb_address(":1234"), Ok(([127, 0, 0, 1], 1234).into()));
        assert_eq!(gdb_address("1234"), Ok(([127, 0, 0, 1], 1234).into()));
        assert_eq!(gdb_address("0.0.0.0:1"), Ok(([0, 0, 0, 0], 1).into()));
        assert!(gdb_address("here").is_err());
    }
}
