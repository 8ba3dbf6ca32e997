//! A device's saved form: status, features and queues, and the chip's own.

use alloc::vec::Vec;

use super::chip::VirtioChip;
use super::core_state::VirtioCore;
use super::queue::{Queue, QueueForm, RingForm};
use crate::saved::{RestoreError, Section};

/// Version of what all devices have in common; the chip's is above it.
const CORE_VERSION: u32 = 1;

#[derive(serde::Serialize, serde::Deserialize)]
struct Form<F> {
    status: u8,
    accepted: u64,
    generation: u8,
    queues: Vec<QueueForm>,
    chip: F,
}

const fn version<C: VirtioChip>() -> u32 {
    C::FORM_VERSION << 8 | CORE_VERSION
}

pub(super) fn save<C: VirtioChip>(core: &VirtioCore<C>, name: &str) -> Section {
    let form = Form {
        status: core.status(),
        accepted: core.accepted,
        generation: core.generation,
        queues: core.queues.iter().map(QueueForm::of).collect(),
        chip: core.chip.save(),
    };
    Section::encode(name, version::<C>(), &form)
}

/// Takes a state over; keeps its own on an error.
pub(super) fn restore<C: VirtioChip>(
    core: &mut VirtioCore<C>,
    name: &str,
    section: &Section,
) -> Result<(), RestoreError> {
    let malformed = || RestoreError::Malformed { name: section.name.clone() };
    let form: Form<C::Form> = section.decode(name, version::<C>())?;
    let rings = RingForm::of(form.accepted);
    let queues: Option<Vec<Queue>> = (core.queues.len() == form.queues.len())
        .then(|| form.queues.iter().zip(&core.queues))
        .and_then(|both| both.map(|(form, now)| form.queue(now.size_max(), rings)).collect());
    let queues = queues.ok_or_else(malformed)?;
    if !core.can_have(form.status, form.accepted) {
        return Err(malformed());
    }
    core.chip.restore(form.chip).map_err(|_| malformed())?;
    core.take_over(form.status, form.accepted, queues);
    core.generation = form.generation;
    Ok(())
}
