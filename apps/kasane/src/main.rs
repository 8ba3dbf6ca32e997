//! `kasane`: runs virtual machines as processes on a host.

use std::process::ExitCode;

fn main() -> ExitCode {
    kasane::program()
}
