//! Our own guests, by the convention of `guests/README.md`: each folder with
//! `*.S` files but `lib` is one guest, linked by `guests/guest.ld` and put at
//! `target/guests/asm/NAME.elf`.

use super::{Made, Place};
use crate::command;
use crate::report::{note, step};
use anyhow::{Context, Result};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What all guests include; no guest itself.
const SHARED: &str = "lib";
const LINKER_SCRIPT: &str = "guest.ld";

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
    let objects = place.folder.join("asm").join("objects").join(&name);
    super::fresh_folder(&objects)?;
    let mut link = Command::new("ld");
    link.args(["-nostdlib", "-static", "--build-id=none", "-z", "noexecstack"]);
    link.args(["-z", "max-page-size=4096", "-T"]).arg(sources.join(LINKER_SCRIPT));
    for source in own.iter().filter(|file| is_assembly(file)) {
        let object = objects.join(source.file_stem().unwrap_or_default()).with_extension("o");
        let mut assemble = Command::new("cc");
        assemble.args(["-c", "-m64", "-nostdlib", "-I"]).arg(sources.join(SHARED));
        assemble.arg("-I").arg(guest).arg("-o").arg(&object).arg(source);
        command::run(&mut assemble).with_context(|| format!("could not assemble {name}"))?;
        link.arg(object);
    }
    let linked = objects.join("linked.elf");
    command::run(link.arg("-o").arg(&linked)).with_context(|| format!("could not link {name}"))?;
    made.write(&fs::read(&linked).context("could not read what was linked")?)?;
    Ok(true)
}

/// The folders that have assembly in them, in order.
fn guests_in(sources: &Path) -> Result<Vec<PathBuf>> {
    let mut guests = Vec::new();
    for entry in fs::read_dir(sources).context("could not list guests/")? {
        let path = entry?.path();
        let shared = path.file_name().is_some_and(|name| name == SHARED);
        if path.is_dir() && !shared && files_in(&path)?.iter().any(|file| is_assembly(file)) {
            guests.push(path);
        }
    }
    guests.sort();
    Ok(guests)
}

fn is_assembly(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "S")
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
    Ok(format!("1 {:016x}", hasher.finish()))
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
