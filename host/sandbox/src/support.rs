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
    const CREATE_RULESET_VERSION: libc::c_long = 1;
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag and no rules, the kernel only tells its version of Landlock.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, CREATE_RULESET_VERSION)
    };
    if version > 0 {
        return Ok(format!("works (Landlock, version {version})"));
    }
    Err(match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::EOPNOTSUPP) => "Landlock is not enabled in this kernel".to_owned(),
        _ => "this kernel has no Landlock".to_owned(),
    })
}

#[cfg(not(target_os = "linux"))]
fn files() -> Result<String, String> {
    Err("files are not confined on this system".to_owned())
}
