//! What a guest does with a shared folder, seen on the host.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // tests may panic

mod guest;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use guest::{Guest, bytes, errno, n32, n64, text, u32_at, u64_at};
use kasane_host_shares::ShareAccess::{ReadOnly, ReadWrite};
use kasane_host_shares::wire::{ROOT, op, set};

#[test]
fn both_sides_agree_on_what_they_can() {
    let guest = Guest::new(ReadWrite);
    let body = bytes(&[&n32(7), &n32(38), &n32(1 << 17), &n32(u32::MAX), &[0; 48]]);
    let answer = guest.call(op::INIT, 0, &body).unwrap();
    assert_eq!((answer.len(), u32_at(&answer, 0), u32_at(&answer, 4)), (64, 7, 36));
    assert_eq!((u32_at(&answer, 20), u32_at(&answer, 28)), (1 << 20, 256));
    let old = bytes(&[&n32(7), &n32(8), &n32(0), &n32(0)]);
    assert!(guest.call(op::INIT, 0, &old).is_err());
    assert_eq!(guest.call(op::INIT, 0, &bytes(&[&n32(8), &n32(0)])).unwrap().len(), 64);
}

#[test]
fn a_file_is_made_written_and_read() {
    let guest = Guest::new(ReadWrite);
    let (node, file) = guest.create(ROOT, "f", 0o100_644).unwrap();
    let data: Vec<u8> = (0..300_000u32).map(|n| (n % 253) as u8).collect();
    assert_eq!(guest.write(file, 10, &data), Ok(300_000));
    assert_eq!(fs::read(guest.folder.join("f")).unwrap()[10..], data[..]);
    assert_eq!(guest.read(file, 110, 100).unwrap(), data[100..200]);
    assert_eq!(guest.read(file, 300_000, 1 << 20).unwrap().len(), 10);
    assert_eq!(guest.set(node, set::SIZE, (7, 0, 0)).map(|answer| u64_at(&answer, 24)), Ok(7));
    assert_eq!(guest.call(op::FSYNC, node, &bytes(&[&n64(file), &[0; 8]])), Ok(vec![]));
    assert_eq!(guest.call(op::RELEASE, node, &bytes(&[&n64(file), &[0; 16]])), Ok(vec![]));
    assert!(guest.read(file, 0, 1).is_err());
    assert!(guest.write(file, u64::MAX, b"x").is_err());
}

#[test]
fn directories_are_listed_with_and_without_attributes() {
    let guest = Guest::new(ReadWrite);
    let made = guest.call(op::MKDIR, ROOT, &bytes(&[&n32(0o40_755), &n32(0), &text("d")]));
    let folder = u64_at(&made.unwrap(), 0);
    let mut expected = vec![".".to_owned(), "..".to_owned()];
    for n in 0..50 {
        let name = format!("a rather long name {n:02}");
        fs::write(guest.folder.join("d").join(&name), "").unwrap();
        expected.push(name);
    }
    let plain = guest.list(folder, op::READDIR).unwrap();
    assert_eq!(plain.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), expected);
    let all = guest.list(folder, op::READDIRPLUS).unwrap();
    assert_eq!(all.len(), 52);
    for (name, node) in &all[2..] {
        assert_eq!(guest.lookup(folder, name), Ok(*node), "the same node");
    }
    assert_eq!((all[0].1, all[1].1), (0, 0));
}

#[test]
fn names_change_and_what_is_open_stays() {
    let guest = Guest::new(ReadWrite);
    let (node, file) = guest.create(ROOT, "a", 0o100_600).unwrap();
    guest.write(file, 0, b"one").unwrap();
    let rename = bytes(&[&n64(ROOT), &text("a"), &text("b")]);
    guest.call(op::RENAME, ROOT, &rename).unwrap();
    assert_eq!(guest.lookup(ROOT, "b"), Ok(node));
    assert_eq!(guest.lookup(ROOT, "a"), Err(errno::NOENT));
    guest.call(op::UNLINK, ROOT, &text("b")).unwrap();
    let attributes = guest.call(op::GETATTR, node, &[0; 16]).unwrap();
    assert_eq!(u64_at(&attributes, 24), 3, "its size");
    assert_eq!(guest.read(file, 0, 9).unwrap(), b"one");
    guest.set(node, set::SIZE, (1, 0, 0)).unwrap();
    assert_eq!(guest.read(file, 0, 9).unwrap(), b"o");
    assert_eq!(guest.open(node, 0), Err(errno::STALE));
    guest.call(op::RELEASE, node, &bytes(&[&n64(file), &[0; 16]])).unwrap();
    assert_eq!(guest.call(op::GETATTR, node, &[0; 16]), Err(errno::STALE));
}

#[test]
fn renames_can_refuse_to_replace_and_can_exchange() {
    let guest = Guest::new(ReadWrite);
    fs::write(guest.folder.join("a"), "1").unwrap();
    fs::write(guest.folder.join("b"), "22").unwrap();
    let (a, b) = (guest.lookup(ROOT, "a").unwrap(), guest.lookup(ROOT, "b").unwrap());
    let rename = |flags| bytes(&[&n64(ROOT), &n32(flags), &n32(0), &text("a"), &text("b")]);
    assert_eq!(guest.call(op::RENAME2, ROOT, &rename(1)), Err(errno::EXIST));
    guest.call(op::RENAME2, ROOT, &rename(2)).unwrap();
    assert_eq!((guest.lookup(ROOT, "a"), guest.lookup(ROOT, "b")), (Ok(b), Ok(a)));
    assert_eq!(guest.call(op::RENAME2, ROOT, &rename(4)), Err(errno::INVAL));
}

#[test]
fn modes_and_owners() {
    let guest = Guest::new(ReadWrite);
    let (node, _) = guest.create(ROOT, "f", 0o106_755).unwrap();
    let mode = || fs::metadata(guest.folder.join("f")).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode() & 0o7000, 0, "not set-user-id");
    guest.set(node, set::MODE, (0, 0o4000, 0)).unwrap();
    assert_eq!(mode(), 0);
    guest.set(node, set::MODE, (0, 0o6751, 0)).unwrap();
    assert_eq!(mode(), 0o751);
    let own = fs::metadata(guest.folder.join("f")).unwrap().uid();
    guest.set(node, set::UID, (0, 0, own)).unwrap();
    guest.set(node, set::UID, (0, 0, u32::MAX)).unwrap();
    assert_eq!(fs::metadata(guest.folder.join("f")).unwrap().uid(), own);
}

#[test]
fn links_are_made_and_told() {
    let guest = Guest::new(ReadWrite);
    let symlink = bytes(&[&text("l"), &text("/etc/passwd")]);
    let link = u64_at(&guest.call(op::SYMLINK, ROOT, &symlink).unwrap(), 0);
    assert_eq!(guest.call(op::READLINK, link, &[]).unwrap(), b"/etc/passwd");
    let hard = guest.call(op::LINK, ROOT, &bytes(&[&n64(link), &text("m")])).unwrap();
    assert_eq!(guest.call(op::READLINK, u64_at(&hard, 0), &[]).unwrap(), b"/etc/passwd");
    assert!(fs::symlink_metadata(guest.folder.join("m")).unwrap().is_symlink());
}

#[test]
fn a_read_only_folder_is_changed_by_nothing() {
    let guest = Guest::new(ReadOnly);
    fs::write(guest.folder.join("f"), "data").unwrap();
    fs::create_dir(guest.folder.join("d")).unwrap();
    let node = guest.lookup(ROOT, "f").unwrap();
    let ro = errno::ROFS;
    assert_eq!(guest.open(node, 1), Err(ro));
    assert_eq!(guest.open(node, 2), Err(ro));
    assert_eq!(guest.create(ROOT, "g", 0o100_644), Err(ro));
    for valid in [set::MODE, set::SIZE, set::UID, set::MTIME_NOW, set::ATIME] {
        assert_eq!(guest.set(node, valid, (0, 0, 0)), Err(ro));
    }
    let cases = [
        (op::UNLINK, text("f")),
        (op::RMDIR, text("d")),
        (op::MKDIR, bytes(&[&n32(0o755), &n32(0), &text("e")])),
        (op::MKNOD, bytes(&[&n32(0o100_644), &[0; 12], &text("e")])),
        (op::SYMLINK, bytes(&[&text("e"), &text("f")])),
        (op::LINK, bytes(&[&n64(node), &text("e")])),
        (op::RENAME, bytes(&[&n64(ROOT), &text("f"), &text("e")])),
        (op::RENAME2, bytes(&[&n64(ROOT), &[0; 8], &text("f"), &text("e")])),
    ];
    for (operation, body) in cases {
        assert_eq!(guest.call(operation, ROOT, &body), Err(ro), "operation {operation}");
    }
    let file = guest.open(node, 0o1000).unwrap();
    assert_eq!(guest.read(file, 0, 9).unwrap(), b"data", "O_TRUNC is not the guest's to choose");
    assert_eq!(guest.write(file, 0, b"x"), Err(ro));
    let fallocate = bytes(&[&n64(file), &n64(0), &n64(100), &n32(0), &n32(0)]);
    assert_eq!(guest.call(op::FALLOCATE, node, &fallocate), Err(ro));
    assert_eq!(fs::read_dir(&guest.folder).unwrap().count(), 2);
}

#[test]
fn what_is_not_offered_is_said_so() {
    let guest = Guest::new(ReadWrite);
    for operation in [21, 22, 23, 24, 31, 34, 40, 48, 50, 51, 99, u32::MAX] {
        assert_eq!(guest.call(operation, ROOT, &[0; 64]), Err(errno::NOSYS));
    }
    let statfs = guest.call(op::STATFS, ROOT, &[]).unwrap();
    assert_eq!((statfs.len(), u32_at(&statfs, 44)), (80, 255));
}

#[test]
fn open_files_are_bounded() {
    let guest = Guest::new(ReadWrite);
    fs::write(guest.folder.join("f"), "").unwrap();
    let node = guest.lookup(ROOT, "f").unwrap();
    let refused = (0..5000).find_map(|_| guest.open(node, 0).err());
    assert_eq!(refused, Some(errno::NFILE));
    guest.server.forget_all();
    let node = guest.lookup(ROOT, "f").unwrap();
    assert!(guest.open(node, 0).is_ok());
}

#[test]
fn what_a_saved_guest_knew_is_stale_and_found_again_by_its_path() {
    let guest = Guest::new(ReadWrite);
    fs::create_dir(guest.folder.join("d")).unwrap();
    let folder = guest.walk("d").unwrap();
    let (node, file) = guest.create(folder, "f", 0o100_644).unwrap();
    guest.write(file, 0, b"before").unwrap();
    fs::write(guest.folder.join("other"), "other").unwrap();

    let guest = guest.restored(ReadWrite);
    // Others come first, so that their numbers would be the old ones.
    let other = guest.walk("other").unwrap();
    let opened = guest.open(other, 2).unwrap();

    assert!(![node, folder].contains(&other) && opened != file);
    assert_eq!(guest.write(file, 0, b"lost"), Err(errno::STALE));
    assert_eq!(guest.read(file, 0, 9), Err(errno::STALE));
    assert_eq!(guest.call(op::GETATTR, node, &[0; 16]), Err(errno::STALE));
    assert_eq!(guest.lookup(folder, "f"), Err(errno::STALE));
    assert_eq!(guest.open(node, 0), Err(errno::STALE));
    let again = guest.open(guest.walk("d/f").unwrap(), 2).unwrap();
    assert_eq!(guest.read(again, 0, 9).unwrap(), b"before");
    assert_eq!(guest.read(opened, 0, 9).unwrap(), b"other");
}

#[test]
fn numbers_do_not_come_again_after_a_reset() {
    let guest = Guest::new(ReadWrite);
    let (node, file) = guest.create(ROOT, "f", 0o100_644).unwrap();

    guest.server.forget_all();

    let (again, file_again) = (guest.walk("f").unwrap(), guest.open(guest.walk("f").unwrap(), 0));
    assert!(again != node && file_again != Ok(file));
}
