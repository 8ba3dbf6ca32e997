//! Two flip-flops and a port.

use core::convert::Infallible;

use kasane_ports::Level;
use serde::{Deserialize, Serialize};

use crate::saved::{RestoreError, Section};
use crate::socket::{Access, Chip, Effects};

const VERSION: u32 = 1;
/// Wire 0: IRQ 13.
const IRQ: u32 = 1;
/// Wire 1: IGNNE#, in positive logic.
const IGNNE: u32 = 2;

/// The error logic. FERR# raises IRQ 13. A write to port 0xF0 takes the interrupt back and, as long
/// as FERR# stays, makes the processor ignore the error, so that the handler can use the FPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumericError {
    ferr: bool,
    irq: bool,
    ignne: bool,
}

impl NumericError {
    /// The processor drives FERR#.
    pub fn set_ferr(&mut self, level: Level) {
        let ferr = level.is_high();
        if ferr && !self.ferr {
            self.irq = true;
        }
        self.ferr = ferr;
        self.ignne &= ferr;
    }
}

impl Chip for NumericError {
    type Effect = Infallible;
    const NAME: &'static str = "numeric-error";

    fn read(&mut self, _access: Access, _effects: &mut Effects<Infallible>) -> u64 {
        0xFF
    }

    /// Port 0xF0, and 0xF1, which once reset the coprocessor too.
    fn write(&mut self, _access: Access, _value: u64, _effects: &mut Effects<Infallible>) {
        self.irq = false;
        self.ignne = self.ferr;
    }

    fn levels(&self) -> u32 {
        (u32::from(self.irq) * IRQ) | (u32::from(self.ignne) * IGNNE)
    }

    fn save(&self, name: &str) -> Section {
        Section::encode(name, VERSION, self)
    }

    fn restore(&mut self, name: &str, section: &Section) -> Result<(), RestoreError> {
        *self = section.decode(name, VERSION)?;
        Ok(())
    }
}
