//! What goes wrong on the way into the sandbox.

/// The sandbox can't be entered.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The filter of the vCPU threads.
    #[error("the system-call filter for vCPU threads can't be {what}: {reason}")]
    Filter {
        /// What was to be done with it.
        what: &'static str,
        /// The host's reason.
        reason: String,
    },
    /// The rules for files.
    #[error("the rules for files (Landlock) can't be set: {0}")]
    Files(String),
    /// The report of a refused call.
    #[error("no thread waits for refused system calls")]
    Watch(#[source] std::io::Error),
}
