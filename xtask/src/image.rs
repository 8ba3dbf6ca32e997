//! `cargo xtask image`: the bare-metal hypervisor as an ELF image and as a CD that GRUB starts, from
//! BIOS and from UEFI.

use crate::guests::Archive;
use crate::report::{note, step};
use crate::workspace::{Workspace, cargo};
use crate::{command, gates, suite};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What makes the CD, with the packages: programs, and GRUB's two sides.
const MAKERS: &[(&str, &str)] = &[
    ("grub-mkrescue", "grub-common"),
    ("xorriso", "xorriso"),
    ("mformat", "mtools"),
    ("/usr/lib/grub/i386-pc", "grub-pc-bin"),
    ("/usr/lib/grub/x86_64-efi", "grub-efi-amd64-bin"),
];

#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// A folder of machines: definitions (`NAME.toml`) and the files that they name
    #[arg(long)]
    machines: Option<PathBuf>,
}

/// `cargo xtask image`.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    gates::targets()?;
    suite::install(MAKERS)?;
    elf(workspace)?;
    cd(workspace, arguments.machines.as_deref())
}

/// The folder of the images.
pub(crate) fn folder(workspace: &Workspace) -> PathBuf {
    workspace.root.join("target").join("hypervisor")
}

/// Makes `kasane.elf`.
pub(crate) fn elf(workspace: &Workspace) -> Result<()> {
    step("hypervisor, kasane.elf", || {
        let profile = "hypervisor";
        let mut build = cargo();
        build.args(["build", "--quiet", "-p", "kasane-hypervisor", "--profile", profile]);
        command::run(build.args(["--target", gates::NO_OS]))?;
        let built = workspace.target.join(gates::NO_OS).join(profile).join("kasane-hypervisor");
        let folder = folder(workspace);
        fs::create_dir_all(&folder).with_context(|| format!("no folder {}", folder.display()))?;
        let image = folder.join("kasane.elf");
        copy(&built, &image)?;
        note(format_args!("{} ({} KiB)", image.display(), fs::metadata(&image)?.len() / 1024));
        Ok(())
    })
}

/// Makes `kasane.iso`, and `machines.cpio` for loaders that take a single file.
fn cd(workspace: &Workspace, machines: Option<&Path>) -> Result<()> {
    step("hypervisor, kasane.iso", || {
        let folder = folder(workspace);
        let files = machines.map(files_of).transpose()?.unwrap_or_default();
        let tree = folder.join("cd");
        if tree.exists() {
            fs::remove_dir_all(&tree).context("the old CD's files can't be removed")?;
        }
        fs::create_dir_all(tree.join("boot/grub")).context("no folder for the CD's files")?;
        fs::create_dir_all(tree.join("boot/machines")).context("no folder for the machines")?;
        copy(&folder.join("kasane.elf"), &tree.join("boot/kasane.elf"))?;
        let mut archive = Archive::default();
        for (name, file) in &files {
            copy(file, &tree.join("boot/machines").join(name))?;
            archive.file(name, 0o644, &fs::read(file)?)?;
        }
        fs::write(folder.join("machines.cpio"), archive.finish()?)?;
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        fs::write(tree.join("boot/grub/grub.cfg"), menu(&names))?;
        let image = folder.join("kasane.iso");
        let mut make = Command::new("grub-mkrescue");
        command::answer(make.arg("-o").arg(&image).arg(&tree))?;
        note(format_args!("{} ({} machines' files)", image.display(), files.len()));
        Ok(())
    })
}

/// The files of a folder, by name, without its folders.
fn files_of(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("no folder {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        if let (true, Some(name)) = (path.is_file(), name) {
            anyhow::ensure!(
                !name.contains(|c: char| c.is_whitespace() || "'\"$\\".contains(c)),
                "the boot menu can't name `{name}`"
            );
            files.push((name, path));
        }
    }
    files.sort();
    Ok(files)
}

/// GRUB's configuration: one entry, started at once, on the serial port and on a screen. From UEFI
/// GRUB starts nothing by Multiboot2 without a video mode.
fn menu(files: &[&str]) -> String {
    let modules: String =
        files.iter().map(|name| format!("  module2 /boot/machines/{name} {name}\n")).collect();
    format!(
        "serial --unit=0 --speed=115200\n\
         terminal_input serial console\n\
         terminal_output serial console\n\
         insmod all_video\n\
         set timeout=0\n\
         menuentry Kasane {{\n  multiboot2 /boot/kasane.elf\n{modules}  boot\n}}\n"
    )
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .with_context(|| format!("{} can't be copied to {}", from.display(), to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_menu_starts_the_image_with_its_modules() {
        let menu = menu(&["a.toml", "vmlinuz"]);

        let entry = "menuentry Kasane {\n  multiboot2 /boot/kasane.elf\n  \
            module2 /boot/machines/a.toml a.toml\n  \
            module2 /boot/machines/vmlinuz vmlinuz\n  boot\n}\n";
        assert!(menu.ends_with(entry), "{menu}");
    }
}
