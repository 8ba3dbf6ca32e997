//! Widths, signs and flags of results.

use kasane_memory::Scalar;
use kasane_spec_x86::flags;

/// Bits of an operand.
#[inline(always)]
pub(super) const fn bits<T: Scalar>() -> u32 {
    T::SIZE as u32 * 8
}

/// Mask of an operand.
#[inline(always)]
pub(super) const fn mask<T: Scalar>() -> u64 {
    if T::SIZE >= 8 { u64::MAX } else { (1 << (T::SIZE * 8)) - 1 }
}

/// The top bit of a zero-extended operand, as 0 or 1.
#[inline(always)]
pub(super) const fn top<T: Scalar>(value: u64) -> u64 {
    value >> (bits::<T>() - 1) & 1
}

/// Sign-extends an operand of `T`'s width.
#[inline(always)]
pub(super) const fn sign_extend<T: Scalar>(value: u64) -> u64 {
    let shift = 64 - bits::<T>();
    ((value << shift) as i64 >> shift) as u64
}

const fn parity_table() -> [u8; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        #[allow(clippy::indexing_slicing)] // evaluated at compile time
        if (i as u8).count_ones().is_multiple_of(2) {
            table[i] = flags::PF as u8;
        }
        i += 1;
    }
    table
}

static PARITY: [u8; 256] = parity_table();

/// PF of a result: even parity of its low byte.
#[inline(always)]
pub(super) fn parity(value: u64) -> u64 {
    u64::from(PARITY.get(usize::from(value as u8)).copied().unwrap_or(0))
}

/// SF, ZF and PF of a zero-extended result.
#[inline(always)]
pub(super) fn szp<T: Scalar>(r: u64) -> u64 {
    top::<T>(r) << 7 | u64::from(r == 0) << 6 | parity(r)
}

/// The arithmetic flags of `r = a + b + carry`.
#[inline(always)]
pub(super) fn add_flags<T: Scalar>(a: u64, b: u64, r: u64) -> u64 {
    let carries = a & b | (a | b) & !r;
    let overflow = (a ^ r) & (b ^ r);
    top::<T>(carries) | (a ^ b ^ r) & flags::AF | top::<T>(overflow) << 11 | szp::<T>(r)
}

/// The arithmetic flags of `r = a - b - borrow`.
#[inline(always)]
pub(super) fn sub_flags<T: Scalar>(a: u64, b: u64, r: u64) -> u64 {
    let borrows = !a & b | (!a | b) & r;
    let overflow = (a ^ b) & (a ^ r);
    top::<T>(borrows) | (a ^ b ^ r) & flags::AF | top::<T>(overflow) << 11 | szp::<T>(r)
}

/// Whether condition `CC` (the low four bits of Jcc's opcode) holds.
#[inline(always)]
pub(super) fn holds<const CC: u8>(f: u64) -> bool {
    let sf_ne_of = (f >> 7 ^ f >> 11) & 1 != 0;
    let value = match CC >> 1 {
        0 => f & flags::OF != 0,
        1 => f & flags::CF != 0,
        2 => f & flags::ZF != 0,
        3 => f & (flags::CF | flags::ZF) != 0,
        4 => f & flags::SF != 0,
        5 => f & flags::PF != 0,
        6 => sf_ne_of,
        _ => f & flags::ZF != 0 || sf_ne_of,
    };
    value != (CC & 1 != 0)
}
