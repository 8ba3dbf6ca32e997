//! Two 8259A, the second one's output on input 2 of the first.

use kasane_ports::Level;

use super::chip::{Pic, Role};
use super::spec::{ELCR_1_MASK, ELCR_2_MASK};

/// The cascade's input at the first controller.
const CASCADE: u8 = 2;

/// The pair. Offsets of its registers: 0 and 1 first controller, 2 and 3 second one, 4 and 5
/// their edge/level control.
#[derive(Clone, Debug)]
pub struct PicPair {
    pub(super) first: Pic,
    pub(super) second: Pic,
}

impl Default for PicPair {
    fn default() -> Self {
        Self { first: Pic::new(Role::First), second: Pic::new(Role::Second) }
    }
}

impl PicPair {
    /// Whether INTR is asserted.
    #[must_use]
    pub fn output(&self) -> bool {
        self.first.pending().is_some()
    }

    fn cascade(&mut self) {
        let level = Level::from_asserted(self.second.pending().is_some());
        self.first.set_input(CASCADE, level);
    }

    /// Drives ISA interrupt `irq`, 0 to 15. Input 2 belongs to the cascade.
    pub fn set_input(&mut self, irq: u8, level: Level) {
        match irq {
            CASCADE => {}
            0..8 => self.first.set_input(irq, level),
            8..16 => self.second.set_input(irq.wrapping_sub(8), level),
            16.. => {}
        }
        self.cascade();
    }

    /// The processor's interrupt acknowledge: the vector. Without a request it is that of the
    /// spurious interrupt, input 7 of the controller that was asked.
    pub fn acknowledge(&mut self) -> u8 {
        let vector = match self.first.acknowledge() {
            Some(CASCADE) => {
                let level = self.second.acknowledge().unwrap_or(7);
                self.second.vector(level)
            }
            Some(level) => self.first.vector(level),
            None => self.first.vector(7),
        };
        self.cascade();
        vector
    }

    /// A register read.
    pub fn read(&mut self, offset: u32) -> u8 {
        let value = match offset {
            0 => self.first.read_command(),
            1 => self.first.read_data(),
            2 => self.second.read_command(),
            3 => self.second.read_data(),
            4 => self.first.elcr,
            5 => self.second.elcr,
            6.. => 0xFF,
        };
        self.cascade();
        value
    }

    /// A register write.
    pub fn write(&mut self, offset: u32, value: u8) {
        match offset {
            0 => self.first.write_command(value),
            1 => self.first.write_data(value),
            2 => self.second.write_command(value),
            3 => self.second.write_data(value),
            4 => self.first.elcr = value & ELCR_1_MASK,
            5 => self.second.elcr = value & ELCR_2_MASK,
            6.. => {}
        }
        self.cascade();
    }
}
