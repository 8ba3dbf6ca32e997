//! Signals that ask the program to end.

use std::io;

/// A signal that asked the program to end, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminationSignal(pub i32);

/// Calls `act` on a thread of its own for the first SIGTERM, SIGINT, SIGHUP or SIGQUIT. A second one ends
/// the process at once, in case the orderly way hangs. Hosts without signals never call it.
///
/// # Errors
/// When the host refuses the handlers.
#[cfg(unix)]
pub fn termination(act: impl FnOnce(TerminationSignal) + Send + 'static) -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    use signal_hook::iterator::Signals;

    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGQUIT])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut arrived = signals.forever();
        if let Some(signal) = arrived.next() {
            act(TerminationSignal(signal));
        }
        if let Some(signal) = arrived.next() {
            let _raw = crossterm::terminal::disable_raw_mode();
            die_of(TerminationSignal(signal));
        }
    })?;
    Ok(())
}

/// As on Unix, but there are no signals here.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn termination(_act: impl FnOnce(TerminationSignal) + Send + 'static) -> io::Result<()> {
    Ok(())
}

/// From now on a write beyond the limit of a file's size (`ulimit -f`) is an error of that write;
/// the system would end the process.
///
/// # Errors
/// When the host refuses the handler.
pub fn survive_file_size_limit() -> io::Result<()> {
    #[cfg(unix)]
    {
        use signal_hook::consts::SIGXFSZ;
        let nobody_looks = std::sync::Arc::default();
        signal_hook::flag::register(SIGXFSZ, nobody_looks)?;
    }
    Ok(())
}

/// Ends the process as the signal would have, so that whoever started it sees what happened.
pub fn die_of(signal: TerminationSignal) -> ! {
    #[cfg(unix)]
    {
        let _failed = signal_hook::low_level::emulate_default_handler(signal.0);
    }
    std::process::exit(signal.0.saturating_add(128));
}
