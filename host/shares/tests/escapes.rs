//! Ways out of the folder that must lead nowhere.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // tests may panic

mod guest;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use guest::{Guest, bytes, errno, n32, n64, text, u64_at};
use kasane_host_shares::ShareAccess::ReadWrite;
use kasane_host_shares::wire::{ROOT, op, set};

#[test]
fn names_that_are_paths_are_no_names() {
    let guest = Guest::new(ReadWrite);
    for name in ["..", ".", "", "../outside", "/etc", "a/b", "/", "../outside/secret"] {
        let name = text(name);
        for operation in [op::LOOKUP, op::UNLINK, op::RMDIR] {
            assert_eq!(guest.call(operation, ROOT, &name), Err(errno::INVAL));
        }
        let bodies = [
            (op::MKDIR, bytes(&[&n32(0o755), &n32(0), &name])),
            (op::MKNOD, bytes(&[&n32(0o100_644), &[0; 12], &name])),
            (op::CREATE, bytes(&[&n32(2), &n32(0o644), &[0; 8], &name])),
            (op::SYMLINK, bytes(&[&name, &text("x")])),
            (op::RENAME, bytes(&[&n64(ROOT), &name, &text("x")])),
            (op::RENAME, bytes(&[&n64(ROOT), &text("x"), &name])),
        ];
        for (operation, body) in bodies {
            assert_eq!(guest.call(operation, ROOT, &body), Err(errno::INVAL));
        }
    }
    let long = "x".repeat(256);
    assert_eq!(guest.lookup(ROOT, &long), Err(errno::NAMETOOLONG));
    assert_eq!(guest.call(op::LOOKUP, ROOT, b"no end"), Err(errno::INVAL));
}

#[test]
fn links_that_lead_out_are_links_and_nothing_else() {
    let guest = Guest::new(ReadWrite);
    symlink("../outside", guest.folder.join("up")).unwrap();
    symlink(&guest.outside, guest.folder.join("absolute")).unwrap();
    symlink(guest.outside.join("secret"), guest.folder.join("file")).unwrap();
    symlink("/proc/self/root", guest.folder.join("magic")).unwrap();
    for name in ["up", "absolute", "file", "magic"] {
        let node = guest.lookup(ROOT, name).unwrap();
        let attributes = guest.call(op::GETATTR, node, &[0; 16]).unwrap();
        assert_eq!(guest::u32_at(&attributes, 76) & 0o170_000, 0o120_000, "{name} is a link");
        assert!(guest.lookup(node, "secret").is_err());
        assert!(guest.create(node, "new", 0o100_644).is_err());
        assert!(guest.list(node, op::READDIR).is_err());
        assert_eq!(guest.open(node, 0), Err(errno::ACCES));
        assert_eq!(guest.set(node, set::SIZE, (0, 0, 0)), Err(errno::ACCES));
        assert_eq!(guest.set(node, set::MODE, (0, 0o777, 0)), Err(errno::OPNOTSUPP));
        assert_eq!(guest.create(ROOT, name, 0o100_644), Err(errno::EXIST));
    }
    assert_eq!(fs::read(guest.outside.join("secret")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(&guest.outside).unwrap().count(), 1);
}

#[test]
fn devices_are_neither_made_nor_opened() {
    let guest = Guest::new(ReadWrite);
    for mode in [0o020_666, 0o060_666, 0o040_755, 0o120_777, 0] {
        let body = bytes(&[&n32(mode), &n32(0x0103), &[0; 8], &text("dev")]);
        assert_eq!(guest.call(op::MKNOD, ROOT, &body), Err(errno::PERM), "{mode:o}");
    }
    let fifo = bytes(&[&n32(0o010_644), &[0; 12], &text("fifo")]);
    let node = u64_at(&guest.call(op::MKNOD, ROOT, &fifo).unwrap(), 0);
    assert_eq!(guest.open(node, 0), Err(errno::ACCES), "and nobody waits for its other end");
    assert_eq!(guest.create(ROOT, "fifo", 0o100_644), Err(errno::EXIST));
}

#[test]
fn a_directory_that_moves_out_takes_nobody_along() {
    let guest = Guest::new(ReadWrite);
    fs::create_dir_all(guest.folder.join("a/b")).unwrap();
    let inner = guest.walk("a/b").unwrap();
    fs::rename(guest.folder.join("a"), guest.outside.join("a")).unwrap();
    assert_eq!(guest.lookup(inner, "x"), Err(errno::NOENT));
    assert_eq!(guest.create(inner, "x", 0o100_644), Err(errno::NOENT));
    assert_eq!(fs::read_dir(guest.outside.join("a/b")).unwrap().count(), 0);
}

/// Ends the race, also when an attempt fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `attempt` many times while a directory and a file are exchanged with links to the outside.
fn race(guest: &Guest, attempt: impl Fn(&Guest)) {
    let stop = AtomicBool::new(false);
    fs::create_dir(guest.folder.join("d")).unwrap();
    fs::write(guest.folder.join("d/secret"), "inside").unwrap();
    fs::write(guest.folder.join("f"), "inside").unwrap();
    symlink("../outside", guest.folder.join("d.link")).unwrap();
    symlink("../outside/secret", guest.folder.join("f.link")).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The guest itself can do this, from another of its processors.
            while !stop.load(Ordering::Relaxed) {
                for (one, two) in [("d", "d.link"), ("f", "f.link")] {
                    let flags = bytes(&[&n64(ROOT), &n32(2), &n32(0), &text(one), &text(two)]);
                    guest.call(op::RENAME2, ROOT, &flags).unwrap();
                }
            }
        });
        let _stop = Stop(&stop);
        for _ in 0..3000 {
            attempt(guest);
        }
    });
    let secret = guest.outside.join("secret");
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::read_dir(&guest.outside).unwrap().count(), 1, "nothing new, nothing gone");
}

#[test]
fn races_with_links_lead_nowhere() {
    let guest = Guest::new(ReadWrite);
    let secret = guest.outside.join("secret");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    race(&guest, |guest| {
        if let Ok(node) = guest.lookup(ROOT, "f") {
            if let Ok(file) = guest.open(node, 2) {
                assert_eq!(guest.read(file, 0, 99).unwrap(), b"inside");
                let _ = guest.call(op::RELEASE, node, &bytes(&[&n64(file), &[0; 16]]));
            }
            let _ = guest.set(node, set::MODE, (0, 0o666, 0));
            let _ = guest.set(node, set::SIZE, (6, 0, 0));
            let _ = guest.set(node, set::MTIME_NOW | set::MTIME, (0, 0, 0));
        }
        if let Ok(folder) = guest.lookup(ROOT, "d") {
            if let Ok((node, file)) = guest.create(folder, "new", 0o100_644) {
                let _ = guest.call(op::RELEASE, node, &bytes(&[&n64(file), &[0; 16]]));
            }
            let _ = guest.call(op::UNLINK, folder, &text("new"));
            if let Ok(node) = guest.lookup(folder, "secret")
                && let Ok(file) = guest.open(node, 0)
            {
                assert_eq!(guest.read(file, 0, 99).unwrap(), b"inside");
                let _ = guest.call(op::RELEASE, node, &bytes(&[&n64(file), &[0; 16]]));
            }
        }
    });
}
