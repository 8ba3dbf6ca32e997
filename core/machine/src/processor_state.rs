//! A vCPU's saved form as a section `cpu.N`, the same for every engine (DESIGN §4).

use alloc::format;
use alloc::string::String;

use kasane_cpu::CpuState;
use kasane_cpu::saved::{self, SavedError};
use kasane_devices::{RestoreError, Section};

fn name(index: u32) -> String {
    format!("cpu.{index}")
}

/// The section of vCPU `index`.
#[must_use]
pub fn save_processor(index: u32, state: &CpuState) -> Section {
    Section { name: name(index), version: saved::VERSION.into(), bytes: saved::save(state) }
}

/// The state of vCPU `index` among `sections`.
///
/// # Errors
/// A section that is missing, of another version, or malformed.
pub fn restore_processor(index: u32, sections: &[Section]) -> Result<CpuState, RestoreError> {
    let name = name(index);
    let Some(section) = sections.iter().find(|section| section.name == name) else {
        return Err(RestoreError::Missing { name });
    };
    if section.version != u32::from(saved::VERSION) {
        return Err(RestoreError::Version { name, found: section.version });
    }
    saved::restore(&section.bytes).map_err(|error| match error {
        SavedError::Malformed => RestoreError::Malformed { name },
        SavedError::Version { found } => RestoreError::Version { name, found: found.into() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_comes_back_as_it_was() {
        let mut state = CpuState::reset(false);
        state.gpr = core::array::from_fn(|n| n as u64 * 0x1111);
        state.msrs.mtrr_variable[15] = 5;
        state.vector.set_ymm(15, [9, 8, 7, 6]);

        let sections = [save_processor(0, &CpuState::reset(true)), save_processor(3, &state)];

        assert_eq!(restore_processor(3, &sections), Ok(state));
        assert_eq!(restore_processor(0, &sections), Ok(CpuState::reset(true)));
    }

    #[test]
    fn a_missing_or_damaged_section_is_named() {
        let mut section = save_processor(1, &CpuState::reset(true));
        let missing = restore_processor(2, core::slice::from_ref(&section));
        let mut newer = section.clone();
        newer.version += 1;
        let found = newer.version;
        let newer = restore_processor(1, &[newer]);
        section.bytes.truncate(100);
        let damaged = restore_processor(1, &[section]);

        assert_eq!(missing, Err(RestoreError::Missing { name: "cpu.2".into() }));
        assert_eq!(newer, Err(RestoreError::Version { name: "cpu.1".into(), found }));
        assert_eq!(damaged, Err(RestoreError::Malformed { name: "cpu.1".into() }));
    }
}
