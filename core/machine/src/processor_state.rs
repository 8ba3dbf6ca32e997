//! A vCPU's saved form: section `cpu.N`, the same for every engine (DESIGN §4).

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kasane_cpu::state::Msrs;
use kasane_cpu::vector_state::FxArea;
use kasane_cpu::{Activity, CpuState, DescriptorTable, SegmentRegister, VectorState};
use kasane_devices::{RestoreError, Section};
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;

fn name(index: u32) -> String {
    format!("cpu.{index}")
}

/// The section of vCPU `index`.
#[must_use]
pub fn save_processor(index: u32, state: &CpuState) -> Section {
    Section::encode(&name(index), VERSION, &SavedProcessor::from(state))
}

/// The state of vCPU `index` among `sections`.
///
/// # Errors
/// A section that is missing, of another version, or malformed.
pub fn restore_processor(index: u32, sections: &[Section]) -> Result<CpuState, RestoreError> {
    let name = name(index);
    let missing = || RestoreError::Missing { name: name.clone() };
    let section = sections.iter().find(|section| section.name == name).ok_or_else(missing)?;
    let saved: SavedProcessor = section.decode(&name, VERSION)?;
    saved.state().ok_or(RestoreError::Malformed { name })
}

/// Selector, access, limit, base.
type SavedSegment = (u16, u16, u32, u64);

#[derive(Serialize, Deserialize)]
struct SavedProcessor {
    gpr: [u64; 16],
    rip: u64,
    rflags: u64,
    /// ES, CS, SS, DS, FS, GS, LDTR, TR.
    segments: [SavedSegment; 8],
    /// GDTR, IDTR: base, limit.
    tables: [(u64, u16); 2],
    /// CR0, CR2, CR3, CR4, EFER, XCR0.
    control: [u64; 6],
    /// DR0 to DR3, DR6, DR7.
    debug: [u64; 6],
    msrs: SavedMsrs,
    vector: SavedVector,
    pdpte: [u64; 4],
    activity: u8,
    interrupt_shadow: bool,
    nmi_blocked: bool,
    nmi_pending: bool,
    smm: bool,
    smbase: u32,
    apic: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct SavedMsrs {
    /// As [`Msrs`] lists them, those before the MTRRs' arrays.
    plain: [u64; 16],
    mtrr_fixed: [u64; 11],
    mtrr_variable: [u64; 16],
    kvm: [u64; 2],
}

#[derive(Serialize, Deserialize)]
struct SavedVector {
    fx: Vec<u8>,
    ymm: [[u64; 4]; 16],
    fcs: u16,
    fds: u16,
}

const fn saved_segment(register: &SegmentRegister) -> SavedSegment {
    let SegmentRegister { selector, access, limit, base } = *register;
    (selector, access, limit, base)
}

const fn segment((selector, access, limit, base): SavedSegment) -> SegmentRegister {
    SegmentRegister { selector, access, limit, base }
}

const fn saved_activity(activity: Activity) -> u8 {
    match activity {
        Activity::Running => 0,
        Activity::Halted => 1,
        Activity::WaitForSipi => 2,
        Activity::Shutdown => 3,
    }
}

const fn activity(saved: u8) -> Option<Activity> {
    match saved {
        0 => Some(Activity::Running),
        1 => Some(Activity::Halted),
        2 => Some(Activity::WaitForSipi),
        3 => Some(Activity::Shutdown),
        _ => None,
    }
}

impl From<&CpuState> for SavedProcessor {
    // Destructured, so that a field that is added can't be forgotten here.
    fn from(state: &CpuState) -> Self {
        let CpuState {
            gpr,
            rip,
            rflags,
            es,
            cs,
            ss,
            ds,
            fs,
            gs,
            ldtr,
            tr,
            gdtr,
            idtr,
            cr0,
            cr2,
            cr3,
            cr4,
            efer,
            xcr0,
            dr: [dr0, dr1, dr2, dr3],
            dr6,
            dr7,
            msrs,
            vector,
            pdpte,
            activity,
            interrupt_shadow,
            nmi_blocked,
            nmi_pending,
            smm,
            smbase,
            apic,
        } = state;
        Self {
            gpr: *gpr,
            rip: *rip,
            rflags: *rflags,
            segments: [es, cs, ss, ds, fs, gs, ldtr, tr].map(saved_segment),
            tables: [gdtr, idtr].map(|table| (table.base, table.limit)),
            control: [*cr0, *cr2, *cr3, *cr4, *efer, *xcr0],
            debug: [*dr0, *dr1, *dr2, *dr3, *dr6, *dr7],
            msrs: SavedMsrs::from(msrs),
            vector: SavedVector::from(&**vector),
            pdpte: *pdpte,
            activity: saved_activity(*activity),
            interrupt_shadow: *interrupt_shadow,
            nmi_blocked: *nmi_blocked,
            nmi_pending: *nmi_pending,
            smm: *smm,
            smbase: *smbase,
            apic: apic.clone(),
        }
    }
}

impl SavedProcessor {
    /// Nothing if a field has a value that no processor has.
    fn state(self) -> Option<CpuState> {
        let [es, cs, ss, ds, fs, gs, ldtr, tr] = self.segments.map(segment);
        let [gdtr, idtr] =
            self.tables.map(|(base, limit)| DescriptorTable { base, limit });
        let [cr0, cr2, cr3, cr4, efer, xcr0] = self.control;
        let [dr0, dr1, dr2, dr3, dr6, dr7] = self.debug;
        Some(CpuState {
            gpr: self.gpr,
            rip: self.rip,
            rflags: self.rflags,
            es,
            cs,
            ss,
            ds,
            fs,
            gs,
            ldtr,
            tr,
            gdtr,
            idtr,
            cr0,
            cr2,
            cr3,
            cr4,
            efer,
            xcr0,
            dr: [dr0, dr1, dr2, dr3],
            dr6,
            dr7,
            msrs: self.msrs.msrs(),
            vector: Box::new(self.vector.state()?),
            pdpte: self.pdpte,
            activity: activity(self.activity)?,
            interrupt_shadow: self.interrupt_shadow,
            nmi_blocked: self.nmi_blocked,
            nmi_pending: self.nmi_pending,
            smm: self.smm,
            smbase: self.smbase,
            apic: self.apic,
        })
    }
}

impl From<&Msrs> for SavedMsrs {
    fn from(msrs: &Msrs) -> Self {
        let Msrs {
            apic_base,
            tsc_offset,
            tsc_adjust,
            tsc_aux,
            sysenter_cs,
            sysenter_esp,
            sysenter_eip,
            star,
            lstar,
            cstar,
            fmask,
            kernel_gs_base,
            pat,
            misc_enable,
            mcg_status,
            mtrr_def_type,
            mtrr_fixed,
            mtrr_variable,
            kvm_system_time,
            kvm_wall_clock,
        } = msrs;
        Self {
            plain: [
                *apic_base,
                *tsc_offset,
                *tsc_adjust,
                *tsc_aux,
                *sysenter_cs,
                *sysenter_esp,
                *sysenter_eip,
                *star,
                *lstar,
                *cstar,
                *fmask,
                *kernel_gs_base,
                *pat,
                *misc_enable,
                *mcg_status,
                *mtrr_def_type,
            ],
            mtrr_fixed: *mtrr_fixed,
            mtrr_variable: *mtrr_variable,
            kvm: [*kvm_system_time, *kvm_wall_clock],
        }
    }
}

impl SavedMsrs {
    fn msrs(self) -> Msrs {
        let [
            apic_base,
            tsc_offset,
            tsc_adjust,
            tsc_aux,
            sysenter_cs,
            sysenter_esp,
            sysenter_eip,
            star,
            lstar,
            cstar,
            fmask,
            kernel_gs_base,
            pat,
            misc_enable,
            mcg_status,
            mtrr_def_type,
        ] = self.plain;
        let [kvm_system_time, kvm_wall_clock] = self.kvm;
        Msrs {
            apic_base,
            tsc_offset,
            tsc_adjust,
            tsc_aux,
            sysenter_cs,
            sysenter_esp,
            sysenter_eip,
            star,
            lstar,
            cstar,
            fmask,
            kernel_gs_base,
            pat,
            misc_enable,
            mcg_status,
            mtrr_def_type,
            mtrr_fixed: self.mtrr_fixed,
            mtrr_variable: self.mtrr_variable,
            kvm_system_time,
            kvm_wall_clock,
        }
    }
}

impl From<&VectorState> for SavedVector {
    fn from(state: &VectorState) -> Self {
        let VectorState { fx: FxArea(fx), ymm, fcs, fds } = state;
        Self { fx: fx.to_vec(), ymm: *ymm, fcs: *fcs, fds: *fds }
    }
}

impl SavedVector {
    fn state(self) -> Option<VectorState> {
        let fx = FxArea(self.fx.try_into().ok()?);
        Some(VectorState { fx, ymm: self.ymm, fcs: self.fcs, fds: self.fds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_processor_comes_back_as_it_was() {
        let mut state = CpuState::reset(false);
        state.gpr = core::array::from_fn(|n| n as u64 * 0x1111);
        state.cs.base = 0x1234_0000;
        state.tr.selector = 0x28;
        state.cr2 = 7;
        state.dr = [1, 2, 3, 4];
        state.msrs.kvm_wall_clock = 99;
        state.msrs.mtrr_variable[15] = 5;
        state.vector.set_ymm(15, [9, 8, 7, 6]);
        state.vector.set_fip(0xABCD);
        state.activity = Activity::Halted;
        state.nmi_blocked = true;
        state.smbase = 0x8000;
        state.apic = vec![1, 2, 3];

        let sections = [save_processor(0, &CpuState::reset(true)), save_processor(3, &state)];

        assert_eq!(restore_processor(3, &sections), Ok(state));
        assert_eq!(restore_processor(0, &sections), Ok(CpuState::reset(true)));
    }

    #[test]
    fn a_missing_or_damaged_section_is_named() {
        let mut section = save_processor(1, &CpuState::reset(true));
        let missing = restore_processor(2, core::slice::from_ref(&section));
        section.bytes.truncate(100);
        let damaged = restore_processor(1, &[section]);

        assert_eq!(missing, Err(RestoreError::Missing { name: "cpu.2".into() }));
        assert_eq!(damaged, Err(RestoreError::Malformed { name: "cpu.1".into() }));
    }
}
