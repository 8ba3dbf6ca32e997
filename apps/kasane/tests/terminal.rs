//! A person's terminal: raw while the guest runs, and as it was afterwards, however the run ends.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers of the tests assert by it

mod guest;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus};

use guest::{HANG, HELLO, Scratch};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

/// A terminal with a machine in it that has said hello.
struct Session {
    /// What the person has: keyboard and screen.
    person: File,
    /// What the program has.
    terminal: File,
    program: Child,
    _scratch: Scratch,
}

fn open_terminal() -> (File, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let terminal = OpenOptions::new().read(true).write(true).open(name).unwrap();
    (File::from(master), terminal)
}

impl Session {
    fn start(flags: &[&str]) -> Self {
        let scratch = Scratch::new();
        let kernel = scratch.kernel(&[HELLO, HANG].concat());
        let (person, terminal) = open_terminal();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kasane"));
        command.arg("run").arg("--kernel").arg(kernel).args(["--memory", "16M"]).args(flags);
        command.stdin(terminal.try_clone().unwrap()).stdout(terminal.try_clone().unwrap());
        let program = command.stderr(terminal.try_clone().unwrap()).spawn().unwrap();
        let mut session = Self { person, terminal, program, _scratch: scratch };
        session.read_until("hello");
        session
    }

    /// What the screen shows, until `text` stands there.
    fn read_until(&mut self, text: &str) -> String {
        let mut shown = Vec::new();
        let mut buffer = [0; 256];
        while !String::from_utf8_lossy(&shown).contains(text) {
            let len = self.person.read(&mut buffer).unwrap();
            shown.extend(buffer.iter().take(len));
        }
        String::from_utf8(shown).unwrap()
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.program), signal).unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        self.program.wait().unwrap()
    }
}

#[test]
fn ctrl_bracket_leaves_and_ctrl_c_does_not() {
    let mut session = Session::start(&[]);
    let raw = session.is_raw();
    session.person.write_all(b"\x03").unwrap();
    session.person.write_all(b"\x1D").unwrap();
    let shown = session.read_until("kasane: left");
    let status = session.end();

    assert!(raw);
    assert!(shown.starts_with("\r\nkasane: left"), "{shown:?}");
    assert_eq!(status.code(), Some(0));
    assert!(!session.is_raw());
}

#[test]
fn ctrl_bracket_leaves_a_guest_that_takes_no_input() {
    let mut session = Session::start(&[]);
    session.person.write_all(&[b'x'; 100]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    session.person.write_all(b"\x1D").unwrap();
    let status = session.end();

    assert_eq!(status.code(), Some(0));
}

#[test]
fn signals_give_the_terminal_back() {
    use std::os::unix::process::ExitStatusExt;
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let mut session = Session::start(&[]);
        let raw = session.is_raw();
        session.signal(signal);
        let status = session.end();

        assert!(raw, "{signal:?}");
        assert_eq!(status.signal(), Some(signal.as_raw()), "{signal:?}");
        assert!(!session.is_raw(), "{signal:?}");
    }
}

#[test]
fn a_time_out_gives_the_terminal_back() {
    let mut session = Session::start(&["--timeout", "1"]);
    let raw = session.is_raw();
    let status = session.end();

    assert!(raw);
    assert_eq!(status.code(), Some(4));
    assert!(!session.is_raw());
}
