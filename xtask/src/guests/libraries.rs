//! Which shared libraries a program needs, found in a folder of unpacked
//! packages and never in this host's own: the closure over `DT_NEEDED`
//! (System V ABI, "Dynamic Section") and the program interpreter.

use anyhow::{Context, Result};
use object::elf::{DT_NEEDED, FileHeader64, PT_INTERP};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, StringTable};
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

/// Where Debian puts libraries, in the order that the loader looks.
const FOLDERS: [&str; 4] =
    ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64"];

/// What one ELF file asks of the loader.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    /// The loader's absolute path, for a program.
    interpreter: Option<String>,
    libraries: Vec<String>,
}

/// The libraries that `programs` need, as path in the guest → content, the
/// loader among them. `extra` are names that programs open by themselves at
/// run time. Paths are without a leading slash.
///
/// # Errors
/// Names the library that no unpacked package has, and who wants it.
pub(super) fn closure(
    unpacked: &Path,
    programs: &[&[u8]],
    extra: &[&str],
) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut wanted: VecDeque<String> = extra.iter().map(|name| (*name).to_owned()).collect();
    for program in programs {
        let needs = needs(program)?;
        wanted.extend(needs.libraries);
        if let Some(interpreter) = needs.interpreter {
            let path = interpreter.trim_start_matches('/').to_owned();
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            let (_, file) = locate(unpacked, &name)?;
            found.insert(path, read(&file)?);
        }
    }
    while let Some(name) = wanted.pop_front() {
        let (path, file) = locate(unpacked, &name)?;
        let loader = found.keys().any(|known: &String| known.ends_with(&format!("/{name}")));
        if loader || found.contains_key(&path) {
            continue;
        }
        let content = read(&file)?;
        wanted.extend(needs(&content).with_context(|| format!("in {name}"))?.libraries);
        found.insert(path, content);
    }
    Ok(found)
}

/// A library's path in the guest and its file here. Its name is mostly a
/// link to a file with a longer version, inside the same folder.
fn locate(unpacked: &Path, name: &str) -> Result<(String, PathBuf)> {
    let root = fs::canonicalize(unpacked).context("could not find the unpacked packages")?;
    for folder in FOLDERS {
        let path = format!("{folder}/{name}");
        if let Ok(file) = fs::canonicalize(root.join(&path))
            && file.starts_with(&root)
        {
            return Ok((path, file));
        }
    }
    anyhow::bail!("no unpacked package has the library {name}")
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("could not read {}", file.display()))
}

fn needs(content: &[u8]) -> Result<Needs> {
    let header = FileHeader64::<Endianness>::parse(content).context("not a 64-bit ELF file")?;
    let endian = header.endian()?;
    let sections = header.sections(endian, content)?;
    let mut needs = Needs::default();
    for segment in header.program_headers(endian, content)? {
        if segment.p_type(endian) == PT_INTERP {
            let name = segment
                .data(endian, content)
                .map_err(|()| anyhow::anyhow!("the interpreter's name is outside of the file"))?;
            let name = name.strip_suffix(&[0]).unwrap_or(name);
            needs.interpreter = Some(String::from_utf8(name.to_owned())?);
        }
    }
    if let Some((entries, strings)) = sections.dynamic(endian, content)? {
        let strings: StringTable<'_> = sections.strings(endian, content, strings)?;
        for entry in entries {
            if entry.tag(endian) == DT_NEEDED {
                let name = entry.string(endian, strings)?;
                needs.libraries.push(String::from_utf8(name.to_owned())?);
            }
        }
    }
    Ok(needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_program_needs_a_c_library_and_a_loader() {
        let program = fs::read(std::env::current_exe().unwrap()).unwrap();

        let needs = needs(&program).unwrap();

        assert!(needs.interpreter.is_some_and(|path| path.starts_with("/lib")));
        assert!(needs.libraries.iter().any(|name| name.starts_with("libc.so")));
    }

    #[test]
    fn what_is_no_elf_file_is_an_error() {
        assert!(needs(b"#!/bin/sh\n").is_err());
    }

    #[test]
    fn a_missing_library_is_named() {
        let error = closure(&std::env::temp_dir(), &[], &["libnowhere.so.9"]).unwrap_err();

        assert!(error.to_string().contains("libnowhere.so.9"));
    }
}
