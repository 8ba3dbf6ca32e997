//! The Debian of `cargo xtask guests debian-root`: copies of its disk, and its way to a shell.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Dialogue, Guests};

/// A copy of the disk, removed at the end.
#[derive(Debug)]
pub struct DebianDisk {
    path: PathBuf,
}

impl DebianDisk {
    /// A copy of this name; holes stay holes.
    ///
    /// # Errors
    /// A sentence, if the disk is not there or can't be copied.
    pub fn copy(name: &str) -> Result<Self, String> {
        let file = format!("kasane-debian-{}-{name}.img", std::process::id());
        let disk = Self { path: env::temp_dir().join(file) };
        let mut copy = Command::new("cp");
        copy.args(["--sparse=always", "--reflink=auto"]);
        copy.arg(Self::part("root.img")?).arg(&disk.path);
        match copy.status() {
            Ok(status) if status.success() => Ok(disk),
            Ok(status) => Err(format!("`cp` ended with {status}")),
            Err(error) => Err(format!("`cp` did not start: {error}")),
        }
    }

    /// What lies beside the disk: `vmlinuz`, `initrd.img`, `id_ed25519` (root's key).
    ///
    /// # Errors
    /// A sentence with the command that makes it, if it is not there.
    pub fn part(name: &str) -> Result<PathBuf, String> {
        let missing = |error| format!("{error} debian-root");
        Guests::find().image(&format!("debian-root/{name}")).map_err(missing)
    }

    /// The copy's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Boots it with these flags more, to the shell on the serial console, and waits until systemd
    /// has started all.
    ///
    /// # Errors
    /// What was said, if it doesn't come so far.
    pub fn boot(&self, flags: &[[&str; 2]]) -> Result<Dialogue, String> {
        let arguments = [
            ["run", "--no-reboot"],
            ["--kernel", &Self::part("vmlinuz")?.display().to_string()],
            ["--initrd", &Self::part("initrd.img")?.display().to_string()],
            ["--append", "root=/dev/vda console=ttyS0"],
            ["--memory", "1G"],
            ["--disk", &format!("{},format=raw", self.path.display())],
            ["--timeout", "7200"],
        ];
        let mut guest = Dialogue::start([&arguments[..], flags].concat().as_flattened())?;
        Self::reach_shell(&mut guest)?;
        Ok(guest)
    }

    /// Waits until a guest that was started on such a disk is at its shell, and systemd has started
    /// all.
    ///
    /// # Errors
    /// What was said, if it doesn't come so far.
    pub fn reach_shell(guest: &mut Dialogue) -> Result<(), String> {
        guest.expect("login: ")?;
        guest.expect("kasane-root# ")?;
        // The kernel's own lines would stand between answers.
        guest.succeed("dmesg -n 1; systemctl is-system-running --wait || true")?;
        Ok(())
    }
}

impl Drop for DebianDisk {
    fn drop(&mut self) {
        let _left_behind = fs::remove_file(&self.path);
    }
}
