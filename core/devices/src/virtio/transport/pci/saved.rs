//! The function's saved form: what the driver has selected, its vectors, the interrupt status.

use lock_api::RawMutex;

use super::function::{Selectors, VirtioPci};
use super::interrupts::Vectors;
use crate::saved::{RestoreError, Saved, Section};

const VERSION: u32 = 1;

#[derive(serde::Serialize, serde::Deserialize)]
struct Form {
    selectors: Selectors,
    vectors: Vectors,
    status: u8,
}

impl<R: RawMutex + Send + Sync> Saved for VirtioPci<R> {
    fn section_name(&self) -> &str {
        &self.section
    }
    fn save(&self) -> Section {
        let form = Form {
            selectors: *self.selectors.lock(),
            vectors: self.interrupts.vectors(),
            status: self.interrupts.status.bits(),
        };
        Section::encode(&self.section, VERSION, &form)
    }
    fn restore(&self, section: &Section) -> Result<(), RestoreError> {
        let Form { selectors, vectors, status } = section.decode(&self.section, VERSION)?;
        let malformed = || RestoreError::Malformed { name: section.name.clone() };
        self.interrupts.restore(vectors, status).ok_or_else(malformed)?;
        *self.selectors.lock() = selectors;
        Ok(())
    }
}
