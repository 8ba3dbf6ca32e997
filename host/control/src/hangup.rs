//! The loss of the terminal of standard input.
//!
//! A program whose *controlling* terminal goes away gets SIGHUP. Of any other terminal it only
//! learns by asking: `poll` says POLLHUP, and reading ends or fails from then on. Libraries that
//! read keys may try again for ever, so they must not be asked for keys then.

use std::io;
use std::time::Duration;

/// What there is on the terminal of standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typing {
    /// Something to read.
    Some,
    /// Nothing so far.
    Nothing,
    /// The terminal has gone: there will be no more.
    Gone,
}

/// Waits for something to read on standard input, for `wait` at most or until a signal.
///
/// # Errors
/// The host's, if it can't be asked.
#[cfg(unix)]
pub fn await_typing(wait: Duration) -> io::Result<Typing> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    let stdin = io::stdin();
    let mut asked = [PollFd::new(&stdin, PollFlags::IN)];
    let wait = Timespec::try_from(wait).map_err(|_| io::ErrorKind::InvalidInput)?;
    match poll(&mut asked, Some(&wait)) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(Typing::Nothing),
        Err(error) => return Err(error.into()),
    }
    let [answer] = &asked;
    let answer = answer.revents();
    Ok(if answer.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
        Typing::Gone
    } else if answer.contains(PollFlags::IN) {
        Typing::Some
    } else {
        Typing::Nothing
    })
}

/// Calls `act` on a thread of its own when the terminal of standard input has gone; never where
/// the host can't tell.
///
/// # Errors
/// When the host gives no thread.
#[cfg(unix)]
pub fn when_terminal_goes(act: impl FnOnce() + Send + 'static) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};

    std::thread::Builder::new().name("terminal".to_owned()).spawn(move || {
        let stdin = io::stdin();
        loop {
            // Nothing is asked for: HUP and ERR are told anyway.
            let mut asked = [PollFd::new(&stdin, PollFlags::empty())];
            match poll(&mut asked, None) {
                Ok(_) => return act(),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    })?;
    Ok(())
}

/// On this host nothing is known of a terminal's loss: whoever reads keys waits for them.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn await_typing(wait: Duration) -> io::Result<Typing> {
    let there = crossterm::event::poll(wait)?;
    Ok(if there { Typing::Some } else { Typing::Nothing })
}

/// Never calls it on this host.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn when_terminal_goes(_act: impl FnOnce() + Send + 'static) -> io::Result<()> {
    Ok(())
}
