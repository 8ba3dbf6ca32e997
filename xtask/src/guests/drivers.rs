//! The guest in `guests/drivers`: a Cargo workspace of its own, as it is built for a machine
//! without an operating system.

use super::{Made, Place};
use crate::command;
use crate::gates::NO_OS;
use crate::report::step;
use crate::workspace::cargo;
use anyhow::{Context, Result};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// Its folder; the size of what is in it is checked with all other sources.
pub(crate) const FOLDER: &str = "guests/drivers";
const PROGRAM: &str = "drivers";

/// `drivers/drivers.elf`.
pub(super) fn build(place: &Place<'_>) -> Result<()> {
    step("the guest with the crate virtio-drivers", || {
        let source = place.root.join(FOLDER);
        let folder = place.folder.join(PROGRAM);
        let made = Made::new(folder.join(format!("{PROGRAM}.elf")), recipe(&source)?);
        if made.is_current() {
            return Ok(());
        }
        let target = folder.join("target");
        let mut build = cargo();
        build.args(["build", "--quiet", "--release", "--locked", "--target", NO_OS]);
        build.arg("--manifest-path").arg(source.join("Cargo.toml"));
        build.arg("--target-dir").arg(&target);
        command::run(&mut build).context("could not build it")?;
        let program = target.join(NO_OS).join("release").join(PROGRAM);
        made.write(&fs::read(&program).context("could not read what was built")?)?;
        fs::remove_dir_all(&target).context("could not remove what it was built of")
    })
}

/// Changes when a file does (the number is for how it is built).
fn recipe(source: &Path) -> Result<String> {
    let mut files = Vec::new();
    collect(source, &mut files)?;
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.strip_prefix(source).unwrap_or(&file).hash(&mut hasher);
        fs::read(&file)
            .with_context(|| format!("could not read {}", file.display()))?
            .hash(&mut hasher);
    }
    Ok(format!("1 {:016x}", hasher.finish()))
}

/// All files below a folder but what a build by hand has left there, in order.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("could not list {}", folder.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.with_context(|| format!("could not list {}", folder.display()))?.path());
    }
    paths.sort();
    for path in paths {
        if !path.is_dir() {
            files.push(path);
        } else if path.file_name().is_some_and(|name| name != "target") {
            collect(&path, files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipe_is_of_the_sources_and_the_locked_versions() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(FOLDER);
        let mut files = Vec::new();

        collect(&source, &mut files).unwrap();

        for wanted in ["Cargo.lock", "link.ld", "src/check/net.rs"] {
            assert!(files.iter().any(|file| file.ends_with(wanted)), "{wanted}: {files:?}");
        }
        assert_eq!(recipe(&source).unwrap(), recipe(&source).unwrap());
    }
}
