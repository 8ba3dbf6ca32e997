//! What the firmware of a PC leaves in the CMOS memory: sizes and equipment.

/// How much memory a machine has, as its CMOS tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of RAM below 4 GiB.
    pub below_4g: u64,
    /// Bytes of RAM from 4 GiB on.
    pub above_4g: u64,
}

/// The clock's start and the CMOS memory's first contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CmosConfig {
    /// Nanoseconds since 1970-01-01 UTC at guest nanosecond 0.
    pub wall_clock_ns: u64,
    /// RAM.
    pub memory: Extent,
    /// Processors.
    pub cpus: u32,
}

/// Bytes that the checksum at 0x2E covers.
const CHECKED: core::ops::Range<usize> = 0x10..0x2E;

fn put16(bytes: &mut [u8; 128], at: usize, value: u64) {
    let [low, high] = (value.min(0xFFFF) as u16).to_le_bytes();
    for (offset, byte) in [(0, low), (1, high)] {
        if let Some(cell) = bytes.get_mut(at.wrapping_add(offset)) {
            *cell = byte;
        }
    }
}

/// The memory's contents at power-on. Places as PC firmware has had them since the AT: 0x15 base
/// memory in KiB, 0x17 and 0x30 memory above 1 MiB in KiB, 0x34 memory above 16 MiB in 64 KiB,
/// 0x5B (3 bytes) memory above 4 GiB in 64 KiB, 0x5F processors less one.
pub(super) fn contents(config: &CmosConfig) -> [u8; 128] {
    const MIB: u64 = 1 << 20;
    let mut bytes = [0u8; 128];
    let Extent { below_4g, above_4g } = config.memory;
    let base = (below_4g / 1024).min(640);
    let above_1m = below_4g.saturating_sub(MIB) / 1024;
    let above_16m = below_4g.saturating_sub(16 * MIB) / 0x1_0000;
    for (at, value) in [(0x15, base), (0x17, above_1m), (0x30, above_1m), (0x34, above_16m)] {
        put16(&mut bytes, at, value);
    }
    let [low, middle, high, ..] = (above_4g / 0x1_0000).min(0xFF_FFFF).to_le_bytes();
    let cpus = config.cpus.saturating_sub(1).min(255) as u8;
    // 0x14: floating-point unit and PS/2 pointing device; no diskette.
    for (at, value) in [(0x14, 0x06), (0x5B, low), (0x5C, middle), (0x5D, high), (0x5F, cpus)] {
        if let Some(cell) = bytes.get_mut(at) {
            *cell = value;
        }
    }
    let sum = bytes.get(CHECKED).unwrap_or_default().iter().map(|b| u16::from(*b)).sum::<u16>();
    let [sum_low, sum_high] = sum.to_le_bytes();
    for (at, value) in [(0x2E, sum_high), (0x2F, sum_low)] {
        if let Some(cell) = bytes.get_mut(at) {
            *cell = value;
        }
    }
    bytes
}
