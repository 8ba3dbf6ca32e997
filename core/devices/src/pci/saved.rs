//! The bus's saved form: of each function the bits that the guest can have written, the INTx
//! level, the MSI-X table and what is pending.

use alloc::vec::Vec;

use kasane_ports::Level;
use kasane_spec_pci::capability::msi;
use lock_api::RawMutex;

use super::address::PciAddress;
use super::bus::{PciBus, Slot};
use super::msi::MsixEntry;
use crate::saved::{RestoreError, Saved, Section};

const SECTION: &str = "pci";
const VERSION: u32 = 1;

#[derive(serde::Serialize, serde::Deserialize)]
struct Form {
    config_address: u32,
    functions: Vec<FunctionForm>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct FunctionForm {
    address: PciAddress,
    space: Vec<u8>,
    intx: bool,
    msi_pending: u32,
    msix: Vec<MsixEntry>,
    msix_pending: Vec<u64>,
}

impl FunctionForm {
    fn of(slot: &Slot) -> Self {
        let table = slot.msix.as_ref();
        Self {
            address: slot.address,
            space: slot.space.writable_bytes(),
            intx: slot.intx.is_high(),
            msi_pending: slot.msi.map_or(0, |at| slot.space.u32(at.wrapping_add(msi::PENDING))),
            msix: table.map_or_else(Vec::new, |table| table.entries.clone()),
            msix_pending: table.map_or_else(Vec::new, |table| table.pending.clone()),
        }
    }

    /// Whether the function's shape is that of `slot`.
    fn fits(&self, slot: &Slot) -> bool {
        let (entries, words) =
            slot.msix.as_ref().map_or((0, 0), |table| (table.entries.len(), table.pending.len()));
        self.address == slot.address
            && self.msix.len() == entries
            && self.msix_pending.len() == words
            && (slot.msi.is_some() || self.msi_pending == 0)
    }

    fn put(self, slot: &mut Slot) {
        slot.space.put_writable_bytes(&self.space);
        slot.intx = Level::from_asserted(self.intx);
        slot.note_intx();
        if let Some(at) = slot.msi {
            slot.space.set(at.wrapping_add(msi::PENDING), &self.msi_pending.to_le_bytes());
        }
        if let Some(table) = &mut slot.msix {
            table.entries = self.msix;
            table.pending = self.msix_pending;
        }
    }
}

impl<R: RawMutex + Send + Sync + 'static> Saved for PciBus<R> {
    fn section_name(&self) -> &str {
        SECTION
    }
    fn save(&self) -> Section {
        self.inspect(|state| {
            let functions = state.slots.iter().map(FunctionForm::of).collect();
            let form = Form { config_address: state.config_address, functions };
            Section::encode(SECTION, VERSION, &form)
        })
    }
    fn restore(&self, section: &Section) -> Result<(), RestoreError> {
        let form: Form = section.decode(SECTION, VERSION)?;
        self.with(|state, _| {
            let same = form.functions.len() == state.slots.len()
                && form.functions.iter().zip(&state.slots).all(|(form, slot)| form.fits(slot));
            if !same {
                return Err(RestoreError::Malformed { name: section.name.clone() });
            }
            state.config_address =
                form.config_address & kasane_spec_pci::mechanism::config1::WRITABLE;
            for (form, slot) in form.functions.into_iter().zip(&mut state.slots) {
                form.put(slot);
            }
            self.remap(state);
            Ok(())
        })?;
        self.drive_all();
        Ok(())
    }
}
