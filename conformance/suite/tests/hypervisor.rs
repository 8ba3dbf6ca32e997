//! The bare-metal hypervisor in an emulated PC: its monitor, and our own guests on it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests may panic
#![allow(clippy::indexing_slicing)] // and fail so

use std::path::{Path, PathBuf};

use kasane_conformance::{Guests, Hypervisor, PcMachine};

/// A definition of one of our own guests.
fn definition(guest: &str, cpus: u32, metal: &str) -> String {
    format!(
        "name = '{guest}'\nmemory = '64M'\ncpus = {cpus}\n[boot]\nkernel = '{guest}.elf'\n\
         [home.metal]\n{metal}\n"
    )
}

/// Boots a PC with guests and runs each to its end; gives the verdicts that aren't `0 failed`.
fn run_guests(machine: &PcMachine<'_>, guests: &[(&str, u32)], metal: &str) -> Vec<String> {
    let names: Vec<[String; 2]> =
        guests.iter().map(|(name, _)| [format!("{name}.toml"), format!("{name}.elf")]).collect();
    let definitions: Vec<(&str, String)> = names
        .iter()
        .zip(guests)
        .map(|([file, _], (guest, cpus))| (file.as_str(), definition(guest, *cpus, metal)))
        .collect();
    let files: Vec<(&str, PathBuf)> = names
        .iter()
        .map(|[_, file]| (file.as_str(), Guests::find().image(&format!("asm/{file}")).unwrap()))
        .collect();
    let machine = PcMachine { definitions: &definitions, files: &files, ..machine.clone() };
    let mut hypervisor = Hypervisor::boot(&machine).unwrap();
    let mut failed = Vec::new();
    for (guest, _) in guests {
        hypervisor.ask(&format!("start {guest}")).unwrap();
        hypervisor.type_bytes(&format!("console {guest}\r")).unwrap();
        let said = hypervisor.expect(&format!("guest {guest}: ")).unwrap();
        let verdict = hypervisor.expect("\n").unwrap();
        hypervisor.expect("powered off").unwrap();
        if !verdict.ends_with(" passed, 0 failed") {
            failed.push(format!("{guest}: {verdict}\n{said}"));
        }
    }
    let (status, said) = hypervisor.power_off().unwrap();
    assert!(status.success(), "{said}");
    failed
}

#[test]
fn the_monitor_answers_and_the_machine_goes_off() {
    let mut hypervisor = Hypervisor::boot(&PcMachine { cpus: 4, ..PcMachine::default() }).unwrap();

    let help = hypervisor.ask("help").unwrap();
    let list = hypervisor.ask("list").unwrap();
    let cpus = hypervisor.ask("cpus").unwrap();
    let memory = hypervisor.ask("memory").unwrap();
    let pci = hypervisor.ask("pci").unwrap();
    let log = hypervisor.ask("log").unwrap();
    let wrong = hypervisor.ask("frobnicate").unwrap();
    let (status, said) = hypervisor.power_off().unwrap();

    assert!(help.contains("console MACHINE"), "{help}");
    assert!(list.contains("no machines"), "{list}");
    assert!(cpus.contains("4 processors") && cpus.contains("monitor"), "{cpus}");
    assert!(memory.contains("MiB free of"), "{memory}");
    assert!(pci.contains("00:00.0 8086:29c0"), "{pci}");
    assert!(log.contains("by PVH, 4 processors"), "{log}");
    assert!(wrong.contains("error: `frobnicate` is no command"), "{wrong}");
    assert!(status.success(), "{said}");
}

#[test]
fn our_guests_pass_under_the_interpreter() {
    let guests = [("realmode", 1), ("gates", 1), ("pagingpae", 1), ("paging64", 1), ("smp", 2)];

    let failed = run_guests(&PcMachine::default(), &guests, "engine = 'interp'");

    assert!(failed.is_empty(), "{failed:#?}");
}

/// A PC whose processor has AMD-V.
const AMD: PcMachine<'_> = PcMachine {
    cpus: 2,
    memory_mib: 768,
    processor: "EPYC,+svm,+npt",
    definitions: &[],
    files: &[],
    timeout_s: 300,
};

/// Guests that QEMU's own processor passes as a whole (guests/KNOWN-DEVIATIONS.md).
#[test]
fn our_guests_pass_by_amd_v() {
    let failed = run_guests(&AMD, &[("preempt", 1), ("smc", 1)], "engine = 'svm'");

    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
#[ignore = "long: nightly"]
fn a_guest_with_two_processors_passes_by_amd_v() {
    let failed = run_guests(&AMD, &[("smp", 2)], "engine = 'svm'");

    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
#[ignore = "long: nightly"]
fn debian_boots_to_its_shell_by_amd_v() {
    let definition = "name = 'debian'\nmemory = '256M'\n[boot]\nkernel = 'vmlinuz'\n\
        initrd = 'initramfs-shell.gz'\nappend = 'console=ttyS0 panic=-1'\n\
        [home.metal]\nstart = 'boot'\nengine = 'svm'\n";
    let guests = Guests::find();
    let machine = PcMachine {
        definitions: &[("debian.toml", definition.to_owned())],
        files: &[
            ("vmlinuz", guests.image("cloud/vmlinuz").unwrap()),
            ("initramfs-shell.gz", guests.image("initramfs-shell.gz").unwrap()),
        ],
        timeout_s: 900,
        ..AMD
    };
    let mut hypervisor = Hypervisor::boot(&machine).unwrap();
    hypervisor.type_bytes("console debian\r").unwrap();
    hypervisor.expect("kasane-guest: ready").unwrap();
    hypervisor.type_bytes("echo sum=$((40+2))\r").unwrap();
    hypervisor.expect("sum=42").unwrap();
    hypervisor.type_bytes("poweroff -f\r").unwrap();
    hypervisor.expect("`debian`: powered off").unwrap();

    assert!(hypervisor.power_off().unwrap().0.success());
}

#[test]
#[ignore = "long: nightly"]
fn the_cd_boots_from_bios() {
    let mut hypervisor = Hypervisor::boot_cd(&PcMachine::default(), None).unwrap();

    assert!(hypervisor.ask("log").unwrap().contains("by Multiboot2, 2 processors"));
    assert!(hypervisor.power_off().unwrap().0.success());
}

#[test]
#[ignore = "long: nightly"]
fn the_cd_boots_from_uefi() {
    let firmware = ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"];
    for file in firmware {
        assert!(Path::new(file).is_file(), "this test needs {file}: package ovmf");
    }
    let machine = PcMachine { timeout_s: 300, ..PcMachine::default() };
    let mut hypervisor = Hypervisor::boot_cd(&machine, Some(firmware.map(Path::new))).unwrap();

    assert!(hypervisor.ask("log").unwrap().contains("by Multiboot2, 2 processors"));
    assert!(hypervisor.power_off().unwrap().0.success());
}
