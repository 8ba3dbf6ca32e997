//! The program as a person meets it: errors, their form, and the exit status.
#![allow(clippy::unwrap_used)] // helpers of the tests assert by it

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn kasane(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kasane"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A file of this test's own.
fn file(name: &str, contents: &[u8]) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("kasane-cli-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, contents).unwrap();
    path
}

#[test]
fn a_misspelt_flag_gets_a_hint_and_status_2() {
    let output = kasane(&["run", "--memroy", "1G"]);

    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        stderr(&output),
        "error: unexpected argument '--memroy' found\n\
         help: a similar argument exists: '--memory'\n"
    );
}

#[test]
fn a_wrong_value_says_what_is_right() {
    let output = kasane(&["run", "--memory", "8M", "--kernel", "k"]);

    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        stderr(&output),
        "error: invalid value '8M' for '--memory <SIZE>': `8M` of memory is out of range: 16M to 16G\n\
         help: `kasane run --help` shows what can be said\n"
    );
}

#[test]
fn a_definition_error_names_file_line_and_column() {
    let path = file("misspelt.toml", b"name = \"a\"\nmemroy = \"1G\"\n");
    let output = kasane(&["run", path.to_str().unwrap()]);

    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        stderr(&output),
        format!(
            "error: can't read the definition `{}`\n    line 2, column 1: unknown key `memroy`\n\
             help: did you mean `memory`?\n",
            path.display()
        )
    );
}

#[test]
fn a_missing_kernel_file_is_named() {
    let output = kasane(&["run", "--kernel", "no/such/kernel"]);

    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("error: can't read the kernel `no/such/kernel`\n    "));
    assert!(stderr(&output).ends_with("\nhelp: name a file that can be read: `--kernel FILE`\n"));
}

#[test]
fn an_image_that_is_no_kernel_is_named_with_the_reason() {
    let path = file("text", b"this is no kernel");
    let output = kasane(&["run", "--kernel", path.to_str().unwrap()]);

    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains(&format!("error: can't boot `{}`\n", path.display())), "{text}");
    assert!(text.contains("(17 bytes, begins with 74 68 69 73)"), "{text}");
}

#[test]
fn errors_can_be_json() {
    let output = kasane(&["run", "--json", "--kernel", "no/such/kernel"]);
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();

    assert_eq!(output.status.code(), Some(2));
    assert_eq!(error["event"], "error");
    assert_eq!(error["error"], "can't read the kernel `no/such/kernel`");
    assert_eq!(error["exit_status"], 2);
}

#[test]
fn without_a_command_the_help_is_shown() {
    let output = kasane(&[]);

    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("Usage: kasane <COMMAND>"));
}

#[test]
fn the_help_has_examples_and_the_exit_status() {
    let output = kasane(&["run", "--help"]);
    let text = String::from_utf8(output.stdout).unwrap();

    assert_eq!(output.status.code(), Some(0));
    assert!(text.contains("Examples:\n  kasane run --kernel vmlinuz"));
    assert!(text.contains("  3  the guest crashed (triple fault)"));
}

#[test]
fn documents_are_printed() {
    let schema = kasane(&["schema"]);
    let man = kasane(&["man"]);
    let completions = kasane(&["completions", "bash"]);
    let info = kasane(&["info", "--json"]);

    let schema: serde_json::Value = serde_json::from_slice(&schema.stdout).unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
    assert_eq!(schema["title"], "Kasane VM definition");
    assert!(String::from_utf8(man.stdout).unwrap().contains(".SH \"KASANE RUN\""));
    assert!(String::from_utf8(completions.stdout).unwrap().contains("--append"));
    assert_eq!(info["models"]["max"]["works"], true);
}
