//! Stock Debian kernels boot to user space, run a script and power off.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests may panic
#![allow(clippy::indexing_slicing)] // and fail so

use std::path::Path;

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
    let kernel = Guests::find().image(boot.kernel).unwrap();
    boot_with(boot, &kernel, &["--memory", "512M"], SCRIPT)
}

/// Boots the file `kernel`, with more flags.
fn boot_with(boot: &Boot, kernel: &Path, flags: &[&str], script: &str) -> Run {
    boot_within("600", boot, kernel, flags, script)
}

fn boot_within(seconds: &str, boot: &Boot, kernel: &Path, flags: &[&str], script: &str) -> Run {
    let initrd = Guests::find().image(boot.initrd).unwrap();
    let append = format!("console=ttyS0 panic=-1 {}", run_parameter(script));
    let cpus = boot.cpus.to_string();
    let arguments = [
        "run",
        "--kernel",
        kernel.to_str().unwrap(),
        "--initrd",
        initrd.to_str().unwrap(),
        "--append",
        &append,
        "--cpus",
        &cpus,
        "--display",
        "none",
        "--no-reboot",
        "--timeout",
        seconds,
    ];
    Kasane::find().unwrap().run(&[&arguments[..], flags].concat()).unwrap()
}

/// The cloud kernel with a script of its own on one processor.
fn boot_cloud(flags: &[&str], script: &str) -> Run {
    let kernel = Guests::find().image("cloud/vmlinuz").unwrap();
    boot_with(&CLOUD, &kernel, flags, script)
}

const CLOUD: Boot = Boot { kernel: "cloud/vmlinuz", initrd: "initramfs-shell.gz", cpus: 1 };

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
fn the_cloud_kernel_boots_under_the_translator() {
    let run = boot_cloud(&["--memory", "512M", "--engine", "translate"], SCRIPT);
    assert_booted(&run, 1);
    assert!(run.messages.contains("engine translate"), "{}", run.messages);
}

#[test]
fn the_32_bit_kernel_boots_under_the_translator() {
    let i386 = Boot { kernel: "i386/vmlinuz", initrd: "initramfs-shell-i386.gz", cpus: 1 };
    let kernel = Guests::find().image(i386.kernel).unwrap();
    let run = boot_with(&i386, &kernel, &["--memory", "512M", "--engine", "translate"], SCRIPT);
    assert_booted(&run, 1);
}

/// Beside [`SCRIPT`]: processes, pipes, floating point, and files.
const WORK: &str = "\
for n in 1 2 3 4 5; do (exit $n) || echo exit=$?; done
echo root=$(awk 'BEGIN { x = 2; for (n = 0; n < 200; n++) x = (x + 2 / x) / 2; printf \"%.12f\", x }')
seq 1 3000 >/numbers; gzip -c /numbers | gunzip | cmp - /numbers && echo same
echo sorted=$(sort -rn /numbers | head -1) lines=$(grep -c 7 /numbers)
";

/// Every block of the boot that is translated is done again by the interpreter, and compared.
#[test]
#[ignore = "long: nightly"]
fn the_cloud_kernel_boots_in_the_shadow_mode() {
    let kernel = Guests::find().image(CLOUD.kernel).unwrap();
    let flags = ["--memory", "512M", "--engine", "shadow", "--stats"];

    let run = boot_within("7200", &CLOUD, &kernel, &flags, &format!("{WORK}{SCRIPT}"));

    assert_booted(&run, 1);
    for line in ["exit=5", "root=1.414213562373", "same", "sorted=3000 lines=813"] {
        assert!(run.console.contains(line), "{line}: {}", run.console);
    }
    assert!(run.messages.contains("engine shadow"), "{}", run.messages);
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
fn the_cloud_kernel_boots_with_eight_cpus() {
    let run = boot(&Boot { cpus: 8, ..CLOUD });
    assert_booted(&run, 8);
}

#[test]
#[ignore = "long: nightly"]
fn the_32_bit_kernel_boots_with_one_and_two_cpus() {
    for cpus in [1, 2] {
        let initrd = "initramfs-shell-i386.gz";
        assert_booted(&boot(&Boot { kernel: "i386/vmlinuz", initrd, cpus }), cpus);
    }
}

/// KiB of RAM that the guest has, by a line of `/proc/meminfo` in its console.
fn memory_kib(run: &Run) -> u64 {
    let line = run.console.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let line = line.unwrap_or_else(|| panic!("{}\n{}", run.console, run.messages));
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
#[ignore = "long: nightly"]
fn memory_on_both_sides_of_the_hole_is_found_and_used() {
    let script = format!(
        "{SCRIPT}grep MemTotal /proc/meminfo\ngrep 'System RAM' /proc/iomem\n\
         dd if=/dev/zero of=/big bs=1M count=600 2>/dev/null; sha256sum /big\n"
    );
    // 600 MiB of zeros.
    let sum = "987523e7780392e283b404990c4e84e580bc75c451138b0c86c4f81c296eeebe";
    for (flag, gib) in [("6G", 6), ("16G", 16)] {
        let run = boot_cloud(&["--memory", flag], &script);

        assert_booted(&run, 1);
        let (found, asked) = (memory_kib(&run), gib << 20);
        assert!(found > asked / 100 * 94 && found < asked, "{found} KiB of {asked}");
        assert!(run.console.contains("00100000-bfffffff : System RAM"), "{}", run.console);
        let end = (4u64 << 30) + (gib << 30) - (3 << 30) - 1;
        let high = format!("100000000-{end:x} : System RAM");
        assert!(run.console.contains(&high), "{high}: {}", run.console);
        assert!(run.console.contains(sum), "{}", run.console);
    }
}

#[test]
#[ignore = "long: nightly"]
fn the_models_show_their_level_and_boot() {
    let script = format!("{SCRIPT}echo flags: $(grep -m1 ^flags /proc/cpuinfo) end\n");
    for (model, wanted, hidden) in [
        ("x86-64-v2", [" sse4_2 ", " popcnt ", " cx16 "], " avx "),
        ("x86-64-v3", [" avx2 ", " bmi2 ", " fma "], " avx512f "),
    ] {
        let run = boot_cloud(&["--memory", "512M", "--cpu", model], &script);

        assert_booted(&run, 1);
        let flags = run.console.lines().find(|line| line.starts_with("flags: ")).unwrap();
        assert!(wanted.iter().all(|flag| flags.contains(flag)), "{model}: {flags}");
        assert!(!flags.contains(hidden), "{model}: {flags}");
    }
}

/// The bytes of a block of LZ4 (its format description, "Sequence").
fn lz4_block(mut from: &[u8], to: &mut Vec<u8>) {
    fn take<'a>(from: &mut &'a [u8], len: usize) -> &'a [u8] {
        let (head, tail) = from.split_at(len);
        *from = tail;
        head
    }
    fn length(from: &mut &[u8], nibble: u8) -> usize {
        let mut len = usize::from(nibble);
        let mut more = nibble == 15;
        while more {
            let byte = take(from, 1)[0];
            len += usize::from(byte);
            more = byte == 255;
        }
        len
    }
    while !from.is_empty() {
        let token = take(&mut from, 1)[0];
        let literals = length(&mut from, token >> 4);
        to.extend_from_slice(take(&mut from, literals));
        if from.is_empty() {
            break;
        }
        let back = take(&mut from, 2);
        let back = usize::from(u16::from_le_bytes([back[0], back[1]]));
        let begin = to.len() - back;
        for at in 0..length(&mut from, token & 15) + 4 {
            to.push(to[begin + at]);
        }
    }
}

/// The ELF image within a bzImage that is compressed by LZ4, as the kernel's build makes it: the
/// legacy frame format, then the length of the contents (Linux, Documentation/arch/x86/boot.rst,
/// `payload_offset`).
fn vmlinux(image: &[u8]) -> Vec<u8> {
    let word = |bytes: &[u8], at: usize| {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    };
    let payload = (usize::from(image[0x1F1]) + 1) * 512 + word(image, 0x248);
    let payload = &image[payload..payload + word(image, 0x24C)];
    assert_eq!(word(payload, 0), 0x184C_2102, "not LZ4");
    let (mut blocks, len) = payload[4..].split_at(payload.len() - 8);
    let mut elf = Vec::with_capacity(word(len, 0));
    while !blocks.is_empty() {
        let end = 4 + word(blocks, 0);
        lz4_block(&blocks[4..end], &mut elf);
        blocks = &blocks[end..];
    }
    assert_eq!(elf.len(), word(len, 0));
    elf
}

#[test]
#[ignore = "long: nightly"]
fn the_elf_within_the_cloud_kernel_boots_by_pvh() {
    let image = std::fs::read(Guests::find().image(CLOUD.kernel).unwrap()).unwrap();
    let file = std::env::temp_dir().join(format!("kasane-vmlinux-{}", std::process::id()));
    std::fs::write(&file, vmlinux(&image)).unwrap();

    let runs =
        [1, 2].map(|cpus| boot_with(&Boot { cpus, ..CLOUD }, &file, &["--memory", "512M"], SCRIPT));

    std::fs::remove_file(&file).unwrap();
    for (run, cpus) in runs.iter().zip([1, 2]) {
        assert_booted(run, cpus);
        assert!(run.console.contains("Booting paravirtualized kernel"), "{}", run.console);
    }
}

/// The guest sets the clock and resets; what it set is there when it comes back.
#[test]
#[ignore = "long: nightly"]
fn the_clock_that_a_guest_has_set_outlives_a_reset() {
    let script = "\
if [ $(date +%Y) -lt 2035 ]; then date -s 2035-06-07; hwclock -w; reboot -f; fi
echo the clock shows $(date +%Y-%m-%d)
";
    let kernel = Guests::find().image(CLOUD.kernel).unwrap();
    let initrd = Guests::find().image(CLOUD.initrd).unwrap();
    let append = format!("console=ttyS0 panic=-1 {}", run_parameter(script));
    let images = ["--kernel", kernel.to_str().unwrap(), "--initrd", initrd.to_str().unwrap()];
    let more = ["run", "--memory", "256M", "--timeout", "600", "--append", &append];

    let run = Kasane::find().unwrap().run(&[&more[..], &images[..]].concat()).unwrap();

    assert_eq!(run.code, 0, "{}\n{}", run.console, run.messages);
    assert!(run.console.contains("the clock shows 2035-06-07"), "{}", run.console);
}
