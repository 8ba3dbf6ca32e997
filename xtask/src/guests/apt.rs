//! The system's apt with a state of its own. Sources, keys and proxies are
//! the system's; lists, downloads and the (empty) record of installed
//! packages lie in our folder. So no root is needed, the i386 architecture
//! need not be enabled, and nothing of the system is changed. Signatures are
//! checked as always.

use super::fresh_folder;
use crate::command;
use crate::report::{Failure, note};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Clears what the system's configuration would run or fetch besides the
/// package lists: hooks (some delete the system's own cache), translations,
/// and the indexes that graphical stores want.
const QUIET: &str = r#"
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear Acquire::Languages;
Acquire::Languages "none";
#clear Acquire::IndexTargets::deb::DEP-11;
#clear Acquire::IndexTargets::deb::DEP-11-icons;
#clear Acquire::IndexTargets::deb::DEP-11-icons-small;
#clear Acquire::IndexTargets::deb::DEP-11-icons-large;
#clear Acquire::IndexTargets::deb::DEP-11-icons-hidpi;
#clear Acquire::IndexTargets::deb::DEP-11-icons-large-hidpi;
#clear Acquire::IndexTargets::deb::Contents-deb;
#clear Acquire::IndexTargets::deb::CNF;
Acquire::Retries "3";
APT::Get::Assume-Yes "true";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
"#;

/// A package in a file.
#[derive(Debug, Clone)]
pub(super) struct Deb {
    /// For example `busybox-static_1.35.0-4_amd64.deb`, with `%3a` for a colon.
    pub(super) name: String,
    pub(super) file: PathBuf,
}

impl Deb {
    /// Unpacks the whole package into `folder`.
    pub(super) fn unpack(&self, folder: &Path) -> Result<()> {
        command::answer(Command::new("dpkg-deb").arg("-x").arg(&self.file).arg(folder))?;
        Ok(())
    }

    /// Unpacks `members` (patterns for tar, as `./boot/*`) into `folder`.
    pub(super) fn unpack_only(&self, folder: &Path, members: &str) -> Result<()> {
        command::pipe(
            Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&self.file),
            Command::new("tar").args(["-xf", "-", "--wildcards", members]),
            folder,
        )
    }
}

/// A line of `apt-get … --print-uris`: what would be fetched, and as what.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    file: String,
    len_bytes: u64,
}

/// How a source is asked for, and what `release_of` reads.
const TARGET: &str = "$(CODENAME) $(REPO_URI) $(RELEASE) $(COMPONENT)";

/// A release of Debian and where the system has it from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Release {
    /// For example `bookworm`.
    pub(super) codename: String,
    /// `URI SUITE COMPONENT` of the release, its updates and its security fixes.
    pub(super) sources: Vec<String>,
}

/// Apt over our folder. Does nothing until it is asked for a package.
pub(super) struct Apt {
    folder: PathBuf,
    ready: bool,
    updated: bool,
}

impl Apt {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, ready: false, updated: false }
    }

    /// Fetches the package lists.
    ///
    /// # Errors
    /// Only when not one list could be fetched. A mirror often has a broken
    /// list for a while (mostly of an architecture or suite of lesser use);
    /// apt then goes on with the others, and so do we: what is missing shows
    /// itself as a package that is not found.
    pub(super) fn update(&mut self) -> Result<()> {
        self.prepare()?;
        note("apt-get update");
        if let Err(error) = command::answer(&mut self.get(&["update", "-qq"])) {
            note(format_args!("not all package lists could be fetched:\n{error:#}"));
        }
        self.updated = true;
        if self.has_lists() {
            return Ok(());
        }
        Err(Failure::new(
            "apt could not fetch any package list",
            "check the network and the sources in /etc/apt with `apt-get update`",
        )
        .into())
    }

    /// The first package that `package` depends on whose name begins with `prefix`.
    pub(super) fn dependency(&mut self, package: &str, prefix: &str) -> Result<String> {
        self.with_fresh_lists(|apt| {
            let text = command::answer(&mut apt.cache(&["depends", "--important", package]))?;
            first_dependency(&text, prefix).ok_or_else(|| {
                anyhow::anyhow!("{package} depends on nothing that begins with {prefix}")
            })
        })
        .map_err(|error| unknown(package, &error))
    }

    /// Fetches one package, without what it depends on.
    pub(super) fn download(&mut self, package: &str) -> Result<Deb> {
        let debs = self.with_fresh_lists(|apt| {
            let listing = command::answer(&mut apt.get(&["download", "--print-uris", package]))?;
            apt.fetch(&parse_wanted(&listing)?, &["download", "-qq", package])
        });
        debs.and_then(|debs| debs.into_iter().next().context("apt named no file to download"))
            .map_err(|error| unknown(package, &error))
    }

    /// Fetches packages and all that they depend on.
    pub(super) fn download_closure(&mut self, packages: &[&str]) -> Result<Vec<Deb>> {
        self.with_fresh_lists(|apt| {
            let mut question = apt.get(&["install", "--print-uris", "-qq", "-o"]);
            question.arg(format!("Dir::Cache::archives={}", apt.never_filled().display()));
            let listing = command::answer(question.args(packages))?;
            let fetch = [&["install", "--download-only", "-qq"], packages].concat();
            apt.fetch(&parse_wanted(&listing)?, &fetch)
        })
        .map_err(|error| unknown(&packages.join(", "), &error))
    }

    /// Debian's release that the sources have, with all of them that belong to it and work.
    pub(super) fn release(&mut self) -> Result<Release> {
        self.with_fresh_lists(|apt| {
            let mut question = apt.get(&["indextargets", "--format", TARGET]);
            let targets = question.args([
                "Created-By: Packages",
                "Architecture: amd64",
                "Origin: Debian",
                "Component: main",
            ]);
            release_of(&command::answer(targets)?).context("apt's sources have no Debian")
        })
        .map_err(|error| unknown("Debian's release", &error))
    }

    /// The lines of the system's configuration that begin with one of `names` and say something.
    pub(super) fn settings(&mut self, names: &[&str]) -> Result<Vec<String>> {
        self.prepare()?;
        let text = command::answer(&mut self.tool("apt-config", &["dump"]))?;
        let said = |line: &&str| {
            names.iter().any(|name| line.starts_with(name)) && !line.ends_with("\"\";")
        };
        Ok(text.lines().filter(said).map(str::to_owned).collect())
    }

    /// Runs the download `arguments` unless all files are there, and gives the files.
    fn fetch(&self, wanted: &[Wanted], arguments: &[&str]) -> Result<Vec<Deb>> {
        let archives = self.archives();
        let debs: Vec<Deb> = wanted
            .iter()
            .map(|one| Deb { name: one.file.clone(), file: archives.join(&one.file) })
            .collect();
        let missing_bytes: u64 = wanted
            .iter()
            .zip(&debs)
            .filter(|(one, deb)| deb.file.metadata().map_or(0, |data| data.len()) != one.len_bytes)
            .map(|(one, _)| one.len_bytes)
            .sum();
        if missing_bytes > 0 {
            note(format_args!("fetching {} ({} KiB)", titles(&debs), missing_bytes / 1024));
            command::answer(self.get(arguments).current_dir(&archives))?;
        }
        for deb in &debs {
            anyhow::ensure!(deb.file.is_file(), "apt did not fetch {}", deb.name);
        }
        Ok(debs)
    }

    /// Tries with the lists as they are, and once more with new ones: a
    /// mirror drops packages that newer ones have replaced.
    fn with_fresh_lists<T>(&mut self, question: impl Fn(&Self) -> Result<T>) -> Result<T> {
        self.prepare()?;
        if !self.has_lists() {
            self.update()?;
        }
        match question(self) {
            Err(_) if !self.updated => {
                self.update()?;
                question(self)
            }
            outcome => outcome,
        }
    }

    fn prepare(&mut self) -> Result<()> {
        if self.ready {
            return Ok(());
        }
        for program in ["apt-get", "apt-cache", "dpkg-deb", "tar"] {
            if command::find(program).is_none() {
                return Err(Failure::new(
                    format!("this system has no {program}, which fetches Debian's packages"),
                    "run this on Debian, or put files with the names of CONTRIBUTING.md into target/guests by hand",
                )
                .into());
            }
        }
        for folder in ["lists/partial", "cache/archives/partial", "never-filled/partial"] {
            let folder = self.folder.join(folder);
            fs::create_dir_all(&folder)
                .with_context(|| format!("could not create {}", folder.display()))?;
        }
        fs::write(self.folder.join("status"), "").context("could not write apt's status file")?;
        fs::write(self.configuration_file(), self.configuration())
            .context("could not write apt's configuration")?;
        self.ready = true;
        Ok(())
    }

    fn configuration(&self) -> String {
        let folder = self.folder.display();
        format!(
            "Dir::State \"{folder}\";\n\
             Dir::State::lists \"{folder}/lists\";\n\
             Dir::State::status \"{folder}/status\";\n\
             Dir::Cache \"{folder}/cache\";\n\
             Dir::Cache::archives \"{folder}/cache/archives\";\n\
             APT::Architecture \"amd64\";\n\
             #clear APT::Architectures;\n\
             APT::Architectures {{ \"amd64\"; \"i386\"; }};\n\
             {QUIET}"
        )
    }

    fn configuration_file(&self) -> PathBuf {
        self.folder.join("apt.conf")
    }

    fn archives(&self) -> PathBuf {
        self.folder.join("cache").join("archives")
    }

    /// `install --print-uris` leaves out what is in the archives already; an
    /// empty folder in their place makes it name every package.
    fn never_filled(&self) -> PathBuf {
        self.folder.join("never-filled")
    }

    fn has_lists(&self) -> bool {
        fs::read_dir(self.folder.join("lists")).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
        })
    }

    fn get(&self, arguments: &[&str]) -> Command {
        self.tool("apt-get", arguments)
    }

    fn cache(&self, arguments: &[&str]) -> Command {
        self.tool("apt-cache", arguments)
    }

    /// `-c` is read after the system's files, so that `#clear` finds what to clear.
    fn tool(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
        command.arg("-c").arg(self.configuration_file()).args(arguments);
        command
    }
}

/// Unpacks packages over one another into one new folder.
pub(super) fn unpack_all(debs: &[Deb], folder: &Path) -> Result<()> {
    fresh_folder(folder)?;
    debs.iter().try_for_each(|deb| deb.unpack(folder))
}

fn unknown(package: &str, cause: &anyhow::Error) -> anyhow::Error {
    Failure::new(
        format!("apt could not give {package}: {cause:#}"),
        "the sources in /etc/apt must be Debian's (main), and the network must be there; `cargo xtask guests --refresh` fetches new lists",
    )
    .into()
}

fn titles(debs: &[Deb]) -> String {
    match debs {
        [one] => one.name.clone(),
        many => format!("{} packages", many.len()),
    }
}

/// Reads the answer of `apt-cache depends`: `  Depends: NAME` and `  PreDepends: NAME`.
fn first_dependency(text: &str, prefix: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.trim().split_once("Depends: "))
        .map(|(_, name)| name.trim())
        .find(|name| name.starts_with(prefix))
        .map(str::to_owned)
}

/// Reads lines of the form of `TARGET`. The first release that is one by itself, and what
/// completes it; backports and other releases are left out.
fn release_of(text: &str) -> Option<Release> {
    let targets: Vec<(&str, &str)> =
        text.lines().filter_map(|line| line.trim().split_once(' ')).collect();
    let (codename, _) = targets.iter().find(|(codename, _)| !codename.contains('-'))?;
    let parts =
        [(*codename).to_owned(), format!("{codename}-updates"), format!("{codename}-security")];
    let sources = targets
        .iter()
        .filter(|(codename, _)| parts.iter().any(|part| part == codename))
        .map(|(_, source)| (*source).to_owned())
        .collect();
    Some(Release { codename: (*codename).to_owned(), sources })
}

/// Reads lines of the form `'URI' FILE LENGTH HASH`; others are talk.
fn parse_wanted(text: &str) -> Result<Vec<Wanted>> {
    text.lines()
        .filter(|line| line.starts_with('\''))
        .map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let (Some(file), Some(length)) = (words.next(), words.next()) else {
                anyhow::bail!("apt's line was not understood: {line}");
            };
            let len_bytes =
                length.parse().with_context(|| format!("apt's line has no length: {line}"))?;
            Ok(Wanted { file: file.to_owned(), len_bytes })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_fetched_is_read_and_talk_is_skipped() {
        let text = "Reading package lists...\n\
            'http://mirror/pool/b_1%2b2_amd64.deb' b_1+2_amd64.deb 1234 SHA256:ab\n";

        let wanted = parse_wanted(text).unwrap();

        assert_eq!(wanted, [Wanted { file: "b_1+2_amd64.deb".into(), len_bytes: 1234 }]);
    }

    #[test]
    fn a_line_without_a_length_is_an_error() {
        assert!(parse_wanted("'http://mirror/b.deb' b.deb many SHA256:ab").is_err());
    }

    #[test]
    fn a_release_is_taken_with_its_updates_and_without_its_backports() {
        let text = "book-security http://m/s/ book-security main\n\
            book http://m/d/ book main\n\
            book-updates http://m/d/ book-updates main\n\
            book-backports http://m/d/ book-backports main\n\
            next http://m/d/ next main\n";

        let release = release_of(text).unwrap();

        assert_eq!(release.codename, "book");
        assert_eq!(
            release.sources,
            [
                "http://m/s/ book-security main",
                "http://m/d/ book main",
                "http://m/d/ book-updates main"
            ]
        );
    }

    #[test]
    fn no_source_is_no_release() {
        assert_eq!(release_of(""), None);
    }

    #[test]
    fn the_kernel_behind_a_metapackage_is_found() {
        let text =
            "linux-image-686:i386\n  PreDepends: dpkg\n  Depends: linux-image-6.1.0-50-686:i386\n";

        let found = first_dependency(text, "linux-image-");

        assert_eq!(found.as_deref(), Some("linux-image-6.1.0-50-686:i386"));
    }
}
