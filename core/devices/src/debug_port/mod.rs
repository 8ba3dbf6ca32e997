//! The debug consoles at 0x402 and 0xE9: a byte written is shown; a byte read is 0xE9, by which
//! firmware finds that the port is there.
//!
//! A port without registers or state: chip and glue are this one file.

use alloc::sync::Arc;

use kasane_cpu::AccessSize;
use kasane_ports::Console;
use kasane_spec_pc::port;
use lock_api::RawMutex;

use crate::bus::{AddressSpace, Device, MapError, Mapping};

/// What a read gives.
const PRESENT: u64 = 0xE9;

/// One debug console.
pub struct DebugPort {
    console: Arc<dyn Console>,
}

impl Device for DebugPort {
    fn name(&self) -> &'static str {
        "debug-port"
    }
    fn widest_access(&self) -> AccessSize {
        AccessSize::Byte
    }
    fn read(&self, _offset: u32, _size: AccessSize, _now_ns: u64) -> u64 {
        PRESENT
    }
    fn write(&self, _offset: u32, _size: AccessSize, value: u64, _now_ns: u64) {
        self.console.output(&[value as u8]);
    }
}

/// Puts a debug console at both ports.
///
/// # Errors
/// When something else has a port.
pub fn attach<R: RawMutex>(
    ports: &AddressSpace<R>,
    console: Arc<dyn Console>,
) -> Result<(), MapError> {
    let device = Arc::new(DebugPort { console });
    for base in [port::DEBUG_FIRMWARE, port::DEBUG_E9] {
        ports.map(Mapping::new(u64::from(base), 1, device.clone()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use parking_lot::{Mutex, RawMutex as Raw};

    #[derive(Default)]
    struct Log(Mutex<Vec<u8>>);
    impl Console for Log {
        fn output(&self, bytes: &[u8]) {
            self.0.lock().extend(bytes);
        }
    }

    #[test]
    fn both_ports_show_bytes_and_tell_that_they_are_there() {
        let (ports, log) = (AddressSpace::<Raw>::ports(), Arc::new(Log::default()));
        attach(&ports, log.clone()).unwrap();
        ports.write(0x402, AccessSize::Byte, 0x6F, 0);
        ports.write(0xE9, AccessSize::Byte, 0x6B, 0);
        assert_eq!(*log.0.lock(), *b"ok");
        assert_eq!(ports.read(0x402, AccessSize::Byte, 0).value, 0xE9);
        assert_eq!(ports.read(0xE9, AccessSize::Byte, 0).value, 0xE9);
    }
}
