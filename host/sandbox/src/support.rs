//! What this host's kernel can do for the sandbox.

/// What works here, or why it doesn't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Support {
    /// The system-call filter of vCPU threads.
    pub filter: Result<String, String>,
    /// The rules for files.
    pub files: Result<String, String>,
}

/// Asks the kernel.
#[must_use]
pub fn support() -> Support {
    Support { filter: filter(), files: files() }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn filter() -> Result<String, String> {
    crate::VcpuFilter::new().map_err(|error| error.to_string())?;
    Ok("works (seccomp)".to_owned())
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn filter() -> Result<String, String> {
    Err("vCPU threads have no system-call filter on this system".to_owned())
}

#[cfg(target_os = "linux")]
fn files() -> Result<String, String> {
    use landlock::LandlockStatus;
    match LandlockStatus::current() {
        LandlockStatus::Available { effective_abi, .. } => {
            Ok(format!("works (Landlock, version {})", effective_abi as i32))
        }
        LandlockStatus::NotEnabled => Err("Landlock is not enabled in this kernel".to_owned()),
        LandlockStatus::NotImplemented => Err("this kernel has no Landlock".to_owned()),
    }
}

#[cfg(not(target_os = "linux"))]
fn files() -> Result<String, String> {
    Err("files are not confined on this system".to_owned())
}
