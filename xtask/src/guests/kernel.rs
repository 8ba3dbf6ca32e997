//! Debian's kernels, stock: the file a user of Debian boots.

use super::apt::Apt;
use super::modules;
use super::{Made, Place, fresh_folder, lacking, replace};
use crate::report::{note, step};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// A kernel by the metapackage that always depends on the newest one.
pub(super) struct Kernel {
    folder: &'static str,
    metapackage: &'static str,
}

pub(super) const CLOUD: Kernel = Kernel { folder: "cloud", metapackage: "linux-image-cloud-amd64" };
pub(super) const AMD64: Kernel = Kernel { folder: "amd64", metapackage: "linux-image-amd64" };
pub(super) const I386: Kernel = Kernel { folder: "i386", metapackage: "linux-image-686:i386" };

impl Kernel {
    fn recipe(&self) -> String {
        format!("2 {} {}", self.metapackage, modules::WANTED.join(","))
    }

    /// Where all of it is.
    pub(super) fn folder(&self, place: &Place<'_>) -> PathBuf {
        place.folder.join(self.folder)
    }

    /// Which package it was made of, when that is known.
    pub(super) fn package(&self, place: &Place<'_>) -> String {
        fs::read_to_string(self.folder(place).join("package")).unwrap_or_default()
    }
}

/// Puts the kernel at `FOLDER/vmlinuz`, its configuration at `FOLDER/config`,
/// its package's name at `FOLDER/package` and its modules for virtio into
/// `FOLDER/modules`.
pub(super) fn fetch(
    place: &Place<'_>,
    apt: &mut Apt,
    kernel: &Kernel,
    refresh: bool,
) -> Result<()> {
    step(&format!("guest kernel `{}`", kernel.folder), || {
        let folder = place.folder.join(kernel.folder);
        let made = Made::new(folder.join("vmlinuz"), kernel.recipe());
        if made.is_current() && !refresh {
            return Ok(());
        }
        let package = apt.dependency(kernel.metapackage, "linux-image-")?;
        let deb = apt.download(&package)?;
        let unpacked = folder.join("unpacked");
        fresh_folder(&unpacked)?;
        deb.unpack_only(&unpacked, "./boot/*")?;
        deb.unpack_only(&unpacked, "./lib/modules/*")?;
        modules::keep(&unpacked.join("lib"), &folder)?;
        let boot = unpacked.join("boot");
        let image = named(&boot, "vmlinuz-").ok_or_else(|| lacking(&package, "/boot/vmlinuz-*"))?;
        let image =
            fs::read(&image).with_context(|| format!("could not read {}", image.display()))?;
        if let Some(config) = named(&boot, "config-") {
            fs::rename(config, folder.join("config"))
                .context("could not keep the configuration")?;
        }
        replace(&folder.join("package"), format!("{}\n", deb.name).as_bytes())?;
        note(&deb.name);
        made.write(&image)?;
        fs::remove_dir_all(&unpacked).context("could not remove what was unpacked")
    })
}

/// The file in `folder` whose name begins with `prefix`.
fn named(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    entries
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
}
