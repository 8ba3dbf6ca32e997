//! What `kasane run` says of how the translator works: `--stats` and `--jitdump`.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::indexing_slicing, clippy::unwrap_used)] // helpers of the tests assert by it

mod guest;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use guest::{HELLO, POWER_OFF, Scratch};
use serde_json::Value;

/// How often the guest goes round.
const ROUNDS: u64 = 100;
/// What it says first. The OUT that powers the machine off is never done.
const LETTERS: u64 = 5;

/// Critical instructions, a hundred times.
/// ```text
///        mov ecx, 100
/// again: pushfd; popfd; sub esp, 8; sgdt [esp]; add esp, 8; smsw eax; dec ecx; jnz again
/// ```
const CRITICAL: &[u8] = &[
    0xB9, 100, 0, 0, 0, 0x9C, 0x9D, 0x83, 0xEC, 0x08, 0x0F, 0x01, 0x04, 0x24, 0x83, 0xC4, 0x08,
    0x0F, 0x01, 0xE0, 0x49, 0x75, 0xEE,
];

/// Runs a guest in the scratch folder, which is the current one then.
fn run(scratch: &Scratch, flags: &[&str]) -> Output {
    let kernel = scratch.kernel(&[HELLO, CRITICAL, POWER_OFF].concat());
    let folder = kernel.parent().unwrap().to_owned();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kasane"));
    command.arg("run").arg("--kernel").arg(kernel).args(["--memory", "16M", "--timeout", "60"]);
    command.args(flags).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What is said of a critical instruction.
fn counts(output: &Output, name: &str) -> [u64; 3] {
    let text = stderr(output);
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let end = events.into_iter().find(|event| event["event"] == "end").unwrap();
    let rows = end["statistics"]["critical"].as_array().unwrap();
    let row = rows.iter().find(|row| row["name"] == name).unwrap();
    ["met", "translated", "trapped"].map(|key| row[key].as_u64().unwrap())
}

#[test]
fn critical_instructions_are_counted_by_name() {
    let output = run(&Scratch::new(), &["--engine", "translate", "--stats", "--json"]);
    let [met, translated, trapped] = counts(&output, "popf");

    // In place: only while its code was cold did the interpreter do it.
    assert_eq!((met, translated), (1, 1));
    assert!((1..10).contains(&trapped), "{trapped}");
    assert_eq!(counts(&output, "sgdt"), [1, 0, ROUNDS]);
    assert_eq!(counts(&output, "smsw"), [1, 0, ROUNDS]);
    assert_eq!(counts(&output, "out")[2], LETTERS);
}

#[test]
fn under_the_interpreter_all_of_them_trap() {
    let output = run(&Scratch::new(), &["--engine", "interp", "--stats", "--json"]);

    assert_eq!(counts(&output, "popf"), [0, 0, ROUNDS]);
    assert_eq!(counts(&output, "sgdt"), [0, 0, ROUNDS]);
    assert_eq!(counts(&output, "smsw"), [0, 0, ROUNDS]);
    assert_eq!(counts(&output, "out")[2], LETTERS);
}

#[test]
fn the_table_has_both_groups() {
    let output = run(&Scratch::new(), &["--engine", "interp", "--stats"]);
    let text = stderr(&output);

    assert!(text.contains("\nsensitive, unprivileged "), "{text}");
    assert!(text.contains("\n  sgdt "), "{text}");
    assert!(text.contains("\nprivileged "), "{text}");
    assert!(text.contains("\n  out "), "{text}");
}

/// A piece of code, as the file has it.
struct Load {
    time: u64,
    number: u64,
    code: std::ops::Range<u64>,
    name: String,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The records of a file, by kind; all of them whole.
fn records(bytes: &[u8]) -> Vec<(u32, &[u8])> {
    let mut rest = &bytes[u32_at(bytes, 8) as usize..];
    let mut records = Vec::new();
    while !rest.is_empty() {
        let (record, more) = rest.split_at(u32_at(rest, 4) as usize);
        records.push((u32_at(record, 0), record));
        rest = more;
    }
    records
}

fn load(record: &[u8]) -> Load {
    let (address, len) = (u64_at(record, 24), u64_at(record, 40));
    assert_eq!(u64_at(record, 32), address);
    let text = &record[56..record.len() - len as usize];
    let (end, name) = text.split_last().unwrap();
    assert_eq!(*end, 0);
    Load {
        time: u64_at(record, 8),
        number: u64_at(record, 48),
        code: address..address + len,
        name: String::from_utf8(name.to_owned()).unwrap(),
    }
}

fn dump_in(folder: &Path) -> Vec<u8> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let dumps = files.filter(|path| path.extension().is_some_and(|end| end == "dump"));
    std::fs::read(dumps.last().unwrap()).unwrap()
}

#[test]
fn a_jitdump_describes_all_translated_code() {
    const MAGIC: u32 = 0x4A69_5444;
    const X86_64: u32 = 62;
    let scratch = Scratch::new();
    let output = run(&scratch, &["--engine", "translate", "--jitdump", "--stats", "--json"]);
    let bytes = dump_in(&scratch.path(""));
    let records = records(&bytes);
    let kinds: Vec<u32> = records.iter().map(|(kind, _)| *kind).collect();
    let loads: Vec<Load> =
        records.iter().filter(|(kind, _)| *kind == 0).map(|(_, record)| load(record)).collect();

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!([0, 4, 8, 12, 16].map(|at| u32_at(&bytes, at)), [MAGIC, 1, 40, X86_64, 0]);
    assert_eq!(u64_at(&bytes, 32), 0);
    assert_eq!(kinds.iter().filter(|kind| **kind != 0).collect::<Vec<_>>(), [&3]);
    assert_eq!(kinds.last(), Some(&3));
    // The loop begins behind the Multiboot header, `mov esp`, the greeting and `mov ecx`.
    let names: Vec<&str> = loads.iter().map(|load| load.name.as_str()).collect();
    assert_eq!(names[0], "stubs");
    assert!(names[1..].iter().all(|name| name.starts_with("guest kernel 0x1000")), "{names:?}");
    assert!(names.contains(&"guest kernel 0x10003d"), "{names:?}");
    let begun = u64_at(&bytes, 24);
    assert!(loads.iter().all(|load| load.time >= begun));
    assert!(loads.is_sorted_by(|a, b| a.time <= b.time && a.number < b.number));
    assert!(loads.is_sorted_by(|a, b| a.code.end <= b.code.start));
}

#[test]
fn a_folder_that_cannot_be_written_is_said() {
    let scratch = Scratch::new();
    let kernel = scratch.kernel(POWER_OFF);
    let mut command = Command::new(env!("CARGO_BIN_EXE_kasane"));
    command.args(["run", "--engine", "translate", "--jitdump", "--kernel"]).arg(kernel);
    // Not even root makes files there.
    let output = command.current_dir("/proc").stdin(Stdio::null()).output().unwrap();
    let text = stderr(&output);

    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.starts_with("error: can't write the jitdump `jit-"), "{text}");
    assert!(text.contains("\nhelp: run it in a folder that you may write to"), "{text}");
}

#[test]
fn the_interpreter_has_nothing_to_describe() {
    let output = run(&Scratch::new(), &["--engine", "interp", "--jitdump"]);

    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("error: the interpreter runs this machine\n"));
}
