//! The machine's devices: those of the definition, with what this home puts behind them, and those
//! of the command line.
//!
//! Disks and shared folders of the command line come behind the definition's. A network of the
//! command line takes the place of all of the definition's.

use std::fs::DirBuilder;
use std::path::{Path, PathBuf};

use kasane_definition::{
    DeviceName, DevicesDefinition, Forward, HostedDisk, HostedHome, MacAddress, NetChoice, Serial,
    VirtioTransport,
};
use kasane_host_disks::{DiskAccess, DiskFormat, DiskLimits, DiskOptions, HostCache};
use kasane_host_net::nat::NatConfig;

use crate::cli::{DiskArgument, RunArguments, Switch};
use crate::outcome::Failure;
use crate::vm::{
    Devices, DiskDevice, FolderAccess, NetDevice, Presence, ShareDevice, SocketsDevice,
};

/// What the devices are made of.
pub(super) struct Sources<'a> {
    pub(super) machine: &'a str,
    pub(super) arguments: &'a RunArguments,
    pub(super) definition: &'a DevicesDefinition,
    pub(super) hosted: &'a HostedHome,
    /// The definition's paths are relative to this.
    pub(super) folder: &'a Path,
}

impl Sources<'_> {
    pub(super) fn devices(&self) -> Result<Devices, Failure> {
        let Self { arguments, definition, hosted, .. } = self;
        let switched = |switch: Option<Switch>, defined| match switch {
            Some(Switch::On) => Presence::Present,
            Some(Switch::Off) => Presence::Absent,
            None => Presence::of(defined),
        };
        let console = arguments.console.as_ref().unwrap_or(&hosted.console);
        let cid = arguments.vsock.or(definition.vsock);
        let transport = arguments.transport.unwrap_or(definition.transport);
        if transport == VirtioTransport::Mmio && self.has_slots() {
            return Err(Failure::usage(
                anyhow::anyhow!("devices with registers in memory have no slot on the PCI bus"),
                "take `slot` out of the definition, or write `transport = \"pci\"`",
            ));
        }
        Ok(Devices {
            transport,
            disks: self.disks()?,
            nets: self.nets()?,
            shares: self.shares()?,
            rng: switched(arguments.rng, definition.rng),
            balloon: switched(arguments.balloon, definition.balloon),
            console: Presence::of(definition.console || *console != Serial::None),
            sockets: cid.map(|cid| self.sockets(cid.get())).transpose()?,
        })
    }

    /// Whether the definition gives a device its slot.
    fn has_slots(&self) -> bool {
        let DevicesDefinition { disk, net, share, .. } = self.definition;
        disk.iter().any(|disk| disk.slot.is_some())
            || net.iter().any(|net| net.slot.is_some())
            || share.iter().any(|share| share.slot.is_some())
    }

    fn disks(&self) -> Result<Vec<DiskDevice>, Failure> {
        let mut disks = Vec::new();
        for (place, disk) in self.definition.disk.iter().enumerate() {
            let name = disk.name.as_ref().map_or_else(|| disk_name(place), DeviceName::to_string);
            let behind = self.hosted.disk.get(&name).ok_or_else(|| nothing_behind(&name))?;
            let options = self.image(behind, disk.read_only)?;
            disks.push(DiskDevice { name, slot: disk.slot, serial: disk.serial.clone(), options });
        }
        for disk in &self.arguments.disk {
            let name = disk_name(disks.len());
            let serial = disk.serial.clone();
            disks.push(DiskDevice { name, slot: None, serial, options: image(disk) });
        }
        Ok(disks)
    }
    fn image(&self, disk: &HostedDisk, read_only: bool) -> Result<DiskOptions, Failure> {
        let format = disk.format.as_deref().map(str::parse::<DiskFormat>).transpose();
        let format = format.map_err(|error| {
            Failure::usage(
                anyhow::Error::new(error),
                "write `format = \"raw\"` or `format = \"qcow2\"`",
            )
        })?;
        Ok(image(&DiskArgument {
            file: self.folder.join(&disk.file),
            format,
            read_only,
            serial: None,
            direct: disk.direct,
            bytes_per_second: disk.bytes_per_second,
            operations_per_second: disk.operations_per_second,
        }))
    }

    fn nets(&self) -> Result<Vec<NetDevice>, Failure> {
        let Self { arguments, definition, hosted, machine, folder } = self;
        let mut nets: Vec<NetDevice> = Vec::new();
        if arguments.net.is_empty() {
            for (place, net) in definition.net.iter().enumerate() {
                let name =
                    net.name.as_ref().map_or_else(|| format!("net{place}"), DeviceName::to_string);
                let behind = hosted.net.get(&name).cloned().unwrap_or_default();
                nets.push(NetDevice {
                    mac: net.mac.unwrap_or_else(|| MacAddress::of(machine, &name)),
                    name,
                    slot: net.slot,
                    choice: behind.to,
                    nat: NatConfig { forwards: behind.forward, ..NatConfig::default() },
                    capture: behind.capture.map(|file| folder.join(file)),
                });
            }
        }
        for (place, choice) in arguments.net.iter().enumerate() {
            let name = format!("net{place}");
            nets.push(NetDevice {
                mac: MacAddress::of(machine, &name),
                name,
                slot: None,
                choice: choice.clone(),
                nat: NatConfig::default(),
                capture: None,
            });
        }
        nets.retain(|net| net.choice != NetChoice::None);
        self.forwards(&mut nets)?;
        self.capture(&mut nets)?;
        Ok(nets)
    }
    /// Forwards of the command line belong to the first NAT.
    fn forwards(&self, nets: &mut [NetDevice]) -> Result<(), Failure> {
        let more: &[Forward] = &self.arguments.forward;
        let nat = nets.iter_mut().find(|net| net.choice == NetChoice::Nat);
        match (more, nat) {
            ([], _) => Ok(()),
            (_, Some(net)) => {
                net.nat.forwards.extend_from_slice(more);
                Ok(())
            }
            (_, None) => Err(Failure::usage(
                anyhow::anyhow!("a port can be forwarded by a NAT only, and there is none"),
                "add `--net nat`",
            )),
        }
    }
    fn capture(&self, nets: &mut [NetDevice]) -> Result<(), Failure> {
        let Some(file) = &self.arguments.capture else { return Ok(()) };
        let Some(first) = nets.first_mut() else {
            let error = anyhow::anyhow!("there is no network whose frames could be captured");
            return Err(Failure::usage(error, "add `--net nat`"));
        };
        first.capture = Some(file.clone());
        Ok(())
    }

    fn shares(&self) -> Result<Vec<ShareDevice>, Failure> {
        let access = |read_only| {
            if read_only { FolderAccess::ReadOnly } else { FolderAccess::ReadWrite }
        };
        let mut shares = Vec::new();
        for share in &self.definition.share {
            let tag = share.tag.clone();
            let behind = self.hosted.share.get(tag.as_str());
            let behind = behind.ok_or_else(|| nothing_behind(tag.as_str()))?;
            let directory = self.folder.join(&behind.directory);
            let access = access(share.read_only);
            shares.push(ShareDevice { tag, slot: share.slot, directory, access });
        }
        for share in &self.arguments.share {
            shares.push(ShareDevice {
                tag: share.tag.clone(),
                slot: None,
                directory: share.directory.clone(),
                access: access(share.read_only),
            });
        }
        Ok(shares)
    }

    fn sockets(&self, guest_cid: u32) -> Result<SocketsDevice, Failure> {
        let path = match &self.hosted.vsock {
            Some(path) => self.folder.join(path),
            None => runtime_folder()?.join(format!("{}.vsock", self.machine)),
        };
        Ok(SocketsDevice { guest_cid, path })
    }
}

fn image(disk: &DiskArgument) -> DiskOptions {
    DiskOptions {
        format: disk.format,
        access: if disk.read_only { DiskAccess::ReadOnly } else { DiskAccess::ReadWrite },
        cache: if disk.direct { HostCache::Direct } else { HostCache::PageCache },
        limits: DiskLimits {
            bytes_per_second: disk.bytes_per_second,
            operations_per_second: disk.operations_per_second,
        },
        ..DiskOptions::new(&disk.file)
    }
}

/// `vda` to `vdz`, then `vdaa` and so on, as Linux names them.
fn disk_name(place: usize) -> String {
    let mut letters = String::new();
    let mut left = place;
    loop {
        letters.insert(0, char::from(b'a' + u8::try_from(left % 26).unwrap_or(0)));
        match (left / 26).checked_sub(1) {
            Some(more) => left = more,
            None => return format!("vd{letters}"),
        }
    }
}

fn nothing_behind(name: &str) -> Failure {
    Failure::usage(
        anyhow::anyhow!("the definition doesn't say what is behind the device `{name}`"),
        format!(
            "add `[home.hosted.disk.{name}]` with `file`, or `[home.hosted.share.{name}]` with `directory`"
        ),
    )
}

/// The user's folder for sockets of running programs.
fn runtime_folder() -> Result<PathBuf, Failure> {
    let folder = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let folder = folder.filter(|folder| folder.is_absolute()).ok_or_else(|| {
        Failure::usage(
            anyhow::anyhow!("there is no place for the guest's sockets"),
            "set XDG_RUNTIME_DIR to a folder that only you can use, or name a path with `vsock` \
             in the definition's `[home.hosted]`",
        )
    })?;
    let folder = folder.join("kasane");
    private_folder().create(&folder).map_err(|error| {
        let error = anyhow::Error::new(error)
            .context(format!("can't make the folder `{}`", folder.display()));
        Failure::host(error, "set XDG_RUNTIME_DIR to a folder that can be written to")
    })?;
    Ok(folder)
}

/// Makes folders that only the user can enter.
fn private_folder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(definition: &str, arguments: &RunArguments) -> Result<Devices, Failure> {
        let definition = kasane_definition::VmDefinition::parse(definition).unwrap();
        let sources = Sources {
            machine: "m",
            arguments,
            definition: &definition.devices,
            hosted: &definition.home.hosted,
            folder: Path::new("/vms"),
        };
        sources.devices()
    }

    #[test]
    fn disks_are_named_as_linux_names_them() {
        assert_eq!([0, 25, 26, 701, 702].map(disk_name), ["vda", "vdz", "vdaa", "vdzz", "vdaaa"]);
    }

    #[test]
    fn without_a_word_there_is_a_nat_entropy_and_a_balloon() {
        let devices = devices("", &RunArguments::default()).unwrap();

        let [net] = &devices.nets[..] else { panic!("{devices:?}") };
        assert_eq!((net.name.as_str(), &net.choice), ("net0", &NetChoice::Nat));
        assert_eq!([devices.rng, devices.balloon], [Presence::Present; 2]);
        assert!(devices.disks.is_empty() && devices.sockets.is_none());
        assert_eq!(devices.console, Presence::Absent);
    }

    #[test]
    fn disks_of_flags_come_behind_those_of_the_definition() {
        let text = "[[devices.disk]]\nread_only = true\n[home.hosted.disk.vda]\nfile = \"a.img\"\n";
        let arguments =
            RunArguments { disk: vec!["b.img".parse().unwrap()], ..RunArguments::default() };

        let devices = devices(text, &arguments).unwrap();

        let [a, b] = &devices.disks[..] else { panic!("{devices:?}") };
        assert_eq!((a.name.as_str(), b.name.as_str()), ("vda", "vdb"));
        assert_eq!(a.options.path, Path::new("/vms/a.img"));
        assert_eq!(a.options.access, DiskAccess::ReadOnly);
        assert_eq!(b.options.path, Path::new("b.img"));
    }

    #[test]
    fn networks_of_flags_replace_those_of_the_definition() {
        let text = "[home.hosted.net.net0]\nto = \"lan:a\"\n";
        let arguments = RunArguments {
            net: vec!["none".parse().unwrap(), "nat".parse().unwrap()],
            forward: vec!["tcp:2222:22".parse().unwrap()],
            ..RunArguments::default()
        };

        let devices = devices(text, &arguments).unwrap();

        let [net] = &devices.nets[..] else { panic!("{devices:?}") };
        assert_eq!((net.name.as_str(), net.nat.forwards.len()), ("net1", 1));
    }

    #[test]
    fn registers_in_memory_are_in_no_slot() {
        let of = |text: &str| devices(text, &RunArguments::default());
        let mmio = VirtioTransport::Mmio;

        let plain = of("[devices]\ntransport = \"mmio\"\n").unwrap();
        let flag = RunArguments { transport: Some(VirtioTransport::Pci), ..Default::default() };
        let slot = of("[devices]\ntransport = \"mmio\"\n[[devices.net]]\nslot = 5\n");

        assert_eq!((plain.transport, of("").unwrap().transport), (mmio, VirtioTransport::Pci));
        let overridden = devices("[devices]\ntransport = \"mmio\"\n", &flag).unwrap();
        assert_eq!(overridden.transport, VirtioTransport::Pci);
        assert!(slot.unwrap_err().to_string().contains("no slot"));
    }

    #[test]
    fn what_has_nothing_to_hold_on_to_is_an_error() {
        let lan = vec!["lan:a".parse().unwrap()];
        let forward = vec!["tcp:2222:22".parse().unwrap()];
        let no_nat = RunArguments { net: lan, forward, ..RunArguments::default() };

        assert!(devices("", &no_nat).unwrap_err().to_string().contains("--net nat"));
        let no_file = devices("[[devices.disk]]\nname = \"x\"\n", &RunArguments::default());
        assert!(no_file.unwrap_err().to_string().contains("`x`"));
    }
}
