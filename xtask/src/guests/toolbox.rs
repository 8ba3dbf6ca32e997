//! The toolbox: Debian's gcc, luajit and node in an initramfs, with programs for them in `/toolbox`.
//! The same tree stays at `target/guests/toolbox`, so that a test can run the same programs on this
//! host and compare. The image is not compressed: a guest has enough to unpack as it is.

mod program;

use super::apt::{self, Apt};
use super::initramfs::{self, Item, Items};
use super::{Made, Place};
use crate::report::{note, step};
use anyhow::{Context, Result};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

const PACKAGES: [&str; 4] = ["gcc", "libc6-dev", "luajit", "nodejs"];
/// Scripts that the guest runs.
const SCRIPTS: &str = "conformance/suite/toolbox";
/// Where they lie in the guest, with the C program.
const FOLDER: &str = "toolbox";

/// Folders of the packages that no program needs to run.
const USELESS_FOLDERS: [&str; 13] = [
    "usr/share/bug",
    "usr/share/doc",
    "usr/share/gcc",
    "usr/share/gdb",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/perl5",
    "usr/share/systemtap",
    "usr/lib/gcc/x86_64-linux-gnu/12/plugin",
    "usr/lib/x86_64-linux-gnu/gprofng",
    "usr/lib/x86_64-linux-gnu/perl5",
];
/// Beginnings of the names of large files that the programs here don't use: link-time optimisation,
/// sanitizers, other linkers.
const USELESS_FILES: [&str; 10] = [
    "lto1",
    "x86_64-linux-gnu-lto-dump",
    "x86_64-linux-gnu-dwp",
    "x86_64-linux-gnu-ld.gold",
    "x86_64-linux-gnu-gp-",
    "libgprofng",
    "libasan",
    "libtsan",
    "liblsan",
    "libubsan",
];

/// `initramfs-toolbox.cpio` and the folder `toolbox`.
pub(super) fn build(place: &Place<'_>, apt: &mut Apt, refresh: bool) -> Result<()> {
    step("guest image `initramfs-toolbox.cpio`", || {
        let programs = programs(place.root)?;
        let image = place.folder.join("initramfs-toolbox.cpio");
        let made = Made::new(image, recipe(&programs));
        let tree = place.folder.join("toolbox");
        if made.is_current() && tree.is_dir() && !refresh {
            return Ok(());
        }
        let busybox = initramfs::busybox(place, apt, &initramfs::AMD64, refresh)?;
        let debs = apt.download_closure(&PACKAGES)?;
        apt::unpack_all(&debs, &tree)?;
        for folder in USELESS_FOLDERS {
            remove_folder(&tree.join(folder))?;
        }
        for (path, content) in &programs {
            let file = tree.join(path);
            fs::create_dir_all(file.parent().unwrap_or(&tree))
                .and_then(|()| fs::write(&file, content))
                .with_context(|| format!("could not write {}", file.display()))?;
        }
        let mut items = Items::new();
        collect(&tree, "", &mut items)?;
        note(format_args!("{} packages, {} files and links", debs.len(), items.len()));
        made.write(&initramfs::image(&busybox, &items)?)
    })
}

fn remove_folder(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("could not remove {}", folder.display()))?;
    }
    Ok(())
}

/// What the guest runs, by its path there.
fn programs(root: &Path) -> Result<Vec<(String, String)>> {
    let mut programs = vec![(format!("{FOLDER}/program.c"), program::source())];
    for entry in
        fs::read_dir(root.join(SCRIPTS)).with_context(|| format!("could not list {SCRIPTS}"))?
    {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let content = fs::read_to_string(&path)
            .with_context(|| format!("could not read {}", path.display()))?;
        programs.push((format!("{FOLDER}/{name}"), content));
    }
    programs.sort();
    Ok(programs)
}

/// Changes when a program, the packages or what is left out does (the number is the layout's).
fn recipe(programs: &[(String, String)]) -> String {
    let mut hasher = DefaultHasher::new();
    (programs, PACKAGES, USELESS_FOLDERS, USELESS_FILES).hash(&mut hasher);
    format!("1 {:016x}", hasher.finish())
}

fn is_useless(name: &str) -> bool {
    USELESS_FILES.iter().any(|beginning| name.starts_with(beginning))
}

/// All that is in `folder` of the tree, with useless files removed on the way.
fn collect(tree: &Path, folder: &str, items: &mut Items) -> Result<()> {
    let here = tree.join(folder);
    let unreadable = || format!("could not read {}", here.display());
    for entry in fs::read_dir(&here).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let kind = entry.file_type().with_context(unreadable)?;
        if kind.is_dir() {
            collect(tree, &path, items)?;
        } else if is_useless(&name) {
            fs::remove_file(entry.path()).with_context(|| format!("could not remove {path}"))?;
        } else if kind.is_symlink() {
            let target = fs::read_link(entry.path()).with_context(unreadable)?;
            items.insert(path, Item::Link { target: target.to_string_lossy().into_owned() });
        } else {
            let content = fs::read(entry.path()).with_context(unreadable)?;
            items.insert(path, Item::File { permissions: permissions(&entry)?, content });
        }
    }
    Ok(())
}

#[cfg(unix)]
fn permissions(entry: &fs::DirEntry) -> Result<u32> {
    use std::os::unix::fs::PermissionsExt;
    let data = entry.metadata().context("could not read a file's permissions")?;
    Ok(data.permissions().mode() & 0o777)
}

/// Elsewhere files don't have them.
#[cfg(not(unix))]
fn permissions(_entry: &fs::DirEntry) -> Result<u32> {
    Ok(0o755)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guests::fresh_folder;

    #[test]
    fn a_tree_becomes_files_and_links_without_what_is_useless() {
        let tree = std::env::temp_dir().join(format!("xtask-toolbox-{}", std::process::id()));
        fresh_folder(&tree.join("usr/lib")).unwrap();
        fs::write(tree.join("usr/lib/libc.so.6"), b"code").unwrap();
        fs::write(tree.join("usr/lib/libasan.so.8"), b"large").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("libc.so.6", tree.join("usr/lib/libc.so")).unwrap();

        let mut items = Items::new();
        collect(&tree, "", &mut items).unwrap();

        let paths: Vec<&str> = items.keys().map(String::as_str).collect();
        assert_eq!(paths, ["usr/lib/libc.so", "usr/lib/libc.so.6"]);
        assert_eq!(items["usr/lib/libc.so"], Item::Link { target: "libc.so.6".to_owned() });
        fs::remove_dir_all(&tree).unwrap();
    }

    #[test]
    fn the_guest_gets_a_program_for_each_of_its_tools() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");

        let paths: Vec<String> =
            programs(&root).unwrap().into_iter().map(|(path, _)| path).collect();

        assert_eq!(paths, ["toolbox/exercise.js", "toolbox/kernels.lua", "toolbox/program.c"]);
    }
}
