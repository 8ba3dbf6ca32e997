//! The Debian that both systems run, and the dialogue with its shell over the serial console.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Error, Result, bail, ensure};
use kasane_conformance::{DebianDisk, Dialogue};
use serde_json::Value;

use super::host_file::{Cache, DataFile};
use super::{Options, Place};

/// RAM of the guests, in MiB.
pub(super) const GUEST_MIB: u64 = 1024;
const QEMU: &str = "qemu-system-x86_64";
const KERNEL_ARGUMENTS: &str = "root=/dev/vda console=ttyS0 quiet";
/// After so many seconds a guest that hangs is ended.
const TIMEOUT_S: &str = "7200";

/// QEMU's first line about itself.
pub(super) fn qemu_version() -> Result<String> {
    let output = Command::new(QEMU).arg("--version").output().with_context(|| {
        format!("{QEMU} did not start: is it installed? `apt-get install qemu-system-x86`")
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or("unknown").to_owned())
}

/// The package of the guest's kernel and its version.
pub(super) fn kernel_package() -> Result<String> {
    let list = DebianDisk::part("packages").map_err(Error::msg)?;
    let text =
        fs::read_to_string(&list).with_context(|| format!("could not read {}", list.display()))?;
    let kernel = text.lines().find(|line| line.starts_with("linux-image-6"));
    Ok(kernel.unwrap_or("unknown").replace('\t', " "))
}

/// A guest that runs, on its own copy of Debian's disk.
pub(super) struct Guest {
    dialogue: Dialogue,
    _disk: DebianDisk,
}

impl Guest {
    /// Starts it; it is not at its shell before [`Guest::reach_shell`].
    pub(super) fn start(options: &Options, place: Place, data: &[&DataFile]) -> Result<Self> {
        let disk = DebianDisk::copy(&format!("bench-{}", place.name())).map_err(Error::msg)?;
        let mut disks = vec![(disk.path(), Cache::Host)];
        disks.extend(data.iter().map(|file| (file.path(), file.cache())));
        let mut command = match place {
            Place::Host => bail!("the host is no guest"),
            Place::Qemu => qemu(&disks),
            Place::Kasane => kasane(options, &disks),
        };
        for (option, part) in [("kernel", "vmlinuz"), ("initrd", "initrd.img")] {
            // QEMU takes its options with two dashes as well.
            command.arg(format!("--{option}")).arg(DebianDisk::part(part).map_err(Error::msg)?);
        }
        command.arg("--append").arg(KERNEL_ARGUMENTS);
        let dialogue = Dialogue::with(&mut command).map_err(Error::msg)?;
        Ok(Self { dialogue, _disk: disk })
    }

    /// Waits until it has booted and systemd has started all.
    pub(super) fn reach_shell(&mut self) -> Result<()> {
        DebianDisk::reach_shell(&mut self.dialogue).map_err(Error::msg)
    }

    /// Runs a command that must not fail, and gives what it printed.
    pub(super) fn succeed(&mut self, command: &str) -> Result<String> {
        self.dialogue.succeed(command).map_err(Error::msg)
    }

    /// The same for a command that prints JSON.
    pub(super) fn json(&mut self, command: &str) -> Result<Value> {
        json_in(&self.succeed(command)?).with_context(|| format!("`{command}`"))
    }
}

/// What is around it is what the program has to remark.
fn json_in(text: &str) -> Result<Value> {
    let found = text.find('{').zip(text.rfind('}'));
    let object = found.and_then(|(begin, end)| text.get(begin..=end));
    let object = object.with_context(|| format!("there is no JSON in:\n{text}"))?;
    serde_json::from_str(object).with_context(|| format!("this is no JSON:\n{object}"))
}

/// A number by its path.
pub(super) fn number_at(value: &Value, path: &str) -> Result<f64> {
    let number = value.pointer(path).and_then(Value::as_f64);
    let number = number.with_context(|| format!("there is no number at {path} in:\n{value:#}"))?;
    ensure!(number.is_finite() && number >= 0.0, "{path} is {number}");
    Ok(number)
}

/// QEMU has no limit of its own time, and does not end with its parent: others see to both.
fn qemu(disks: &[(&Path, Cache)]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--foreground", TIMEOUT_S, "setpriv", "--pdeathsig", "KILL", QEMU]);
    command.args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", &format!("{GUEST_MIB}M")]);
    command.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
    command.args(["-display", "none", "-serial", "stdio"]);
    for (number, (disk, cache)) in disks.iter().enumerate() {
        let file = disk.display();
        let how = match cache {
            Cache::Host => "cache=writeback,aio=threads",
            Cache::None => "cache=none,aio=native",
        };
        command.arg("-drive").arg(format!("file={file},if=none,id=disk{number},format=raw,{how}"));
        command.arg("-device").arg(format!("virtio-blk-pci,drive=disk{number}"));
    }
    command.args(["-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0"]);
    command.args(["-device", "virtio-rng-pci"]);
    command
}

fn kasane(options: &Options, disks: &[(&Path, Cache)]) -> Command {
    let mut command = Command::new(&options.kasane);
    command.args(["run", "--engine", &options.engine, "--cpu", "max", "--cpus", "1"]);
    command.args(["--memory", &format!("{GUEST_MIB}M"), "--no-reboot", "--timeout", TIMEOUT_S]);
    for (disk, cache) in disks {
        let how = if *cache == Cache::None { ",direct" } else { "" };
        command.arg("--disk").arg(format!("{},format=raw{how}", disk.display()));
    }
    command.args(["--net", "nat"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_found_between_remarks() {
        let value = json_in("note: a remark\n{\"jobs\": [{\"iops\": 5.5}]}\nmore\n").unwrap();

        assert_eq!(number_at(&value, "/jobs/0/iops").unwrap(), 5.5);
        assert!(number_at(&value, "/jobs/1/iops").is_err());
    }

    #[test]
    fn what_is_no_json_is_an_error_that_shows_it() {
        let error = json_in("fio: not found").unwrap_err().to_string();

        assert!(error.contains("fio: not found"), "{error}");
        assert!(json_in("} {").is_err());
    }
}
