//! `kasane run` with guests of a few instructions: what comes out, and how it ends.
#![allow(clippy::unwrap_used)] // helpers of the tests assert by it

mod guest;

use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use guest::{CRASH, ECHO, HANG, HELLO, POWER_OFF, RESET, RESET_ONCE, Scratch};

/// A command that runs `guest`, with its scratch folder.
fn command(guest: &[&[u8]], flags: &[&str]) -> (Command, Scratch) {
    let scratch = Scratch::new();
    let kernel = scratch.kernel(&guest.concat());
    let mut command = Command::new(env!("CARGO_BIN_EXE_kasane"));
    command.arg("run").arg("--kernel").arg(kernel).args(["--memory", "16M"]).args(flags);
    if !flags.contains(&"--timeout") {
        command.args(["--timeout", "60"]);
    }
    (command, scratch)
}

fn run(guest: &[&[u8]], flags: &[&str]) -> Output {
    let (mut command, _scratch) = command(guest, flags);
    command.stdin(Stdio::null()).output().unwrap()
}

fn spawn(guest: &[&[u8]], flags: &[&str]) -> (Child, Scratch) {
    let (mut command, scratch) = command(guest, flags);
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    (pipes.spawn().unwrap(), scratch)
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_guest_that_powers_off_ends_with_status_0() {
    let output = run(&[HELLO, POWER_OFF], &[]);

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "hello");
    assert_eq!(
        stderr(&output),
        "kasane: `vm`: 1 processor (max), 16M of memory, engine translate\n\
         kasane: the guest powered off\n"
    );
}

#[test]
fn a_guest_that_crashes_ends_with_status_3_and_its_registers() {
    let output = run(&[HELLO, CRASH], &[]);
    let text = stderr(&output);

    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("kasane: the guest crashed: triple fault on vcpu 0\nrip "), "{text}");
    assert!(text.contains("\ncr0 "), "{text}");
}

#[test]
fn a_guest_that_hangs_ends_with_status_4() {
    let output = run(&[HELLO, HANG], &["--timeout", "0.5"]);

    assert_eq!(output.status.code(), Some(4));
    assert_eq!(stdout(&output), "hello");
    assert!(stderr(&output).ends_with("kasane: the time is up\n"));
}

#[test]
fn a_port_that_the_host_chose_is_told() {
    let forward = ["--net", "nat", "--forward", "tcp:127.0.0.1:0:22"];
    let text = run(&[HELLO, POWER_OFF], &forward);
    let json = run(&[HELLO, POWER_OFF], &[&forward[..], &["--json"]].concat());

    let (text, json) = (stderr(&text), stderr(&json));
    let sentence = text.lines().find(|line| line.ends_with(" is port 22 of the guest (tcp)"));
    let host = sentence.unwrap().strip_prefix("kasane: ").unwrap().split(' ').next().unwrap();
    let address: std::net::SocketAddr = host.parse().unwrap();
    assert!(address.ip().is_loopback() && address.port() != 0, "{text}");
    let event = json.lines().find(|line| line.contains(r#""event":"forward""#)).unwrap();
    assert!(event.contains(r#""guest_port":22"#) && !event.contains(":0\""), "{event}");
}

#[test]
fn a_reset_starts_the_machine_again() {
    let output = run(&[HELLO, RESET], &["--timeout", "5", "--stats"]);

    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stdout(&output).starts_with("hellohello"));
    assert!(stderr(&output).contains("\nresets "), "{}", stderr(&output));
}

#[test]
fn the_clocks_memory_outlives_a_reset() {
    let output = run(&[HELLO, RESET_ONCE, POWER_OFF], &[]);

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "hellohello");
}

#[test]
fn a_reset_ends_the_run_if_asked() {
    let output = run(&[HELLO, RESET], &["--no-reboot"]);

    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), "hello");
    assert!(stderr(&output).ends_with("kasane: the guest asked for a reset\n"));
}

#[test]
fn input_from_a_pipe_reaches_the_guest_and_its_end_does_not_end_it() {
    let (mut child, _scratch) = spawn(&[HELLO, ECHO, POWER_OFF], &[]);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"a long line, longer than the port's FIFO.").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "helloa long line, longer than the port's FIFO.");
}

#[test]
fn the_serial_port_can_go_to_a_file_or_nowhere() {
    let (mut to_file, scratch) = command(&[HELLO, POWER_OFF], &[]);
    let file = scratch.path("console.log");
    let to_file = to_file.arg("--serial").arg(format!("file:{}", file.display())).output().unwrap();
    let nowhere = run(&[HELLO, POWER_OFF], &["--serial", "none"]);

    assert_eq!(to_file.status.code(), Some(0));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "hello");
    assert_eq!(stdout(&nowhere), "");
}

#[test]
fn statistics_count_exits_and_devices() {
    let output = run(&[HELLO, POWER_OFF], &["--stats", "--json"]);
    let text = stderr(&output);
    let end: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();

    assert_eq!(end["event"], "end");
    assert_eq!(end["reason"], "powered-off");
    assert_eq!(end["statistics"]["exits"][0], serde_json::json!(["port-write", 6]));
    assert_eq!(end["statistics"]["devices"][0], serde_json::json!(["serial", 5]));
    assert!(end["statistics"]["instructions"][0].as_u64().unwrap() > 10);
}

#[test]
fn a_trace_has_a_line_for_each_access() {
    let (mut traced, scratch) = command(&[HELLO, POWER_OFF], &[]);
    let file = scratch.path("trace.jsonl");
    let output = traced.arg("--trace").arg(&file).output().unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let typed: Vec<u64> = lines
        .iter()
        .filter(|line| line["kind"] == "device-write" && line["subject"] == "serial")
        .map(|line| line["b"].as_u64().unwrap())
        .collect();

    assert_eq!(output.status.code(), Some(0));
    assert_eq!(typed, b"hello".map(u64::from));
}

#[test]
fn every_vcpu_is_started_and_stopped() {
    let output = run(&[HELLO, POWER_OFF], &["--cpus", "8"]);

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "hello");
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_ends_the_run_as_that_signal() {
    use rustix::process::{Pid, Signal, kill_process};
    use std::os::unix::process::ExitStatusExt;
    let (mut child, _scratch) = spawn(&[HELLO, HANG], &[]);
    let mut hello = [0; 5];
    child.stdout.as_mut().unwrap().read_exact(&mut hello).unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();

    assert_eq!(output.status.signal(), Some(15));
    assert!(stderr(&output).ends_with("kasane: ended by signal 15\n"));
}

#[test]
fn a_halted_guest_costs_nothing() {
    let start = Instant::now();
    let output = run(&[HELLO, HANG], &["--timeout", "1", "--stats", "--json"]);
    let text = stderr(&output);
    let end: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();

    assert!(start.elapsed() >= Duration::from_secs(1));
    assert!(end["statistics"]["instructions"][0].as_u64().unwrap() < 1000, "{text}");
}

/// What the sandbox says when vCPU 0 makes the call.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn provoked(call: &str, flags: &[&str]) -> (Option<i32>, String) {
    let flags = [&["--cpus", "2", "--provoke", call], flags].concat();
    let output = run(&[HELLO, HANG], &flags);
    assert_eq!(stdout(&output), "", "the guest's first instruction comes after the call");
    (output.status.code(), stderr(&output))
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn a_vcpu_that_opens_connects_or_executes_ends_the_run_with_status_5_and_the_calls_name() {
    for (call, name) in [("open", "open"), ("connect", "connect"), ("exec", "execve")] {
        let (status, text) = provoked(call, &[]);

        assert_eq!(status, Some(5), "{call}: {text}");
        let named = text.lines().any(|line| {
            let line =
                line.trim_start().strip_prefix("the thread of vCPU 0 made the system call `");
            line.is_some_and(|rest| rest.starts_with(name))
        });
        assert!(named && text.contains("error: the sandbox ended the machine\n"), "{call}: {text}");
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn a_refused_call_is_an_error_in_json_too() {
    let (status, text) = provoked("connect", &["--json"]);

    assert_eq!(status, Some(5), "{text}");
    assert!(text.contains("\"exit_status\":5") && text.contains("`connect`"), "{text}");
}
