//! Debian's packages by the host's own apt, with lists and downloads in a folder of ours: so no
//! root is needed and nothing of the host changes. Sources, keys and proxies are the host's, and
//! signatures are checked as always.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// How often a download's progress is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A package that could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no package client.
    #[error("this host has no `{program}`")]
    NoClient {
        /// The program that is missing.
        program: &'static str,
    },
    /// The client failed.
    #[error("`{program}` failed: {said}")]
    Client {
        /// Which program.
        program: &'static str,
        /// The end of what it said.
        said: String,
    },
    /// The client's answer was not understood.
    #[error("`{program}` names no {what}")]
    Answer {
        /// Which program.
        program: &'static str,
        /// What was looked for.
        what: String,
    },
    /// A package doesn't hold the file that it is fetched for.
    #[error("the package `{package}` has no file `{file}`")]
    NoSuchFile {
        /// The package.
        package: String,
        /// The file, as a pattern.
        file: String,
    },
    /// A file of ours.
    #[error("can't write to `{}`", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What a fetch is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// The package lists are being fetched.
    Lists,
    /// A package is being downloaded.
    Download {
        /// Its name.
        package: &'a str,
        /// Bytes that are here.
        done_bytes: u64,
        /// Bytes in all.
        total_bytes: u64,
    },
    /// A package is here and unpacked.
    Done {
        /// Its name.
        package: &'a str,
    },
}

/// A package, by its own name or as what another one depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Package<'a> {
    /// The package of this name.
    Named(&'a str),
    /// The first dependency of a metapackage whose name has this prefix.
    Behind {
        /// The metapackage.
        metapackage: &'a str,
        /// How the dependency's name begins.
        prefix: &'a str,
    },
}

/// Apt with a state of its own.
#[derive(Debug)]
pub struct Debian {
    folder: PathBuf,
}

impl Debian {
    /// Uses `folder` (made if need be) for lists and downloads.
    ///
    /// # Errors
    /// When a program is missing, or the folder can't be written.
    pub fn new(folder: &Path) -> Result<Self, FetchError> {
        for program in ["apt-get", "apt-cache", "dpkg-deb"] {
            if !is_installed(program) {
                return Err(FetchError::NoClient { program });
            }
        }
        let debian = Self { folder: folder.to_owned() };
        for part in ["lists/partial", "cache/archives/partial", "unpacked"] {
            write(&debian.folder.join(part), |path| fs::create_dir_all(path))?;
        }
        write(&debian.folder.join("status"), |path| fs::write(path, ""))?;
        let configuration = debian.configuration();
        write(&debian.configuration_file(), |path| fs::write(path, configuration))?;
        Ok(debian)
    }

    /// Fetches a package and gives one file of it, by folder and beginning of its name.
    ///
    /// # Errors
    /// What apt says, or that the package has no such file.
    pub fn file_of(
        &self,
        package: Package<'_>,
        folder: &str,
        prefix: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Vec<u8>, FetchError> {
        if !self.has_lists() {
            self.update(progress)?;
        }
        // A mirror drops packages that newer ones have replaced: then new lists know the new.
        let fetched = match self.fetch(package, progress) {
            Err(_) => {
                self.update(progress)?;
                self.fetch(package, progress)
            }
            fetched => fetched,
        };
        let (name, deb) = fetched?;
        let contents = self.unpack_file(&name, &deb, folder, prefix)?;
        progress(Progress::Done { package: &name });
        Ok(contents)
    }

    fn update(&self, progress: &mut dyn FnMut(Progress<'_>)) -> Result<(), FetchError> {
        progress(Progress::Lists);
        let updated = answer("apt-get", self.tool("apt-get").args(["update", "-qq"]));
        // One broken list among many is no reason to give up.
        if self.has_lists() { Ok(()) } else { updated.map(drop) }
    }

    fn fetch(
        &self,
        package: Package<'_>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(String, PathBuf), FetchError> {
        let name = match package {
            Package::Named(name) => name.to_owned(),
            Package::Behind { metapackage, prefix } => {
                let mut question = self.tool("apt-cache");
                let text =
                    answer("apt-cache", question.args(["depends", "--important", metapackage]))?;
                first_dependency(&text, prefix).ok_or_else(|| FetchError::Answer {
                    program: "apt-cache",
                    what: format!("dependency of `{metapackage}` that begins with `{prefix}`"),
                })?
            }
        };
        let text =
            answer("apt-get", self.tool("apt-get").args(["download", "--print-uris", &name]))?;
        let (file, total_bytes) = wanted(&text).ok_or_else(|| FetchError::Answer {
            program: "apt-get",
            what: format!("file for `{name}`"),
        })?;
        let deb = self.archives().join(file);
        if size_of_file(&deb) != total_bytes {
            self.download(&name, &deb, total_bytes, progress)?;
        }
        Ok((name, deb))
    }

    fn download(
        &self,
        package: &str,
        deb: &Path,
        total_bytes: u64,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), FetchError> {
        let program = "apt-get";
        let mut command = self.tool(program);
        command.args(["download", "-qq", package]).current_dir(self.archives());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let said =
            |error: &dyn std::fmt::Display| FetchError::Client { program, said: error.to_string() };
        let mut child = command.spawn().map_err(|error| said(&error))?;
        while child.try_wait().map_err(|error| said(&error))?.is_none() {
            let partial = deb.file_name().map(|name| self.archives().join("partial").join(name));
            let done_bytes = partial.map_or(0, |file| size_of_file(&file)).max(size_of_file(deb));
            progress(Progress::Download { package, done_bytes, total_bytes });
            std::thread::sleep(LOOK);
        }
        let output = child.wait_with_output().map_err(|error| said(&error))?;
        checked(program, &output)?;
        progress(Progress::Download { package, done_bytes: total_bytes, total_bytes });
        Ok(())
    }

    fn unpack_file(
        &self,
        package: &str,
        deb: &Path,
        folder: &str,
        prefix: &str,
    ) -> Result<Vec<u8>, FetchError> {
        let unpacked = self.folder.join("unpacked").join(package);
        if unpacked.exists() {
            write(&unpacked, |path| fs::remove_dir_all(path))?;
        }
        write(&unpacked, |path| fs::create_dir_all(path))?;
        answer("dpkg-deb", Command::new("dpkg-deb").arg("-x").arg(deb).arg(&unpacked))?;
        let found = file_named(&unpacked.join(folder), prefix).and_then(|file| fs::read(file).ok());
        write(&unpacked, |path| fs::remove_dir_all(path))?;
        found.ok_or_else(|| FetchError::NoSuchFile {
            package: package.to_owned(),
            file: format!("/{folder}/{prefix}*"),
        })
    }

    fn archives(&self) -> PathBuf {
        self.folder.join("cache").join("archives")
    }

    fn configuration_file(&self) -> PathBuf {
        self.folder.join("apt.conf")
    }

    /// Hooks of the host's configuration are cleared: some clean the host's own cache.
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
             APT::Architectures {{ \"amd64\"; }};\n\
             APT::Sandbox::User \"\";\n\
             #clear APT::Update::Pre-Invoke;\n\
             #clear APT::Update::Post-Invoke;\n\
             #clear APT::Update::Post-Invoke-Success;\n\
             Acquire::Languages \"none\";\n\
             Acquire::Retries \"3\";\n"
        )
    }

    fn has_lists(&self) -> bool {
        fs::read_dir(self.folder.join("lists")).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
        })
    }

    fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        command.arg("-c").arg(self.configuration_file());
        command
    }
}

fn write(path: &Path, act: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), FetchError> {
    act(path).map_err(|source| FetchError::File { path: path.to_owned(), source })
}

fn is_installed(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    })
}

fn size_of_file(file: &Path) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}

/// Runs a program and gives its standard output.
fn answer(program: &'static str, command: &mut Command) -> Result<String, FetchError> {
    let output = command
        .output()
        .map_err(|error| FetchError::Client { program, said: error.to_string() })?;
    checked(program, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn checked(program: &'static str, output: &Output) -> Result<(), FetchError> {
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let said = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    Err(FetchError::Client { program, said: said.to_owned() })
}

/// The file in `folder` whose name begins with `prefix`.
fn file_named(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    entries
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
}

/// Reads the answer of `apt-cache depends`: lines of the form `  Depends: NAME`.
fn first_dependency(text: &str, prefix: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .map(str::trim)
        .find(|name| name.starts_with(prefix))
        .map(str::to_owned)
}

/// Reads the answer of `apt-get download --print-uris`: `'URI' FILE LENGTH HASH`; others are talk.
fn wanted(text: &str) -> Option<(String, u64)> {
    let line = text.lines().find(|line| line.starts_with('\''))?;
    let mut words = line.split_whitespace().skip(1);
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_behind_a_metapackage_is_found() {
        let text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-50-cloud-amd64\n";

        assert_eq!(
            first_dependency(text, "linux-image-").as_deref(),
            Some("linux-image-6.1.0-50-cloud-amd64")
        );
        assert_eq!(first_dependency(text, "busybox"), None);
    }

    #[test]
    fn a_download_has_a_file_and_a_length() {
        let text = "Reading package lists...\n'http://mirror/b.deb' b_1_amd64.deb 1234 SHA256:ab\n";

        assert_eq!(wanted(text), Some(("b_1_amd64.deb".to_owned(), 1234)));
        assert_eq!(wanted("'http://mirror/b.deb' b.deb many"), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_failed_client_is_quoted_by_its_last_line() {
        let failed =
            answer("sh", Command::new("sh").args(["-c", "echo one >&2; echo two >&2; exit 3"]));

        assert_eq!(failed.unwrap_err().to_string(), "`sh` failed: two");
    }

    #[test]
    fn a_file_is_found_by_the_beginning_of_its_name() {
        let folder = std::env::temp_dir().join(format!("kasane-images-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("vmlinuz-6.1"), "").unwrap();
        let found = file_named(&folder, "vmlinuz-");
        let missing = file_named(&folder, "config-");
        fs::remove_dir_all(&folder).unwrap();

        assert_eq!(found, Some(folder.join("vmlinuz-6.1")));
        assert_eq!(missing, None);
    }
}
