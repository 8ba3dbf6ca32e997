//! Who does what would make the thread wait that submitted it.

#[cfg(target_os = "linux")]
mod ring;
mod workers;

#[cfg(target_os = "linux")]
pub(crate) use ring::Ring;
pub(crate) use workers::{Workers, guarded};

use crate::job::Job;

/// Takes jobs and ends each of them, some time and on some thread, by the sink that it knows.
pub(crate) trait Engine: Send + Sync {
    /// Begins with these jobs.
    fn start(&self, jobs: Vec<Job>);
    /// Ends the jobs that are done by now and whose end nobody has noticed yet, without waiting.
    fn poll(&self) {}
}
