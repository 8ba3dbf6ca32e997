//! The saved form of a processor: versioned bytes, independent of engine, home and the layout of
//! [`CpuState`] in memory (section `cpu.N`, DESIGN §4).

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::apic;
use crate::segment::{DescriptorTable, SegmentRegister};
use crate::state::{Activity, CpuState, InterruptShadow, Msrs};
use crate::vector_state::VectorState;

/// Raised with every change of the form.
pub const VERSION: u16 = 2;

/// What was read is no processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SavedError {
    /// Too short or garbled.
    Malformed,
    /// A version that this program does not know.
    Version {
        /// The version found.
        found: u16,
    },
}

impl fmt::Display for SavedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the saved processor is garbled"),
            Self::Version { found } => {
                write!(f, "the saved processor has version {found}, this program knows {VERSION}")
            }
        }
    }
}

impl core::error::Error for SavedError {}

#[derive(Serialize, Deserialize)]
struct Form {
    gpr: [u64; 16],
    rip: u64,
    rflags: u64,
    /// ES, CS, SS, DS, FS, GS, LDTR, TR.
    segments: [SegmentRegister; 8],
    gdtr: DescriptorTable,
    idtr: DescriptorTable,
    cr: [u64; 4],
    efer: u64,
    xcr0: u64,
    dr: [u64; 4],
    dr6: u64,
    dr7: u64,
    msrs: Msrs,
    /// FCW, FSW, FTW, FOP.
    x87: [u16; 4],
    fip: u64,
    fdp: u64,
    fcs: u16,
    fds: u16,
    mxcsr: u32,
    st: [[u8; 10]; 8],
    ymm: [[u64; 4]; 16],
    pdpte: [u64; 4],
    activity: Activity,
    interrupt_shadow: InterruptShadow,
    pending_debug: u64,
    nmi_blocked: bool,
    nmi_pending: bool,
    smm: bool,
    smbase: u32,
    apic: Vec<u8>,
}

/// The saved form of a processor.
#[must_use]
pub fn save(state: &CpuState) -> Vec<u8> {
    // Every field is named, so that a new one can't be forgotten here.
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
        dr,
        dr6,
        dr7,
        msrs,
        vector,
        pdpte,
        activity,
        interrupt_shadow,
        pending_debug,
        nmi_blocked,
        nmi_pending,
        smm,
        smbase,
        apic,
    } = state.clone();
    let mut st = [[0; 10]; 8];
    for (slot, n) in st.iter_mut().zip(0..) {
        *slot = vector.st(n);
    }
    let form = Form {
        gpr,
        rip,
        rflags,
        segments: [es, cs, ss, ds, fs, gs, ldtr, tr],
        gdtr,
        idtr,
        cr: [cr0, cr2, cr3, cr4],
        efer,
        xcr0,
        dr,
        dr6,
        dr7,
        msrs,
        x87: [vector.fcw(), vector.fsw(), u16::from(vector.ftw()), vector.fop()],
        fip: vector.fip(),
        fdp: vector.fdp(),
        fcs: vector.fcs,
        fds: vector.fds,
        mxcsr: vector.mxcsr(),
        st,
        ymm: vector.ymm,
        pdpte,
        activity,
        interrupt_shadow,
        pending_debug,
        nmi_blocked,
        nmi_pending,
        smm,
        smbase,
        apic,
    };
    postcard::to_allocvec(&(VERSION, form)).unwrap_or_default()
}

/// The processor in `bytes`.
///
/// # Errors
/// If they are not a saved processor of a version that this program knows.
pub fn restore(bytes: &[u8]) -> Result<CpuState, SavedError> {
    let (version, rest) =
        postcard::take_from_bytes::<u16>(bytes).map_err(|_| SavedError::Malformed)?;
    if version != VERSION {
        return Err(SavedError::Version { found: version });
    }
    let form: Form = postcard::from_bytes(rest).map_err(|_| SavedError::Malformed)?;
    if !form.apic.is_empty() && apic::saved_cr8(&form.apic).is_none() {
        return Err(SavedError::Malformed);
    }
    let mut state = CpuState::reset(false);
    state.gpr = form.gpr;
    state.rip = form.rip;
    state.rflags = form.rflags;
    [state.es, state.cs, state.ss, state.ds, state.fs, state.gs, state.ldtr, state.tr] =
        form.segments;
    state.gdtr = form.gdtr;
    state.idtr = form.idtr;
    [state.cr0, state.cr2, state.cr3, state.cr4] = form.cr;
    state.efer = form.efer;
    state.xcr0 = form.xcr0;
    state.dr = form.dr;
    state.dr6 = form.dr6;
    state.dr7 = form.dr7;
    state.msrs = form.msrs.clone();
    *state.vector = vector_of(&form);
    state.pdpte = form.pdpte;
    state.activity = form.activity;
    state.interrupt_shadow = form.interrupt_shadow;
    state.pending_debug = form.pending_debug;
    state.nmi_blocked = form.nmi_blocked;
    state.nmi_pending = form.nmi_pending;
    state.smm = form.smm;
    state.smbase = form.smbase;
    state.apic = form.apic;
    Ok(state)
}

fn vector_of(form: &Form) -> VectorState {
    let mut vector = VectorState::default();
    let [fcw, fsw, ftw, fop] = form.x87;
    vector.set_fcw(fcw);
    vector.set_fsw(fsw);
    vector.set_ftw(ftw as u8);
    vector.set_fop(fop);
    vector.set_fip(form.fip);
    vector.set_fdp(form.fdp);
    vector.fcs = form.fcs;
    vector.fds = form.fds;
    // Reserved bits would make the host's FXRSTOR fault.
    vector.set_mxcsr(form.mxcsr & 0xFFFF);
    for (value, n) in form.st.iter().zip(0..) {
        vector.set_st(n, *value);
    }
    vector.ymm = form.ymm;
    vector
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apic::{ApicBus, LocalApic};
    use alloc::sync::Arc;

    fn busy_state() -> CpuState {
        let mut state = CpuState::reset(true);
        state.gpr = core::array::from_fn(|n| n as u64 * 0x0101_0101_0101);
        state.rip = 0xFFFF_FFFF_8100_0000;
        state.gs.base = 0xFFFF_8880_0000_0000;
        state.cr3 = 0x1234_5000;
        state.activity = Activity::Halted;
        state.nmi_pending = true;
        state.interrupt_shadow = InterruptShadow::MovSs;
        state.pending_debug = 0x4001;
        state.vector.set_st(3, [9; 10]);
        state.vector.set_ymm(7, [1, 2, 3, 4]);
        state.vector.set_fip(0x77);
        state.msrs.lstar = 42;
        let bus = Arc::new(ApicBus::new(1));
        let mailbox = bus.mailbox(0).unwrap();
        state.apic = LocalApic::new(0, bus, mailbox).save();
        state
    }

    #[test]
    fn what_was_saved_comes_back() {
        let state = busy_state();
        let back = restore(&save(&state)).unwrap();
        assert_eq!(back, state);
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let bytes = save(&busy_state());
        let cut = (0..bytes.len()).filter(|n| restore(&bytes[..*n]).is_ok()).count();
        assert_eq!(cut, 0);
        assert_eq!(restore(&[9, 1, 2]), Err(SavedError::Version { found: 9 }));
    }

    #[test]
    fn a_garbled_local_apic_is_an_error() {
        let mut state = busy_state();
        state.apic.truncate(20);

        assert_eq!(restore(&save(&state)), Err(SavedError::Malformed));
    }
}
