//! Signals that end the demonstration, and the loss of its terminal, which counts as SIGHUP.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use kasane_host_control::{TerminationSignal, die_of, termination, when_terminal_goes};

use crate::outcome::Failure;

/// What the host sends to those whose controlling terminal has gone.
const SIGHUP: TerminationSignal = TerminationSignal(1);
/// How long the orderly end may take when the terminal has gone: whoever reads keys at that very
/// moment may never come back.
const PATIENCE: Duration = Duration::from_secs(3);

/// Knows whether a signal asked the program to end.
pub(super) struct Signalled(Arc<OnceLock<TerminationSignal>>);

impl Signalled {
    /// From now on signals don't end the program by themselves.
    pub(super) fn listen() -> Result<Self, Failure> {
        let arrived = Arc::new(OnceLock::new());
        let told = Arc::clone(&arrived);
        termination(move |signal| {
            let _first = told.set(signal);
        })
        .context("can't listen for signals")
        .map_err(|error| Failure::host(error, "report this: it is a bug"))?;
        Ok(Self(arrived))
    }

    /// From now on the loss of the terminal ends the program, as the signal that only comes of the
    /// loss of a controlling terminal does.
    pub(super) fn watch_terminal(&self) -> Result<(), Failure> {
        let told = Arc::clone(&self.0);
        when_terminal_goes(move || {
            let first = *told.get_or_init(|| SIGHUP);
            std::thread::sleep(PATIENCE);
            die_of(first);
        })
        .context("no thread to look after the terminal")
        .map_err(|error| Failure::host(error, "end other programs and try again"))
    }

    /// The terminal has gone.
    pub(super) fn hang_up(&self) {
        self.0.get_or_init(|| SIGHUP);
    }

    /// The signal, if one came.
    pub(super) fn by(&self) -> Option<TerminationSignal> {
        self.0.get().copied()
    }
}
