//! Random machine states.

use kasane_cpu::VectorState;

use super::Machine;

/// xorshift64*.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
}

/// Words that floating-point code stumbles over.
const CORNERS: [u64; 12] = [
    0,
    0x8000_0000_0000_0000,
    0x3FF0_0000_0000_0000,
    0x7FF0_0000_0000_0000,
    0x7FF8_0000_0000_0000,
    0x7FF0_0000_0000_0001,
    1,
    0x3F80_0000_BF80_0000,
    0x7F80_0000_FF80_0000,
    0x7F80_0001_0000_0001,
    0x0080_0000_7F7F_FFFF,
    u64::MAX,
];

fn word(random: &mut Random) -> u64 {
    if random.below(3) == 0 { CORNERS[random.below(12) as usize] } else { random.next() }
}

pub(crate) fn machine(random: &mut Random) -> Machine {
    let mut vector = VectorState::default();
    for ymm in &mut vector.ymm {
        *ymm = std::array::from_fn(|_| word(random));
    }
    let unmasked = random.below(4) == 0;
    vector.set_mxcsr(if unmasked {
        random.next() as u32 & 0xFFC0
    } else {
        random.next() as u32 & 0xE07F | 0x1F80
    });
    vector.set_fcw(
        0x40 | random.next() as u16 & 0x0F00
            | if unmasked { random.next() as u16 & 0x3F } else { 0x3F },
    );
    let exceptions = if random.below(4) == 0 { random.next() as u16 & 0x7F } else { 0 };
    let pending = exceptions & !vector.fcw() & 0x3F != 0;
    vector.set_fsw(random.next() as u16 & 0x7F00 | exceptions | if pending { 0x8080 } else { 0 });
    vector.set_ftw(random.next() as u8 | random.next() as u8);
    for i in 0..8 {
        let exponent = match random.below(6) {
            0 => 0,
            1 => 0x7FFF,
            2 => random.next() as u16,
            _ => 0x3FFF - 20 + random.below(60) as u16,
        };
        let mantissa = match random.below(4) {
            0 => 1 << 63,
            1 => random.next(),
            _ => random.next() | 1 << 63,
        };
        let mut st = [0; 10];
        st[..8].copy_from_slice(&mantissa.to_le_bytes());
        st[8..].copy_from_slice(&exponent.to_le_bytes());
        vector.set_st(i, st);
    }
    let mut memory = [0; 1024];
    for chunk in memory.chunks_exact_mut(8) {
        chunk.copy_from_slice(&word(random).to_le_bytes());
    }
    let gpr = std::array::from_fn(|_| word(random));
    Machine { gpr, rflags: 0x202 | random.next() & 0x8D5, vector, memory }
}
