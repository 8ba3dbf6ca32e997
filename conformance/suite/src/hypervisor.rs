//! The bare-metal hypervisor in a PC that QEMU or Bochs emulates, and its monitor on the serial
//! port.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use kasane_host_images::Archive;

use crate::{Dialogue, bochs};

/// A PC for the hypervisor.
#[derive(Clone, Debug)]
pub struct PcMachine<'a> {
    /// Processors.
    pub cpus: u32,
    /// MiB of memory.
    pub memory_mib: u32,
    /// What `-cpu` says, or Bochs's name of a model.
    pub processor: &'a str,
    /// Definitions of machines, by their names; files that they name are given by path.
    pub definitions: &'a [(&'a str, String)],
    /// Files beside them, by name and path.
    pub files: &'a [(&'a str, PathBuf)],
    /// After so many seconds the PC is switched off.
    pub timeout_s: u64,
}

impl Default for PcMachine<'_> {
    fn default() -> Self {
        Self {
            cpus: 2,
            memory_mib: 256,
            processor: "qemu64",
            definitions: &[],
            files: &[],
            timeout_s: 120,
        }
    }
}

/// The hypervisor, running.
#[derive(Debug)]
pub struct Hypervisor {
    dialogue: Dialogue,
    // In this order: the watch ends before the process is waited for.
    watch: Option<Sender<()>>,
    scratch: Option<PathBuf>,
}

fn folder() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/hypervisor");
    env::var_os("KASANE_HYPERVISOR").map_or_else(own, PathBuf::from)
}

pub(crate) fn image(name: &str) -> Result<PathBuf, String> {
    let path = folder().join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(format!("{} is not there: run `cargo xtask image`", path.display()))
}

impl Hypervisor {
    /// Boots `kasane.elf` by PVH, with the machines in an archive, up to its prompt.
    ///
    /// # Errors
    /// A sentence, if something is missing or it doesn't come so far.
    pub fn boot(machine: &PcMachine<'_>) -> Result<Self, String> {
        let mut archive = Archive::new();
        for (name, text) in machine.definitions {
            archive.file(name, text.as_bytes());
        }
        for (name, path) in machine.files {
            let data = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
            archive.file(name, &data);
        }
        let scratch = scratch("modules")?;
        let modules = scratch.join("machines.cpio");
        fs::write(&modules, archive.finish()).map_err(|error| format!("no archive: {error}"))?;
        let mut command = pc(machine);
        command.arg("-kernel").arg(image("kasane.elf")?).arg("-initrd").arg(modules);
        Self::start(&mut command, machine, Some(scratch))
    }

    /// Boots `kasane.iso` with GRUB; from UEFI if there are its firmware and its variables.
    ///
    /// # Errors
    /// As for `boot`.
    pub fn boot_cd(machine: &PcMachine<'_>, uefi: Option<[&Path; 2]>) -> Result<Self, String> {
        let mut command = pc(machine);
        let mut own = None;
        if let Some([code, variables]) = uefi {
            let scratch = scratch("uefi")?;
            let copy = scratch.join("variables.fd");
            fs::copy(variables, &copy).map_err(|e| format!("{}: {e}", variables.display()))?;
            let code = format!("if=pflash,format=raw,readonly=on,file={}", code.display());
            let variables = format!("if=pflash,format=raw,file={}", copy.display());
            command.args(["-drive", &code, "-drive", &variables]);
            own = Some(scratch);
        }
        command.arg("-cdrom").arg(image("kasane.iso")?);
        Self::start(&mut command, machine, own)
    }

    /// Boots from a CD with the machines in Bochs, whose model of a processor `processor` names.
    ///
    /// # Errors
    /// As for `boot`.
    pub fn boot_bochs(machine: &PcMachine<'_>) -> Result<Self, String> {
        let scratch = scratch("bochs")?;
        let (child, serial) = bochs::start(machine, &scratch)?;
        let output = serial.try_clone().map_err(|error| format!("no serial port: {error}"))?;
        Self::begin(Dialogue::over(child, serial, output), machine, Some(scratch))
    }

    fn start(
        command: &mut Command,
        machine: &PcMachine<'_>,
        scratch: Option<PathBuf>,
    ) -> Result<Self, String> {
        Self::begin(Dialogue::with(command)?, machine, scratch)
    }

    fn begin(
        dialogue: Dialogue,
        machine: &PcMachine<'_>,
        scratch: Option<PathBuf>,
    ) -> Result<Self, String> {
        let watch = Some(watch(dialogue.process(), Duration::from_secs(machine.timeout_s)));
        let mut hypervisor = Self { dialogue, watch, scratch };
        hypervisor.expect("kasane: ready")?;
        hypervisor.expect("kasane> ")?;
        Ok(hypervisor)
    }

    /// Reads until the serial port says `wanted`, and gives what came before.
    ///
    /// # Errors
    /// All that was said, if it never does.
    pub fn expect(&mut self, wanted: &str) -> Result<String, String> {
        self.dialogue.expect(wanted)
    }

    /// Types a command of the monitor, and gives what it says up to the next prompt.
    ///
    /// # Errors
    /// All that was said, if the prompt doesn't come again.
    pub fn ask(&mut self, command: &str) -> Result<String, String> {
        self.type_bytes(&format!("{command}\r"))?;
        self.expect(&format!("{command}\n"))?;
        self.expect("kasane> ")
    }

    /// Types something.
    ///
    /// # Errors
    /// If the PC takes nothing any more.
    pub fn type_bytes(&mut self, bytes: &str) -> Result<(), String> {
        self.dialogue.type_bytes(bytes.as_bytes())
    }

    /// Types a command that switches the PC off; gives how QEMU ended and all that was said.
    ///
    /// # Errors
    /// If it can't be waited for.
    pub fn power_off(mut self) -> Result<(ExitStatus, String), String> {
        self.type_bytes("poweroff\r")?;
        self.dialogue.rest()
    }
}

impl Drop for Hypervisor {
    fn drop(&mut self) {
        self.watch = None;
        if let Some(folder) = &self.scratch {
            let _left_behind = fs::remove_dir_all(folder);
        }
    }
}

fn pc(machine: &PcMachine<'_>) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    // It warns of each feature of a model that its TCG lacks.
    command.stderr(Stdio::null());
    command
        .args(["-accel", "tcg", "-M", "q35", "-nodefaults", "-vga", "std"])
        .args(["-display", "none", "-no-reboot", "-serial", "stdio", "-cpu", machine.processor])
        .args(["-smp", &machine.cpus.to_string(), "-m", &machine.memory_mib.to_string()]);
    command
}

/// A folder of this run's own.
fn scratch(what: &str) -> Result<PathBuf, String> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("kasane-{what}-{}-{number}", std::process::id());
    let folder = env::temp_dir().join(name);
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder)
}

/// Kills the process, which is a child that nobody has waited for yet, when the time is over. Ends
/// when the sender is dropped.
fn watch(process: u32, time: Duration) -> Sender<()> {
    let (sender, receiver) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if receiver.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
            let _gone_already = Command::new("kill").args(["-KILL", &process.to_string()]).status();
        }
    });
    sender
}
