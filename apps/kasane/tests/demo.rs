//! `kasane demo` into a pipe, with guests of a few instructions in place of Linux.
#![allow(clippy::unwrap_used)] // helpers of the tests assert by it

mod guest;

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use guest::{CRASH, HANG, HELLO, POWER_OFF, RESET, Scratch};

/// A demonstration of two machines that run `code`.
fn command(code: &[&[u8]], flags: &[&str]) -> (Command, Scratch) {
    let scratch = Scratch::new();
    let kernel = scratch.kernel(&code.concat());
    let busybox = scratch.path("busybox");
    std::fs::write(&busybox, b"nobody runs it").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kasane"));
    command.arg("demo").arg("--kernel").arg(kernel).arg("--busybox").arg(busybox);
    command.args(["--memory", "16M"]).args(flags);
    if !flags.contains(&"--timeout") {
        command.args(["--timeout", "60"]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    (command, scratch)
}

fn demo(code: &[&[u8]], flags: &[&str]) -> Output {
    let (mut command, _scratch) = command(code, flags);
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn both_consoles_are_printed_whole() {
    let output = demo(&[HELLO, POWER_OFF], &[]);
    let text = stdout(&output);
    let lines: Vec<&str> = text.lines().collect();

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(lines[..2], ["=== machine `left` ===", "hello"]);
    assert!(lines[2].starts_with("=== `left` powered off, "), "{text}");
    assert_eq!(lines[4..6], ["=== machine `right` ===", "hello"]);
    assert!(lines[6].starts_with("=== `right` powered off, "), "{text}");
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_crash_is_status_3_with_both_consoles_and_the_registers() {
    let output = demo(&[HELLO, CRASH], &[]);
    let text = stderr(&output);

    assert_eq!(output.status.code(), Some(3), "{text}");
    assert_eq!(stdout(&output).matches("hello").count(), 2);
    assert!(text.starts_with("error: the machine `left` crashed\n    rip "), "{text}");
}

#[test]
fn a_reset_is_no_success() {
    let output = demo(&[HELLO, RESET], &[]);

    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).starts_with("error: the machine `left` reset itself\n"));
}

#[test]
fn a_guest_that_hangs_is_status_4_in_time() {
    let start = Instant::now();
    let output = demo(&[HELLO, HANG], &["--timeout", "1"]);

    assert_eq!(output.status.code(), Some(4));
    assert_eq!(stdout(&output).matches("hello").count(), 2);
    assert!(stderr(&output).starts_with("error: the machine `left` has not powered off in time\n"));
    assert!(start.elapsed() < Duration::from_secs(30));
}

/// The processes of this name that `parent` started.
#[cfg(target_os = "linux")]
fn children_of(parent: u32) -> Vec<String> {
    let tasks = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(tasks).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn machines_end_with_the_demonstration_even_if_it_is_killed() {
    use rustix::process::{Pid, Signal, kill_process};
    use std::io::Read;
    for signal in [Signal::TERM, Signal::KILL] {
        let (mut command, _scratch) = command(&[HELLO, HANG], &[]);
        let mut program = command.spawn().unwrap();
        let mut until_hello = [0; 28];
        program.stdout.as_mut().unwrap().read_exact(&mut until_hello).unwrap();
        let machines = children_of(program.id());
        let id = program.id();
        kill_process(Pid::from_child(&program), signal).unwrap();
        program.wait().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        let lives = |id: &String| {
            let command = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains("--end-with-input")
        };
        while machines.iter().any(lives) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }

        // A program that is killed can't tidy up.
        let _tidy = std::fs::remove_dir_all(std::env::temp_dir().join(format!("kasane-demo-{id}")));

        assert_eq!(machines.len(), 2, "{signal:?}");
        assert!(!machines.iter().any(lives), "{signal:?}");
    }
}

/// A terminal that is nobody's controlling terminal, and its other end.
#[cfg(target_os = "linux")]
fn terminal() -> (std::fs::File, std::fs::File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{Winsize, tcsetwinsize};
    // Its machines must not keep it open.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let person = openpt(flags).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&person, size).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap().into_string().unwrap();
    let mut options = std::fs::File::options();
    use std::os::unix::fs::OpenOptionsExt;
    options.read(true).write(true).custom_flags(OpenptFlags::NOCTTY.bits() as i32);
    (person.into(), options.open(name).unwrap())
}

/// No signal tells of its loss.
#[cfg(target_os = "linux")]
#[test]
fn the_loss_of_its_terminal_ends_it_like_sighup() {
    use std::io::Read;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    let (mut person, its) = terminal();
    let (mut command, _scratch) = command(&[HELLO, HANG], &[]);
    command.stdin(its.try_clone().unwrap()).stdout(its.try_clone().unwrap()).stderr(its);
    // No key that the person of the test has reaches it, and none of their signals.
    let mut program = command.process_group(0).spawn().unwrap();
    drop(command);
    let mut shown = Vec::new();
    let mut buffer = [0; 256];
    while !String::from_utf8_lossy(&shown).contains(" right ") {
        let len = person.read(&mut buffer).unwrap();
        shown.extend(buffer.iter().take(len));
    }
    let machines = children_of(program.id());
    drop(person);
    let status = program.wait().unwrap();
    let folder = std::env::temp_dir().join(format!("kasane-demo-{}", program.id()));

    assert_eq!(status.signal(), Some(rustix::process::Signal::HUP.as_raw()), "{status:?}");
    assert_eq!(machines.len(), 2);
    assert!(!folder.exists());
}
