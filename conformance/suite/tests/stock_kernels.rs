//! Stock Debian kernels boot to user space, run a script and power off.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests may panic

use kasane_conformance::{Guests, Kasane, Run, run_parameter};

const SCRIPT: &str = "\
echo cpus=$(grep -c ^processor /proc/cpuinfo)
echo release=$(uname -r)
echo sum=$(seq 1 2000 | sha256sum | cut -c1-16)
cat /proc/interrupts
";

/// First 16 digits of the SHA-256 of the numbers 1 to 2000, a line each.
const SUM: &str = "sum=6251e5743b6fd6a7";

struct Boot {
    kernel: &'static str,
    initrd: &'static str,
    cpus: u32,
}

fn boot(boot: &Boot) -> Run {
    let guests = Guests::find();
    let kernel = guests.image(boot.kernel).unwrap();
    let initrd = guests.image(boot.initrd).unwrap();
    let append = format!("console=ttyS0 panic=-1 {}", run_parameter(SCRIPT));
    let cpus = boot.cpus.to_string();
    let arguments = [
        "run",
        "--kernel",
        kernel.to_str().unwrap(),
        "--initrd",
        initrd.to_str().unwrap(),
        "--append",
        &append,
        "--memory",
        "512M",
        "--cpus",
        &cpus,
        "--display",
        "none",
        "--no-reboot",
        "--timeout",
        "600",
    ];
    Kasane::find().unwrap().run(&arguments).unwrap()
}

/// What a kernel prints when something is wrong with it or its machine.
const COMPLAINTS: [&str; 9] = [
    "BUG:",
    "WARNING:",
    "Call Trace",
    "Oops",
    "unchecked MSR",
    "Kernel panic",
    "rcu_sched self-detected stall",
    "soft lockup",
    "irq 0: nobody cared",
];

fn assert_booted(run: &Run, cpus: u32) {
    let shown = || format!("{}\n--- messages\n{}", run.console, run.messages);
    assert_eq!(run.code, 0, "{}", shown());
    assert!(run.console.contains("kasane-guest: ready"), "{}", shown());
    assert!(run.console.contains(&format!("cpus={cpus}")), "{}", shown());
    assert!(run.console.contains(SUM), "{}", shown());
    assert!(run.console.contains("reboot: Power down"), "{}", shown());
    for complaint in COMPLAINTS {
        assert!(!run.console.contains(complaint), "{complaint}: {}", shown());
    }
}

#[test]
fn the_cloud_kernel_boots_with_one_cpu() {
    let run = boot(&Boot { kernel: "cloud/vmlinuz", initrd: "initramfs-shell.gz", cpus: 1 });
    assert_booted(&run, 1);
}

#[test]
fn the_cloud_kernel_boots_with_two_cpus() {
    let run = boot(&Boot { kernel: "cloud/vmlinuz", initrd: "initramfs-shell.gz", cpus: 2 });
    assert_booted(&run, 2);
}

#[test]
#[ignore = "long: nightly"]
fn the_cloud_kernel_boots_with_four_cpus() {
    let run = boot(&Boot { kernel: "cloud/vmlinuz", initrd: "initramfs-shell.gz", cpus: 4 });
    assert_booted(&run, 4);
}

#[test]
#[ignore = "long: nightly"]
fn the_generic_kernel_boots_with_one_two_and_four_cpus() {
    for cpus in [1, 2, 4] {
        let run = boot(&Boot { kernel: "amd64/vmlinuz", initrd: "initramfs-shell.gz", cpus });
        assert_booted(&run, cpus);
    }
}

#[test]
#[ignore = "long: nightly"]
fn the_32_bit_kernel_boots() {
    let run = boot(&Boot { kernel: "i386/vmlinuz", initrd: "initramfs-shell-i386.gz", cpus: 1 });
    assert_booted(&run, 1);
}
