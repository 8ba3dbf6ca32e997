//! Where the demonstration's kernel and busybox come from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use kasane_host_images::{Debian, FetchError, Package, Progress};

use crate::cli::DemoArguments;
use crate::outcome::Failure;

const BY_HAND: &str = "give both by hand: `kasane demo --kernel FILE --busybox FILE` \
     (a Linux kernel and a statically linked busybox, both for x86-64)";

/// What the demonstration boots.
pub(super) struct Files {
    /// The kernel, by its place: the machines' processes read it.
    pub(super) kernel: PathBuf,
    /// The busybox itself: it goes into an initramfs.
    pub(super) busybox: Vec<u8>,
}

/// By hand, from the folder of `KASANE_GUESTS`, from the cache, or fetched into it.
pub(super) fn find(arguments: &DemoArguments) -> Result<Files, Failure> {
    if let (Some(kernel), Some(busybox)) = (&arguments.kernel, &arguments.busybox) {
        return read(kernel, busybox).map_err(|error| Failure::usage(error, BY_HAND));
    }
    if let Some(folder) = std::env::var_os("KASANE_GUESTS").map(PathBuf::from) {
        let kernel = folder.join("cloud").join("vmlinuz");
        let busybox = folder.join("busybox").join("amd64").join("busybox");
        if kernel.is_file() && busybox.is_file() {
            return read(&kernel, &busybox).map_err(|error| Failure::usage(error, BY_HAND));
        }
    }
    let cache = cache_folder()
        .context("there is no folder for what is fetched: neither XDG_CACHE_HOME nor HOME is set")
        .map_err(|error| Failure::host(error, BY_HAND))?;
    let (kernel, busybox) = (cache.join("demo/vmlinuz"), cache.join("demo/busybox"));
    if !kernel.is_file() || !busybox.is_file() {
        fetch(&cache, &kernel, &busybox).map_err(fetch_failure)?;
    }
    read(&kernel, &busybox).map_err(|error| Failure::host(error, BY_HAND))
}

fn read(kernel: &Path, busybox: &Path) -> anyhow::Result<Files> {
    let context = |path: &Path| format!("can't read `{}`", path.display());
    fs::File::open(kernel).with_context(|| context(kernel))?;
    let busybox = fs::read(busybox).with_context(|| context(busybox))?;
    Ok(Files { kernel: kernel.to_owned(), busybox })
}

fn fetch_failure(error: FetchError) -> Failure {
    let help = match &error {
        FetchError::NoClient { .. } => BY_HAND.to_owned(),
        FetchError::Client { .. } | FetchError::Answer { .. } | FetchError::NoSuchFile { .. } => {
            format!("check the network and that apt's sources are Debian's, or {BY_HAND}")
        }
        FetchError::File { .. } => format!("make room in the cache, or {BY_HAND}"),
    };
    let what = "can't fetch a kernel and busybox for the demonstration";
    Failure::host(anyhow::Error::new(error).context(what), help)
}

/// The user's cache (XDG Base Directory Specification).
fn cache_folder() -> Option<PathBuf> {
    let given = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let given = given.filter(|folder| folder.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    Some(given.or_else(home)?.join("kasane"))
}

fn fetch(cache: &Path, kernel: &Path, busybox: &Path) -> Result<(), FetchError> {
    let debian = Debian::new(&cache.join("apt"))?;
    let bar = Bar::new();
    let image = Package::Behind { metapackage: "linux-image-cloud-amd64", prefix: "linux-image-" };
    let mut show = |progress: Progress<'_>| bar.show(&progress);
    let bytes = debian.file_of(image, "boot", "vmlinuz-", &mut show)?;
    put(kernel, &bytes)?;
    let bytes = debian.file_of(Package::Named("busybox-static"), "bin", "busybox", &mut show)?;
    put(busybox, &bytes)?;
    bar.clear();
    Ok(())
}

/// Writes a file beside its place and moves it there, so that a part of it is never taken for it.
fn put(path: &Path, bytes: &[u8]) -> Result<(), FetchError> {
    let beside = path.with_extension("part");
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&beside, bytes))
        .and_then(|()| fs::rename(&beside, path))
        .map_err(|source| FetchError::File { path: path.to_owned(), source })
}

/// A progress bar on standard error; without a terminal there, lines.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::new(0);
        let form = "{msg:36} {bar:32} {bytes:>10} of {total_bytes}";
        bar.set_style(ProgressStyle::with_template(form).unwrap_or(ProgressStyle::default_bar()));
        Self(bar)
    }

    fn show(&self, progress: &Progress<'_>) {
        match progress {
            Progress::Lists => self.say("fetching apt's package lists"),
            Progress::Download { package, done_bytes, total_bytes } => {
                if self.0.message() != *package {
                    self.say(package);
                }
                self.0.set_length(*total_bytes);
                self.0.set_position(*done_bytes);
            }
            Progress::Done { package } => self.0.println(format!("fetched {package}")),
        }
    }

    fn say(&self, text: &str) {
        if self.0.is_hidden() && self.0.message() != text {
            eprintln!("kasane: {text}");
        }
        self.0.set_message(text.to_owned());
        self.0.tick();
    }

    fn clear(&self) {
        self.0.finish_and_clear();
    }
}
