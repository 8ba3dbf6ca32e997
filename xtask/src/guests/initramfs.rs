//! The initramfs images: busybox with our init, the same with a kernel's
//! virtio modules and the program of the kill test, or with Debian's stress-ng. The layout is merged (`/bin` is a link to `/usr/bin` and so
//! on), so that packages from before and after Debian's merge both fit.

use super::apt::{self, Apt};
use super::cpio::{Archive, DeviceNumber};
use super::{Made, Place, kernel, lacking, libraries, modules, records};
use crate::report::{note, step};
use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;

const INIT: &str = include_str!("init.sh");

const FOLDERS: [&str; 13] = [
    "dev",
    "etc",
    "mnt",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr",
    "usr/bin",
    "usr/sbin",
    "usr/lib",
    "usr/lib64",
];

/// The programs of the stress image and where their packages have them.
const STRESS_PACKAGES: [&str; 3] = ["stress-ng", "gzip", "coreutils"];
const STRESS_PROGRAMS: [&str; 4] = ["stress-ng", "gzip", "dd", "sha256sum"];
/// glibc opens it by itself when a thread is cancelled.
const OPENED_AT_RUN_TIME: [&str; 1] = ["libgcc_s.so.1"];

/// Files by path without a leading slash.
type Files = BTreeMap<String, Vec<u8>>;

/// What an image has at a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    File { permissions: u32, content: Vec<u8> },
    Link { target: String },
}

/// By path without a leading slash.
pub(super) type Items = BTreeMap<String, Item>;

pub(super) struct Architecture {
    name: &'static str,
    package: &'static str,
    image: &'static str,
}

pub(super) const AMD64: Architecture =
    Architecture { name: "amd64", package: "busybox-static:amd64", image: "initramfs-shell.gz" };
const ARCHITECTURES: [Architecture; 2] = [
    AMD64,
    Architecture { name: "i386", package: "busybox-static:i386", image: "initramfs-shell-i386.gz" },
];

/// `initramfs-shell.gz` and `initramfs-shell-i386.gz`.
pub(super) fn shells(place: &Place<'_>, apt: &mut Apt, refresh: bool) -> Result<()> {
    ARCHITECTURES.iter().try_for_each(|architecture| {
        step(&format!("guest image `{}`", architecture.image), || {
            let made = Made::new(place.folder.join(architecture.image), recipe("shell"));
            if made.is_current() && !refresh {
                return Ok(());
            }
            let busybox = busybox(place, apt, architecture, refresh)?;
            made.write(&compressed(&image(&busybox, &Items::new())?)?)
        })
    })
}

/// `initramfs-virtio.gz` for the cloud kernel and `initramfs-virtio-amd64.gz`: modules go with one
/// kernel only, so each is made anew with its kernel.
pub(super) fn virtio(place: &Place<'_>, apt: &mut Apt, refresh: bool) -> Result<()> {
    let images =
        [("initramfs-virtio.gz", kernel::CLOUD), ("initramfs-virtio-amd64.gz", kernel::AMD64)];
    let program = records::build(place)?;
    images.iter().try_for_each(|(image_name, kernel)| {
        kernel::fetch(place, apt, kernel, false)?;
        step(&format!("guest image `{image_name}`"), || {
            let wanted = modules::WANTED.join(",");
            let recipe = [recipe("virtio"), kernel.package(place), wanted, program.recipe.clone()];
            let made = Made::new(place.folder.join(image_name), recipe.join("\n"));
            if made.is_current() && !refresh {
                return Ok(());
            }
            let busybox = busybox(place, apt, &AMD64, refresh)?;
            let mut items = modules::items(&kernel.folder(place))?;
            let content = fs::read(&program.file).context("could not read kasane-records")?;
            let item = Item::File { permissions: 0o755, content };
            items.insert("usr/bin/kasane-records".to_owned(), item);
            made.write(&compressed(&image(&busybox, &items)?)?)
        })
    })
}

/// `initramfs-stress.gz`, 64-bit.
pub(super) fn stress(place: &Place<'_>, apt: &mut Apt, refresh: bool) -> Result<()> {
    step("guest image `initramfs-stress.gz`", || {
        let made = Made::new(place.folder.join("initramfs-stress.gz"), recipe("stress"));
        if made.is_current() && !refresh {
            return Ok(());
        }
        let busybox = busybox(place, apt, &AMD64, refresh)?;
        let debs = apt.download_closure(&STRESS_PACKAGES)?;
        let unpacked = place.folder.join("stress-unpacked");
        apt::unpack_all(&debs, &unpacked)?;
        let mut files = Files::new();
        for program in STRESS_PROGRAMS {
            files.insert(format!("usr/bin/{program}"), program_in(&unpacked, program)?);
        }
        let programs: Vec<&[u8]> = files.values().map(Vec::as_slice).collect();
        let libraries = libraries::closure(&unpacked, &programs, &OPENED_AT_RUN_TIME)?;
        note(format_args!("{} packages, {} libraries", debs.len(), libraries.len()));
        files.extend(libraries);
        made.write(&compressed(&image(&busybox, &programs_of(files))?)?)?;
        fs::remove_dir_all(&unpacked).context("could not remove what was unpacked")
    })
}

/// What an image is made of, so that a change of it makes the image anew.
fn recipe(kind: &str) -> String {
    format!("3 {kind} {} {}\n{INIT}", STRESS_PACKAGES.join(","), STRESS_PROGRAMS.join(","))
}

fn program_in(unpacked: &Path, name: &str) -> Result<Vec<u8>> {
    ["usr/bin", "bin"]
        .into_iter()
        .find_map(|folder| fs::read(unpacked.join(folder).join(name)).ok())
        .ok_or_else(|| lacking(&STRESS_PACKAGES.join(", "), name).into())
}

fn programs_of(files: Files) -> Items {
    files
        .into_iter()
        .map(|(path, content)| (path, Item::File { permissions: 0o755, content }))
        .collect()
}

/// Busybox, kept at `busybox/ARCHITECTURE/busybox`.
pub(super) fn busybox(
    place: &Place<'_>,
    apt: &mut Apt,
    architecture: &Architecture,
    refresh: bool,
) -> Result<Vec<u8>> {
    let folder = place.folder.join("busybox").join(architecture.name);
    let made = Made::new(folder.join("busybox"), architecture.package);
    if made.is_current() && !refresh {
        return fs::read(&made.file).context("could not read busybox");
    }
    let deb = apt.download(architecture.package)?;
    let unpacked = folder.join("unpacked");
    apt::unpack_all(std::slice::from_ref(&deb), &unpacked)?;
    let bytes = ["bin/busybox", "usr/bin/busybox"]
        .into_iter()
        .find_map(|path| fs::read(unpacked.join(path)).ok())
        .ok_or_else(|| lacking(&deb.name, "busybox"))?;
    made.write(&bytes)?;
    fs::remove_dir_all(&unpacked).context("could not remove what was unpacked")?;
    Ok(bytes)
}

/// An archive with busybox, init and `items`.
pub(super) fn image(busybox: &[u8], items: &Items) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    let mut folders: BTreeSet<String> = FOLDERS.iter().map(|path| (*path).to_owned()).collect();
    let merged: BTreeMap<String, &Item> =
        items.iter().map(|(path, item)| (merged_path(path), item)).collect();
    for path in merged.keys() {
        let parents = path.match_indices('/').filter_map(|(end, _)| path.get(..end));
        folders.extend(parents.map(str::to_owned));
    }
    for folder in &folders {
        archive.directory(folder, if folder == "tmp" { 0o1777 } else { 0o755 })?;
    }
    for link in ["bin", "sbin", "lib", "lib64"] {
        archive.symlink(link, &format!("usr/{link}"))?;
    }
    // The kernel opens the console for init before anything is mounted.
    archive.character_device("dev/console", 0o600, DeviceNumber { major: 5, minor: 1 })?;
    archive.character_device("dev/null", 0o666, DeviceNumber { major: 1, minor: 3 })?;
    archive.file("usr/bin/busybox", 0o755, busybox)?;
    archive.file("etc/passwd", 0o644, b"root::0:0:root:/root:/bin/sh\n")?;
    archive.file("etc/group", 0o644, b"root:x:0:\n")?;
    for (path, item) in &merged {
        match item {
            Item::File { permissions, content } => archive.file(path, *permissions, content)?,
            Item::Link { target } => archive.symlink(path, target)?,
        }
    }
    archive.file("init", 0o755, INIT.as_bytes())?;
    archive.finish()
}

/// `lib/x` and `usr/lib/x` are the same place in the guest.
fn merged_path(path: &str) -> String {
    let top = path.split('/').next().unwrap_or_default();
    if ["bin", "sbin", "lib", "lib64"].contains(&top) {
        format!("usr/{path}")
    } else {
        path.to_owned()
    }
}

/// Gzip without a time in it: the same content gives the same bytes.
fn compressed(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).context("could not compress")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(path: &str) -> Items {
        programs_of(Files::from([(path.to_owned(), b"content".to_vec())]))
    }

    fn text(items: &Items) -> String {
        String::from_utf8_lossy(&image(b"THE BOX", items).unwrap()).into_owned()
    }

    #[test]
    fn an_image_is_the_same_every_time() {
        let items = items("usr/bin/thing");

        let image = || compressed(&image(b"box", &items).unwrap()).unwrap();

        assert_eq!(image(), image());
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        let text = text(&items("lib/deep/er/thing.so"));

        let place = |name: &str| text.find(&format!("{name}\0"));
        assert!(place("usr/lib/deep") < place("usr/lib/deep/er"));
        assert!(place("usr/lib/deep/er") < place("usr/lib/deep/er/thing.so"));
        assert!(place("usr/lib/deep/er/thing.so").is_some());
    }

    #[test]
    fn an_image_has_busybox_init_and_a_console() {
        let text = text(&Items::new());

        for part in ["THE BOX", "#!/bin/busybox sh", "dev/console\0", "TRAILER!!!"] {
            assert!(text.contains(part), "{part}");
        }
    }

    #[test]
    fn only_the_folders_that_debian_merged_are_moved() {
        let paths =
            ["lib/a", "lib64/b", "bin/c", "usr/lib/d", "etc/e", "library/f"].map(merged_path);

        assert_eq!(
            paths,
            ["usr/lib/a", "usr/lib64/b", "usr/bin/c", "usr/lib/d", "etc/e", "library/f"]
        );
    }
}
