//! The workspace as Cargo sees it: where it is, which packages it has and
//! which layer each of them lives in.

use crate::command;
use crate::report::Failure;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The packages of this workspace (those of registries are left out).
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    #[serde(rename = "workspace_root")]
    pub(crate) root: PathBuf,
    #[serde(rename = "target_directory")]
    pub(crate) target: PathBuf,
    pub(crate) packages: Vec<Package>,
}

/// One package of the workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// What a package asks for, of any kind (normal, build or dev).
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// The folder it comes from, when it is a path dependency.
    pub(crate) path: Option<PathBuf>,
}

impl Package {
    /// The folder that holds the package's manifest.
    pub(crate) fn folder(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(&self.manifest_path)
    }
}

impl Workspace {
    /// Asks Cargo. Needs no network and no lock file: registries aren't resolved.
    ///
    /// # Errors
    /// When a manifest is broken or Cargo can't be run.
    pub(crate) fn load() -> Result<Self> {
        let mut question = cargo();
        question.args(["metadata", "--format-version", "1", "--no-deps"]);
        Self::from_json(&command::answer(&mut question)?)
    }

    /// Reads the answer of `cargo metadata --no-deps`.
    pub(crate) fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).context("the answer of `cargo metadata` was not understood")
    }

    /// The top folder of a package: its layer.
    pub(crate) fn layer_of(&self, package: &Package) -> Option<String> {
        let inside = package.folder().strip_prefix(&self.root).ok()?;
        Some(inside.components().next()?.as_os_str().to_string_lossy().into_owned())
    }

    /// The names of all packages in one layer.
    pub(crate) fn in_layer(&self, layer: &str) -> Vec<&str> {
        self.packages
            .iter()
            .filter(|package| self.layer_of(package).as_deref() == Some(layer))
            .map(|package| package.name.as_str())
            .collect()
    }

    /// Whether a package of that name exists.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.packages.iter().any(|package| package.name == name)
    }

    /// # Errors
    /// When the package isn't there yet.
    pub(crate) fn require(&self, name: &str) -> Result<()> {
        if self.has(name) {
            return Ok(());
        }
        let known: Vec<&str> = self.packages.iter().map(|package| package.name.as_str()).collect();
        Err(Failure::new(
            format!("this workspace has no package `{name}`"),
            format!("it has: {}", known.join(", ")),
        )
        .into())
    }

    /// Where guests are kept: `KASANE_GUESTS`, or `target/guests` beside the
    /// workspace's manifest whatever Cargo's target folder is, so that
    /// everything that builds this checkout shares one download.
    pub(crate) fn guests(&self) -> PathBuf {
        match std::env::var_os("KASANE_GUESTS") {
            Some(folder) => std::path::absolute(&folder).unwrap_or_else(|_| folder.into()),
            None => self.root.join("target").join("guests"),
        }
    }

    /// Where a release build leaves a program.
    pub(crate) fn release_program(&self, name: &str) -> PathBuf {
        self.target.join("release").join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
    }
}

/// The Cargo that runs this chore.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
