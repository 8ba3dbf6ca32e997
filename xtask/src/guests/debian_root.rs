//! A whole Debian with systemd on a disk of its own: `debian-root/root.img` (ext4 without a
//! partition table, raw, sparse), and beside it what boots it (`vmlinuz`, `initrd.img`), the key
//! that lets a person in by ssh (`id_ed25519`) and what is in it (`packages`).
//!
//! mmdebstrap makes an archive of the packages: as root where this is root, otherwise in a user
//! namespace. It is taken out of its package here, as a guest's packages are, so that nothing need
//! be installed for it but the languages that it is written in. The image is made of the archive
//! under fakeroot, the same way for everybody; `image.sh` says how, and `customize.sh` what makes
//! the packages a guest for tests.

use super::apt::{self, Apt};
use super::{Made, Place, fresh_folder};
use crate::command;
use crate::report::{Failure, note, step};
use crate::suite::install;
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What the guest has. The first line boots and manages it, the second is what tests use.
const PACKAGES: [&[&str]; 2] = [
    &[
        "dbus",
        "debian-archive-keyring",
        "e2fsprogs",
        "initramfs-tools",
        "iproute2",
        "kmod",
        "libpam-systemd",
        "linux-image-cloud-amd64",
        "openssh-server",
        "procps",
        "systemd-resolved",
        "systemd-sysv",
        "udev",
    ],
    &["ca-certificates", "fio", "iperf3", "iputils-ping", "socat", "stress-ng"],
];
const CUSTOMIZE: &str = include_str!("debian_root/customize.sh");
const IMAGE: &str = include_str!("debian_root/image.sh");
const LEN_BYTES: u64 = 4 << 30;
/// The time of all files, in seconds since 1970: the same archive of the same packages.
const EPOCH: &str = "1700000000";
/// Nobody reads them in a guest.
const LEFT_OUT: [&str; 3] = ["/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*"];
/// Keys of Debian's archives, where Debian has them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// How the host's apt reaches its sources.
const WAYS: [&str; 3] = ["Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::https::CAInfo"];

/// Programs that this calls, with the packages that have them.
const NEEDED: [(&str, &str); 4] =
    [("perl", "perl"), ("python3", "python3"), ("fakeroot", "fakeroot"), ("mke2fs", "e2fsprogs")];
/// And for one who isn't root.
const NEEDED_BY_A_USER: [(&str, &str); 2] = [("newuidmap", "uidmap"), ("newgidmap", "uidmap")];

/// The folder `debian-root`.
pub(super) fn build(place: &Place<'_>, apt: &mut Apt, refresh: bool) -> Result<()> {
    step("guest disk `debian-root/root.img`", || {
        let folder = place.folder.join("debian-root");
        let made = Made::new(folder.join("root.img"), recipe());
        if made.is_current() && !refresh {
            return Ok(());
        }
        let user = User::of_this_process();
        install(&NEEDED)?;
        if user == User::Ordinary {
            install(&NEEDED_BY_A_USER)?;
        }
        let work = folder.join("work");
        fresh_folder(&work)?;
        let archive = work.join("root.tar");
        bootstrap(apt, &archive, user)?;
        let image = work.join("root.img");
        make_image(&work, &archive, &image)?;
        for beside in ["vmlinuz", "initrd.img", "id_ed25519", "packages"] {
            fs::rename(work.join(beside), folder.join(beside))
                .with_context(|| format!("could not keep {beside}"))?;
        }
        made.adopt(&image)?;
        fs::remove_dir_all(&work).context("could not remove what the image was made of")
    })
}

/// Changes when what is in the image does (the number is for all else).
fn recipe() -> String {
    format!("1 {}\n{CUSTOMIZE}\n{IMAGE}", PACKAGES.concat().join(","))
}

/// Who runs this.
#[derive(Clone, Copy, PartialEq, Eq)]
enum User {
    Root,
    Ordinary,
}

impl User {
    fn of_this_process() -> Self {
        match command::answer(Command::new("id").arg("-u")) {
            Ok(id) if id.trim() == "0" => Self::Root,
            Ok(_) | Err(_) => Self::Ordinary,
        }
    }

    /// As mmdebstrap's `--mode` takes it.
    fn mode(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Ordinary => "unshare",
        }
    }
}

/// An archive with the installed packages.
fn bootstrap(apt: &mut Apt, archive: &Path, user: User) -> Result<()> {
    // Not among the guests: the root of a user namespace has no way into a person's own folders.
    let tool = std::env::temp_dir().join(format!("kasane-mmdebstrap-{}", std::process::id()));
    let deb = apt.download("mmdebstrap")?;
    apt::unpack_all(std::slice::from_ref(&deb), &tool)?;
    let outcome = install_packages(apt, &tool.join("usr/bin"), archive, user);
    fs::remove_dir_all(&tool).context("could not remove mmdebstrap")?;
    outcome
}

/// Runs mmdebstrap, which is in the folder `programs`.
fn install_packages(apt: &mut Apt, programs: &Path, archive: &Path, user: User) -> Result<()> {
    let release = apt.release()?;
    let mut command = Command::new("perl");
    command.arg(programs.join("mmdebstrap"));
    command.env("PATH", path_with(programs)).env("SOURCE_DATE_EPOCH", EPOCH);
    command.args(["--quiet", "--variant=apt", "--format=tar"]);
    command.arg(format!("--mode={}", user.mode()));
    command.arg(format!("--include={}", PACKAGES.concat().join(",")));
    command.args(LEFT_OUT.map(|files| format!("--dpkgopt=path-exclude={files}")));
    command.args(apt.settings(&WAYS)?.iter().map(|setting| format!("--aptopt={setting}")));
    // As text, not as a file, which the root of a user namespace might not be able to read.
    command.arg(format!("--customize-hook={CUSTOMIZE}"));
    command.arg(&release.codename).arg(archive);
    let signed = if Path::new(KEYRING).is_file() {
        format!("[signed-by={KEYRING}] ")
    } else {
        String::new()
    };
    command.args(release.sources.iter().map(|source| format!("deb {signed}{source}")));
    note(format_args!(
        "mmdebstrap {} with {} packages and what they need, some minutes",
        release.codename,
        PACKAGES.concat().len()
    ));
    command::answer(&mut command).map(drop).map_err(|error| {
        error.context(Failure::new(
            "mmdebstrap could not install the packages",
            "as root it works where file systems can be mounted; as a user, with the package uidmap and an entry in /etc/subuid and /etc/subgid",
        ))
    })
}

fn make_image(work: &Path, archive: &Path, image: &Path) -> Result<()> {
    let mut command = Command::new("fakeroot");
    command.args(["--", "sh", "-c", IMAGE, "image.sh"]);
    command.arg(archive).arg(work).arg(image).arg(LEN_BYTES.to_string());
    command.env("PATH", path_with(Path::new("/usr/sbin"))).env("SOURCE_DATE_EPOCH", EPOCH);
    command::answer(&mut command).map(drop).context("could not make a file system of the packages")
}

/// `PATH` with a folder in front.
fn path_with(folder: &Path) -> OsString {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&rest));
    std::env::join_paths(folders).unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_the_packages_a_guest_is_part_of_the_recipe() {
        let recipe = recipe();

        for part in ["systemd-sysv", "iperf3", "--autologin root", "mke2fs"] {
            assert!(recipe.contains(part), "{part}");
        }
    }

    #[test]
    fn the_folder_comes_first_in_the_path() {
        let path = path_with(Path::new("/here"));

        assert_eq!(std::env::split_paths(&path).next().as_deref(), Some(Path::new("/here")));
    }
}
