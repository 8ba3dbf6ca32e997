//! The registers' saved form.

use lock_api::RawMutex;

use super::registers::{Selectors, VirtioMmio};
use crate::saved::{RestoreError, Saved, Section};

const VERSION: u32 = 1;

#[derive(serde::Serialize, serde::Deserialize)]
struct Form {
    selectors: Selectors,
    status: u8,
}

impl<R: RawMutex + Send + Sync> Saved for VirtioMmio<R> {
    fn section_name(&self) -> &str {
        &self.section
    }
    fn save(&self) -> Section {
        let form = Form { selectors: *self.selectors.lock(), status: self.interrupts.0.bits() };
        Section::encode(&self.section, VERSION, &form)
    }
    fn restore(&self, section: &Section) -> Result<(), RestoreError> {
        let Form { selectors, status } = section.decode(&self.section, VERSION)?;
        *self.selectors.lock() = selectors;
        self.interrupts.0.restore(status);
        Ok(())
    }
}
