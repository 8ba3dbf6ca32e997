//! A whole machine as bytes: saved while it is paused, rebuilt in another process.
//!
//! The sections are the machine's (`header`, one for each device) and `cpu.N`, independent of the
//! engine; `kasane-host-state` has the form of the file. The machine is held meanwhile, so that its
//! memory and its devices agree although the backends' threads live on. What has been typed and not
//! yet been taken by the guest's serial port stays with the process that is saved.

use std::io::{Read, Write};
use std::sync::Arc;

use kasane_cpu::{CpuState, StateSet};
use kasane_devices::{RestoreError, Section};
use kasane_host_state::{StateError, StateReader, StateWriter, read_memory, write_memory};
use kasane_machine::{SavedHeader, SavedStateError, restore_processor, save_processor};

use super::assemble::{self, Parts};
use super::control::{Begin, NotPaused};
use super::{Lent, Specification, StartError, VirtualMachine};

/// A machine that can't be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// It has ended, or is not paused.
    #[error(transparent)]
    NotPaused(#[from] NotPaused),
    /// Its memory, or where it is saved to.
    #[error("the saved machine is not complete")]
    State(#[from] StateError),
}

/// A saved machine that can't be taken back.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not one, cut off, damaged, or not to be read.
    #[error("the saved machine can't be used")]
    Form(#[from] StateError),
    /// Another machine, or a section that is missing or damaged.
    #[error("the saved state can't be taken over")]
    State(#[from] SavedStateError),
    /// The same, of a vCPU.
    #[error("a processor's state can't be taken over")]
    Processor(#[from] RestoreError),
    /// The machine can't be built at all.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl VirtualMachine {
    /// Saves the machine, which has to be paused and stays so.
    ///
    /// # Errors
    /// When it is not paused, or can't be written.
    pub fn save(&self, to: &mut impl Write) -> Result<(), SaveError> {
        let _hold = self.machine.hold();
        let mut writer = StateWriter::new(to)?;
        for section in self.machine.save() {
            writer.section(&section)?;
        }
        for index in 0..self.cpus() {
            let state = self.control.with_vcpu(index, |vcpu| {
                let mut state = CpuState::reset(false);
                vcpu.read(StateSet::ALL, &mut state);
                state
            })?;
            writer.section(&save_processor(index, &state))?;
        }
        write_memory(&mut writer, &*self.ram)?;
        writer.finish()?;
        Ok(())
    }

    /// Builds the machine that was saved; it goes on where it stood.
    ///
    /// # Errors
    /// When the bytes are no saved machine, or one of another kind than `specification`.
    pub fn start_saved(
        specification: &Specification,
        lent: &Lent,
        from: &mut impl Read,
    ) -> Result<Self, LoadError> {
        let mut parts = assemble::hardware(specification, lent)?;
        let reader = StateReader::new(from)?;
        parts.clock.pause();
        parts.clock.set_ns(SavedHeader::read(reader.sections())?.time_ns);
        let machine = Arc::clone(&parts.machine);
        let hold = machine.hold();
        restore(&mut parts, reader.sections())?;
        read_memory(reader, &*parts.ram)?;
        drop(hold);
        parts.machine.follow_wall_clock();
        parts.clock.resume();
        Ok(Self::launch(parts, Begin::Running)?)
    }
}

fn restore(parts: &mut Parts, sections: &[Section]) -> Result<(), LoadError> {
    parts.machine.restore(sections)?;
    for one in &mut parts.vcpus {
        let state = restore_processor(one.index, sections)?;
        one.vcpu.write(StateSet::ALL, &state);
    }
    Ok(())
}
