//! The program that `cargo xtask bench cpu` measures: compiled from `conformance/bench/guest`, static,
//! and put into an initramfs as init. It goes to `target/bench/guest`.

use super::Made;
use super::cpio::{Archive, DeviceNumber};
use crate::command;
use crate::report::{Failure, note, step};
use anyhow::{Context, Result};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCES: &str = "conformance/bench/guest";
/// The plain level 2 that distributions compile with, for any x86-64.
const FLAGS: [&str; 6] = ["-O2", "-static", "-pthread", "-std=gnu11", "-Wall", "-Wextra"];

/// What was made.
pub(crate) struct Measured {
    pub(crate) program: PathBuf,
    pub(crate) initramfs: PathBuf,
}

/// Compiles the program when its sources have changed, and packs it.
///
/// # Errors
/// When there is no C compiler that can link statically.
pub(super) fn build(root: &Path) -> Result<Measured> {
    step("the measured program", || {
        let folder = root.join("target").join("bench").join("guest");
        fs::create_dir_all(&folder)
            .with_context(|| format!("could not create {}", folder.display()))?;
        let sources = sources_in(&root.join(SOURCES))?;
        let recipe = fingerprint(&sources)?;
        let program = Made::new(folder.join("kasane-bench-guest"), recipe.clone());
        let initramfs = Made::new(folder.join("initramfs.cpio"), recipe);
        if !(program.is_current() && initramfs.is_current()) {
            let bytes = compiled(&sources, &folder)?;
            program.write(&bytes)?;
            executable(&program.file)?;
            initramfs.write(&image(&bytes)?)?;
        }
        Ok(Measured { program: program.file, initramfs: initramfs.file })
    })
}

/// The C files, then the headers, in order.
fn sources_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("could not list {SOURCES}"))?;
    let mut sources = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("could not list {SOURCES}"))?.path();
        if path.extension().is_some_and(|extension| extension == "c" || extension == "h") {
            sources.push(path);
        }
    }
    sources.sort();
    Ok(sources)
}

fn compiled(sources: &[PathBuf], folder: &Path) -> Result<Vec<u8>> {
    let output = folder.join("compiled");
    let mut compile = Command::new("cc");
    compile.args(FLAGS).arg("-o").arg(&output);
    compile.args(sources.iter().filter(|path| path.extension().is_some_and(|end| end == "c")));
    note(command::spelled(&compile));
    command::run(&mut compile).map_err(|error| {
        error.context(Failure::new(
            "could not compile the measured program",
            "it needs a C compiler and a static C library: apt-get install gcc libc6-dev",
        ))
    })?;
    let bytes = fs::read(&output).context("could not read what was compiled")?;
    fs::remove_file(&output).context("could not remove what was compiled")?;
    Ok(bytes)
}

/// The program as init, with what it opens.
fn image(program: &[u8]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.directory("dev", 0o755)?;
    archive.character_device("dev/console", 0o600, DeviceNumber { major: 5, minor: 1 })?;
    archive.character_device("dev/null", 0o666, DeviceNumber { major: 1, minor: 3 })?;
    archive.file("init", 0o755, program)?;
    archive.finish()
}

#[cfg(unix)]
fn executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("could not make {} executable", file.display()))
}

#[cfg(not(unix))]
fn executable(_file: &Path) -> Result<()> {
    Err(Failure::new("the measured program is one of Linux", "run this on Linux").into())
}

/// Changes when a source, the flags or the image's layout do (the number is the layout's).
fn fingerprint(files: &[PathBuf]) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.file_name().hash(&mut hasher);
        fs::read(file)
            .with_context(|| format!("could not read {}", file.display()))?
            .hash(&mut hasher);
    }
    FLAGS.hash(&mut hasher);
    Ok(format!("1 {:016x}", hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_has_the_program_as_init_and_a_console() {
        let bytes = image(b"THE PROGRAM").unwrap();

        let text = String::from_utf8_lossy(&bytes);
        for part in ["init\0", "THE PROGRAM", "dev/console\0", "dev/null\0", "TRAILER!!!"] {
            assert!(text.contains(part), "{part}");
        }
    }

    #[test]
    fn the_program_has_sources() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");

        let sources = sources_in(&root.join(SOURCES)).unwrap();

        assert!(sources.iter().any(|path| path.ends_with("main.c")), "{sources:?}");
        assert!(sources.iter().any(|path| path.ends_with("bench.h")), "{sources:?}");
    }
}
