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

/// Boots the hypervisor on a PC.
type Boot = fn(&PcMachine<'_>) -> Result<Hypervisor, String>;

/// Boots a PC with guests and runs each to its end; gives the failures' lines, and the verdicts
/// where there is none.
fn run_guests(machine: &PcMachine<'_>, guests: &[(&str, u32)], metal: &str) -> Vec<String> {
    run_guests_in((Hypervisor::boot, machine), guests, metal)
}

fn run_guests_in(
    (boot, machine): (Boot, &PcMachine<'_>),
    guests: &[(&str, u32)],
    metal: &str,
) -> Vec<String> {
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
    let mut hypervisor = boot(&machine).unwrap();
    let mut failed = Vec::new();
    for (guest, _) in guests {
        hypervisor.ask(&format!("start {guest}")).unwrap();
        hypervisor.type_bytes(&format!("console {guest}\r")).unwrap();
        let said = hypervisor.expect(&format!("guest {guest}: ")).unwrap();
        let verdict = hypervisor.expect("\n").unwrap();
        hypervisor.expect("powered off").unwrap();
        failures(guest, &said, &verdict, &mut failed);
    }
    assert_off(hypervisor);
    failed
}

/// The machine goes off by itself. Bochs ends with 1 then, and without the serial port's last bytes.
fn assert_off(hypervisor: Hypervisor) {
    let (status, said) = hypervisor.power_off().unwrap();
    assert!(status.code().is_some(), "{said}");
}

fn failures(guest: &str, said: &str, verdict: &str, failed: &mut Vec<String>) {
    if verdict.ends_with(" passed, 0 failed") {
        return;
    }
    let lines = said.lines().filter(|line| line.starts_with("FAIL "));
    let before = failed.len();
    failed.extend(lines.map(|line| format!("{guest}: {line}")));
    if failed.len() == before {
        failed.push(format!("{guest}: {verdict}\n{said}"));
    }
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
    debian_boots_to_its_shell((Hypervisor::boot, &AMD), "svm");
}

fn debian_boots_to_its_shell((boot, machine): (Boot, &PcMachine<'_>), engine: &str) {
    let definition = format!(
        "name = 'debian'\nmemory = '256M'\n[boot]\nkernel = 'vmlinuz'\n\
         initrd = 'initramfs-shell.gz'\nappend = 'console=ttyS0 panic=-1'\n\
         [home.metal]\nstart = 'boot'\nengine = '{engine}'\n"
    );
    let guests = Guests::find();
    let machine = PcMachine {
        definitions: &[("debian.toml", definition)],
        files: &[
            ("vmlinuz", guests.image("cloud/vmlinuz").unwrap()),
            ("initramfs-shell.gz", guests.image("initramfs-shell.gz").unwrap()),
        ],
        timeout_s: 900,
        ..machine.clone()
    };
    let mut hypervisor = boot(&machine).unwrap();
    hypervisor.type_bytes("console debian\r").unwrap();
    hypervisor.expect("kasane-guest: ready").unwrap();
    hypervisor.type_bytes("echo sum=$((40+2))\r").unwrap();
    hypervisor.expect("sum=42").unwrap();
    hypervisor.type_bytes("poweroff -f\r").unwrap();
    hypervisor.expect("`debian`: powered off").unwrap();

    assert_off(hypervisor);
}

/// Bochs's PC, whose processor has VT-x.
const INTEL: PcMachine<'_> = PcMachine {
    cpus: 2,
    memory_mib: 512,
    processor: "corei7_skylake_x",
    definitions: &[],
    files: &[],
    timeout_s: 900,
};

#[test]
#[ignore = "long: nightly"]
fn our_guests_pass_by_vt_x() {
    let one = [
        "exceptions",
        "reserved32",
        "segments",
        "gates",
        "tasks",
        "v86",
        "realmode",
        "paging32",
        "pagingpae",
        "paging64",
        "longmode",
        "reserved64",
        "debug",
        "breakpoints",
        "xsave",
        "preempt",
        "apic",
        "smc",
    ];
    let mut guests = one.map(|name| (name, 1)).to_vec();
    guests.push(("smp", 2));

    let failed = run_guests_in((Hypervisor::boot_bochs, &INTEL), &guests, "engine = 'vmx'");

    // What this processor of Bochs's does itself (guests/KNOWN-DEVIATIONS.md).
    let known = [
        "exceptions: FAIL instruction across the segment limit",
        "gates: FAIL IRET to ring 3 with SS not present",
        "paging32: FAIL SMAP: descriptor tables on user pages",
        "longmode: FAIL IRETL pops 32-bit words",
        "debug: FAIL SYSCALL with TF in its mask",
    ];
    let unknown = failed.iter().filter(|line| !known.iter().any(|k| line.starts_with(k)));
    assert_eq!(unknown.collect::<Vec<_>>(), [] as [&String; 0]);
}

#[test]
#[ignore = "long: nightly"]
fn debian_boots_to_its_shell_by_vt_x() {
    debian_boots_to_its_shell((Hypervisor::boot_bochs, &INTEL), "vmx");
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
