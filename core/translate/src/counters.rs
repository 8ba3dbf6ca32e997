//! What the translator counts for `--stats`.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use hashbrown::HashMap;
use iced_x86::{Code, Instruction};

use crate::cache::Made;

/// Of one vCPU, since its creation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    /// Times that translated code was entered.
    pub(crate) entries: u64,
    /// Accesses that the inline TLB did not have.
    pub(crate) tlb_misses: u64,
    /// Those for which the page tables were walked.
    pub(crate) walks: u64,
    /// Those that the interpreter did: MMIO, faults, pages of code, accesses across pages.
    pub(crate) refused: u64,
    /// Flushes that were followed.
    pub(crate) flushes: u64,
    /// What making blocks took.
    pub(crate) nanoseconds: u64,
    /// Jumps that were bound to their target's block.
    pub(crate) links: u64,
    /// Jumps to another page that the jump table did not have, and polls.
    pub(crate) gone: u64,
    /// Jumps to another page whose slot was empty.
    pub(crate) slots: u64,
    /// Indirect branches that the jump table did not have.
    pub(crate) indirect: u64,
    /// Host exceptions in translated code.
    pub(crate) host_faults: u64,
    /// Instructions that the interpreter did out of translated code, by name.
    fallbacks: HashMap<Code, u64>,
}

impl Counters {
    pub(crate) fn fallback(&mut self, instruction: &Instruction) {
        let count = self.fallbacks.entry(instruction.code()).or_default();
        *count = count.wrapping_add(1);
    }
    /// All by name; `made` too.
    pub(crate) fn named(&self, made: Option<Made>) -> Vec<(String, u64)> {
        let mut list: Vec<(String, u64)> = Vec::new();
        let mut add = |name: &str, count: u64| list.push((name.to_owned(), count));
        if let Some(made) = made {
            add("blocks", made.blocks);
            add("instructions", made.instructions);
            add("guest_bytes", made.guest_bytes);
            add("host_bytes", made.host_bytes);
            add("site_bytes", made.site_bytes);
            add("invalidated_blocks", made.invalidated);
            add("cache_flushes", made.flushes);
        }
        add("nanoseconds", self.nanoseconds);
        add("entries", self.entries);
        add("tlb_misses", self.tlb_misses);
        add("tlb_walks", self.walks);
        add("tlb_flushes", self.flushes);
        add("refused_accesses", self.refused);
        add("links", self.links);
        add("jump_misses", self.gone);
        add("slot_misses", self.slots);
        add("indirect_misses", self.indirect);
        add("host_exceptions", self.host_faults);
        for (code, count) in &self.fallbacks {
            add(&format!("interpreted_{code:?}").to_lowercase(), *count);
        }
        list
    }
}
