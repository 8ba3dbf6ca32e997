//! The guest's side of the kill test, `kasane-records`: a program of `conformance/suite`, which
//! has the form of a record for both sides, linked statically so that it runs in an initramfs.

use super::{Made, Place};
use crate::command;
use crate::report::{Failure, step};
use crate::workspace::cargo;
use anyhow::{Context, Result};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};

const PACKAGE: &str = "kasane-conformance";
const PROGRAM: &str = "kasane-records";
/// All that it is made of.
const SOURCES: [&str; 2] =
    ["conformance/suite/src/bin/kasane-records.rs", "conformance/suite/src/record.rs"];

/// `records/kasane-records`.
pub(super) fn build(place: &Place<'_>) -> Result<Made> {
    step("the program of the kill test", || {
        let folder = place.folder.join("records");
        let made = Made::new(folder.join(PROGRAM), recipe(place)?);
        if made.is_current() {
            return Ok(made);
        }
        // A target folder of its own: the flags and the profile are others than the tests'.
        let target = folder.join("target");
        let mut build = cargo();
        build.args(["rustc", "--quiet", "--release", "--locked", "-p", PACKAGE, "--bin", PROGRAM]);
        build.arg("--target-dir").arg(&target);
        build.args(["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"]);
        command::run(&mut build).map_err(|error| {
            error.context(Failure::new(
                "could not build the program of the kill test",
                "it needs a C linker and a static C library: apt-get install gcc libc6-dev",
            ))
        })?;
        let program = target.join("release").join(PROGRAM);
        made.write(&fs::read(&program).context("could not read what was built")?)?;
        fs::remove_dir_all(&target).context("could not remove what it was built of")?;
        Ok(made)
    })
}

/// Changes when a source does (the number is for how it is built).
fn recipe(place: &Place<'_>) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for source in SOURCES {
        fs::read(place.root.join(source))
            .with_context(|| format!("could not read {source}"))?
            .hash(&mut hasher);
    }
    Ok(format!("2 {:016x}", hasher.finish()))
}
