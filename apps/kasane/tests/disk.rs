//! `kasane disk`, as a person meets it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // helpers of the tests assert by it

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("kasane-disk-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kasane"));
        command.arg("disk").args(words).current_dir(&self.0).stdin(Stdio::null());
        command
    }
    fn kasane(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }
    fn done(&self, words: &[&str]) -> String {
        let output = self.kasane(words);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", errors(&output));
        String::from_utf8(output.stdout).unwrap()
    }
    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.done(words)).unwrap()
    }
    fn qemu_img(&self, words: &[&str]) {
        let output = Command::new("qemu-img").args(words).current_dir(&self.0).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", errors(&output));
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect()
}

fn stored(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path).unwrap()) * 512
}

#[test]
fn images_are_made_and_described() {
    let folder = Folder::new("create");
    folder.done(&["create", "a.qcow2", "8G"]);
    folder.done(&["create", "b.img", "1536M"]);
    folder.done(&["create", "--backing", "a.qcow2", "top.qcow2"]);
    folder.qemu_img(&["check", "-q", "a.qcow2"]);
    let text = folder.done(&["info", "top.qcow2"]);
    let raw = folder.json(&["info", "--json", "b.img"]);
    let top = folder.json(&["info", "--json", "top.qcow2"]);

    assert!(text.starts_with("top.qcow2\n  format        qcow2\n"), "{text}");
    assert!(text.contains("  size          8 GiB (8589934592 bytes)\n"), "{text}");
    assert!(text.contains("  backing file  a.qcow2 (qcow2)\n"), "{text}");
    assert_eq!((&raw["format"], &raw["size_bytes"]), (&"raw".into(), &(1536u64 << 20).into()));
    assert_eq!(top["backing"]["path"], "a.qcow2");
    assert_eq!(folder.names(), ["a.qcow2", "b.img", "top.qcow2"]);
    assert!(stored(&folder.path("a.qcow2")) < 1 << 20);
}

#[test]
fn a_disk_keeps_its_bytes_from_format_to_format() {
    let folder = Folder::new("convert");
    let mut data = vec![0; 5 << 20];
    data[1 << 20..(1 << 20) + 300_000].copy_from_slice(&noise(300_000));
    data[(5 << 20) - 1] = 9;
    std::fs::write(folder.path("a.img"), &data).unwrap();
    folder.done(&["convert", "a.img", "b.qcow2"]);
    folder.done(&["convert", "b.qcow2", "c.raw"]);
    folder.qemu_img(&["check", "-q", "b.qcow2"]);
    folder.qemu_img(&["compare", "-q", "a.img", "b.qcow2"]);
    folder.qemu_img(&["convert", "-c", "-O", "qcow2", "a.img", "small.qcow2"]);
    folder.done(&["convert", "small.qcow2", "d.img"]);

    assert!(std::fs::read(folder.path("c.raw")).unwrap() == data);
    assert!(std::fs::read(folder.path("d.img")).unwrap() == data);
    assert!(stored(&folder.path("c.raw")) < 1 << 20);
    assert_eq!(folder.json(&["check", "--json", "small.qcow2"])["errors"], 0);
}

#[test]
fn nothing_is_overwritten() {
    let folder = Folder::new("exists");
    std::fs::write(folder.path("a.img"), b"precious").unwrap();
    std::fs::write(folder.path("b.img"), [1; 512]).unwrap();
    let create = folder.kasane(&["create", "a.img", "1M"]);
    let convert = folder.kasane(&["convert", "b.img", "a.img"]);

    assert_eq!([create.status.code(), convert.status.code()], [Some(2); 2]);
    assert_eq!(
        errors(&create),
        "error: `a.img` exists already\nhelp: name a file that isn't there yet, or remove it first\n"
    );
    assert_eq!(std::fs::read(folder.path("a.img")).unwrap(), b"precious");
}

#[test]
fn images_grow_and_shrink_only_if_that_is_said() {
    let folder = Folder::new("resize");
    std::fs::write(folder.path("a.img"), noise(1 << 20)).unwrap();
    folder.done(&["convert", "a.img", "a.qcow2"]);
    for name in ["a.img", "a.qcow2"] {
        folder.done(&["resize", name, "3M"]);
        let refused = folder.kasane(&["resize", name, "512K"]);
        assert_eq!(refused.status.code(), Some(2));
        assert_eq!(
            errors(&refused),
            format!(
                "error: `{name}` has 3145728 bytes; 524288 are less, and what is behind them would \
                 be lost\nhelp: say `--shrink` if it may be lost\n"
            )
        );
        assert_eq!(folder.json(&["info", "--json", name])["size_bytes"], 3 << 20);
    }
    folder.qemu_img(&["compare", "-q", "a.img", "a.qcow2"]);
    folder.done(&["resize", "--shrink", "a.qcow2", "512K"]);
    folder.qemu_img(&["check", "-q", "a.qcow2"]);
    folder.done(&["convert", "a.qcow2", "b.img"]);

    assert!(std::fs::read(folder.path("b.img")).unwrap() == noise(512 << 10));
}

#[test]
fn damage_is_found_named_and_left_alone() {
    let folder = Folder::new("check");
    folder.done(&["create", "a.qcow2", "1M"]);
    let sound = folder.done(&["check", "a.qcow2"]);
    let mut image = std::fs::read(folder.path("a.qcow2")).unwrap();
    let refcounts = u64::from_be_bytes(image[48..56].try_into().unwrap()) as usize;
    image[refcounts..refcounts + 8].fill(0xFF);
    std::fs::write(folder.path("a.qcow2"), &image).unwrap();
    let damaged = folder.kasane(&["check", "--json", "a.qcow2"]);
    let report: Value = serde_json::from_slice(&damaged.stdout).unwrap();
    let error: Value = serde_json::from_slice(&damaged.stderr).unwrap();

    assert_eq!(sound, "a.qcow2\n  state         sound\n  data          0 bytes\n");
    assert_eq!(damaged.status.code(), Some(2));
    assert_eq!(report["sound"], false);
    let expected = "the disk image `a.qcow2` is damaged: block 0 of reference counts is at \
                    0xffffffffffffffff";
    assert_eq!(error["error"], expected);
    assert!(std::fs::read(folder.path("a.qcow2")).unwrap() == image);
}

#[test]
fn mistakes_are_explained() {
    let folder = Folder::new("mistakes");
    folder.qemu_img(&["create", "-q", "-f", "qcow2", "disk.img", "1M"]);
    let error = |words: &[&str]| {
        let output = folder.kasane(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        errors(&output)
    };

    assert_eq!(
        error(&["info", "disk.img"]),
        "error: `disk.img` begins like a qcow2 image, but isn't named so\n\
         help: say which it is: format qcow2, or raw\n"
    );
    assert!(error(&["info", "gone.img"]).starts_with("error: can't open `gone.img`\n    No such"));
    assert!(error(&["create", "a.img", "12"]).contains("`12` has no unit"));
    assert!(error(&["create", "a.img"]).contains("required arguments were not provided"));
    assert!(
        error(&[
            "create",
            "--backing",
            "disk.img",
            "--backing-format",
            "qcow2",
            "--format",
            "raw",
            "a.img"
        ])
        .contains("is raw and would have a backing file")
    );
}

#[test]
fn an_image_in_use_names_who_has_it() {
    let folder = Folder::new("in-use");
    folder.done(&["create", "a.img", "1M"]);
    let mut holder = Command::new("qemu-io")
        .args(["-f", "raw", "a.img"])
        .current_dir(&folder.0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(holder.stdin.as_mut().unwrap(), b"length\n").unwrap();
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    let refused = folder.kasane(&["resize", "a.img", "2M"]);
    let info = folder.kasane(&["info", "a.img"]);
    drop(holder.stdin.take());
    let pid = holder.id();
    holder.wait().unwrap();

    assert_eq!(refused.status.code(), Some(2));
    let expected =
        format!("error: the disk image `a.img` is in use by `qemu-io` (process {pid})\n");
    assert!(errors(&refused).starts_with(&expected), "{}", errors(&refused));
    assert_eq!(info.status.code(), Some(0));
}

#[test]
fn an_interrupted_conversion_leaves_nothing_behind() {
    use rustix::process::{Pid, Signal, kill_process};
    use std::os::unix::process::ExitStatusExt;
    let folder = Folder::new("interrupt");
    // Large enough to be under way when it is interrupted: it is data, not a hole.
    let chunk = noise(1 << 20);
    let mut file = std::fs::File::create(folder.path("a.img")).unwrap();
    (0..256).for_each(|_| std::io::Write::write_all(&mut file, &chunk).unwrap());
    let mut child = folder.command(&["convert", "a.img", "b.qcow2"]).spawn().unwrap();
    while folder.names().len() < 2 {
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let status = child.wait().unwrap();

    assert_eq!(status.signal(), Some(2));
    assert_eq!(folder.names(), ["a.img"]);
}
