//! Comparing two outcomes, and what a session of both sides is.

use iced_x86::{Formatter, Instruction, NasmFormatter};
use kasane_spec_x86::flags;

use crate::case::{Case, Fault, Outcome, Patterns, Vectors};
use crate::generate::decode;
use crate::interp::Interpreter;
use crate::layout::{DATA, PAGE, WRITABLE_PAGES};
use crate::native::Native;
use crate::undefined;

/// The result of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No difference.
    Same,
    /// The interpreter lacks the instruction.
    Missing,
    /// What differs.
    Different(Vec<String>),
}

/// Both sides.
pub struct Session {
    native: Native,
    interpreter: Interpreter,
    patterns: Patterns,
    /// Compare undefined flags and results as well.
    pub strict: bool,
}

pub(crate) const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];
/// RF, which only says how we learned of it, is not compared.
pub(crate) const FLAGS: u64 =
    flags::ARITHMETIC | flags::DF | flags::AC | flags::ID | flags::NT | flags::TF;

impl Session {
    /// Sets both sides up in this process.
    ///
    /// # Errors
    /// When the host refuses something.
    pub fn new() -> anyhow::Result<Self> {
        // The interpreter first: its passed-through code has signal handlers that ours pass on to.
        let interpreter = Interpreter::new()?;
        let native = Native::new()?;
        Ok(Self { native, interpreter, patterns: Patterns::default(), strict: false })
    }

    /// Runs a case on both sides.
    pub fn check(&mut self, case: &Case) -> Verdict {
        let instr = decode(case);
        let real = self.native.run(case, &self.patterns);
        let ours = self.interpreter.run(case, &self.patterns);
        if ours.missing {
            return Verdict::Missing;
        }
        let mut out = Vec::new();
        self.compare(case, &instr, &real, &ours, &mut out);
        if out.is_empty() { Verdict::Same } else { Verdict::Different(out) }
    }

    fn compare(
        &mut self,
        case: &Case,
        instr: &Instruction,
        real: &Outcome,
        ours: &Outcome,
        out: &mut Vec<String>,
    ) {
        let (mut a, mut b) = (real.fault, ours.fault);
        forget_kernel_half(&mut a);
        forget_kernel_half(&mut b);
        if undefined::address_in_page(instr) {
            for fault in [&mut a, &mut b].into_iter().flatten() {
                fault.address &= !(PAGE as u64 - 1);
            }
        }
        match (a, b) {
            (Some(fault), None) | (None, Some(fault))
                if undefined::only_unselected(instr, case, fault) =>
            {
                return;
            }
            (Some(a), Some(b)) if undefined::either_fault(instr, case, a, b) => {}
            _ if a == b => {}
            _ => out.push(format!("exception: real {}, ours {}", describe(a), describe(b))),
        }
        let mut value = |name: &str, a: u64, b: u64| {
            if a != b {
                out.push(format!("{name}: real {a:#x}, ours {b:#x}"));
            }
        };
        value("rip", real.rip, ours.rip);
        let faulted = real.fault.is_some();
        let lax = !self.strict && !faulted;
        let any_result = lax && undefined::result(instr, case);
        if !any_result {
            // What compatibility mode leaves in the upper halves is undefined (vol. 1 §3.4.1.1).
            let mask = if case.bits == 32 { 0xFFFF_FFFF } else { u64::MAX };
            for ((name, a), b) in NAMES.iter().zip(real.gpr).zip(ours.gpr) {
                value(name, a & mask, b & mask);
            }
        }
        let ignored = if faulted {
            undefined::flags_at_fault(instr, case)
        } else if lax {
            undefined::flags(instr, case)
        } else {
            0
        };
        value("rflags", real.rflags & FLAGS & !ignored, ours.rflags & FLAGS & !ignored);
        if case.bits == 64 {
            value("fs", real.fs, ours.fs);
            value("gs", real.gs, ours.gs);
        }
        if let (Some(a), Some(b)) = (&real.vectors, &ours.vectors)
            && a != b
        {
            let (mut a, mut b) = (a.clone(), b.clone());
            if let Some(fault) = real.fault {
                undefined::forget(instr, fault, &mut a, &mut b);
            }
            vectors(&a, &b, out);
        }
        if !any_result {
            self.memory(out);
        }
    }

    fn memory(&mut self, out: &mut Vec<String>) {
        let a = self.native.data().get(..WRITABLE_PAGES * PAGE).unwrap_or_default();
        let b = self.interpreter.data().get(..WRITABLE_PAGES * PAGE).unwrap_or_default();
        if a == b {
            return;
        }
        let differing = a.iter().zip(b).enumerate().filter(|(_, (a, b))| a != b);
        for (at, (a, b)) in differing.take(4) {
            out.push(format!("[{:#x}]: real {a:#04x}, ours {b:#04x}", DATA + at as u64));
        }
    }

    /// Makes a differing case simpler as long as it differs.
    pub fn minimize(&mut self, case: &Case) -> (Case, Vec<String>) {
        let mut best = case.clone();
        let mut why = match self.check(case) {
            Verdict::Different(why) => why,
            Verdict::Same | Verdict::Missing => {
                return (best, vec!["not seen again: it depends on what ran before".into()]);
            }
        };
        for simpler in simplifications() {
            let mut next = best.clone();
            simpler(&mut next);
            if next == best {
                continue;
            }
            if let Verdict::Different(reason) = self.check(&next) {
                best = next;
                why = reason;
            }
        }
        (best, why)
    }
}

pub(crate) type Simplify = Box<dyn Fn(&mut Case)>;

pub(crate) fn simplifications() -> Vec<Simplify> {
    let mut all: Vec<Simplify> = vec![
        Box::new(|c| c.patches.clear()),
        Box::new(|c| c.pages = [0; 3]),
        Box::new(|c| c.rflags = flags::FIXED | flags::IF),
        Box::new(|c| c.fs = 0),
        Box::new(|c| c.gs = 0),
        Box::new(|c| c.vectors = c.vectors.as_ref().map(|_| Box::default())),
    ];
    for n in 0..16 {
        all.push(Box::new(move |c: &mut Case| {
            if let Some(r) = c.gpr.get_mut(n) {
                *r = 0;
            }
        }));
    }
    for bit in [0, 2, 4, 6, 7, 10, 11, 18, 21] {
        all.push(Box::new(move |c: &mut Case| c.rflags &= !(1 << bit)));
    }
    let ranges = (0..16)
        .flat_map(|n| [(160 + n * 16, 16), (576 + n * 16, 16)])
        .chain((0..8).map(|n| (32 + n * 16, 10)));
    for (at, len) in ranges {
        all.push(Box::new(move |c: &mut Case| {
            if let Some(v) = &mut c.vectors {
                v.put(at, &vec![0; len]);
            }
        }));
    }
    all.push(Box::new(|c| {
        if let Some(v) = &mut c.vectors {
            v.put(24, &0x1F80u32.to_le_bytes());
        }
    }));
    all
}

/// Whether an address of the kernel's half, or in the last page of the user's, which is never
/// given out, is mapped is the operating system's business.
pub(crate) fn forget_kernel_half(fault: &mut Option<Fault>) {
    if let Some(fault) = fault
        && fault.vector == 14
        && fault.address >= 0x7FFF_FFFF_F000
    {
        fault.error &= !1;
    }
}

pub(crate) fn describe(fault: Option<Fault>) -> String {
    match fault {
        None => "none".into(),
        Some(Fault { vector, error, address }) => {
            format!("vector {vector} (error {error:#x}, address {address:#x})")
        }
    }
}

pub(crate) fn vectors(a: &Vectors, b: &Vectors, out: &mut Vec<String>) {
    let mut part = |name: String, at: usize, len: usize| {
        let number = |v: &Vectors| {
            v.part(at, len)
                .iter()
                .rev()
                .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
        };
        let (a, b) = (number(a), number(b));
        if a != b {
            out.push(format!("{name}: real {a}, ours {b}"));
        }
    };
    part("fcw".into(), 0, 2);
    part("fsw".into(), 2, 2);
    part("ftw".into(), 4, 1);
    part("fop".into(), 6, 2);
    part("fip".into(), 8, 8);
    part("fdp".into(), 16, 8);
    part("mxcsr".into(), 24, 4);
    for n in 0..8 {
        part(format!("st{n}"), 32 + n * 16, 10);
    }
    for n in 0..16 {
        part(format!("xmm{n}"), 160 + n * 16, 16);
        part(format!("ymm{n} high"), 576 + n * 16, 16);
    }
}

/// An instruction as text.
#[must_use]
pub fn text(instr: &Instruction) -> String {
    let mut out = String::new();
    NasmFormatter::new().format(instr, &mut out);
    out
}
