//! Guests that nobody here wrote, fetched with the system's own apt, and the
//! initramfs images that make tests of them. Everything goes to
//! `target/guests` and is made once:
//!
//! | file | what |
//! |---|---|
//! | `cloud/vmlinuz`, `amd64/vmlinuz`, `i386/vmlinuz` | Debian's kernels; `package` beside each says which, `modules/` has those for virtio |
//! | `busybox/amd64/busybox`, `busybox/i386/busybox` | busybox, static |
//! | `initramfs-shell.gz`, `initramfs-shell-i386.gz` | busybox and our init (`init.sh`) |
//! | `initramfs-virtio.gz`, `initramfs-virtio-amd64.gz` | busybox, the virtio modules of the cloud and the amd64 kernel, and `kasane-records` |
//! | `initramfs-stress.gz` | the same and stress-ng, gzip, dd and sha256sum of Debian |
//! | `initramfs-toolbox.cpio`, `toolbox/` | busybox, gcc, luajit and node with programs for them; the same tree for this host |
//! | `debian-root/` | Debian with systemd as a disk image, its kernel, initrd and ssh key |
//! | `asm/NAME.elf` | our own guests, assembled from `guests/` |
//! | `drivers/drivers.elf` | our guest with the crate `virtio-drivers`, of `guests/drivers` |
//! | `../bench/guest` | the program that `cargo xtask bench cpu` measures, and an initramfs with it |
//! | `apt/` | apt's lists and packages: a state of its own, nothing of the system is changed |

mod apt;
mod assembly;
mod bench;
mod cpio;
mod debian_root;
mod drivers;
mod initramfs;
mod kernel;
mod libraries;
mod modules;
mod records;
mod toolbox;

use crate::report::{Failure, note, step};
use crate::workspace::Workspace;
use anyhow::{Context, Result};
use apt::Apt;
pub(crate) use bench::Measured;
pub(crate) use cpio::Archive;
pub(crate) use drivers::FOLDER as DRIVERS_FOLDER;
use std::fs;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which guests; all of them but the toolbox and debian-root when none is named
    #[arg(value_enum)]
    names: Vec<Guest>,
    /// Make them again, from the newest packages
    #[arg(long)]
    refresh: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Guest {
    /// Kernel of linux-image-cloud-amd64
    Cloud,
    /// Kernel of linux-image-amd64
    Amd64,
    /// Kernel of linux-image-686, architecture i386
    I386,
    /// Busybox of both architectures and the initramfs images that boot to its shell
    Busybox,
    /// The initramfs images with the kernels' virtio modules
    Virtio,
    /// The initramfs image with stress-ng
    Stress,
    /// The initramfs image with gcc, luajit and node
    Toolbox,
    /// Debian with systemd, sshd, fio and iperf3 on a disk image
    DebianRoot,
    /// Our own guests, assembled from guests/
    Asm,
    /// Our own guest that drives virtio devices by the crate virtio-drivers
    Drivers,
}

/// What the tests of every day use.
const ALL: [Guest; 8] = [
    Guest::Cloud,
    Guest::Amd64,
    Guest::I386,
    Guest::Busybox,
    Guest::Virtio,
    Guest::Stress,
    Guest::Asm,
    Guest::Drivers,
];

/// What making a guest needs to know.
struct Place<'a> {
    /// `target/guests`.
    folder: PathBuf,
    /// The workspace's root.
    root: &'a Path,
}

/// `cargo xtask guests`.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let names = if arguments.names.is_empty() { &ALL[..] } else { &arguments.names[..] };
    make(workspace, names, arguments.refresh)?;
    println!("guests are in {}", shown(&workspace.guests()));
    Ok(())
}

/// Every guest that the tests of every day use.
pub(crate) fn everything(workspace: &Workspace) -> Result<()> {
    make(workspace, &ALL, false)
}

/// And those that only the long tests use.
pub(crate) fn for_nightly(workspace: &Workspace) -> Result<()> {
    make(workspace, &[&ALL[..], &[Guest::Toolbox, Guest::DebianRoot]].concat(), false)
}

/// The guests that `kasane demo` shows.
pub(crate) fn for_demo(workspace: &Workspace) -> Result<()> {
    make(workspace, &[Guest::Cloud, Guest::Busybox], false)
}

/// Debian's cloud kernel, and the measured program compiled and as the init of a guest.
pub(crate) fn for_bench(workspace: &Workspace) -> Result<Measured> {
    make(workspace, &[Guest::Cloud], false)?;
    bench::build(&workspace.root)
}

/// Debian with fio and iperf3 on a disk.
pub(crate) fn for_io_bench(workspace: &Workspace) -> Result<()> {
    make(workspace, &[Guest::DebianRoot], false)
}

fn make(workspace: &Workspace, names: &[Guest], refresh: bool) -> Result<()> {
    let place = Place { folder: workspace.guests(), root: &workspace.root };
    fs::create_dir_all(&place.folder)
        .with_context(|| format!("could not create {}", place.folder.display()))?;
    // Two chores at once would download into the same files; the lock ends
    // with the process, whatever becomes of it.
    let lock = fs::File::create(place.folder.join("lock")).context("could not create the lock")?;
    if lock.try_lock().is_err() {
        note("another chore is making guests; waiting for it");
        lock.lock().context("could not lock the guests' folder")?;
    }
    let mut apt = Apt::new(place.folder.join("apt"));
    if refresh {
        step("package lists", || apt.update())?;
    }
    for guest in names {
        make_one(&place, &mut apt, *guest, refresh)?;
    }
    Ok(())
}

fn make_one(place: &Place<'_>, apt: &mut Apt, guest: Guest, refresh: bool) -> Result<()> {
    match guest {
        Guest::Cloud => kernel::fetch(place, apt, &kernel::CLOUD, refresh),
        Guest::Amd64 => kernel::fetch(place, apt, &kernel::AMD64, refresh),
        Guest::I386 => kernel::fetch(place, apt, &kernel::I386, refresh),
        Guest::Busybox => initramfs::shells(place, apt, refresh),
        Guest::Virtio => initramfs::virtio(place, apt, refresh),
        Guest::Stress => initramfs::stress(place, apt, refresh),
        Guest::Toolbox => toolbox::build(place, apt, refresh),
        Guest::DebianRoot => debian_root::build(place, apt, refresh),
        Guest::Asm => assembly::build(place),
        Guest::Drivers => drivers::build(place),
    }
    .with_context(|| format!("could not make the guest `{}`", name_of(guest)))
}

fn name_of(guest: Guest) -> String {
    use clap::ValueEnum;
    guest.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// A result with the recipe it was made by: made again when the recipe
/// changes. A file without a recipe was put there by hand and is left alone.
struct Made {
    file: PathBuf,
    recipe: String,
}

impl Made {
    fn new(file: PathBuf, recipe: impl Into<String>) -> Self {
        Self { file, recipe: recipe.into() }
    }

    fn recipe_file(&self) -> PathBuf {
        let mut name = self.file.file_name().unwrap_or_default().to_owned();
        name.push(".recipe");
        self.file.with_file_name(name)
    }

    fn is_current(&self) -> bool {
        let made_otherwise =
            fs::read_to_string(self.recipe_file()).is_ok_and(|text| text != self.recipe);
        self.file.is_file() && !made_otherwise
    }

    /// Puts the bytes in place as a whole, then the recipe: after a crash
    /// either all is there or it is made again.
    fn write(&self, bytes: &[u8]) -> Result<()> {
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("could not create {}", folder.display()))?;
        }
        replace(&self.file, bytes)?;
        replace(&self.recipe_file(), self.recipe.as_bytes())?;
        note(format_args!("{} ({} KiB)", shown(&self.file), bytes.len() / 1024));
        Ok(())
    }

    /// The same with a file that is finished elsewhere in the same file system.
    fn adopt(&self, finished: &Path) -> Result<()> {
        fs::rename(finished, &self.file)
            .with_context(|| format!("could not write {}", self.file.display()))?;
        replace(&self.recipe_file(), self.recipe.as_bytes())?;
        note(shown(&self.file));
        Ok(())
    }
}

/// A path as a person here would type it.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

/// Writes a file beside its place and moves it there.
fn replace(file: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = file.with_file_name(name);
    fs::write(&beside, bytes)
        .and_then(|()| fs::rename(&beside, file))
        .with_context(|| format!("could not write {}", file.display()))
}

/// An empty folder for unpacking, made anew.
fn fresh_folder(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("could not remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))
}

/// # Errors
/// When a package doesn't have the file it is fetched for.
fn lacking(package: &str, file: &str) -> Failure {
    Failure::new(
        format!("the package {package} has no {file}"),
        "this distribution's packages are laid out differently from Debian's; put the file into target/guests by hand",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_made_again_when_its_recipe_changes() {
        let folder = std::env::temp_dir().join(format!("xtask-made-{}", std::process::id()));
        fresh_folder(&folder).unwrap();
        let first = Made::new(folder.join("image"), "recipe 1");
        let second = Made::new(folder.join("image"), "recipe 2");

        let before = first.is_current();
        first.write(b"bytes").unwrap();

        assert_eq!((before, first.is_current(), second.is_current()), (false, true, false));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_file_put_there_by_hand_is_left_alone() {
        let folder = std::env::temp_dir().join(format!("xtask-hand-{}", std::process::id()));
        fresh_folder(&folder).unwrap();
        let made = Made::new(folder.join("image"), "recipe");

        fs::write(&made.file, b"by hand").unwrap();

        assert!(made.is_current());
        fs::remove_dir_all(&folder).unwrap();
    }
}
