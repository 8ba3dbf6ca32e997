//! `kasane disk`: what can be said.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use kasane_definition::DiskSize;
use kasane_host_disks::DiskFormat;

use super::values;

pub(super) const EXAMPLES: &str = "\
Examples:
  kasane disk create debian.qcow2 8G
      An empty disk of 8 GiB, which grows as it is written to.
  kasane disk create --backing debian.qcow2 test.qcow2
      A disk that begins as debian.qcow2 is, and leaves that as it is.
  kasane disk convert debian.qcow2 debian.img
      The same disk as plain bytes.
  kasane disk check debian.qcow2
      Whether the image is sound.";

/// Images are raw (the disk's bytes as they are) or qcow2. A name that ends in .qcow2 stands for
/// qcow2, and every other for raw, unless a format is said.
#[derive(Debug, Args)]
pub(crate) struct DiskArguments {
    #[command(subcommand)]
    pub(crate) command: DiskCommand,
}

impl DiskArguments {
    /// Whether the answer and errors are to be JSON.
    pub(crate) fn json(&self) -> bool {
        match &self.command {
            DiskCommand::Info { json, .. } | DiskCommand::Check { json, .. } => *json,
            DiskCommand::Create { .. }
            | DiskCommand::Convert { .. }
            | DiskCommand::Resize { .. } => false,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum DiskCommand {
    /// Make a new image
    Create {
        /// The new image
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The disk's size, as 512M or 8G; without it that of the backing file
        #[arg(required_unless_present = "backing")]
        size: Option<DiskSize>,
        /// The image's format
        #[arg(long, value_parser = values::disk_format())]
        format: Option<DiskFormat>,
        /// An image to begin with: only what is written is stored in the new one (qcow2)
        #[arg(long, value_name = "FILE")]
        backing: Option<PathBuf>,
        /// The backing file's format
        #[arg(long, value_name = "FORMAT", requires = "backing", value_parser = values::disk_format())]
        backing_format: Option<DiskFormat>,
    },
    /// Say what an image is
    Info {
        /// The image
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The image's format
        #[arg(long, value_parser = values::disk_format())]
        format: Option<DiskFormat>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Copy an image, with all that lies below it, into a new one of another format
    Convert {
        /// The image
        #[arg(value_name = "FROM")]
        source: PathBuf,
        /// The new image
        #[arg(value_name = "TO")]
        target: PathBuf,
        /// The image's format
        #[arg(long, value_name = "FORMAT", value_parser = values::disk_format())]
        from: Option<DiskFormat>,
        /// The new image's format
        #[arg(long, value_name = "FORMAT", value_parser = values::disk_format())]
        to: Option<DiskFormat>,
    },
    /// Give an image another size
    Resize {
        /// The image
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The disk's new size, as 512M or 8G
        size: DiskSize,
        /// The image's format
        #[arg(long, value_parser = values::disk_format())]
        format: Option<DiskFormat>,
        /// It may become smaller, and what is behind its new end is lost
        #[arg(long)]
        shrink: bool,
    },
    /// Say whether an image is sound, without changing anything
    Check {
        /// The image
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The image's format
        #[arg(long, value_parser = values::disk_format())]
        format: Option<DiskFormat>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}
