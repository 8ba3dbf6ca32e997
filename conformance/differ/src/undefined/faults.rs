//! What is undefined when an instruction faults at its memory operand: which of several possible
//! faults is delivered, and what has changed before it.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use kasane_spec_x86::flags;
use kasane_spec_x86::vector::{AC, GP, PF, SS};

use crate::case::{Case, Fault, Vectors};
use crate::layout::{DATA, PAGE, READ_ONLY};

const XMM: usize = 160;
const YMM_HIGH: usize = 576;
const ST: usize = 32;
/// FSW: the top of the stack.
const TOP: u16 = 0x3800;

/// How an instruction accesses memory under a mask.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Masked {
    /// VMASKMOV: elements that are not selected don't fault.
    Elements { size: usize },
    /// MASKMOVQ, MASKMOVDQU: bytes that are not selected may fault.
    Bytes { count: usize },
}

fn masked(instr: &Instruction) -> Option<Masked> {
    match instr.mnemonic() {
        Mnemonic::Vmaskmovps | Mnemonic::Vpmaskmovd => Some(Masked::Elements { size: 4 }),
        Mnemonic::Vmaskmovpd | Mnemonic::Vpmaskmovq => Some(Masked::Elements { size: 8 }),
        Mnemonic::Maskmovq => Some(Masked::Bytes { count: 8 }),
        Mnemonic::Maskmovdqu | Mnemonic::Vmaskmovdqu => Some(Masked::Bytes { count: 16 }),
        _ => None,
    }
}

/// The 32 bytes of a YMM register.
fn ymm(v: &Vectors, register: Register) -> Vec<u8> {
    let n = register.number();
    [v.part(XMM + n * 16, 16), v.part(YMM_HIGH + n * 16, 16)].concat()
}

fn set_ymm(v: &mut Vectors, register: Register, bytes: &[u8]) {
    let n = register.number();
    if let Some((low, high)) = bytes.split_at_checked(16) {
        v.put(XMM + n * 16, low);
        v.put(YMM_HIGH + n * 16, high);
    }
}

fn fsw(v: &Vectors) -> u16 {
    u16::from_le_bytes(v.part(2, 2).try_into().unwrap_or_default())
}

/// The bytes of an MMX register.
fn mm(v: &Vectors, register: Register) -> Vec<u8> {
    let top = usize::from((fsw(v) & TOP) >> 11);
    v.part(ST + (register.number() + 8 - top) % 8 * 16, 8).to_vec()
}

/// The value of the mask register, and how many bytes of it count.
fn mask(instr: &Instruction, v: &Vectors, how: Masked) -> (Vec<u8>, usize) {
    match how {
        Masked::Elements { .. } => {
            let register = instr.op_register(1);
            (ymm(v, register), register.size())
        }
        Masked::Bytes { count: 8 } => (mm(v, instr.op_register(2)), 8),
        Masked::Bytes { count } => (ymm(v, instr.op_register(2)), count),
    }
}

/// Linear addresses of the bytes of a masked operand, and whether each is selected.
fn bytes(instr: &Instruction, case: &Case) -> Option<Vec<(u64, bool)>> {
    let how = masked(instr)?;
    let operand = (0..instr.op_count()).find(|n| instr.op_kind(*n) != OpKind::Register)?;
    let start = instr.virtual_address(operand, 0, |register, _, _| match register {
        Register::FS => Some(if case.bits == 64 { case.fs } else { 0 }),
        Register::GS => Some(if case.bits == 64 { case.gs } else { 0 }),
        register if register.is_segment_register() => Some(0),
        register => {
            let value = case.gpr.get(register.full_register().number())?;
            let bits = 8 * register.size() as u32;
            Some(value & u64::MAX >> (64 - bits.clamp(8, 64)))
        }
    })?;
    let (mask, len) = mask(instr, case.vectors.as_ref()?, how);
    let linear = if case.bits == 64 { u64::MAX } else { 0xFFFF_FFFF };
    let selected = |n: usize| {
        let sign = match how {
            Masked::Elements { size } => n / size * size + size - 1,
            Masked::Bytes { .. } => n,
        };
        mask.get(sign).is_some_and(|byte| byte & 0x80 != 0)
    };
    Some((0..len).map(|n| (start.wrapping_add(n as u64) & linear, selected(n))).collect())
}

fn canonical(address: u64) -> bool {
    (address as i64) << 16 >> 16 == address as i64
}

/// The addresses at which a masked access may fault. Whether one that goes beyond a short
/// address size goes around is undefined, too (SDM vol. 3B, segment wraparound).
fn may_fault(instr: &Instruction, case: &Case) -> Vec<u64> {
    let whole = matches!(masked(instr), Some(Masked::Bytes { .. }));
    let width = match instr.op0_kind() {
        OpKind::MemorySegDI => 0xFFFF,
        OpKind::MemorySegEDI => 0xFFFF_FFFF,
        _ => u64::MAX,
    };
    let base = match instr.memory_segment() {
        Register::FS if case.bits == 64 => case.fs,
        Register::GS if case.bits == 64 => case.gs,
        _ => 0,
    };
    let around = |at: u64| base.wrapping_add(at.wrapping_sub(base) & width);
    let all = bytes(instr, case).unwrap_or_default();
    all.into_iter()
        .filter(|(_, selected)| whole || *selected)
        .flat_map(|(at, _)| [at, around(at)])
        .collect()
}

fn explained(fault: Fault, instr: &Instruction, case: &Case, addresses: &[u64]) -> bool {
    let page = |at: u64| at & !(PAGE as u64 - 1);
    match fault.vector {
        PF => addresses.iter().any(|at| canonical(*at) && page(*at) == page(fault.address)),
        GP | SS => addresses.iter().any(|at| !canonical(*at)),
        AC => matches!(masked(instr), Some(Masked::Bytes { .. })) && case.rflags & flags::AC != 0,
        _ => false,
    }
}

/// Whether these two different faults of a masked access are both right: the parts of it may be
/// looked at in any order.
#[must_use]
pub fn either_fault(instr: &Instruction, case: &Case, a: Fault, b: Fault) -> bool {
    let addresses = may_fault(instr, case);
    let same_page = a.vector == PF && b.vector == PF && (a.address ^ b.address) < PAGE as u64;
    !same_page && explained(a, instr, case, &addresses) && explained(b, instr, case, &addresses)
}

/// Whether a fault of MASKMOVQ or MASKMOVDQU can only be that of bytes that are not selected, or
/// #AC, so that it may as well not happen.
#[must_use]
pub fn only_unselected(instr: &Instruction, case: &Case, fault: Fault) -> bool {
    if !matches!(masked(instr), Some(Masked::Bytes { .. })) {
        return false;
    }
    let writable = |at: u64| (DATA..READ_ONLY).contains(&at);
    let all = bytes(instr, case).unwrap_or_default();
    explained(fault, instr, case, &may_fault(instr, case))
        && all.iter().all(|(at, selected)| !selected || writable(*at))
}

fn is_gather(instr: &Instruction) -> Option<usize> {
    match instr.mnemonic() {
        Mnemonic::Vgatherdps
        | Mnemonic::Vgatherqps
        | Mnemonic::Vpgatherdd
        | Mnemonic::Vpgatherqd => Some(4),
        Mnemonic::Vgatherdpd
        | Mnemonic::Vgatherqpd
        | Mnemonic::Vpgatherdq
        | Mnemonic::Vpgatherqq => Some(8),
        _ => None,
    }
}

/// Elements below the faulting one are complete, and that one is still to do; those above may be
/// either. The faulting one is the first that the real CPU has left in its mask.
fn forget_above(instr: &Instruction, size: usize, real: &mut Vectors, ours: &mut Vectors) {
    let (destination, mask) = (instr.op0_register(), instr.op2_register());
    let sign = |bytes: &[u8], n: usize| {
        bytes.get(n * size + size - 1).is_some_and(|byte| byte & 0x80 != 0)
    };
    let left = ymm(real, mask);
    let Some(faulting) = (0..32 / size).find(|n| sign(&left, *n)) else { return };
    for v in [real, ours] {
        let mut result = ymm(v, destination);
        result.iter_mut().skip((faulting + 1) * size).for_each(|byte| *byte = 0);
        set_ymm(v, destination, &result);
        let before = ymm(v, mask);
        let signs: Vec<u8> = (0..32)
            .map(|n| {
                let compared = n % size == size - 1 && n / size <= faulting;
                if compared { before.get(n).copied().unwrap_or(0) & 0x80 } else { 0 }
            })
            .collect();
        set_ymm(v, mask, &signs);
    }
}

/// Makes the MMX registers' place and validity the same.
fn forget_transition(v: &mut Vectors) {
    let status = fsw(v);
    let top = usize::from((status & TOP) >> 11);
    let registers: Vec<_> = (0..8).map(|n| v.part(ST + n * 16, 16).to_vec()).collect();
    for (n, register) in registers.iter().enumerate() {
        v.put(ST + (n + top) % 8 * 16, register);
    }
    v.put(2, &(status & !TOP).to_le_bytes());
    v.put(4, &[0]);
}

/// Makes equal what is undefined in the vector state after a fault at the memory operand.
pub fn forget(instr: &Instruction, fault: Fault, real: &mut Vectors, ours: &mut Vectors) {
    if !matches!(fault.vector, PF | GP | SS | AC) {
        return;
    }
    if let Some(size) = is_gather(instr) {
        forget_above(instr, size, real, ours);
    }
    let from_mmx = (0..instr.op_count())
        .any(|n| instr.op_kind(n) == OpKind::Register && instr.op_register(n).is_mm())
        && instr.op0_kind() != OpKind::Register;
    for v in [real, ours] {
        if from_mmx {
            forget_transition(v);
        }
        if instr.mnemonic() == Mnemonic::Vcvtps2ph {
            let flags = v.part(24, 1).first().copied().unwrap_or(0);
            v.put(24, &[flags & !0x3F]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::decode;
    use crate::layout::CODE;

    const MASKMOVDQU: &[u8] = &[0x66, 0x0F, 0xF7, 0xC1]; // maskmovdqu xmm0, xmm1
    const VPMASKMOVD: &[u8] = &[0xC4, 0xE2, 0x71, 0x8E, 0x07]; // vpmaskmovd [rdi], xmm1, xmm0

    /// A store at RDI with a mask.
    fn masked(code: &[u8], rdi: u64, mask: [u8; 16]) -> (Instruction, Case) {
        let mut vectors = Box::<Vectors>::default();
        vectors.put(XMM + 16, &mask);
        let mut case = Case {
            bytes: code.to_vec(),
            bits: 64,
            rip: CODE,
            vectors: Some(vectors),
            ..Case::default()
        };
        case.gpr[7] = rdi;
        (decode(&case), case)
    }

    fn page_fault(error: u32, address: u64) -> Fault {
        Fault { vector: PF, error, address }
    }

    #[test]
    fn either_of_two_pages_may_be_reported_but_no_other() {
        let (instr, case) = masked(VPMASKMOVD, DATA - 8, [0xFF; 16]);
        let (first, second) = (page_fault(6, DATA - 8), page_fault(7, DATA));
        assert!(either_fault(&instr, &case, first, second));
        assert!(!either_fault(&instr, &case, first, page_fault(7, DATA + 4096)));
        assert!(!either_fault(&instr, &case, first, page_fault(7, DATA - 8)));
        assert!(!either_fault(&instr, &case, first, Fault { vector: GP, ..first }));
    }

    #[test]
    fn elements_that_are_not_selected_may_not_be_reported() {
        let mut mask = [0xFF; 16];
        mask[8..].fill(0x7F);
        let (instr, case) = masked(VPMASKMOVD, DATA - 8, mask);
        let (first, second) = (page_fault(6, DATA - 8), page_fault(7, DATA));
        assert!(!either_fault(&instr, &case, first, second));
        assert!(!only_unselected(&instr, &case, second));
    }

    #[test]
    fn only_bytes_that_are_not_selected_may_fault_or_not() {
        let mut mask = [0x80; 16];
        mask[..8].fill(0);
        let (instr, free) = masked(MASKMOVDQU, DATA - 8, mask);
        let (_, forced) = masked(MASKMOVDQU, DATA - 9, mask);
        let fault = page_fault(6, DATA - 9);
        assert!(only_unselected(&instr, &free, fault));
        assert!(!only_unselected(&instr, &forced, fault));
    }

    #[test]
    fn an_alignment_check_needs_its_flag() {
        let (instr, mut case) = masked(MASKMOVDQU, DATA + 1, [0; 16]);
        let fault = Fault { vector: AC, error: 0, address: 0 };
        assert!(!only_unselected(&instr, &case, fault));
        case.rflags |= flags::AC;
        assert!(only_unselected(&instr, &case, fault));
    }

    /// The state after VPGATHERDD XMM0, [RDI+XMM2], XMM1.
    fn gathered(destination: [u32; 4], mask: [u32; 4]) -> Vectors {
        let mut v = Vectors::default();
        v.put(XMM, &destination.map(u32::to_le_bytes).concat());
        v.put(XMM + 16, &mask.map(u32::to_le_bytes).concat());
        v
    }

    /// Whether two outcomes of a faulting gather are the same to us.
    fn alike(mut real: Vectors, mut ours: Vectors) -> bool {
        let (instr, _) = masked(&[0xC4, 0xE2, 0x71, 0x90, 0x04, 0x17], DATA, [0; 16]);
        assert_eq!(instr.mnemonic(), Mnemonic::Vpgatherdd);
        forget(&instr, page_fault(4, 0), &mut real, &mut ours);
        real == ours
    }

    #[test]
    fn a_gather_is_compared_up_to_its_faulting_element() {
        const S: u32 = 0x8000_0000;
        let real = || gathered([1, 2, 3, 4], [0, S, 0, S]);
        let mut above = gathered([1, 2, 0, 0], [0, S | 1, S, 0]);
        above.put(YMM_HIGH, &[9; 16]);
        assert!(alike(real(), above));
        assert!(!alike(real(), gathered([0, 2, 3, 4], [0, S, 0, S])));
        assert!(!alike(real(), gathered([1, 0, 3, 4], [0, S, 0, S])));
        assert!(!alike(real(), gathered([1, 2, 3, 4], [S, S, 0, S])));
        assert!(!alike(real(), gathered([1, 2, 3, 4], [0, 0, S, S])));
    }

    #[test]
    fn registers_stay_the_same_when_the_stack_turns() {
        let (instr, _) = masked(&[0x0F, 0xE7, 0x07], DATA, [0; 16]); // movntq [rdi], mm0
        let mut turned = Vectors::default();
        turned.put(2, &0x3000u16.to_le_bytes());
        turned.put(ST + 2 * 16, &[5; 10]); // physical register 0
        let mut entered = Vectors::default();
        entered.put(4, &[0xFF]);
        entered.put(ST, &[5; 10]);
        forget(&instr, page_fault(6, 0), &mut turned, &mut entered);
        assert!(turned == entered);
    }
}
