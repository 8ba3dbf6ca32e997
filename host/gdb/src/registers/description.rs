//! The target description (GDB manual, appendix "Target Descriptions").

use std::fmt::Write;
use std::sync::LazyLock;

use super::table::{Feature, all};

/// The description of all registers.
pub(crate) fn target_xml() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(text);
    &TEXT
}

const FEATURES: [(Feature, &str); 5] = [
    (Feature::Core, "org.gnu.gdb.i386.core"),
    (Feature::Sse, "org.gnu.gdb.i386.sse"),
    (Feature::Segments, "org.gnu.gdb.i386.segments"),
    (Feature::Avx, "org.gnu.gdb.i386.avx"),
    (Feature::System, "org.kasane.system"),
];

/// Bits with names; the others are not shown.
struct Flags {
    feature: Feature,
    id: &'static str,
    bytes: u8,
    bits: &'static [(u8, &'static str)],
}

const FLAGS: [Flags; 5] = [
    Flags {
        feature: Feature::Core,
        id: "flags",
        bytes: 4,
        bits: &[
            (0, "CF"),
            (1, ""),
            (2, "PF"),
            (4, "AF"),
            (6, "ZF"),
            (7, "SF"),
            (8, "TF"),
            (9, "IF"),
            (10, "DF"),
            (11, "OF"),
            (14, "NT"),
            (16, "RF"),
            (17, "VM"),
            (18, "AC"),
            (19, "VIF"),
            (20, "VIP"),
            (21, "ID"),
        ],
    },
    Flags {
        feature: Feature::Sse,
        id: "mxcsr_flags",
        bytes: 4,
        bits: &[
            (0, "IE"),
            (1, "DE"),
            (2, "ZE"),
            (3, "OE"),
            (4, "UE"),
            (5, "PE"),
            (6, "DAZ"),
            (7, "IM"),
            (8, "DM"),
            (9, "ZM"),
            (10, "OM"),
            (11, "UM"),
            (12, "PM"),
            (15, "FZ"),
        ],
    },
    Flags {
        feature: Feature::System,
        id: "cr0_flags",
        bytes: 8,
        bits: &[
            (0, "PE"),
            (1, "MP"),
            (2, "EM"),
            (3, "TS"),
            (4, "ET"),
            (5, "NE"),
            (16, "WP"),
            (18, "AM"),
            (29, "NW"),
            (30, "CD"),
            (31, "PG"),
        ],
    },
    Flags {
        feature: Feature::System,
        id: "cr4_flags",
        bytes: 8,
        bits: &[
            (0, "VME"),
            (1, "PVI"),
            (2, "TSD"),
            (3, "DE"),
            (4, "PSE"),
            (5, "PAE"),
            (6, "MCE"),
            (7, "PGE"),
            (8, "PCE"),
            (9, "OSFXSR"),
            (10, "OSXMMEXCPT"),
            (11, "UMIP"),
            (16, "FSGSBASE"),
            (17, "PCIDE"),
            (18, "OSXSAVE"),
            (20, "SMEP"),
            (21, "SMAP"),
        ],
    },
    Flags {
        feature: Feature::System,
        id: "efer_flags",
        bytes: 8,
        bits: &[(0, "SCE"), (8, "LME"), (10, "LMA"), (11, "NXE")],
    },
];

/// How the 128 bits of an XMM register may be looked at: type, element, count.
const LANES: [(&str, &str, u8); 6] = [
    ("v4_float", "ieee_single", 4),
    ("v2_double", "ieee_double", 2),
    ("v16_int8", "int8", 16),
    ("v8_int16", "int16", 8),
    ("v4_int32", "int32", 4),
    ("v2_int64", "int64", 2),
];

fn text() -> String {
    let mut out = String::from(
        "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n\
         <target version=\"1.0\">\n<architecture>i386:x86-64</architecture>\n",
    );
    for (feature, name) in FEATURES {
        // Writing to a string can't fail.
        let _infallible = self::feature(&mut out, feature, name);
    }
    out.push_str("</target>\n");
    out
}

fn feature(out: &mut String, feature: Feature, name: &str) -> std::fmt::Result {
    writeln!(out, "<feature name=\"{name}\">")?;
    for flags in FLAGS.iter().filter(|flags| flags.feature == feature) {
        writeln!(out, "<flags id=\"{}\" size=\"{}\">", flags.id, flags.bytes)?;
        for (bit, name) in flags.bits {
            writeln!(out, "<field name=\"{name}\" start=\"{bit}\" end=\"{bit}\"/>")?;
        }
        writeln!(out, "</flags>")?;
    }
    if feature == Feature::Sse {
        for (id, element, count) in LANES {
            writeln!(out, "<vector id=\"{id}_type\" type=\"{element}\" count=\"{count}\"/>")?;
        }
        writeln!(out, "<union id=\"vec128\">")?;
        for (id, _, _) in LANES {
            writeln!(out, "<field name=\"{id}\" type=\"{id}_type\"/>")?;
        }
        writeln!(out, "<field name=\"uint128\" type=\"uint128\"/>\n</union>")?;
    }
    for (number, register) in all().enumerate().filter(|(_, one)| one.feature == feature) {
        let (name, bits, kind) = (&register.name, register.bits, register.kind);
        write!(out, "<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\"")?;
        if let Some(group) = register.group {
            write!(out, " group=\"{group}\"")?;
        }
        writeln!(out, " regnum=\"{number}\"/>")?;
    }
    writeln!(out, "</feature>")
}
