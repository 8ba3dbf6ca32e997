//! Programs that make code, or much of it: gcc, luajit and node of Debian under the translator must
//! say what the same files say on this host. `cargo xtask guests toolbox` makes the image and the
//! tree; the tree's programs run on the host by `chroot`, as root or in a user namespace.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests may panic

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use kasane_conformance::{Guests, Kasane, run_parameter};

/// The same on both sides; no version in the assembly, no warnings about what a program wrote.
const COMPILE: &str = "gcc -O2 -w -fno-ident -S -o";
const PROGRAM: &str = "/toolbox/program.c";

/// What `script` prints in the guest, behind the kernel's own lines.
fn in_guest(script: &str) -> String {
    let guests = Guests::find();
    let kernel = guests.image("cloud/vmlinuz").unwrap().display().to_string();
    let initrd =
        guests.image("initramfs-toolbox.cpio").expect("`cargo xtask guests toolbox` makes it");
    let script = format!("echo it begins; {script}\necho it ends");
    let append = format!("console=ttyS0 panic=-1 quiet {}", run_parameter(&script));
    let arguments = [
        ["run", "--no-reboot"],
        ["--engine", "translate"],
        ["--kernel", &kernel],
        ["--initrd", &initrd.display().to_string()],
        ["--append", &append],
        ["--memory", "2G"],
        ["--timeout", "3600"],
    ];
    let run = Kasane::find().unwrap().run(arguments.as_flattened()).unwrap();
    let console = run.console.replace('\r', "");
    assert_eq!(run.code, 0, "{console}\n{}", run.messages);
    let said = console.split_once("it begins\n").and_then(|(_, rest)| rest.split_once("it ends\n"));
    said.unwrap_or_else(|| panic!("{console}\n{}", run.messages)).0.to_owned()
}

/// The image's files as a tree on this host.
fn tree() -> PathBuf {
    let node = Guests::find()
        .image("toolbox/usr/bin/node")
        .expect("`cargo xtask guests toolbox` makes it");
    node.ancestors().nth(3).unwrap().to_owned()
}

fn is_root() -> bool {
    let asked = Command::new("id").arg("-u").output().unwrap();
    asked.stdout.starts_with(b"0\n")
}

fn printed(output: &Output, what: &str) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what} on this host: {}\n{said}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a program of the tree prints on this host.
fn on_host(words: &str) -> String {
    let mut command = Command::new(if is_root() { "chroot" } else { "unshare" });
    if !is_root() {
        command.args(["--map-root-user", "chroot"]);
    }
    command
        .arg(tree())
        .args(words.split(' '))
        .env_clear()
        .env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin");
    printed(&command.stdin(Stdio::null()).output().unwrap(), words)
}

/// What a shell of this host prints.
fn by_shell(line: &str, folder: &Path) -> String {
    let mut command = Command::new("sh");
    printed(&command.args(["-ec", line]).current_dir(folder).output().unwrap(), line)
}

/// Where the host's side of a comparison works; removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("kasane-toolbox-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _left_behind = fs::remove_dir_all(&self.0);
    }
}

#[test]
#[ignore = "long: nightly"]
fn gcc_compiles_ten_thousand_lines_as_on_the_host() {
    let scratch = Scratch::new();
    let assembly = on_host(&format!("{COMPILE} - {PROGRAM}"));
    fs::write(scratch.0.join("program.s"), assembly).unwrap();
    let sum = by_shell("sha256sum program.s", &scratch.0);
    let output = by_shell("cc -o program program.s; ./program", &scratch.0);

    let guest = in_guest(&format!(
        "cd /tmp; {COMPILE} program.s {PROGRAM}; sha256sum program.s; gcc -o program program.s; ./program"
    ));

    assert!(output.contains("total "), "{output}");
    assert_eq!(guest, format!("{sum}{output}"));
}

#[test]
#[ignore = "long: nightly"]
fn luajit_computes_as_on_the_host() {
    let host = on_host("luajit /toolbox/kernels.lua");

    let guest = in_guest("luajit /toolbox/kernels.lua");

    assert!(host.contains("done LuaJIT"), "{host}");
    assert_eq!(guest, host);
}

#[test]
#[ignore = "long: nightly"]
fn node_computes_as_on_the_host() {
    let host = on_host("node /toolbox/exercise.js");

    let guest = in_guest("node /toolbox/exercise.js");

    assert!(host.contains("done v"), "{host}");
    assert_eq!(guest, host);
}
