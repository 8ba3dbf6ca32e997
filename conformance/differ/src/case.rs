//! A test case: one instruction and the state that it starts from; and an outcome.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::layout::{CODE, DATA, DATA_PAGES, EXIT, PAGE, USER_CS64, reaches_trampoline};
use crate::rng::Rng;

/// Bytes of the vector state: a standard-format XSAVE area with x87, SSE and AVX.
pub const VECTOR_BYTES: usize = 832;

/// The vector state.
#[derive(Clone, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Vectors(pub [u8; VECTOR_BYTES]);

impl Default for Vectors {
    fn default() -> Self {
        let mut it = Self([0; VECTOR_BYTES]);
        it.put(0, &0x037Fu16.to_le_bytes());
        it.put(24, &0x1F80u32.to_le_bytes());
        it.put(512, &7u64.to_le_bytes());
        it
    }
}

impl Vectors {
    /// Writes bytes; those beyond the end are dropped.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.0.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
    /// Bytes of a part; empty if it is beyond the end.
    #[must_use]
    pub fn part(&self, at: usize, len: usize) -> &[u8] {
        self.0.get(at..at + len).unwrap_or_default()
    }
    /// Gives components that XSAVE left out, because they were in their initial state, their
    /// values, and clears what has no meaning.
    pub fn normalize(&mut self) {
        let present = self.0.get(512).copied().unwrap_or(0);
        let initial = Self::default();
        if present & 1 == 0 {
            self.put(0, &initial.0[..24]);
            self.put(32, &[0; 128]);
        }
        if present & 2 == 0 {
            self.put(160, &[0; 256]);
        }
        if present & 4 == 0 {
            self.put(576, &[0; 256]);
        }
        self.put(5, &[0]);
        self.put(28, &[0; 4]);
        for n in 0..8 {
            self.put(32 + n * 16 + 10, &[0; 6]);
        }
        self.put(416, &[0; 96]);
        self.put(512, &7u64.to_le_bytes());
        self.put(520, &[0; 56]);
    }
}

/// Bytes written over the pattern of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// Linear address, in the data pages.
    pub at: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A test case.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Case {
    /// The instruction.
    pub bytes: Vec<u8>,
    /// 64, or 32 for compatibility mode.
    pub bits: u32,
    /// Its address.
    pub rip: u64,
    /// RAX to R15 by encoding.
    pub gpr: [u64; 16],
    /// RFLAGS.
    pub rflags: u64,
    /// Base of FS.
    pub fs: u64,
    /// Base of GS.
    pub gs: u64,
    /// Selectors of DS, ES, FS and GS, of 32-bit code that has others than usual.
    pub segments: Option<[u16; 4]>,
    /// The vector state, if the instruction has to do with it.
    pub vectors: Option<Box<Vectors>>,
    /// Numbers of the patterns that fill the data pages.
    pub pages: [u8; DATA_PAGES],
    /// What is written over them.
    pub patches: Vec<Patch>,
}

/// How a case ended.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// RAX to R15.
    pub gpr: [u64; 16],
    /// Address of the next instruction, or of the faulting one.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// Base of FS.
    pub fs: u64,
    /// Base of GS.
    pub gs: u64,
    /// The exception, if there was one.
    pub fault: Option<Fault>,
    /// The vector state, normalized, if the case has one.
    pub vectors: Option<Box<Vectors>>,
    /// The interpreter does not have the instruction.
    pub missing: bool,
}

impl Outcome {
    /// The test wanted something of the trampoline's pages, which the interpreter doesn't have.
    #[must_use]
    pub fn is_about_trampoline(&self) -> bool {
        self.fault.is_some_and(|fault| fault.vector == 14 && reaches_trampoline(fault.address))
    }
}

/// An exception.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// Vector.
    pub vector: u8,
    /// Error code; 0 for vectors without one.
    pub error: u32,
    /// CR2 for page faults, else 0.
    pub address: u64,
}

/// How many patterns there are; number 0 is all zero.
pub const PATTERNS: usize = 64;

/// The patterns that fill pages.
pub struct Patterns(Vec<[u8; PAGE]>);

impl Default for Patterns {
    fn default() -> Self {
        let mut all = vec![[0; PAGE]];
        for n in 1..PATTERNS {
            let mut rng = Rng::new(0x7061_7474_6572_6E73, n as u64);
            let mut page = [0; PAGE];
            for chunk in page.chunks_exact_mut(8) {
                chunk.copy_from_slice(&rng.corner().to_le_bytes());
            }
            all.push(page);
        }
        Self(all)
    }
}

impl Patterns {
    /// A pattern by number.
    #[must_use]
    pub fn get(&self, n: u8) -> &[u8; PAGE] {
        static ZERO: [u8; PAGE] = [0; PAGE];
        self.0.get(usize::from(n)).unwrap_or(&ZERO)
    }
    /// Writes the data pages of a case.
    pub fn apply(&self, case: &Case, data: &mut [u8]) {
        for (page, n) in data.chunks_exact_mut(PAGE).zip(case.pages) {
            page.copy_from_slice(self.get(n));
        }
        for patch in &case.patches {
            let at = patch.at.wrapping_sub(DATA) as usize;
            if let Some(place) = data.get_mut(at..at.saturating_add(patch.bytes.len())) {
                place.copy_from_slice(&patch.bytes);
            }
        }
    }
}

/// The form of a case in a file.
#[derive(Serialize, Deserialize)]
pub struct CaseFile {
    /// The instruction as text, for people.
    #[serde(default)]
    pub text: String,
    /// What differed, for people.
    #[serde(default)]
    pub difference: Vec<String>,
    bytes: String,
    #[serde(default = "long_mode")]
    bits: u32,
    offset: u64,
    gpr: Vec<String>,
    rflags: String,
    fs: String,
    gs: String,
    pages: [u8; DATA_PAGES],
    patches: Vec<PatchFile>,
    #[serde(default)]
    vectors: Option<String>,
}

fn long_mode() -> u32 {
    64
}

#[derive(Serialize, Deserialize)]
struct PatchFile {
    offset: u64,
    bytes: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> anyhow::Result<Vec<u8>> {
    anyhow::ensure!(text.len().is_multiple_of(2) && text.is_ascii(), "not hex bytes: {text}");
    (0..text.len() / 2)
        .map(|i| Ok(u8::from_str_radix(text.get(i * 2..i * 2 + 2).unwrap_or_default(), 16)?))
        .collect()
}

fn number(text: &str) -> anyhow::Result<u64> {
    Ok(u64::from_str_radix(text.trim_start_matches("0x"), 16)?)
}

impl Case {
    /// The case as a file.
    #[must_use]
    pub fn to_file(&self, text: String, difference: Vec<String>) -> CaseFile {
        CaseFile {
            text,
            difference,
            bytes: hex(&self.bytes),
            bits: self.bits,
            offset: self.rip.wrapping_sub(CODE),
            gpr: self.gpr.iter().map(|v| format!("{v:#x}")).collect(),
            rflags: format!("{:#x}", self.rflags),
            fs: format!("{:#x}", self.fs),
            gs: format!("{:#x}", self.gs),
            pages: self.pages,
            patches: self
                .patches
                .iter()
                .map(|p| PatchFile { offset: p.at.wrapping_sub(DATA), bytes: hex(&p.bytes) })
                .collect(),
            vectors: self.vectors.as_ref().map(|v| hex(&v.0)),
        }
    }
    /// The case from a file.
    ///
    /// # Errors
    /// When a number or a string of bytes is not one.
    pub fn from_file(file: &CaseFile) -> anyhow::Result<Self> {
        let mut gpr = [0; 16];
        for (to, from) in gpr.iter_mut().zip(&file.gpr) {
            *to = number(from)?;
        }
        let vectors = match &file.vectors {
            None => None,
            Some(text) => {
                let mut v = Vectors::default();
                v.put(0, &unhex(text)?);
                Some(Box::new(v))
            }
        };
        let mut patches = Vec::new();
        for patch in &file.patches {
            let at = DATA.wrapping_add(patch.offset);
            patches.push(Patch { at, bytes: unhex(&patch.bytes)? });
        }
        Ok(Self {
            bytes: unhex(&file.bytes)?,
            bits: if file.bits == 32 { 32 } else { 64 },
            rip: CODE.wrapping_add(file.offset % (PAGE as u64 + 16)),
            gpr,
            rflags: number(&file.rflags)?,
            fs: number(&file.fs)?,
            gs: number(&file.gs)?,
            segments: None,
            vectors,
            pages: file.pages,
            patches,
        })
    }
    /// The instruction with the jump behind it that leaves the test.
    #[must_use]
    pub fn code(&self) -> Vec<u8> {
        let mut code = self.bytes.clone();
        if self.bits == 32 {
            code.push(0xEA); // JMP ptr16:32, into 64-bit code
            code.extend_from_slice(&(EXIT as u32).to_le_bytes());
            code.extend_from_slice(&USER_CS64.to_le_bytes());
        } else {
            let distance = EXIT.wrapping_sub(self.landing()).wrapping_sub(5) as u32;
            code.push(0xE9);
            code.extend_from_slice(&distance.to_le_bytes());
        }
        code
    }
    /// Where execution goes on after the instruction if it does not branch.
    #[must_use]
    pub fn landing(&self) -> u64 {
        self.rip.wrapping_add(self.bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_survives_its_file() {
        let case = Case {
            bytes: vec![0x48, 0x01, 0xC8],
            bits: 64,
            rip: CODE + 0x20,
            gpr: [7; 16],
            rflags: 0x202,
            fs: 0x1000,
            gs: 1,
            segments: None,
            vectors: Some(Box::default()),
            pages: [1, 2, 3],
            patches: vec![Patch { at: DATA + 5, bytes: vec![1, 2] }],
        };
        let text = serde_json::to_string(&case.to_file(String::new(), Vec::new())).unwrap();
        let back = Case::from_file(&serde_json::from_str(&text).unwrap()).unwrap();
        assert!(back == case);
    }

    #[test]
    fn patches_lie_over_patterns() {
        let patterns = Patterns::default();
        let case = Case {
            pages: [1, 0, 1],
            patches: vec![Patch { at: DATA + 2, bytes: vec![0xEE] }],
            ..Case::default()
        };
        let mut data = vec![0u8; DATA_PAGES * PAGE];
        patterns.apply(&case, &mut data);
        assert_eq!(data[2], 0xEE);
        assert_eq!(data[8..PAGE], patterns.get(1)[8..]);
        assert!(data[PAGE..2 * PAGE].iter().all(|b| *b == 0));
    }
}
