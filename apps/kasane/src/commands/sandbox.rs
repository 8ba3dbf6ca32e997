//! `kasane run` goes into its sandbox: which files the machine goes on to need, and what a refused
//! system call means.

use std::fs::OpenOptions;
use std::path::Path;

use anyhow::Context;
use kasane_definition::NetChoice;
use kasane_host_control::restore;
use kasane_host_disks::DiskAccess;
use kasane_host_gdb::ListenAddress;
use kasane_host_sandbox::{FileAccess, Refused, Right, VcpuFilter, confine_files, watch};

use crate::outcome::{ExitStatus, Failure};
use crate::report::Form;
use crate::settings::{Sandbox, SerialTarget, Settings};
use crate::vm::{Confinement, DeviceError, FolderAccess};

const HELP: &str = "`--no-sandbox` runs the machine without; please report this";

/// What the C library and a report of a panic read.
const SYSTEM: [&str; 2] = ["/proc", "/sys/devices/system/cpu"];

/// What looking up a name reads: settings, which other programs replace, and the look-up's own
/// libraries.
const NAMES: [&str; 8] = [
    "/etc",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
];

/// Confines the process, before it has threads, and prepares what confines the vCPUs' threads.
pub(super) fn enter(settings: &Settings, form: Form) -> Result<Option<Confinement>, Failure> {
    if settings.sandbox == Sandbox::Off {
        return Ok(None);
    }
    let access = files(settings)?;
    let entered = || {
        confine_files(&access)?;
        watch(ExitStatus::Host.code(), move |refused| end(form, &refused))?;
        VcpuFilter::new()
    };
    let filter = entered()
        .context("the sandbox can't be entered")
        .map_err(|error| Failure::host(error, HELP))?;
    Ok(Some(Confinement { filter, provoke: settings.provoke }))
}

/// Reports a refused call, and ends the program: the thread that made it can't go on.
fn end(form: Form, refused: &Refused) -> std::convert::Infallible {
    restore();
    let error = anyhow::anyhow!(
        "the thread of vCPU {} made the system call `{}`, which it has no use for",
        refused.vcpu,
        refused.call
    );
    let error = error.context("the sandbox ended the machine");
    form.failure(&Failure::host(error, format!("the guest may have tried to break out; {HELP}")));
    std::process::exit(i32::from(ExitStatus::Host.code()))
}

/// What a machine opens from now on, and opens again when it is reset.
fn files(settings: &Settings) -> Result<FileAccess, Failure> {
    let mut access = FileAccess::default();
    access.add("/dev/null", Right::Write);
    SYSTEM.iter().for_each(|path| access.add(path, Right::Read));
    if let Ok(program) = std::env::current_exe() {
        access.add(program, Right::Read);
    }
    for target in [&settings.serial, &settings.console] {
        if let SerialTarget::File(path) = target {
            written(&mut access, path);
        }
    }
    settings.trace.iter().for_each(|path| written(&mut access, path));
    settings.save.iter().for_each(|save| written(&mut access, &save.path));
    settings.restore.iter().for_each(|path| access.add(path, Right::Read));
    if let Some(ListenAddress::Unix(path)) = &settings.gdb {
        access.add(folder(path), Right::Sockets);
    }
    devices(settings, &mut access)?;
    Ok(access)
}

fn devices(settings: &Settings, access: &mut FileAccess) -> Result<(), Failure> {
    let devices = &settings.devices;
    for disk in &devices.disks {
        let files = kasane_host_disks::files(&disk.options).map_err(|source| {
            let error = DeviceError::Disk { name: disk.name.clone(), source };
            let help = error.help();
            Failure::usage(error, help)
        })?;
        for (place, file) in files.iter().enumerate() {
            let written = place == 0 && disk.options.access == DiskAccess::ReadWrite;
            access.add(file, if written { Right::Write } else { Right::Read });
        }
    }
    for net in &devices.nets {
        net.capture.iter().for_each(|path| written(access, path));
        match net.choice {
            NetChoice::Nat => NAMES.iter().for_each(|path| access.add(path, Right::Read)),
            NetChoice::Lan(_) => {
                let folder = kasane_host_net::lan_folder();
                folder.iter().for_each(|path| access.add(path, Right::Sockets));
            }
            NetChoice::Tap(_) => {
                access.add("/dev/net/tun", Right::Write);
                // Names of interfaces are links to devices.
                access.add("/sys", Right::Read);
            }
            NetChoice::None => {}
        }
    }
    for share in &devices.shares {
        let right = match share.access {
            FolderAccess::ReadWrite => Right::All,
            FolderAccess::ReadOnly => Right::Read,
        };
        access.add(&share.directory, right);
    }
    if let Some(sockets) = &devices.sockets {
        access.add(folder(&sockets.path), Right::Sockets);
    }
    Ok(())
}

/// A file that is going to be written. It is made now if it isn't there: then nothing has to be
/// made later. Who opens it later reports what is wrong with it.
fn written(access: &mut FileAccess, path: &Path) {
    if !path.exists() {
        let _later = OpenOptions::new().write(true).create_new(true).open(path);
    }
    access.add(path, Right::Write);
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
