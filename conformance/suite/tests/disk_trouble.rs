//! What goes wrong where a disk is stored is said by the program, once for each kind; the guest
//! only hears of I/O errors, and goes on.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests may panic

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use kasane_conformance::{Guests, Kasane, run_parameter};

/// A file's limit, in MiB: more than any file of the program's own has, guest memory too.
const LIMIT: u64 = 1024;

/// Removed at the end.
struct Image(PathBuf);

impl Drop for Image {
    fn drop(&mut self) {
        let _left_behind = fs::remove_file(&self.0);
    }
}

/// A raw disk that is larger than files may be: reads work, and writes to its end are too much.
fn image(name: &str) -> Image {
    let path = env::temp_dir().join(format!("kasane-trouble-{}-{name}", std::process::id()));
    File::create(&path).unwrap().set_len((2 * LIMIT) << 20).unwrap();
    Image(path)
}

/// Runs `script` in a guest with this disk, in a process whose files may not grow beyond the limit
/// (`ulimit -f` counts 512 bytes: POSIX).
fn run(image: &Path, script: &str, flags: &[&str]) -> Output {
    let guests = Guests::find();
    let path = |name: &str| guests.image(name).unwrap().display().to_string();
    let limited = format!("ulimit -f {}; exec \"$@\"", LIMIT << 11);
    let mut command = Command::new("sh");
    command.args(["-c", &limited, "sh"]).arg(Kasane::find().unwrap().path());
    command.args(["run", "--no-reboot", "--memory", "192M", "--timeout", "600"]);
    command.args(["--kernel", &path("cloud/vmlinuz")]);
    command.args(["--initrd", &path("initramfs-virtio.gz")]);
    command.args(["--disk", &format!("{},format=raw", image.display())]);
    let append = format!("console=ttyS0 panic=-1 quiet {}", run_parameter(script));
    command.args(["--append", &append]).args(flags);
    command.stdin(Stdio::null()).output().unwrap()
}

/// Writes that are too much, between writes that are not.
fn script() -> String {
    let write = |at: u64| {
        format!("dd if=/dev/zero of=/dev/vda bs=1M count=1 seek={at} oflag=direct 2>&1 | grep out;")
    };
    [write(1), write(LIMIT + 1), write(LIMIT + 9), write(2)].concat()
}

#[test]
fn a_disk_without_room_is_told_once_and_the_guest_goes_on() {
    let image = image("text");

    let output = run(&image.0, &script(), &[]);

    let said = String::from_utf8(output.stderr).unwrap();
    let console = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}\n{console}");
    let told: Vec<&str> = said.lines().filter(|line| line.contains("disk `vda`")).collect();
    let expected = "kasane: disk `vda`: no space is left where the disk is stored: ";
    assert!(told.len() == 1 && told.iter().all(|line| line.starts_with(expected)), "{said}");
    assert_eq!(console.matches("0+0 records out").count(), 2, "{console}");
    assert_eq!(console.matches("1+0 records out").count(), 2, "{console}");
}

#[test]
fn programs_are_told_too() {
    let image = image("json");

    let output = run(&image.0, &script(), &["--json"]);

    let said = String::from_utf8(output.stderr).unwrap();
    let told: Vec<&str> =
        said.lines().filter(|line| line.contains(r#""event":"disk-trouble""#)).collect();
    assert_eq!(told.len(), 1, "{said}");
    assert!(told.iter().all(|line| line.contains(r#""kind":"no-space""#)), "{said}");
}
