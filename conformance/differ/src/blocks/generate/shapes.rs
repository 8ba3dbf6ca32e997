//! What blocks have besides single instructions, and the whole of them: pieces in a row, direct
//! branches, loops.

use iced_x86::{Code, Instruction, OpKind, Register};

use super::Maker;
use super::program::{Label, OUT};
use crate::layout::{EXIT, USER_CS64};

/// Instructions of a loop or subprogram at most.
const BODY: u64 = 8;
/// The conditional branches.
pub(super) const JCC: [Code; 16] = [
    Code::Jo_rel32_64,
    Code::Jno_rel32_64,
    Code::Jb_rel32_64,
    Code::Jae_rel32_64,
    Code::Je_rel32_64,
    Code::Jne_rel32_64,
    Code::Jbe_rel32_64,
    Code::Ja_rel32_64,
    Code::Js_rel32_64,
    Code::Jns_rel32_64,
    Code::Jp_rel32_64,
    Code::Jnp_rel32_64,
    Code::Jl_rel32_64,
    Code::Jge_rel32_64,
    Code::Jle_rel32_64,
    Code::Jg_rel32_64,
];

/// Where a piece stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Main,
    Inner,
}

impl Maker<'_> {
    /// The whole program.
    pub(super) fn whole(&mut self) {
        while self.program.len() < self.budget {
            self.piece(Level::Main);
        }
        self.settle();
        self.leave();
        while let Some(label) = self.subs.pop() {
            self.subprogram(label);
        }
    }

    pub(super) fn piece(&mut self, level: Level) {
        let mut due = Vec::new();
        self.pending.retain_mut(|(left, label)| {
            *left -= 1;
            if *left == 0 {
                due.push(*label);
            }
            *left > 0
        });
        due.into_iter().for_each(|label| self.program.place(label));
        if self.rng.chance(100 - self.mood.shapes) {
            return self.plain();
        }
        match self.rng.below(100) {
            0..=24 => self.branch(),
            25..=29 => self.jump(),
            30..=42 if level == Level::Main => self.repeat(),
            43..=54 => self.call(),
            55..=58 => self.jump_by_stack(),
            59..=61 => self.own_address(),
            62..=68 => self.stack_run(),
            69..=76 => self.stack_instruction(),
            77..=81 if level == Level::Main => self.frame(),
            82..=86 => self.string(),
            87..=92 => self.indirect_jump(),
            93..=97 if self.mood.open => self.change_code(),
            98 if self.mood.bad > 0 => self.refused(),
            99 if self.mood.bad > 0 => self.jump_nowhere(),
            _ => self.branch(),
        }
    }

    /// Places all labels that are ahead.
    pub(super) fn settle(&mut self) {
        for (_, label) in std::mem::take(&mut self.pending) {
            self.program.place(label);
        }
    }
    /// A label some pieces ahead.
    pub(super) fn ahead(&mut self) -> Label {
        let label = self.program.label();
        self.pending.push((1 + self.rng.below(5), label));
        label
    }
    fn target(&mut self) -> Label {
        if self.rng.chance(8) { OUT } else { self.ahead() }
    }

    /// The way out.
    fn leave(&mut self) {
        if self.bits == 64 {
            return self.go(Code::Jmp_rel32_64, OUT);
        }
        if let Ok(far) = Instruction::with_far_branch(Code::Jmp_ptr1632, USER_CS64, EXIT as u32) {
            self.program.push(far);
        }
    }
    /// A direct branch. 32-bit code can't leave by a near one.
    pub(super) fn go(&mut self, code: Code, label: Label) {
        let label = if self.bits == 32 && label == OUT { self.ahead() } else { label };
        let mut instr = Instruction::default();
        instr.set_code(if self.bits == 64 { code } else { short_mode(code) });
        if self.bits == 64 {
            instr.set_op0_kind(OpKind::NearBranch64);
        } else {
            instr.set_op0_kind(OpKind::NearBranch32);
        }
        self.program.push_to(instr, label, 0);
    }

    pub(super) fn branch(&mut self) {
        if self.rng.chance(4) {
            // A short one only reaches what is near.
            let label = self.program.label();
            let code = self.rng.pick(&[Code::Jrcxz_rel8_64, Code::Jecxz_rel8_64]);
            self.go(code, label);
            self.plain();
            return self.program.place(label);
        }
        let label = self.target();
        let code = self.rng.pick(&JCC);
        self.go(code, label);
    }
    fn jump(&mut self) {
        let label = self.target();
        self.go(Code::Jmp_rel32_64, label);
    }

    // --- loops -------------------------------------------------------------------------------

    /// A body that runs some times.
    fn repeat(&mut self) {
        let Some(counter) = self.free() else { return };
        self.settle();
        let before = self.reserved;
        let rounds = self.rng.pick(&[1, 2, 2, 3, 4, 7, 20]);
        let wide = self.word(counter);
        let narrow = Register::EAX + counter;
        let up = self.rng.chance(15);
        let start = if up { 0u32.wrapping_sub(rounds) } else { rounds };
        self.push2(Code::Mov_r32_imm32, narrow, start);
        self.reserved |= 1 << counter;
        let head = self.program.label();
        self.program.place(head);
        for _ in 0..=self.rng.below(BODY) {
            self.piece(Level::Inner);
        }
        self.settle();
        let decrement = if self.bits == 64 { Code::Dec_rm64 } else { Code::Dec_r32 };
        match self.rng.below(5) {
            _ if up => {
                self.one(Code::Inc_rm32, narrow);
                self.go(Code::Jne_rel32_64, head);
            }
            0 if counter == 1 => self.go(Code::Loop_rel8_64_RCX, head),
            1 => {
                self.push2(Code::Sub_rm32_imm8, narrow, 1);
                self.go(Code::Ja_rel32_64, head);
            }
            2 => {
                self.push2(Code::Add_rm32_imm8, narrow, u32::MAX);
                if let Ok(instr) = Instruction::with2(Code::Test_rm32_r32, narrow, narrow) {
                    self.program.push(instr);
                }
                self.go(Code::Jg_rel32_64, head);
            }
            _ => {
                self.one(decrement, wide);
                self.go(Code::Jne_rel32_64, head);
            }
        }
        self.reserved = before;
    }
    pub(super) fn one(&mut self, code: Code, register: Register) {
        if let Ok(instr) = Instruction::with1(code, register) {
            self.program.push(instr);
        }
    }
}

/// The branch of 32-bit code for one of 64-bit code.
fn short_mode(code: Code) -> Code {
    use Code::*;
    match code {
        Jo_rel32_64 => Jo_rel32_32,
        Jno_rel32_64 => Jno_rel32_32,
        Jb_rel32_64 => Jb_rel32_32,
        Jae_rel32_64 => Jae_rel32_32,
        Je_rel32_64 => Je_rel32_32,
        Jne_rel32_64 => Jne_rel32_32,
        Jbe_rel32_64 => Jbe_rel32_32,
        Ja_rel32_64 => Ja_rel32_32,
        Js_rel32_64 => Js_rel32_32,
        Jns_rel32_64 => Jns_rel32_32,
        Jp_rel32_64 => Jp_rel32_32,
        Jnp_rel32_64 => Jnp_rel32_32,
        Jl_rel32_64 => Jl_rel32_32,
        Jge_rel32_64 => Jge_rel32_32,
        Jle_rel32_64 => Jle_rel32_32,
        Jg_rel32_64 => Jg_rel32_32,
        Jmp_rel32_64 => Jmp_rel32_32,
        Call_rel32_64 => Call_rel32_32,
        Jrcxz_rel8_64 | Jecxz_rel8_64 => Jecxz_rel8_32,
        Loop_rel8_64_RCX => Loop_rel8_32_ECX,
        other => other,
    }
}
