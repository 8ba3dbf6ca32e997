//! Our own guests, by the convention of `guests/README.md` (which has the
//! same two commands): each folder with a `main.S` is one guest, linked by
//! `guests/guest.ld` to a 32-bit ELF image at `target/guests/asm/NAME.elf`.

use super::{Made, Place};
use crate::command;
use crate::report::{note, step};
use anyhow::{Context, Result};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What makes a folder a guest.
const SOURCE: &str = "main.S";
/// What all guests include.
const SHARED: &str = "lib";
const LINKER_SCRIPT: &str = "guest.ld";

const ASSEMBLER: [&str; 4] = ["-c", "-m64", "-nostdlib", "-ffreestanding"];
const LINKER: [&str; 12] = [
    "-m",
    "elf_x86_64",
    "--oformat",
    "elf32-i386",
    "-nostdlib",
    "-static",
    "--build-id=none",
    "-z",
    "noexecstack",
    "-z",
    "max-page-size=0x1000",
    "-T",
];

/// Assembles and links each guest whose sources have changed.
pub(super) fn build(place: &Place<'_>) -> Result<()> {
    step("our own guests", || {
        let sources = place.root.join("guests");
        let shared = [files_in(&sources.join(SHARED))?, vec![sources.join(LINKER_SCRIPT)]].concat();
        let guests = guests_in(&sources)?;
        let mut made = 0;
        for guest in &guests {
            made += usize::from(build_one(place, &sources, guest, &shared)?);
        }
        note(format_args!("{} guests, {made} of them made now", guests.len()));
        Ok(())
    })
}

/// Whether there was something to do.
fn build_one(place: &Place<'_>, sources: &Path, guest: &Path, shared: &[PathBuf]) -> Result<bool> {
    let name = guest.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let own = files_in(guest)?;
    let made = Made::new(
        place.folder.join("asm").join(format!("{name}.elf")),
        fingerprint(&[own.as_slice(), shared].concat())?,
    );
    if made.is_current() {
        return Ok(false);
    }
    let objects = place.folder.join("asm").join("objects");
    fs::create_dir_all(&objects).context("could not create a folder for objects")?;
    let (object, linked) = (objects.join(format!("{name}.o")), objects.join(format!("{name}.elf")));
    let mut assemble = Command::new("cc");
    assemble.args(ASSEMBLER).arg("-I").arg(sources.join(SHARED));
    assemble.arg("-o").arg(&object).arg(guest.join(SOURCE));
    command::run(&mut assemble).with_context(|| format!("could not assemble {name}"))?;
    let mut link = Command::new("ld");
    link.args(LINKER).arg(sources.join(LINKER_SCRIPT)).arg("-o").arg(&linked).arg(&object);
    command::run(&mut link).with_context(|| format!("could not link {name}"))?;
    made.write(&fs::read(&linked).context("could not read what was linked")?)?;
    Ok(true)
}

/// The folders that have a `main.S`, in order.
fn guests_in(sources: &Path) -> Result<Vec<PathBuf>> {
    let mut guests = Vec::new();
    for entry in fs::read_dir(sources).context("could not list guests/")? {
        let path = entry?.path();
        if path.join(SOURCE).is_file() {
            guests.push(path);
        }
    }
    guests.sort();
    Ok(guests)
}

/// The files directly in a folder, in order; none when it isn't there.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries =
        fs::read_dir(folder).with_context(|| format!("could not list {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Changes when a file's name or content does.
fn fingerprint(files: &[PathBuf]) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.file_name().hash(&mut hasher);
        fs::read(file)
            .with_context(|| format!("could not read {}", file.display()))?
            .hash(&mut hasher);
    }
    (ASSEMBLER, LINKER).hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_changes_with_a_files_content() {
        let file = std::env::temp_dir().join(format!("xtask-print-{}.S", std::process::id()));
        fs::write(&file, "hlt").unwrap();
        let before = fingerprint(std::slice::from_ref(&file)).unwrap();
        fs::write(&file, "nop").unwrap();

        let after = fingerprint(std::slice::from_ref(&file)).unwrap();

        assert_ne!(before, after);
        fs::remove_file(&file).unwrap();
    }
}
