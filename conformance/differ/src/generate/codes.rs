//! Which opcodes are tried: all that iced knows, that can run in 64-bit user mode, that both
//! processors have, and whose result depends on nothing but the state we set.

use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::LazyLock;

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

/// Whether this CPU has a feature that not every x86-64 has.
fn present(feature: CpuidFeature) -> bool {
    // Asked once: CPUID is slow in a virtual machine.
    static LEAF7: LazyLock<u32> = LazyLock::new(|| match __cpuid(0).eax {
        7.. => __cpuid_count(7, 0).ebx,
        _ => 0,
    });
    let bit7 = |n: u32| *LEAF7 >> n & 1 != 0;
    match feature {
        CpuidFeature::CMPXCHG16B => is_x86_feature_detected!("cmpxchg16b"),
        CpuidFeature::MOVBE => is_x86_feature_detected!("movbe"),
        CpuidFeature::POPCNT => is_x86_feature_detected!("popcnt"),
        CpuidFeature::LZCNT => is_x86_feature_detected!("lzcnt"),
        CpuidFeature::BMI1 => is_x86_feature_detected!("bmi1"),
        CpuidFeature::BMI2 => is_x86_feature_detected!("bmi2"),
        CpuidFeature::ADX => is_x86_feature_detected!("adx"),
        CpuidFeature::SSE3 => is_x86_feature_detected!("sse3"),
        CpuidFeature::SSSE3 => is_x86_feature_detected!("ssse3"),
        CpuidFeature::SSE4_1 => is_x86_feature_detected!("sse4.1"),
        CpuidFeature::SSE4_2 => is_x86_feature_detected!("sse4.2"),
        CpuidFeature::AES => is_x86_feature_detected!("aes"),
        CpuidFeature::PCLMULQDQ => is_x86_feature_detected!("pclmulqdq"),
        CpuidFeature::SHA => is_x86_feature_detected!("sha"),
        CpuidFeature::AVX => is_x86_feature_detected!("avx"),
        CpuidFeature::AVX2 => is_x86_feature_detected!("avx2"),
        CpuidFeature::FMA => is_x86_feature_detected!("fma"),
        CpuidFeature::F16C => is_x86_feature_detected!("f16c"),
        CpuidFeature::FSGSBASE => bit7(0),
        CpuidFeature::CLFLUSHOPT => bit7(23),
        CpuidFeature::CLWB => bit7(24),
        _ => true,
    }
}

/// Instructions that depend on more than our state (time, privilege tables, other processors'
/// settings), or that hand control to the operating system.
pub(crate) fn is_excluded(mnemonic: Mnemonic) -> bool {
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
    let reads_segment = matches!(
        code,
        Code::Mov_rm16_Sreg
            | Code::Mov_r32m16_Sreg
            | Code::Mov_r64m16_Sreg
            | Code::Pushw_FS
            | Code::Pushd_FS
            | Code::Pushq_FS
            | Code::Pushw_GS
            | Code::Pushd_GS
            | Code::Pushq_GS
    );
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
        && (reads_segment || !touches_segments)
        && !far
        && matches!(info.encoding(), EncodingKind::Legacy | EncodingKind::VEX)
        && info.decoder_option() == 0
        && code.cpuid_features().iter().all(|feature| shown(*feature))
        && !is_excluded(code.mnemonic())
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

/// Whether an opcode may be tried on this CPU.
#[must_use]
pub fn testable(code: Code, bits: u32) -> bool {
    allowed(code, bits) && code.cpuid_features().iter().all(|feature| present(*feature))
}

/// All opcodes to try, in iced's order, those of 64-bit code first.
#[must_use]
pub fn all() -> Vec<(Code, u32)> {
    [64, 32]
        .into_iter()
        .flat_map(|bits| {
            Code::values().filter(move |code| testable(*code, bits)).map(move |code| (code, bits))
        })
        .collect()
}
