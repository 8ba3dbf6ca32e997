//! CPUID: which processor the guest sees, by named models (SDM vol. 2A "CPUID",
//! APM vol. 3 appendix E).
//!
//! A model is a set of [`Feature`]s. `x86-64-v2` and `x86-64-v3` have exactly the features of
//! those levels of the x86-64 psABI plus what every operating system kernel wants, so that a VM
//! moves between hosts; `max` adds all that the engine has here. A feature is shown only if it is
//! implemented, and a hidden feature's instructions raise #UD.
//!
//! The processor calls itself AuthenticAMD family 15, as QEMU's software CPU does: a family that
//! no kernel has errata or speculative-execution work-arounds with model-specific registers for.

use core::fmt;
use core::str::FromStr;

/// The register of a leaf that a feature bit is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Leaf1Edx,
    Leaf1Ecx,
    Leaf7Ebx,
    Leaf7Ecx,
    Leaf7Edx,
    XsaveEax,
    Ext1Edx,
    Ext1Ecx,
}

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident = $register:ident $bit:literal;)*) => {
        /// A processor feature that CPUID can show.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)] // the manual's names
        pub enum Feature { $($name,)* }
        impl Feature {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            const fn place(self) -> (Register, u32) {
                match self { $(Self::$name => (Register::$register, $bit),)* }
            }
        }
    };
}

features! {
    Fpu = Leaf1Edx 0; Vme = Leaf1Edx 1; De = Leaf1Edx 2; Pse = Leaf1Edx 3; Tsc = Leaf1Edx 4;
    Msr = Leaf1Edx 5; Pae = Leaf1Edx 6; Mce = Leaf1Edx 7; Cx8 = Leaf1Edx 8; Apic = Leaf1Edx 9;
    Sep = Leaf1Edx 11; Mtrr = Leaf1Edx 12; Pge = Leaf1Edx 13; Mca = Leaf1Edx 14;
    Cmov = Leaf1Edx 15; Pat = Leaf1Edx 16; Pse36 = Leaf1Edx 17; Clfsh = Leaf1Edx 19;
    Mmx = Leaf1Edx 23; Fxsr = Leaf1Edx 24; Sse = Leaf1Edx 25; Sse2 = Leaf1Edx 26;
    Sse3 = Leaf1Ecx 0; Pclmulqdq = Leaf1Ecx 1; Ssse3 = Leaf1Ecx 9; Fma = Leaf1Ecx 12;
    Cx16 = Leaf1Ecx 13; Pcid = Leaf1Ecx 17; Sse41 = Leaf1Ecx 19; Sse42 = Leaf1Ecx 20;
    X2apic = Leaf1Ecx 21; Movbe = Leaf1Ecx 22; Popcnt = Leaf1Ecx 23; TscDeadline = Leaf1Ecx 24;
    Aes = Leaf1Ecx 25; Xsave = Leaf1Ecx 26; Avx = Leaf1Ecx 28; F16c = Leaf1Ecx 29;
    Rdrand = Leaf1Ecx 30; Hypervisor = Leaf1Ecx 31;
    Fsgsbase = Leaf7Ebx 0; TscAdjust = Leaf7Ebx 1; Bmi1 = Leaf7Ebx 3; Avx2 = Leaf7Ebx 5;
    Smep = Leaf7Ebx 7; Bmi2 = Leaf7Ebx 8; Erms = Leaf7Ebx 9; Invpcid = Leaf7Ebx 10;
    ZeroFcsFds = Leaf7Ebx 13; Rdseed = Leaf7Ebx 18; Adx = Leaf7Ebx 19; Smap = Leaf7Ebx 20;
    Clflushopt = Leaf7Ebx 23;
    Clwb = Leaf7Ebx 24; Sha = Leaf7Ebx 29;
    Umip = Leaf7Ecx 2; Rdpid = Leaf7Ecx 22; Fsrm = Leaf7Edx 4;
    Xsaveopt = XsaveEax 0; Xsavec = XsaveEax 1; Xgetbv1 = XsaveEax 2; Xsaves = XsaveEax 3;
    Syscall = Ext1Edx 11; Nx = Ext1Edx 20; Page1g = Ext1Edx 26; Rdtscp = Ext1Edx 27;
    Lm = Ext1Edx 29;
    Lahf = Ext1Ecx 0; Cr8Legacy = Ext1Ecx 4; Lzcnt = Ext1Ecx 5; Prefetchw = Ext1Ecx 8;
}

/// A set of features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeatureSet(u128);

impl FeatureSet {
    /// No feature.
    pub const EMPTY: Self = Self(0);
    /// The set of these features.
    #[must_use]
    pub const fn of(features: &[Feature]) -> Self {
        let mut bits = 0;
        let mut rest = features;
        while let Some((first, tail)) = rest.split_first() {
            bits |= 1u128 << (*first as u32);
            rest = tail;
        }
        Self(bits)
    }
    /// Whether `feature` is in it.
    #[inline]
    #[must_use]
    pub const fn has(self, feature: Feature) -> bool {
        self.0 >> (feature as u32) & 1 != 0
    }
    /// Both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// What is in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
    /// Without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
    /// The bits, for a saved state's header.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
    }
    fn register(self, register: Register) -> u32 {
        Feature::ALL.iter().fold(0, |value, feature| {
            let (place, bit) = feature.place();
            if place == register && self.has(*feature) { value | 1 << bit } else { value }
        })
    }
}

use Feature as F;

/// What kernels use, whatever the level of user code.
const SYSTEM: FeatureSet = FeatureSet::of(&[
    F::Fpu,
    F::Vme,
    F::De,
    F::Pse,
    F::Tsc,
    F::Msr,
    F::Pae,
    F::Mce,
    F::Cx8,
    F::Apic,
    F::Sep,
    F::Mtrr,
    F::Pge,
    F::Mca,
    F::Cmov,
    F::Pat,
    F::Pse36,
    F::Clfsh,
    F::Pcid,
    F::X2apic,
    F::TscDeadline,
    F::Hypervisor,
    F::TscAdjust,
    F::Smep,
    F::Smap,
    F::Umip,
    F::Invpcid,
    F::Erms,
    F::Fsgsbase,
    F::Syscall,
    F::Nx,
    F::Page1g,
    F::Rdtscp,
    F::Lm,
    F::Cr8Legacy,
    F::Rdrand,
    F::ZeroFcsFds,
    F::Rdseed,
    F::Rdpid,
    F::Clflushopt,
    F::Clwb,
    F::Prefetchw,
]);

/// x86-64-v2 (System V psABI, x86-64 supplement §3.1.1).
const LEVEL2: FeatureSet = FeatureSet::of(&[
    F::Mmx,
    F::Fxsr,
    F::Sse,
    F::Sse2,
    F::Sse3,
    F::Ssse3,
    F::Sse41,
    F::Sse42,
    F::Cx16,
    F::Lahf,
    F::Popcnt,
]);

/// What x86-64-v3 adds.
const LEVEL3: FeatureSet = FeatureSet::of(&[
    F::Xsave,
    F::Avx,
    F::Avx2,
    F::Bmi1,
    F::Bmi2,
    F::F16c,
    F::Fma,
    F::Lzcnt,
    F::Movbe,
]);

/// What `max` adds.
const EXTRA: FeatureSet = FeatureSet::of(&[
    F::Aes,
    F::Pclmulqdq,
    F::Sha,
    F::Adx,
    F::Fsrm,
    F::Xsaveopt,
    F::Xsavec,
    F::Xgetbv1,
    F::Xsaves,
]);

/// Features whose instructions a software engine executes on the host's CPU.
pub const VECTOR_FEATURES: FeatureSet = FeatureSet::of(&[
    F::Fpu,
    F::Mmx,
    F::Fxsr,
    F::Sse,
    F::Sse2,
    F::Sse3,
    F::Ssse3,
    F::Sse41,
    F::Sse42,
    F::Aes,
    F::Pclmulqdq,
    F::Sha,
    F::Avx,
    F::Avx2,
    F::Fma,
    F::F16c,
]);

/// The named models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CpuModelName {
    /// SSE4.2, POPCNT, CMPXCHG16B.
    X86_64V2,
    /// AVX2, BMI1/2, FMA, F16C, LZCNT, MOVBE.
    X86_64V3,
    /// All that the engine has on this host; does not promise to move between hosts.
    #[default]
    Max,
}

impl CpuModelName {
    /// All names.
    pub const ALL: [Self; 3] = [Self::X86_64V2, Self::X86_64V3, Self::Max];
    /// The name as the VM definition has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X86_64V2 => "x86-64-v2",
            Self::X86_64V3 => "x86-64-v3",
            Self::Max => "max",
        }
    }
    const fn features(self) -> FeatureSet {
        match self {
            Self::X86_64V2 => SYSTEM.union(LEVEL2),
            Self::X86_64V3 => SYSTEM.union(LEVEL2).union(LEVEL3),
            Self::Max => SYSTEM.union(LEVEL2).union(LEVEL3).union(EXTRA),
        }
    }
}

impl fmt::Display for CpuModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There is no model of this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownModel;

impl fmt::Display for UnknownModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no such CPU model (there are x86-64-v2, x86-64-v3 and max)")
    }
}

impl core::error::Error for UnknownModel {}

impl FromStr for CpuModelName {
    type Err = UnknownModel;
    fn from_str(s: &str) -> Result<Self, UnknownModel> {
        Self::ALL.into_iter().find(|name| name.as_str() == s).ok_or(UnknownModel)
    }
}

/// The values of one CPUID leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Leaf {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// What CPUID's answer depends on besides the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuidView {
    /// APIC id of the asking CPU.
    pub apic_id: u32,
    /// CPUs in the machine.
    pub cpus: u32,
    /// CR4.OSXSAVE.
    pub osxsave: bool,
    /// The APIC is switched on.
    pub apic_on: bool,
    /// XCR0.
    pub xcr0: u64,
    /// TSC frequency in Hz.
    pub tsc_hz: u64,
}

/// What CPUID says, and so what the processor has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuModel {
    name: CpuModelName,
    features: FeatureSet,
    physical_bits: u8,
}

const MAX_LEAF: u32 = 0x16;
/// FXSAVE and XSAVE write the x87 error pointers, and their counterparts load them, also while no
/// exception is pending (APM vol. 3 appendix E.4.7). Without it kernels clear them by hand.
const XSAVE_ERROR_POINTERS: u32 = 1 << 2;
const MAX_EXTENDED: u32 = 0x8000_0008;
/// Family 15, model 107, stepping 1.
const SIGNATURE: u32 = 0x0006_0FB1;

impl CpuModel {
    /// The model `name`, less those vector features that the host's CPU can't execute.
    #[must_use]
    pub fn new(name: CpuModelName, host_vector: FeatureSet) -> Self {
        let wanted = name.features();
        let mut features = wanted.without(VECTOR_FEATURES.without(host_vector));
        if !features.has(F::Avx) {
            features = features.without(FeatureSet::of(&[F::Avx2, F::Fma, F::F16c]));
        }
        Self { name, features, physical_bits: 40 }
    }
    /// The same model without some features: those of ring 0 that an engine can't give on this host.
    #[must_use]
    pub fn hiding(mut self, features: FeatureSet) -> Self {
        self.features = self.features.without(features);
        self
    }
    /// Features that the model promises and this host lacks.
    #[must_use]
    pub fn missing(&self) -> FeatureSet {
        self.name.features().without(self.features)
    }
    /// Whether the processor has a feature.
    #[inline]
    #[must_use]
    pub const fn has(&self, feature: Feature) -> bool {
        self.features.has(feature)
    }
    /// All features.
    #[must_use]
    pub const fn features(&self) -> FeatureSet {
        self.features
    }
    /// Physical address width in bits.
    #[must_use]
    pub const fn physical_bits(&self) -> u8 {
        self.physical_bits
    }
    /// The model's name.
    #[must_use]
    pub const fn name(&self) -> CpuModelName {
        self.name
    }
    /// Bits that XCR0 may have set.
    #[must_use]
    pub fn xcr0_supported(&self) -> u64 {
        use kasane_spec_x86::control::xcr0;
        if !self.has(F::Xsave) {
            return 0;
        }
        let avx = if self.has(F::Avx) { xcr0::AVX } else { 0 };
        xcr0::X87 | xcr0::SSE | avx
    }
    /// Bits that CR4 may have set.
    #[must_use]
    pub fn cr4_supported(&self) -> u64 {
        use kasane_spec_x86::control::cr4;
        let when = |feature, bits| if self.has(feature) { bits } else { 0 };
        when(F::Vme, cr4::VME | cr4::PVI)
            | when(F::Tsc, cr4::TSD)
            | when(F::De, cr4::DE)
            | when(F::Pse, cr4::PSE)
            | when(F::Pae, cr4::PAE)
            | when(F::Mce, cr4::MCE)
            | when(F::Pge, cr4::PGE)
            | cr4::PCE
            | when(F::Fxsr, cr4::OSFXSR)
            | when(F::Sse, cr4::OSXMMEXCPT)
            | when(F::Umip, cr4::UMIP)
            | when(F::Fsgsbase, cr4::FSGSBASE)
            | when(F::Pcid, cr4::PCIDE)
            | when(F::Xsave, cr4::OSXSAVE)
            | when(F::Smep, cr4::SMEP)
            | when(F::Smap, cr4::SMAP)
    }

    /// CPUID's answer.
    #[must_use]
    pub fn query(&self, leaf: u32, subleaf: u32, view: &CpuidView) -> Leaf {
        match leaf {
            0x4000_0000..=0x4000_00FF => hypervisor_leaf(leaf, view),
            0x8000_0000..=0x8000_FFFF => self.extended_leaf(leaf, view),
            // Beyond the highest leaf AMD's CPUs answer with zeros.
            _ => self.basic_leaf(leaf, subleaf, view),
        }
    }

    fn basic_leaf(&self, leaf: u32, subleaf: u32, view: &CpuidView) -> Leaf {
        let set = self.features;
        match leaf {
            0 => vendor(MAX_LEAF, *b"AuthenticAMD"),
            1 => {
                let mut ecx = set.register(Register::Leaf1Ecx);
                ecx |= u32::from(view.osxsave && self.has(F::Xsave)) << 27;
                let mut edx = set.register(Register::Leaf1Edx);
                edx |= u32::from(view.cpus > 1) << 28;
                if !view.apic_on {
                    edx &= !(1 << 9);
                }
                let ebx = view.apic_id << 24 | view.cpus.min(255) << 16 | 8 << 8;
                Leaf { eax: SIGNATURE, ebx, ecx, edx }
            }
            7 if subleaf == 0 => Leaf {
                eax: 0,
                ebx: set.register(Register::Leaf7Ebx),
                ecx: set.register(Register::Leaf7Ecx),
                edx: set.register(Register::Leaf7Edx),
            },
            0xB if self.has(F::X2apic) => topology_leaf(subleaf, view),
            0xD if self.has(F::Xsave) => self.xsave_leaf(subleaf, view.xcr0),
            // TSC = 1 GHz crystal * numerator / denominator.
            0x15 => Leaf {
                eax: 1_000_000,
                ebx: (view.tsc_hz / 1000) as u32,
                ecx: 1_000_000_000,
                edx: 0,
            },
            0x16 => {
                let mhz = (view.tsc_hz / 1_000_000) as u32;
                Leaf { eax: mhz, ebx: mhz, ecx: 1000, edx: 0 }
            }
            _ => Leaf::default(),
        }
    }

    fn xsave_leaf(&self, subleaf: u32, xcr0: u64) -> Leaf {
        let size = |mask: u64| if mask & 4 != 0 { 832 } else { 576 };
        match subleaf {
            0 => Leaf {
                eax: self.xcr0_supported() as u32,
                ebx: size(xcr0),
                ecx: size(self.xcr0_supported()),
                edx: 0,
            },
            1 => Leaf {
                eax: self.features.register(Register::XsaveEax),
                ebx: size(xcr0),
                ..Leaf::default()
            },
            2 if self.has(F::Avx) => Leaf { eax: 256, ebx: 576, ecx: 0, edx: 0 },
            _ => Leaf::default(),
        }
    }

    fn extended_leaf(&self, leaf: u32, view: &CpuidView) -> Leaf {
        match leaf {
            0x8000_0000 => vendor(MAX_EXTENDED, *b"AuthenticAMD"),
            0x8000_0001 => {
                let mut ecx = self.features.register(Register::Ext1Ecx);
                ecx |= u32::from(view.cpus > 1) << 1;
                // AMD repeats the common bits of leaf 1 here.
                let common = self.features.register(Register::Leaf1Edx) & 0x0183_F3FF;
                let edx = self.features.register(Register::Ext1Edx) | common;
                Leaf { eax: SIGNATURE, ebx: 0, ecx, edx }
            }
            0x8000_0002..=0x8000_0004 => brand(leaf),
            0x8000_0005 => {
                Leaf { eax: 0x01FF_01FF, ebx: 0x01FF_01FF, ecx: 0x4002_0140, edx: 0x4002_0140 }
            }
            0x8000_0006 => Leaf { eax: 0, ebx: 0x4200_4200, ecx: 0x0200_8140, edx: 0x0080_8140 },
            0x8000_0007 => Leaf { edx: 1 << 8, ..Leaf::default() },
            0x8000_0008 => Leaf {
                eax: u32::from(self.physical_bits) | 48 << 8,
                ebx: XSAVE_ERROR_POINTERS,
                ecx: view.cpus.saturating_sub(1),
                ..Leaf::default()
            },
            _ => Leaf::default(),
        }
    }
}

/// KVM's paravirtual interface: its clock, which tells the TSC's frequency.
fn hypervisor_leaf(leaf: u32, view: &CpuidView) -> Leaf {
    match leaf {
        0x4000_0000 => {
            let words = dwords(*b"KVMKVMKVM\0\0\0");
            Leaf { eax: 0x4000_0010, ebx: words[0], ecx: words[1], edx: words[2] }
        }
        // CLOCKSOURCE2 and CLOCKSOURCE_STABLE; no I/O delay is needed.
        0x4000_0001 => Leaf { eax: 1 << 3 | 1 << 24 | 1 << 1, ..Leaf::default() },
        // Frequencies in kHz: TSC, APIC bus.
        0x4000_0010 => Leaf { eax: (view.tsc_hz / 1000) as u32, ebx: 1_000_000, ..Leaf::default() },
        _ => Leaf::default(),
    }
}

/// Extended topology: one thread a core, all cores in one package.
fn topology_leaf(subleaf: u32, view: &CpuidView) -> Leaf {
    let bits = 32 - view.cpus.saturating_sub(1).leading_zeros();
    let (shift, count, kind) = match subleaf {
        0 => (0, 1, 1),
        1 => (bits, view.cpus, 2),
        _ => (0, 0, 0),
    };
    Leaf { eax: shift, ebx: count, ecx: subleaf & 0xFF | kind << 8, edx: view.apic_id }
}

fn dwords(text: [u8; 12]) -> [u32; 3] {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = text;
    [
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
        u32::from_le_bytes([i, j, k, l]),
    ]
}

fn vendor(max: u32, text: [u8; 12]) -> Leaf {
    let [ebx, edx, ecx] = dwords(text);
    Leaf { eax: max, ebx, ecx, edx }
}

fn brand(leaf: u32) -> Leaf {
    let mut text = [0u8; 48];
    for (to, from) in text.iter_mut().zip(b"Kasane virtual CPU") {
        *to = *from;
    }
    let start = (leaf.wrapping_sub(0x8000_0002) as usize).wrapping_mul(16);
    let word = |n: usize| {
        let at = start.wrapping_add(n * 4);
        text.get(at..at.wrapping_add(4))
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u32::from_le_bytes)
    };
    Leaf { eax: word(0), ebx: word(1), ecx: word(2), edx: word(3) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: CpuidView = CpuidView {
        apic_id: 1,
        cpus: 2,
        osxsave: true,
        apic_on: true,
        xcr0: 7,
        tsc_hz: 2_500_000_000,
    };

    #[test]
    fn every_feature_has_a_bit_of_its_own() {
        for (n, a) in Feature::ALL.iter().enumerate() {
            for b in &Feature::ALL[n + 1..] {
                assert_ne!(a.place(), b.place(), "{a:?} and {b:?}");
            }
        }
        assert!(Feature::ALL.len() <= 128);
    }

    #[test]
    fn version_2_hides_what_version_3_shows() {
        let v2 = CpuModel::new(CpuModelName::X86_64V2, VECTOR_FEATURES);
        let v3 = CpuModel::new(CpuModelName::X86_64V3, VECTOR_FEATURES);
        assert_eq!(v2.query(7, 0, &VIEW).ebx & (1 << 5 | 1 << 3), 0);
        assert_eq!(v3.query(7, 0, &VIEW).ebx & (1 << 5 | 1 << 3), 1 << 5 | 1 << 3);
        assert_eq!(v2.cr4_supported() & 1 << 18, 0);
        assert_eq!(v2.query(1, 0, &VIEW).ecx >> 26 & 3, 0);
        assert_eq!(v3.query(1, 0, &VIEW).ecx >> 26 & 3, 3);
    }

    #[test]
    fn vector_features_need_the_host() {
        let bare = CpuModel::new(CpuModelName::Max, FeatureSet::of(&[F::Fpu, F::Sse, F::Sse2]));
        assert!(!bare.has(F::Avx2) && !bare.has(F::Fma) && bare.has(F::Bmi2));
        assert!(bare.missing().has(F::Avx2));
    }

    #[test]
    fn names_are_parsed_and_printed() {
        for name in CpuModelName::ALL {
            assert_eq!(name.as_str().parse(), Ok(name));
        }
        assert_eq!("pentium".parse::<CpuModelName>(), Err(UnknownModel));
    }

    #[test]
    fn frequencies_agree_between_leaves() {
        let max = CpuModel::new(CpuModelName::Max, VECTOR_FEATURES);
        let crystal = max.query(0x15, 0, &VIEW);
        let hz = u64::from(crystal.ecx) * u64::from(crystal.ebx) / u64::from(crystal.eax);
        assert_eq!(hz, VIEW.tsc_hz);
        assert_eq!(max.query(0x4000_0010, 0, &VIEW).eax, 2_500_000);
    }
}
