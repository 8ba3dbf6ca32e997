//! Signals that end the demonstration.

use std::sync::{Arc, OnceLock};

use anyhow::Context;
use kasane_host_control::{TerminationSignal, termination};

use crate::outcome::Failure;

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

    /// The signal, if one came.
    pub(super) fn by(&self) -> Option<TerminationSignal> {
        self.0.get().copied()
    }
}
