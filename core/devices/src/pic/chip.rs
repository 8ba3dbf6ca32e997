//! One 8259A.

use kasane_ports::Level;

use super::spec::{Icw1, Icw4, Ocw2, Ocw3};

/// The input of the first controller that the second one drives.
const CASCADE_BIT: u8 = 1 << 2;

/// Where in a pair the controller sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its input 2 is the other one's output.
    First,
    /// It drives input 2 of the first.
    Second,
}

/// Which initialisation word the data port expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Expect {
    /// None: the data port is the mask register.
    Mask,
    /// ICW2.
    Vector,
    /// ICW3.
    Cascade,
    /// ICW4.
    Mode,
}

/// One 8259A.
#[derive(Clone, Debug)]
pub struct Pic {
    pub(super) role: Role,
    /// Input levels.
    pub(super) inputs: u8,
    /// Edges seen and not yet acknowledged.
    pub(super) latched: u8,
    /// In service.
    pub(super) in_service: u8,
    pub(super) mask: u8,
    /// Level-triggered inputs, by the ELCR.
    pub(super) elcr: u8,
    pub(super) vector_base: u8,
    pub(super) icw1: u8,
    pub(super) icw4: u8,
    pub(super) expect: Expect,
    /// The level with the lowest priority.
    pub(super) lowest: u8,
    pub(super) rotate_in_auto_eoi: bool,
    pub(super) special_mask: bool,
    pub(super) read_in_service: bool,
    pub(super) poll: bool,
}

impl Pic {
    /// A controller after power-on: nothing is delivered before its initialisation words.
    #[must_use]
    pub const fn new(role: Role) -> Self {
        Self {
            role,
            inputs: 0,
            latched: 0,
            in_service: 0,
            mask: 0xFF,
            elcr: 0,
            vector_base: 0,
            icw1: 0,
            icw4: 0,
            expect: Expect::Mask,
            lowest: 7,
            rotate_in_auto_eoi: false,
            special_mask: false,
            read_in_service: false,
            poll: false,
        }
    }

    /// Inputs that are level-triggered. The cascade is: the second controller holds its output
    /// as long as it has a request, and may have the next one while the first is acknowledged.
    const fn level_triggered(&self) -> u8 {
        match self.role {
            Role::First => self.elcr | CASCADE_BIT,
            Role::Second => self.elcr,
        }
    }

    /// The interrupt request register.
    #[must_use]
    pub const fn requests(&self) -> u8 {
        (self.latched & !self.level_triggered()) | (self.inputs & self.level_triggered())
    }

    /// Drives input `input` (modulo 8). An edge-triggered request is taken back when its input
    /// falls before the acknowledge (datasheet page 18).
    pub fn set_input(&mut self, input: u8, level: Level) {
        let bit = 1u8 << (input & 7);
        if !level.is_high() {
            self.inputs &= !bit;
            self.latched &= !bit;
        } else if self.inputs & bit == 0 {
            self.inputs |= bit;
            self.latched |= bit;
        }
    }

    /// 0 for the highest priority.
    const fn rank(&self, level: u8) -> u8 {
        level.wrapping_sub(self.lowest).wrapping_sub(1) & 7
    }

    /// The level with the highest priority in a set.
    fn highest(&self, set: u8) -> Option<u8> {
        (0..8).filter(|level| set & (1 << level) != 0).min_by_key(|level| self.rank(*level))
    }

    /// The level that the controller asks the processor to serve.
    #[must_use]
    pub fn pending(&self) -> Option<u8> {
        let level = self.highest(self.requests() & !self.mask)?;
        let icw4 = Icw4::from_bits_retain(self.icw4);
        // In special mask mode a masked level in service holds back nothing (page 16).
        let mut blocking =
            if self.special_mask { self.in_service & !self.mask } else { self.in_service };
        // In special fully nested mode another request of the cascaded one passes (page 17).
        if self.role == Role::First && icw4.contains(Icw4::SPECIAL_FULLY_NESTED) {
            blocking &= !CASCADE_BIT;
        }
        if self.special_mask {
            let free = blocking & (1 << level) == 0;
            return Some(level).filter(|_| free);
        }
        match self.highest(blocking) {
            Some(serving) if self.rank(serving) <= self.rank(level) => None,
            Some(_) | None => Some(level),
        }
    }

    /// The interrupt acknowledge cycle: the level taken, or none for a spurious one (to which the
    /// chip answers with level 7, not in service).
    pub fn acknowledge(&mut self) -> Option<u8> {
        let level = self.pending()?;
        let bit = 1u8 << level;
        self.latched &= !bit;
        if Icw4::from_bits_retain(self.icw4).contains(Icw4::AUTO_EOI) {
            if self.rotate_in_auto_eoi {
                self.lowest = level;
            }
        } else {
            self.in_service |= bit;
        }
        Some(level)
    }

    /// The vector of a level.
    #[must_use]
    pub const fn vector(&self, level: u8) -> u8 {
        (self.vector_base & 0xF8) | (level & 7)
    }

    /// A write at the command port (`A0` = 0).
    pub fn write_command(&mut self, value: u8) {
        let icw1 = Icw1::from_bits_retain(value);
        let ocw3 = Ocw3::from_bits_retain(value);
        if icw1.contains(Icw1::MARK) {
            self.initialise(value);
        } else if ocw3.contains(Ocw3::MARK) {
            self.operate(ocw3);
        } else {
            self.end_or_rotate(Ocw2::decode(value));
        }
    }

    /// ICW1 (page 11): edge sense and mask are cleared, input 7 gets the lowest priority, special
    /// mask mode is off, the request register is read next.
    fn initialise(&mut self, value: u8) {
        self.icw1 = value;
        self.latched = 0;
        self.in_service = 0;
        self.mask = 0;
        self.lowest = 7;
        self.special_mask = false;
        self.rotate_in_auto_eoi = false;
        self.read_in_service = false;
        self.poll = false;
        if !Icw1::from_bits_retain(value).contains(Icw1::NEEDS_ICW4) {
            self.icw4 = 0;
        }
        self.expect = Expect::Vector;
    }

    fn operate(&mut self, word: Ocw3) {
        if word.contains(Ocw3::POLL) {
            self.poll = true;
        }
        if word.contains(Ocw3::READ) {
            self.read_in_service = word.contains(Ocw3::READ_IN_SERVICE);
        }
        if word.contains(Ocw3::SPECIAL_MASK_COUNTS) {
            self.special_mask = word.contains(Ocw3::SPECIAL_MASK);
        }
    }

    fn end_or_rotate(&mut self, word: Ocw2) {
        // A non-specific EOI in special mask mode doesn't end a masked level (page 16).
        let visible =
            if self.special_mask { self.in_service & !self.mask } else { self.in_service };
        match word {
            Ocw2::ClearRotateInAutoEoi => self.rotate_in_auto_eoi = false,
            Ocw2::SetRotateInAutoEoi => self.rotate_in_auto_eoi = true,
            Ocw2::NoOperation => {}
            Ocw2::SetPriority(level) => self.lowest = level,
            Ocw2::SpecificEoi(level) => self.in_service &= !(1 << level),
            Ocw2::RotateOnSpecificEoi(level) => {
                self.in_service &= !(1 << level);
                self.lowest = level;
            }
            Ocw2::NonSpecificEoi => {
                if let Some(level) = self.highest(visible) {
                    self.in_service &= !(1 << level);
                }
            }
            Ocw2::RotateOnNonSpecificEoi => {
                if let Some(level) = self.highest(visible) {
                    self.in_service &= !(1 << level);
                    self.lowest = level;
                }
            }
        }
    }

    /// A write at the data port (`A0` = 1).
    pub fn write_data(&mut self, value: u8) {
        let icw1 = Icw1::from_bits_retain(self.icw1);
        let after_cascade =
            if icw1.contains(Icw1::NEEDS_ICW4) { Expect::Mode } else { Expect::Mask };
        match self.expect {
            Expect::Mask => self.mask = value,
            Expect::Vector => {
                self.vector_base = value & 0xF8;
                self.expect =
                    if icw1.contains(Icw1::SINGLE) { after_cascade } else { Expect::Cascade };
            }
            // The wiring of the pair is fixed: what ICW3 says is not looked at.
            Expect::Cascade => self.expect = after_cascade,
            Expect::Mode => {
                self.icw4 = value;
                self.expect = Expect::Mask;
            }
        }
    }

    /// A read at the command port.
    pub fn read_command(&mut self) -> u8 {
        if self.poll {
            self.poll_read()
        } else if self.read_in_service {
            self.in_service
        } else {
            self.requests()
        }
    }

    /// A read at the data port.
    pub fn read_data(&mut self) -> u8 {
        if self.poll { self.poll_read() } else { self.mask }
    }

    /// The read after a poll command acknowledges (page 17).
    fn poll_read(&mut self) -> u8 {
        self.poll = false;
        self.acknowledge().map_or(0, |level| 0x80 | level)
    }
}
