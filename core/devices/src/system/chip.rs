//! Port 0x92 and the reset control register.

use super::{ResetKind, SystemRequest};
use crate::saved::{RestoreError, Section};
use crate::socket::{Access, Chip, Effects};

const VERSION: u32 = 1;

/// Port 0x92 (PS/2; PIIX4 §4.2.7): bit 0 fast reset, bit 1 A20. Wire 0 is A20.
#[derive(Clone, Debug, Default)]
pub struct SystemControlA {
    value: u8,
}

const FAST_RESET: u8 = 1 << 0;
const FAST_A20: u8 = 1 << 1;

impl Chip for SystemControlA {
    type Effect = SystemRequest;
    const NAME: &'static str = "port92";

    fn read(&mut self, _access: Access, _effects: &mut Effects<SystemRequest>) -> u64 {
        u64::from(self.value)
    }

    fn write(&mut self, _access: Access, value: u64, effects: &mut Effects<SystemRequest>) {
        let value = value as u8;
        // The reset is the change from 0 to 1.
        if value & !self.value & FAST_RESET != 0 {
            effects.push(SystemRequest::Reset(ResetKind::Processor));
        }
        self.value = value & (FAST_RESET | FAST_A20);
    }

    fn levels(&self) -> u32 {
        u32::from(self.value & FAST_A20 != 0)
    }

    fn save(&self, name: &str) -> Section {
        let Self { value } = self;
        Section::encode(name, VERSION, value)
    }

    fn restore(&mut self, name: &str, section: &Section) -> Result<(), RestoreError> {
        self.value = section.decode(name, VERSION)?;
        Ok(())
    }
}

/// The reset control register, 0xCF9 (PIIX4 §4.2.8): bit 1 hard reset, bit 2 its rising edge
/// resets. What others put in bit 3 (full power cycle) makes no difference here.
#[derive(Clone, Debug, Default)]
pub struct ResetControl {
    value: u8,
}

const HARD: u8 = 1 << 1;
const RESET_CPU: u8 = 1 << 2;

impl Chip for ResetControl {
    type Effect = SystemRequest;
    const NAME: &'static str = "reset-control";

    fn read(&mut self, _access: Access, _effects: &mut Effects<SystemRequest>) -> u64 {
        u64::from(self.value)
    }

    fn write(&mut self, _access: Access, value: u64, effects: &mut Effects<SystemRequest>) {
        let value = value as u8;
        if value & !self.value & RESET_CPU != 0 {
            let kind = if value & HARD != 0 { ResetKind::System } else { ResetKind::Processor };
            effects.push(SystemRequest::Reset(kind));
        }
        // The trigger bit stays as written, so that only a new edge resets again.
        self.value = value & (HARD | RESET_CPU);
    }

    fn save(&self, name: &str) -> Section {
        let Self { value } = self;
        Section::encode(name, VERSION, value)
    }

    fn restore(&mut self, name: &str, section: &Section) -> Result<(), RestoreError> {
        self.value = section.decode(name, VERSION)?;
        Ok(())
    }
}
