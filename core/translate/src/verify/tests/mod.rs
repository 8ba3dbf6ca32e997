//! Blocks as the emitter makes them are approved, and whatever is done to them is found.

mod emitted;
mod made;
mod mutants;
mod strays;

use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use iced_x86::code_asm::CodeAssembler;
use iced_x86::{Decoder, DecoderOptions, Encoder, Instruction};

use super::{Block, Decoded, Dump, Verifier, Why, sweep};
use crate::asm::Asm;
use crate::emit::{Source, Translator};
use crate::guest::{Analyst, Guest, Kind, uses_vectors};
use crate::live::{self, Ahead, Page, ends_block};
use crate::mode::Mode;
use crate::sites::{Origin, Packed, Site};
use crate::slots::Numbers;
use crate::stubs::{self, Stubs};

/// Where blocks stand in the arena.
const AT: u32 = 0x4_0000;
/// Where the guest's code stands.
const RIP: u64 = 0x40_0100;

const ORIGIN: Origin = Origin { entry: AT, rip: RIP };

/// Modes by what they have: see the table in `mode`.
const VECTORS: u16 = 3 << 2;
const FLAT: u16 = 7 << 7 | 1 << 13;
const ALL_ON: u16 = 7 << 10;
pub(super) const KERNEL: u16 = ALL_ON | FLAT;
pub(super) const USER: u16 = 1 | ALL_ON | FLAT | VECTORS;
pub(super) const KERNEL_AC: u16 = 2 | ALL_ON | FLAT;
pub(super) const USER32: u16 = 1 | 1 << 4 | 1 << 6 | FLAT | VECTORS;
pub(super) const SEGMENTED32: u16 = 1 << 4 | 1 << 6;
pub(super) const REAL16: u16 = 2 << 4;

/// A block with all that belongs to it.
pub(super) struct Made {
    pub(super) code: Vec<u8>,
    pub(super) host_entry: u32,
    pub(super) mode: Mode,
    pub(super) slots: Numbers,
    pub(super) stubs: Stubs,
    /// What the verifier said last.
    pub(super) last: RefCell<String>,
}

impl Made {
    /// Of code of one's own, with a way out behind it.
    pub(super) fn by_hand(mode: u16, code: Vec<u8>) -> Self {
        let (mode, slots) = (Mode::of_bits(mode), Numbers::default());
        let mut made = Self {
            code,
            host_entry: 0,
            mode,
            slots,
            stubs: stubs::emit().1,
            last: RefCell::default(),
        };
        made.leave(Site::Go { rip: RIP });
        made
    }
    /// Of 64-bit guest code.
    pub(super) fn of(mode: u16, write: impl FnOnce(&mut CodeAssembler)) -> Self {
        let mut assembler = CodeAssembler::new(64).unwrap();
        write(&mut assembler);
        Self::of_bytes(mode, &assembler.assemble(RIP).unwrap())
    }
    pub(super) fn of_bytes(mode: u16, guest_code: &[u8]) -> Self {
        let mode = Mode::of_bits(mode);
        let mut analyst = Analyst::new();
        let mut page = alloc::vec![0xF4; 4096];
        let begin = RIP as usize & 0xFFF;
        page[begin..begin + guest_code.len()].copy_from_slice(guest_code);
        let guests = guests(&mut analyst, mode, &page[begin..]);
        let whole = Page { bytes: &page, rip: RIP & !0xFFF };
        let options = DecoderOptions::NONE;
        let mut decoder = Decoder::with_ip(mode.bits(), &page, whole.rip, options);
        let ahead = Ahead::new(&mut analyst, &mut decoder, &whole, true);
        let mut live = live::Liveness::default();
        live::find(&mut live, &guests, ahead);
        let stubs = stubs::emit().1;
        let source = Source {
            guests: &guests,
            bytes: &page[begin..],
            live: &live.before,
            live_at_target: &live.at_target,
            mode,
            skew: 0,
            at: AT,
            stubs,
        };
        let mut slots = Numbers::default();
        let made = Translator::new().translate(&source, &mut slots);
        let (code, host_entry) = (made.code, made.host_entry);
        Self { code, host_entry, mode, slots, stubs, last: RefCell::default() }
    }

    /// Adds a way out by a site.
    pub(super) fn leave(&mut self, site: Site<u64>) {
        self.code.push(0xE8);
        let next = AT + self.code.len() as u32 + 4;
        self.code.extend(self.stubs.exit.wrapping_sub(next).to_le_bytes());
        let packed = site.pack(ORIGIN, next);
        self.code.extend(bytes_of(&packed));
    }

    fn block(&self) -> Block<'_> {
        Block {
            code: &self.code,
            at: AT,
            host_entry: self.host_entry,
            rip: RIP,
            stubs: self.stubs,
            slots: &self.slots,
            mode: self.mode,
        }
    }
    pub(super) fn verify(&self) -> Result<(), Why> {
        let block = self.block();
        Verifier::new().verify(&block).map_err(|violation| {
            self.last.replace(alloc::format!("{}", Dump(&block, &violation)));
            violation.why
        })
    }

    pub(super) fn instructions(&self) -> Vec<Instruction> {
        sweep(&self.block()).map(|decoded| decoded.instruction).collect()
    }
    /// Changes all sites.
    pub(super) fn change_sites(&mut self, change: impl Fn(&mut Site<u64>)) {
        for Decoded { instruction, site } in sweep(&self.block()).collect::<Vec<_>>() {
            let Some(mut site) = site else { continue };
            change(&mut site);
            let at = instruction.next_ip() as u32;
            let packed = site.pack(ORIGIN, at);
            let begin = (at - AT) as usize;
            let packed = bytes_of(&packed);
            self.code[begin..][..packed.len()].copy_from_slice(&packed);
        }
    }
    /// Changes the first instruction that is wanted.
    pub(super) fn change(
        &mut self,
        wanted: impl Fn(&Instruction) -> bool,
        change: impl FnOnce(&mut Instruction),
    ) {
        let found = self.instructions().into_iter().find(wanted).expect("there is such a one");
        let mut changed = found;
        change(&mut changed);
        let mut encoder = Encoder::new(64);
        encoder.encode(&changed, found.ip()).expect("it can be encoded");
        self.overwrite(&found, &encoder.take_buffer());
    }
    /// Replaces the first instruction that is wanted by other bytes, and NOPs.
    pub(super) fn replace(&mut self, wanted: impl Fn(&Instruction) -> bool, bytes: &[u8]) {
        let found = self.instructions().into_iter().find(wanted).expect("there is such a one");
        self.overwrite(&found, bytes);
    }
    fn overwrite(&mut self, instruction: &Instruction, bytes: &[u8]) {
        let at = (instruction.ip() - u64::from(AT)) as usize;
        let room = &mut self.code[at..at + instruction.len()];
        assert!(bytes.len() <= room.len(), "{bytes:02x?} is longer");
        room.fill(0x90);
        room[..bytes.len()].copy_from_slice(bytes);
    }
}

/// The guest's instructions, as `make` finds them.
fn guests(analyst: &mut Analyst, mode: Mode, bytes: &[u8]) -> Vec<Guest> {
    let decoder = Decoder::with_ip(mode.bits(), bytes, RIP, DecoderOptions::NONE);
    let mut guests = Vec::new();
    for instruction in decoder {
        let mut guest = Guest { instruction, ..Guest::default() };
        analyst.look_at(&mut guest);
        let vex = instruction.encoding() == iced_x86::EncodingKind::VEX;
        let lacking = uses_vectors(&instruction) && !mode.runs_vectors(vex);
        let refused = matches!(guest.kind, Kind::System(system) if !mode.takes(system));
        if refused || lacking && guest.kind == Kind::Plain {
            guest.kind = Kind::Interpreted;
        }
        guests.push(guest);
        if ends_block(guest.kind) {
            break;
        }
    }
    guests
}

fn bytes_of(packed: &Packed) -> Vec<u8> {
    let mut asm = Asm::default();
    asm.site(packed);
    asm.code
}
