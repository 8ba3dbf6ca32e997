//! `kasane disk`.

mod words;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use kasane_host_control::{TerminationSignal, die_of, termination};
use kasane_host_disks::tools::{self, Backing, Conversion, Go, NewImage, Shrinking};
use kasane_host_disks::{DiskError, DiskFormat};

use super::print;
use crate::cli::DiskCommand;
use crate::outcome::{ExitStatus, Failure};
use crate::report::Form;

/// Does one of the subcommands.
pub(super) fn disk(command: &DiskCommand) -> Result<ExitStatus, Failure> {
    match command {
        DiskCommand::Create { file, size, format, backing, backing_format } => {
            let backing = backing.as_ref();
            let backing =
                backing.map(|path| Backing { path: path.clone(), format: *backing_format });
            let format = format.unwrap_or_else(|| new_format(file, backing.as_ref()));
            let size = size.map(|size| size.bytes());
            done(tools::create(&NewImage { path: file.clone(), format, size, backing }))
        }
        DiskCommand::Info { file, format, json } => {
            let info = tools::info(file, *format).map_err(failure)?;
            match Form::from_json(*json) {
                Form::Text => print(&words::info(file, &info)),
                Form::Json => print(&format!("{}\n", words::info_json(file, &info))),
            }
        }
        DiskCommand::Convert { source, target, from, to } => convert(&Conversion {
            from: source.clone(),
            from_format: *from,
            to: target.clone(),
            to_format: to.unwrap_or_else(|| DiskFormat::named_by(target)),
        }),
        DiskCommand::Resize { file, size, format, shrink } => {
            let shrinking = if *shrink { Shrinking::Allowed } else { Shrinking::Refused };
            done(tools::resize(file, *format, size.bytes(), shrinking))
        }
        DiskCommand::Check { file, format, json } => {
            let report = tools::check(file, *format).map_err(failure)?;
            match Form::from_json(*json) {
                Form::Text => print(&words::check(file, &report))?,
                Form::Json => print(&format!("{}\n", words::check_json(file, &report)))?,
            };
            if report.is_sound() {
                return Ok(ExitStatus::Done);
            }
            let why = report.messages.into_iter().next().unwrap_or_default();
            Err(failure(DiskError::Damaged { path: file.clone(), why }))
        }
    }
}

/// Only qcow2 has backing files.
fn new_format(file: &Path, backing: Option<&Backing>) -> DiskFormat {
    match backing {
        Some(_) => DiskFormat::Qcow2,
        None => DiskFormat::named_by(file),
    }
}

fn done(result: Result<(), DiskError>) -> Result<ExitStatus, Failure> {
    result.map(|()| ExitStatus::Done).map_err(failure)
}

fn failure(error: DiskError) -> Failure {
    let help = error.remedy();
    if error.is_of_the_host() { Failure::host(error, help) } else { Failure::usage(error, help) }
}

/// Long, so it shows how far it is, and can be interrupted.
fn convert(conversion: &Conversion) -> Result<ExitStatus, Failure> {
    let signal = Arc::new(AtomicI32::new(0));
    let heard = Arc::clone(&signal);
    termination(move |TerminationSignal(number)| heard.store(number, Ordering::Release))
        .map_err(|error| Failure::host(error, "report this: it is a bug"))?;
    let bar = bar(&conversion.to);
    let result = tools::convert(conversion, &mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
        if signal.load(Ordering::Acquire) == 0 { Go::On } else { Go::Stop }
    });
    bar.finish_and_clear();
    let number = signal.load(Ordering::Acquire);
    match result {
        Err(DiskError::Stopped) if number != 0 => die_of(TerminationSignal(number)),
        result => done(result),
    }
}

/// Drawn on standard error, if that is a terminal.
fn bar(target: &Path) -> ProgressBar {
    let bar = ProgressBar::new(0);
    let name = PathBuf::from(target.file_name().unwrap_or_default());
    bar.set_message(name.display().to_string());
    let form = "{msg} [{wide_bar}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(form) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}
