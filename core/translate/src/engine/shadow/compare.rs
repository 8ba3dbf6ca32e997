//! Comparing what came of a block, and telling it.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use iced_x86::FastFormatter;
use kasane_cpu::{Seg, SegmentRegister, VectorState};
use kasane_interp::cpu::Cpu;
use kasane_memory::{Mark, PageRecord};
use kasane_spec_x86::flags;

use super::Shadow;
use crate::cache::Key;

const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];
const SEGMENTS: [(Seg, &str); 6] = [
    (Seg::Es, "es"),
    (Seg::Cs, "cs"),
    (Seg::Ss, "ss"),
    (Seg::Ds, "ds"),
    (Seg::Fs, "fs"),
    (Seg::Gs, "gs"),
];
/// Instructions that are shown at most.
const INSTRUCTIONS: usize = 100;
/// Lines about memory at most.
const LINES: usize = 8;
/// Accessed and dirty in an entry of a page table.
const MARKS: u64 = 0x60;

/// The part of a processor's state that translated code can change.
#[derive(Default, PartialEq)]
pub(super) struct Seen {
    pub(super) gpr: [u64; 16],
    pub(super) rip: u64,
    pub(super) rflags: u64,
    segments: [SegmentRegister; 6],
    kernel_gs: u64,
    cr2: u64,
    /// Only if translated code can change it.
    vector: Option<Box<VectorState>>,
}

impl Seen {
    /// `vectors`: with those registers.
    pub(super) fn take(&mut self, cpu: &Cpu, vectors: bool) {
        let s = &cpu.state;
        self.gpr = s.gpr;
        (self.rip, self.rflags) = (s.rip, s.rflags);
        self.segments = SEGMENTS.map(|(seg, _)| *s.seg(seg));
        (self.kernel_gs, self.cr2) = (s.msrs.kernel_gs_base, s.cr2);
        match &mut self.vector {
            Some(vector) if vectors => (**vector).clone_from(&s.vector),
            vector => *vector = vectors.then(|| s.vector.clone()),
        }
    }
    /// Without what is derived from it.
    pub(super) fn put(&self, cpu: &mut Cpu) {
        let s = &mut cpu.state;
        s.gpr = self.gpr;
        (s.rip, s.rflags) = (self.rip, self.rflags);
        for ((seg, _), value) in SEGMENTS.into_iter().zip(self.segments) {
            *s.seg_mut(seg) = value;
        }
        (s.msrs.kernel_gs_base, s.cr2) = (self.kernel_gs, self.cr2);
        if let Some(vector) = &self.vector {
            (*s.vector).clone_from(vector);
        }
    }
}

impl Shadow {
    /// How the translated code's state differs from the processor's. `exact`: also in flags that
    /// are dead.
    pub(super) fn differences(&self, cpu: &Cpu, exact: bool) -> Vec<String> {
        let (seen, s) = (&self.translated, &cpu.state);
        let mut lines = Vec::new();
        let mut value = |name: &str, ours: u64, theirs: u64| {
            if ours != theirs {
                lines.push(format!("{name}: translator {ours:#x}, interpreter {theirs:#x}"));
            }
        };
        for (n, (name, (ours, theirs))) in
            NAMES.into_iter().zip(seen.gpr.into_iter().zip(s.gpr)).enumerate()
        {
            let known = !self.reference.unknown_bits(n);
            value(name, ours & known, theirs & known);
        }
        let undefined = self.reference.undefined();
        let left = if exact { undefined } else { flags::ARITHMETIC };
        value("rflags", seen.rflags & !left, s.rflags & !left);
        value("kernel_gs", seen.kernel_gs, s.msrs.kernel_gs_base);
        value("cr2", seen.cr2, s.cr2);
        for ((seg, name), ours) in SEGMENTS.into_iter().zip(seen.segments) {
            let theirs = s.seg(seg);
            if ours != *theirs {
                lines.push(format!("{name}: translator {ours:x?}, interpreter {theirs:x?}"));
            }
        }
        if let Some(vector) = seen.vector.as_ref().filter(|vector| ***vector != *s.vector) {
            vectors(vector, &s.vector, &mut lines);
        }
        lines
    }

    /// How memory differs: what it is now, after the interpreter, and what it was after the
    /// translated code. `whole`: no instruction was left half checked, so that all marks in page
    /// tables are those of instructions that were done.
    pub(super) fn memory_differences(&self, whole: bool) -> Vec<String> {
        let [ours, theirs] = &self.records;
        let mut lines = Vec::new();
        for page in ours.pages() {
            let now = theirs.page(page.gpa).map_or(&page.before, |page| &page.after);
            self.page(page, now, &mut lines);
        }
        let only_theirs = theirs.pages().iter().filter(|page| ours.page(page.gpa).is_none());
        for page in only_theirs {
            let untouched = PageRecord {
                gpa: page.gpa,
                before: Box::new([0; 4096]),
                after: page.before.clone(),
            };
            self.page(&untouched, &page.after, &mut lines);
        }
        marks(&ours.marks, &theirs.marks, whole, &mut lines);
        lines
    }
    /// `now`: what the page holds after the interpreter.
    fn page(&self, ours: &PageRecord, now: &[u8; 4096], lines: &mut Vec<String>) {
        if *ours.after == *now {
            return;
        }
        let words = ours.after.chunks_exact(8).zip(now.chunks_exact(8));
        for (gpa, (ours, theirs)) in (ours.gpa..).step_by(8).zip(words) {
            let known = !(self.reference.unknown_in_memory(gpa) | self.marked(gpa));
            let [a, b] = [ours, theirs].map(|bytes| word(bytes) & known);
            if a != b && lines.len() < LINES {
                lines.push(format!(
                    "memory at {gpa:#x}: translator {a:#018x}, interpreter {b:#018x}"
                ));
            }
        }
    }
    /// The bits in a word of memory that page walks set: they are compared as marks.
    fn marked(&self, gpa: u64) -> u64 {
        let all = self.records.iter().flat_map(|record| &record.marks);
        all.filter(|mark| mark.gpa & !7 == gpa)
            .fold(0, |bits, mark| bits | (mark.set & MARKS) << (mark.gpa & 7).wrapping_mul(8))
    }

    /// What a person needs to find the bug.
    pub(super) fn report(&self, cpu: &Cpu, key: Key, what: &str) -> String {
        let mut text = format!(
            "the translator differs from the interpreter in the block at {:#x} (physical {:#x}, \
             {:?}, {} flags)\n{what}\nthe code, as far as the interpreter did it:\n",
            key.rip,
            key.gpa,
            key.mode,
            if Self::is_strict(key) { "all" } else { "live" },
        );
        let mut formatter = FastFormatter::new();
        for instruction in self.reference.done().take(INSTRUCTIONS) {
            let _ = write!(text, "  {:#x}: ", instruction.ip());
            formatter.format(instruction, &mut text);
            text.push('\n');
        }
        for (who, seen) in [("before", &self.before), ("translator", &self.translated)] {
            registers(&mut text, who, &seen.gpr, seen.rip, seen.rflags);
        }
        let s = &cpu.state;
        registers(&mut text, "interpreter", &s.gpr, s.rip, s.rflags);
        text
    }
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

fn registers(text: &mut String, who: &str, gpr: &[u64; 16], rip: u64, rflags: u64) {
    let _ = write!(text, "{who}: rip {rip:#x} rflags {rflags:#x}");
    for (n, (name, value)) in NAMES.iter().zip(gpr).enumerate() {
        let _ = write!(text, "{}{name} {value:#x}", if n % 4 == 0 { "\n  " } else { " " });
    }
    text.push('\n');
}

fn vectors(ours: &VectorState, theirs: &VectorState, lines: &mut Vec<String>) {
    let before = lines.len();
    for (n, (a, b)) in ours.ymm.iter().zip(&theirs.ymm).enumerate() {
        if a != b {
            lines.push(format!("ymm{n}: translator {a:x?}, interpreter {b:x?}"));
        }
    }
    let [a, b] = [ours, theirs].map(VectorState::mxcsr);
    if a != b {
        lines.push(format!("mxcsr: translator {a:#x}, interpreter {b:#x}"));
    }
    if lines.len() == before {
        lines.push(String::from("the x87 state differs"));
    }
}

/// Accessed and dirty bits. A translated instruction that was left to the interpreter may have
/// set some already; the interpreter's must all be among them.
fn marks(ours: &[Mark], theirs: &[Mark], whole: bool, lines: &mut Vec<String>) {
    let all = |marks: &[Mark], gpa: u64| {
        marks.iter().filter(|mark| mark.gpa == gpa).fold(0, |bits, mark| bits | mark.set)
    };
    for mark in ours.iter().chain(theirs) {
        let (a, b) = (all(ours, mark.gpa), all(theirs, mark.gpa));
        let same = if whole { a == b } else { b & !a == 0 };
        if !same && lines.len() < LINES {
            lines.push(format!(
                "bits set in the page table's entry at {:#x}: translator {a:#x}, interpreter {b:#x}",
                mark.gpa
            ));
        }
    }
}
