//! What the loader left behind: memory map, modules, ACPI's root pointer.

use kasane_metal_boot::memory_map::Region;
use kasane_metal_boot::{Module, Protocol, archive, multiboot2, pvh};
use kasane_metal_memory::physical;
use kasane_metal_memory::ranges::Range;
use kasane_metal_vm::Files;

/// A file without a name that is no archive gets this one.
const NAMELESS: &str = "module";
/// More would be a damaged list.
const LIST_MAX: u64 = 1024;

/// The boot information.
pub(crate) struct Boot {
    source: Source,
    /// Where it lies itself.
    own: Range,
}

enum Source {
    Pvh(pvh::StartInfo),
    Multiboot2(multiboot2::Information<'static>),
    Nothing,
}

/// Memory that the loader wrote and nobody writes any more: [`super::memory`] leaves it out of what
/// is free.
fn bytes(at: u64, len: u64) -> &'static [u8] {
    // SAFETY: the entry mapped the first 4 GiB, and later tables map all memory of the loader.
    unsafe { physical::bytes(at, len) }
}

impl Boot {
    pub(crate) fn new(protocol: Protocol, at: u64) -> Self {
        match protocol {
            Protocol::Pvh => {
                let info = pvh::StartInfo::parse(bytes(at, pvh::START_INFO_LEN));
                let own = Range { start: at, end: at + pvh::START_INFO_LEN };
                Self { source: info.map_or(Source::Nothing, Source::Pvh), own }
            }
            Protocol::Multiboot2 => {
                let len = multiboot2::Information::len_of(bytes(at, 8)).unwrap_or(0).into();
                let information = multiboot2::Information::new(bytes(at, len), at);
                let own = Range { start: at, end: at.saturating_add(len) };
                Self { source: Source::Multiboot2(information), own }
            }
        }
    }

    /// ACPI's root pointer, if the loader passed it.
    pub(crate) fn rsdp(&self) -> Option<u64> {
        match &self.source {
            Source::Pvh(info) => Some(info.rsdp).filter(|at| *at != 0),
            Source::Multiboot2(information) => information.rsdp(),
            Source::Nothing => None,
        }
    }

    /// Calls `each` with the regions of the memory map.
    pub(crate) fn regions(&self, each: &mut dyn FnMut(Region)) {
        match &self.source {
            Source::Pvh(info) => {
                let len = u64::from(info.memory_map.count).min(LIST_MAX) * pvh::REGION_LEN;
                pvh::regions(bytes(info.memory_map.address, len)).for_each(each);
            }
            Source::Multiboot2(information) => information.regions().for_each(each),
            Source::Nothing => {}
        }
    }

    fn modules(&self, each: &mut dyn FnMut(Module<'static>)) {
        match &self.source {
            Source::Pvh(info) => {
                let len = u64::from(info.modules.count).min(LIST_MAX) * pvh::MODULE_LEN;
                for entry in pvh::modules(bytes(info.modules.address, len)) {
                    let command_line = text_at(entry.command_line);
                    each(Module { command_line, start: entry.start, len: entry.len });
                }
            }
            Source::Multiboot2(information) => information.modules().for_each(each),
            Source::Nothing => {}
        }
    }

    /// Calls `each` with all memory that must stay as it is. What is in the first MiB stays anyway.
    pub(crate) fn occupied(&self, each: &mut dyn FnMut(Range)) {
        each(self.own);
        self.modules(&mut |module| {
            each(Range { start: module.start, end: module.start.saturating_add(module.len) });
        });
        if let Source::Pvh(info) = &self.source {
            let modules = u64::from(info.modules.count).min(LIST_MAX) * pvh::MODULE_LEN;
            each(Range { start: info.modules.address, end: info.modules.address + modules });
            let map = u64::from(info.memory_map.count).min(LIST_MAX) * pvh::REGION_LEN;
            each(Range { start: info.memory_map.address, end: info.memory_map.address + map });
        }
    }

    /// The modules as files; archives as what is in them.
    pub(crate) fn files(&self) -> Files {
        let mut files = Files::default();
        self.modules(&mut |module| {
            let data = bytes(module.start, module.len);
            let name = module.name();
            if name.is_empty() && archive::is_archive(data) {
                archive::files(data).for_each(|file| files.add(file.name, file.data));
            } else {
                files.add(if name.is_empty() { NAMELESS } else { name }, data);
            }
        });
        files
    }
}

/// A zero-terminated text of at most a page.
fn text_at(at: u64) -> &'static str {
    let bytes = bytes(at, if at == 0 { 0 } else { 4096 - at % 4096 });
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(0);
    core::str::from_utf8(bytes.get(..end).unwrap_or_default()).unwrap_or("")
}
