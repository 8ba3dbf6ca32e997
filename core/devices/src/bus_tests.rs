use super::*;
use parking_lot::RawMutex as Raw;

struct Echo {
    name: &'static str,
    widest: AccessSize,
    log: parking_lot::Mutex<Vec<(u32, u8, u64)>>,
}

impl Echo {
    fn new(name: &'static str, widest: AccessSize) -> Arc<Self> {
        Arc::new(Self { name, widest, log: parking_lot::Mutex::default() })
    }
}

impl Device for Echo {
    fn name(&self) -> &'static str {
        self.name
    }
    fn widest_access(&self) -> AccessSize {
        self.widest
    }
    fn read(&self, offset: u32, size: AccessSize, _now_ns: u64) -> u64 {
        self.log.lock().push((offset, size.bytes(), 0));
        u64::from(offset).wrapping_mul(0x0101_0101)
    }
    fn write(&self, offset: u32, size: AccessSize, value: u64, _now_ns: u64) {
        self.log.lock().push((offset, size.bytes(), value));
    }
}

#[test]
fn nothing_mapped_reads_all_ones_of_the_size() {
    let ports = AddressSpace::<Raw>::ports();
    assert_eq!(ports.read(0x300, AccessSize::Byte, 0), Reply { value: 0xFF, device: None });
    assert_eq!(ports.read(0x300, AccessSize::Dword, 0).value, 0xFFFF_FFFF);
    assert_eq!(ports.write(0x300, AccessSize::Word, 1, 0).device, None);
}

#[test]
fn wide_accesses_to_a_byte_device_become_consecutive_bytes() {
    let ports = AddressSpace::<Raw>::ports();
    let echo = Echo::new("echo", AccessSize::Byte);
    ports.map(Mapping::new(0x40, 4, echo.clone())).unwrap();
    ports.write(0x41, AccessSize::Word, 0xBEEF, 0);
    assert_eq!(*echo.log.lock(), [(1, 1, 0xEF), (2, 1, 0xBE)]);
    assert_eq!(ports.read(0x40, AccessSize::Dword, 0).value, 0x0302_0100);
}

#[test]
fn an_access_across_an_edge_reaches_both_sides() {
    let ports = AddressSpace::<Raw>::ports();
    let echo = Echo::new("echo", AccessSize::Dword);
    ports.map(Mapping::new(0x100, 2, echo.clone()).at_offset(8)).unwrap();
    assert_eq!(ports.read(0xFF, AccessSize::Dword, 0).value, 0xFF09_08FF);
    assert_eq!(ports.read(0x101, AccessSize::Word, 0).value, 0xFF09);
}

#[test]
fn an_overlay_takes_only_what_lies_inside_it() {
    let ports = AddressSpace::<Raw>::ports();
    let config = Echo::new("config", AccessSize::Dword);
    let reset = Echo::new("reset", AccessSize::Byte);
    ports.map(Mapping::new(0xCF8, 8, config.clone())).unwrap();
    ports.map(Mapping::new(0xCF9, 1, reset.clone()).overlay()).unwrap();
    assert_eq!(ports.write(0xCF8, AccessSize::Dword, 1, 0).device, Some("config"));
    assert_eq!(ports.write(0xCF9, AccessSize::Byte, 6, 0).device, Some("reset"));
    assert_eq!(*reset.log.lock(), [(0, 1, 6)]);
}

#[test]
fn overlaps_and_bad_ranges_are_refused() {
    let ports = AddressSpace::<Raw>::ports();
    let echo = Echo::new("echo", AccessSize::Byte);
    ports.map(Mapping::new(0x20, 2, echo.clone())).unwrap();
    let overlap = |base, len| ports.map(Mapping::new(base, len, echo.clone())).unwrap_err();
    assert_eq!(overlap(0x21, 4), MapError::Overlap { base: 0x21, len: 4, by: "echo" });
    assert_eq!(overlap(0x10, 0x100), MapError::Overlap { base: 0x10, len: 0x100, by: "echo" });
    assert_eq!(overlap(0xFFFF, 2), MapError::Range { base: 0xFFFF, len: 2 });
    assert_eq!(overlap(0x80, 0), MapError::Range { base: 0x80, len: 0 });
    ports.map(Mapping::new(0x22, 1, echo.clone())).unwrap();
}

#[test]
fn a_mapping_moves_switches_off_and_comes_back() {
    let memory = AddressSpace::<Raw>::memory();
    let echo = Echo::new("bar", AccessSize::Qword);
    let id = memory.map_inactive(Mapping::new(0, 0x1000, echo.clone()));
    assert_eq!(memory.device_at(0), None);
    memory.relocate(id, Some(0xFEB0_0000)).unwrap();
    assert_eq!(memory.read(0xFEB0_0010, AccessSize::Qword, 0).device, Some("bar"));
    memory.relocate(id, Some(u64::MAX - 0xFFF)).unwrap();
    assert_eq!(memory.device_at(0xFEB0_0000), None);
    assert_eq!(memory.device_at(u64::MAX), Some("bar"));
    assert!(memory.relocate(id, Some(u64::MAX)).is_err());
    assert_eq!(memory.device_at(u64::MAX), None);
    memory.relocate(id, Some(0)).unwrap();
    memory.unmap(id).unwrap();
    assert_eq!(memory.relocate(id, None), Err(MapError::Unknown));
    assert_eq!(memory.layout(), []);
}
