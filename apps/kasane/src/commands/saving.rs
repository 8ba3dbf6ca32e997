//! `--save-after` and `--restore` of `kasane run`: a machine to a file and back.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use anyhow::Context;

use crate::outcome::Failure;
use crate::vm::{Lent, LoadError, Specification, VirtualMachine};

const MIB: usize = 1 << 20;

/// Saves a paused machine to a new file.
pub(super) fn save(vm: &VirtualMachine, path: &Path) -> Result<(), Failure> {
    let written = File::create(path).map_err(anyhow::Error::new).and_then(|file| {
        vm.save(&mut BufWriter::with_capacity(MIB, file)).map_err(anyhow::Error::new)
    });
    written
        .with_context(|| format!("can't save the machine to `{}`", path.display()))
        .map_err(|error| Failure::host(error, "make room, or name another file"))
}

/// The machine that was saved.
pub(super) fn restore(
    path: &Path,
    specification: &Specification,
    lent: &Lent,
) -> Result<VirtualMachine, Failure> {
    let file = File::open(path)
        .with_context(|| format!("can't read the saved machine `{}`", path.display()))
        .map_err(|error| Failure::usage(error, "name a file that can be read"))?;
    let mut from = BufReader::with_capacity(MIB, file);
    VirtualMachine::start_saved(specification, lent, &mut from).map_err(|error| {
        let help = match &error {
            LoadError::Form(_) => "name a machine that kasane has saved",
            LoadError::State(_) | LoadError::Processor(_) => {
                "give the flags that the machine was saved with"
            }
            LoadError::Start(_) => "give the machine less of what the host lacks",
        };
        let context = format!("can't go on with the saved machine `{}`", path.display());
        Failure::usage(anyhow::Error::new(error).context(context), help)
    })
}
