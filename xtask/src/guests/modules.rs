//! A kernel's modules for virtio, kept beside the kernel: `modules/NAME.ko`, and `modules/order`
//! with their names in an order in which each finds what it needs. Debian's packages have no
//! `modules.dep` (it is made when they are installed), so the order comes from the modules
//! themselves: `depends=` in the section `.modinfo` (Linux, `include/linux/module.h`).

use super::initramfs::{Item, Items};
use super::{fresh_folder, lacking};
use crate::report::note;
use anyhow::{Context, Result};
use object::{Object, ObjectSection};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What a guest on virtio can use. Which of them there are is the kernel's configuration; what is
/// built in or left out has no file, and is passed over.
pub(super) const WANTED: [&str; 15] = [
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "virtio_balloon",
    "vsock",
    "vmw_vsock_virtio_transport",
    "fuse",
    "virtiofs",
    "9pnet_virtio",
    "9p",
    // ext4 asks for its checksum by an alias, which `depends=` doesn't show.
    "crc32c_generic",
    "ext4",
];

const FOLDER: &str = "modules";
const ORDER: &str = "order";
/// Where an image has them.
const IN_GUEST: &str = "usr/lib/modules";

/// Files by the module's name.
type Found = BTreeMap<String, PathBuf>;

/// Keeps the wanted modules of an unpacked kernel package, and what they need, in `kernel`.
pub(super) fn keep(unpacked: &Path, kernel: &Path) -> Result<()> {
    let mut found = Found::new();
    find(unpacked, &mut found)?;
    let mut order = Vec::new();
    for name in WANTED {
        if found.contains_key(name) {
            add(name, &found, &mut order)?;
        }
    }
    let folder = kernel.join(FOLDER);
    fresh_folder(&folder)?;
    for name in &order {
        let from = found.get(name).with_context(|| format!("there is no module {name}"))?;
        fs::rename(from, folder.join(format!("{name}.ko")))
            .with_context(|| format!("could not keep the module {name}"))?;
    }
    note(format_args!("{} modules for virtio", order.len()));
    fs::write(folder.join(ORDER), order.join("\n") + "\n").context("could not keep their order")
}

/// The modules that were kept in `kernel`, as files of an image.
pub(super) fn items(kernel: &Path) -> Result<Items> {
    let folder = kernel.join(FOLDER);
    let order = fs::read(folder.join(ORDER))
        .map_err(|_| lacking(&format!("beside {}", kernel.display()), "modules/order"))?;
    let mut items = Items::new();
    for name in String::from_utf8_lossy(&order).lines() {
        let file = format!("{name}.ko");
        let content = fs::read(folder.join(&file))
            .with_context(|| format!("could not read the module {name}"))?;
        items.insert(format!("{IN_GUEST}/{file}"), Item::File { permissions: 0o644, content });
    }
    let order = Item::File { permissions: 0o644, content: order };
    items.insert(format!("{IN_GUEST}/{ORDER}"), order);
    Ok(items)
}

/// All modules under a folder. In names `-` counts as `_`, as it does for the kernel.
fn find(folder: &Path, found: &mut Found) -> Result<()> {
    let unreadable = || format!("could not read {}", folder.display());
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        if entry.file_type().with_context(unreadable)?.is_dir() {
            find(&entry.path(), found)?;
        } else if let Some(name) = entry.file_name().to_string_lossy().strip_suffix(".ko") {
            found.insert(name.replace('-', "_"), entry.path());
        }
    }
    Ok(())
}

/// Puts a module behind all that it needs. What is needed and has no file is built in.
fn add(name: &str, found: &Found, order: &mut Vec<String>) -> Result<()> {
    let Some(file) = found.get(name) else { return Ok(()) };
    if order.iter().any(|known| known == name) {
        return Ok(());
    }
    let bytes = fs::read(file).with_context(|| format!("could not read {}", file.display()))?;
    for needed in needs(&bytes).with_context(|| format!("in the module {name}"))? {
        add(&needed, found, order)?;
    }
    order.push(name.to_owned());
    Ok(())
}

/// What a module says that it depends on.
fn needs(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module).context("not an object file")?;
    let section = file.section_by_name(".modinfo").context("no section .modinfo")?;
    Ok(dependencies(section.data().context("its .modinfo is damaged")?))
}

/// `depends=A,B` among strings that each end with a zero.
fn dependencies(modinfo: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(modinfo);
    let list = text.split('\0').find_map(|field| field.strip_prefix("depends=")).unwrap_or("");
    list.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_between_other_fields() {
        let modinfo = b"license=GPL\0depends=virtio,net-failover\0name=virtio_net\0";

        assert_eq!(dependencies(modinfo), ["virtio", "net_failover"]);
    }

    #[test]
    fn an_empty_list_and_no_list_need_nothing() {
        assert!(dependencies(b"depends=\0").is_empty());
        assert!(dependencies(b"license=GPL\0").is_empty());
    }
}
