//! Which opcodes are tried: all that iced knows, that can run in 64-bit user mode, that both
//! processors have, and whose result depends on nothing but the state we set.

use iced_x86::{Code, CpuidFeature, EncodingKind, Mnemonic, OpCodeOperandKind};

/// Features that the interpreter's `max` model shows and that this test knows how to feed.
fn shown(feature: CpuidFeature) -> bool {
    matches!(
        feature,
        CpuidFeature::INTEL8086
            | CpuidFeature::INTEL186
            | CpuidFeature::INTEL286
            | CpuidFeature::INTEL386
            | CpuidFeature::INTEL486
            | CpuidFeature::X64
            | CpuidFeature::CMOV
            | CpuidFeature::CX8
            | CpuidFeature::CMPXCHG16B
            | CpuidFeature::MULTIBYTENOP
            | CpuidFeature::PAUSE
            | CpuidFeature::CLFSH
            | CpuidFeature::CLFLUSHOPT
            | CpuidFeature::CLWB
            | CpuidFeature::PREFETCHW
            | CpuidFeature::MOVBE
            | CpuidFeature::POPCNT
            | CpuidFeature::LZCNT
            | CpuidFeature::BMI1
            | CpuidFeature::BMI2
            | CpuidFeature::ADX
            | CpuidFeature::FSGSBASE
            | CpuidFeature::CET_IBT
            | CpuidFeature::FPU
            | CpuidFeature::FPU287
            | CpuidFeature::FPU387
            | CpuidFeature::MMX
            | CpuidFeature::SSE
            | CpuidFeature::SSE2
            | CpuidFeature::SSE3
            | CpuidFeature::SSSE3
            | CpuidFeature::SSE4_1
            | CpuidFeature::SSE4_2
            | CpuidFeature::AES
            | CpuidFeature::PCLMULQDQ
            | CpuidFeature::SHA
            | CpuidFeature::AVX
            | CpuidFeature::AVX2
            | CpuidFeature::FMA
            | CpuidFeature::F16C
    )
}

/// Instructions that depend on more than our state (time, privilege tables, other processors'
/// settings), or that hand control to the operating system.
fn excluded(mnemonic: Mnemonic) -> bool {
    matches!(
        mnemonic,
        Mnemonic::Int
            | Mnemonic::Int1
            | Mnemonic::Int3
            | Mnemonic::Into
            | Mnemonic::Iret
            | Mnemonic::Iretd
            | Mnemonic::Iretq
            | Mnemonic::Retf
            | Mnemonic::Syscall
            | Mnemonic::Sysenter
            | Mnemonic::Sysexit
            | Mnemonic::Sysexitq
            | Mnemonic::Sysret
            | Mnemonic::Sysretq
            | Mnemonic::Lar
            | Mnemonic::Lsl
            | Mnemonic::Verr
            | Mnemonic::Verw
            | Mnemonic::Lss
            | Mnemonic::Les
            | Mnemonic::Lds
            | Mnemonic::Lfs
            | Mnemonic::Lgs
            | Mnemonic::Sgdt
            | Mnemonic::Sidt
            | Mnemonic::Sldt
            | Mnemonic::Smsw
            | Mnemonic::Str
            | Mnemonic::Popf
            | Mnemonic::Popfd
            | Mnemonic::Popfq
            | Mnemonic::Cpuid
            | Mnemonic::Rdtsc
            | Mnemonic::Rdpmc
            | Mnemonic::Ud0
            | Mnemonic::Loadall
            | Mnemonic::Fxsave
            | Mnemonic::Fxsave64
            | Mnemonic::Fxrstor
            | Mnemonic::Fxrstor64
            | Mnemonic::Umov
    )
}

/// Whether an opcode may be tried at all: what a decoded instruction is checked for.
#[must_use]
pub fn allowed(code: Code, bits: u32) -> bool {
    if code == Code::INVALID {
        return false;
    }
    let info = code.op_code();
    let touches_segments = info.op_kinds().iter().any(|kind| {
        matches!(
            kind,
            OpCodeOperandKind::seg_reg
                | OpCodeOperandKind::fs
                | OpCodeOperandKind::gs
                | OpCodeOperandKind::farbr2_2
                | OpCodeOperandKind::farbr4_2
                | OpCodeOperandKind::cr_reg
                | OpCodeOperandKind::dr_reg
                | OpCodeOperandKind::tr_reg
        )
    });
    let far = matches!(
        code,
        Code::Jmp_m1616
            | Code::Jmp_m1632
            | Code::Jmp_m1664
            | Code::Call_m1616
            | Code::Call_m1632
            | Code::Call_m1664
    );
    let loads_segment = code.mnemonic() == Mnemonic::Pop
        && info.op_kinds().iter().any(|kind| {
            matches!(kind, OpCodeOperandKind::es | OpCodeOperandKind::ss | OpCodeOperandKind::ds)
        });
    let mode = match bits {
        32 => info.mode32() && info.compatibility_mode() && info.intel_decoder32(),
        _ => info.mode64() && info.intel_decoder64(),
    };
    info.is_instruction()
        && mode
        && !loads_segment
        && info.cpl3()
        && !info.must_be_cpl0()
        && !info.fwait()
        && !touches_segments
        && !far
        && matches!(info.encoding(), EncodingKind::Legacy | EncodingKind::VEX)
        && info.decoder_option() == 0
        && code.cpuid_features().iter().all(|feature| shown(*feature))
        && !excluded(code.mnemonic())
}

/// Whether an instruction reads or writes x87, MMX, SSE or AVX state.
#[must_use]
pub fn uses_vectors(code: Code) -> bool {
    code.cpuid_features().iter().any(|feature| {
        matches!(
            feature,
            CpuidFeature::FPU
                | CpuidFeature::FPU287
                | CpuidFeature::FPU387
                | CpuidFeature::MMX
                | CpuidFeature::SSE
                | CpuidFeature::SSE2
                | CpuidFeature::SSE3
                | CpuidFeature::SSSE3
                | CpuidFeature::SSE4_1
                | CpuidFeature::SSE4_2
                | CpuidFeature::AES
                | CpuidFeature::PCLMULQDQ
                | CpuidFeature::SHA
                | CpuidFeature::AVX
                | CpuidFeature::AVX2
                | CpuidFeature::FMA
                | CpuidFeature::F16C
        )
    })
}

/// All opcodes to try, in iced's order, those of 64-bit code first.
#[must_use]
pub fn all() -> Vec<(Code, u32)> {
    [64, 32]
        .into_iter()
        .flat_map(|bits| {
            Code::values().filter(move |code| allowed(*code, bits)).map(move |code| (code, bits))
        })
        .collect()
}
