//! Save and restore: a boot is interrupted at random exits, saved, rebuilt in a new process, and
//! goes on to the same end, under the same engine or the other one. `KASANE_SEED` says where (1).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests may panic

use std::env;
use std::path::{Path, PathBuf};

use kasane_conformance::{Format, Guests, Kasane, Run, Saves, run_parameter};

/// Exits of a whole boot, about.
const BOOT_EXITS: u64 = 25_000;
/// What the guest computes after its boot: SHA-256 of 1 MiB of zeros.
const SCRIPT: &str = "dd if=/dev/zero bs=64k count=16 2>/dev/null | sha256sum";
const SUM: &str = "30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58";

fn seed() -> u64 {
    env::var("KASANE_SEED").map_or(1, |text| text.parse().expect("KASANE_SEED is a number"))
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// One process: from the last state, or from the start, to the next save or the end.
fn run(cpus: u32, engine: &str, from: Option<&Path>, save: Option<(u64, &Path)>) -> Run {
    let guests = Guests::find();
    let mut arguments: Vec<String> =
        ["run", "--memory", "192M", "--timeout", "600"].map(str::to_owned).into();
    let mut flag = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    flag("--cpus", cpus.to_string());
    flag("--engine", engine.to_owned());
    flag("--kernel", guests.image("cloud/vmlinuz").unwrap().display().to_string());
    flag("--initrd", guests.image("initramfs-shell.gz").unwrap().display().to_string());
    flag("--append", format!("console=ttyS0 panic=-1 {}", run_parameter(SCRIPT)));
    if let Some(from) = from {
        flag("--restore", from.display().to_string());
    }
    if let Some((exits, to)) = save {
        flag("--save-after", exits.to_string());
        flag("--save-to", to.display().to_string());
    }
    arguments.push("--no-reboot".to_owned());
    Kasane::find().unwrap().run(&arguments).unwrap()
}

/// Removed at the end.
struct States(PathBuf);

impl Drop for States {
    fn drop(&mut self) {
        let _left_behind = std::fs::remove_dir_all(&self.0);
    }
}

/// `engines`: taken in turns.
fn interrupted_boot(cpus: u32, saves: u64, engines: &[&str]) {
    let name = format!("kasane-saved-{}-{cpus}-{saves}-{}", std::process::id(), engines.concat());
    let folder = env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let states = States(folder);
    let seed = seed();
    let mut generator = seed;
    let mut console = String::new();
    let mut last: Option<PathBuf> = None;
    let mut made = 0;
    let mut engines = engines.iter().cycle();
    for turn in 0..saves {
        let exits = 1 + random(&mut generator) % (2 * BOOT_EXITS / saves.max(1));
        let next = states.0.join(format!("state.{}", turn % 2));
        let engine = engines.next().unwrap();
        let part = run(cpus, engine, last.as_deref(), Some((exits, &next)));
        let shown =
            format!("seed {seed}, {engine}, save {turn} after {exits} exits\n{}", part.messages);
        assert_eq!(part.code, 0, "{shown}");
        console.push_str(&part.console);
        if !part.messages.contains("kasane: saved") {
            break;
        }
        last = Some(next);
        made += 1;
    }
    if !console.contains("Power down") {
        let rest = run(cpus, engines.next().unwrap(), last.as_deref(), None);
        assert_eq!(rest.code, 0, "seed {seed}\n{}\n{}", rest.console, rest.messages);
        console.push_str(&rest.console);
    }

    assert!(made * 2 > saves, "the boot was over after {made} saves of {saves}");
    assert!(console.contains(SUM), "seed {seed}\n{console}");
    assert!(console.contains("kasane-guest: exit 0"), "seed {seed}\n{console}");
    assert!(!console.contains("Call Trace"), "seed {seed}\n{console}");
}

#[test]
fn a_boot_goes_on_after_each_of_ten_saves() {
    interrupted_boot(1, 10, &["auto"]);
}

#[test]
fn a_boot_on_two_processors_goes_on_after_each_of_ten_saves() {
    interrupted_boot(2, 10, &["auto"]);
}

#[test]
fn a_boot_goes_on_under_the_other_engine_after_each_of_ten_saves() {
    interrupted_boot(1, 10, &["interp", "translate"]);
    interrupted_boot(1, 10, &["translate", "interp"]);
}

/// A guest that writes to a disk is saved while it does, again and again.
#[cfg(target_os = "linux")]
fn saved_while_it_writes(count: u64, format: Format, cpus: u32, engines: [&'static str; 2]) {
    let writing = Saves { count, format, cpus, engines, seed: seed() }.run();

    let writing = writing.unwrap_or_else(|error| panic!("{error}"));
    assert!(writing * 2 > count, "only {writing} saves of {count} came while it wrote");
}

#[test]
#[cfg(target_os = "linux")]
fn a_guest_that_writes_to_a_raw_disk_goes_on_after_each_of_six_saves() {
    saved_while_it_writes(6, Format::Raw, 2, ["translate", "translate"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_guest_that_writes_to_a_qcow2_disk_goes_on_under_the_other_engine_after_each_of_six_saves() {
    saved_while_it_writes(6, Format::Qcow2, 1, ["translate", "interp"]);
}

#[test]
#[ignore = "long: nightly"]
fn a_boot_on_two_processors_goes_on_under_the_other_engine_after_each_of_fifty_saves() {
    interrupted_boot(2, 50, &["interp", "translate"]);
}

#[test]
#[ignore = "long: nightly"]
fn a_boot_goes_on_after_each_of_a_hundred_saves() {
    interrupted_boot(1, 100, &["auto"]);
}

#[test]
#[ignore = "long: nightly"]
fn a_boot_on_two_processors_goes_on_after_each_of_a_hundred_saves() {
    interrupted_boot(2, 100, &["auto"]);
}
