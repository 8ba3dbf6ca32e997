//! The hosted program as a person uses it: a process with arguments, a console and an exit code.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The names of our own guests: the folders of `guests/` with a program in them.
///
/// # Errors
/// If the folder can't be read.
pub fn own_guests() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(workspace().join("guests"))? {
        let entry = entry?;
        if entry.path().join("main.S").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The folder with the guests' images.
#[derive(Clone, Debug)]
pub struct Guests {
    folder: PathBuf,
}

impl Guests {
    /// `KASANE_GUESTS`, or `target/guests` of the workspace.
    #[must_use]
    pub fn find() -> Self {
        let folder = env::var_os("KASANE_GUESTS")
            .map_or_else(|| workspace().join("target/guests"), PathBuf::from);
        Self { folder }
    }
    /// An image by its path in the folder.
    ///
    /// # Errors
    /// A sentence with the command that makes the images, if it is not there.
    pub fn image(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
        Err(format!("{} is not there: run `cargo xtask guests`", path.display()))
    }
}

/// A finished run of the program.
#[derive(Clone, Debug)]
pub struct Run {
    /// Exit code; -1 if a signal ended it.
    pub code: i32,
    /// Standard output: the guest's serial console.
    pub console: String,
    /// Standard error: what the program says of itself.
    pub messages: String,
}

/// The program.
#[derive(Clone, Debug)]
pub struct Kasane {
    path: PathBuf,
}

impl Kasane {
    /// `KASANE_BIN`, or the release build of the workspace.
    ///
    /// # Errors
    /// A sentence with the command that builds it, if it is not there.
    pub fn find() -> Result<Self, String> {
        let path = env::var_os("KASANE_BIN")
            .map_or_else(|| workspace().join("target/release/kasane"), PathBuf::from);
        if path.is_file() {
            return Ok(Self { path });
        }
        Err(format!("{} is not there: run `cargo build --release -p kasane`", path.display()))
    }
    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Starts it with these arguments, no input, and its standard output in a pipe.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> io::Result<Child> {
        let mut command = Command::new(&self.path);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()
    }
    /// Starts it with these arguments, and its standard input and output in pipes.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start_to_talk<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> io::Result<Child> {
        let mut command = Command::new(&self.path);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
    }
    /// Runs it with these arguments and no input.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> io::Result<Run> {
        let output = Command::new(&self.path).args(arguments).stdin(Stdio::null()).output()?;
        Ok(Run {
            code: output.status.code().unwrap_or(-1),
            console: String::from_utf8_lossy(&output.stdout).into_owned(),
            messages: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

/// The kernel parameter with which the shell initramfs runs `script` and powers off.
#[must_use]
pub fn run_parameter(script: &str) -> String {
    format!("kasane.run={}", STANDARD.encode(script))
}
