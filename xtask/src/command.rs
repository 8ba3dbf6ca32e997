//! Running other programs: shown to the person when they matter, quiet when
//! only their answer does, and never ignored when they fail.

use crate::report::Failure;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Where a program is found, looking through `PATH` and where Debian has programs that only root's
/// `PATH` has.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    let paths = std::env::var_os("PATH")?;
    let for_root = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    let folders = std::env::split_paths(&paths).chain(for_root);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The command line as a person would type it.
pub(crate) fn spelled(command: &Command) -> String {
    // By its name, as a person would say it: reports are no place for this machine's folders.
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    let mut words = vec![name.to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Runs a command with its output going to the terminal.
///
/// # Errors
/// When it can't be started or ends with anything but success.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = spelled(command);
    let status = command.status().with_context(|| format!("could not start `{line}`"))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(
        format!("`{line}` ended with {status}"),
        "read its messages above; the same command can be run by hand",
    )
    .into())
}

/// Runs a command and gives what it printed; on failure the error carries
/// what it said on standard error.
///
/// # Errors
/// When it can't be started, ends with anything but success, or prints what
/// isn't UTF-8.
pub(crate) fn answer(command: &mut Command) -> Result<String> {
    let output = finished(command)?;
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed what is not UTF-8", spelled(command)))
}

fn finished(command: &mut Command) -> Result<Output> {
    let line = spelled(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("could not start `{line}`"))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::bail!("`{line}` ended with {}:\n{}", output.status, said.trim_end())
}

/// Runs `left | right` in `folder`, as a shell would, and fails if either fails.
///
/// # Errors
/// When one of the two can't be started or ends with anything but success.
pub(crate) fn pipe(left: &mut Command, right: &mut Command, folder: &Path) -> Result<()> {
    let (left_line, right_line) = (spelled(left), spelled(right));
    let mut source = left
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start `{left_line}`"))?;
    let stream = source.stdout.take().context("the pipe's writing end has no output")?;
    let sink = right
        .current_dir(folder)
        .stdin(stream)
        .status()
        .with_context(|| format!("could not start `{right_line}`"))?;
    let source = source.wait().with_context(|| format!("could not wait for `{left_line}`"))?;
    anyhow::ensure!(sink.success(), "`{right_line}` ended with {sink}");
    anyhow::ensure!(source.success(), "`{left_line}` ended with {source}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_an_error_that_names_it() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo broken >&2; exit 3"]);

        let error = answer(&mut command).unwrap_err().to_string();

        assert!(error.contains("exit 3") && error.contains("broken"), "{error}");
    }

    #[test]
    fn a_pipe_fails_when_its_left_side_fails() {
        let mut left = Command::new("sh");
        left.args(["-c", "exit 1"]);
        let mut right = Command::new("cat");

        let outcome = pipe(&mut left, &mut right, Path::new("."));

        assert!(outcome.is_err());
    }
}
