//! Our own guests under other machines: what passes there is what `guests/KNOWN-DEVIATIONS.md` says,
//! so that its table is never stale. The table is of certain versions of QEMU and Bochs; with
//! others a difference may be theirs, and the table is to be made anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests may panic

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kasane_conformance::{Guests, own_guests};

/// A guest that hangs is given this long. The slowest that doesn't needs a tenth of it.
const PATIENCE: Duration = Duration::from_secs(90);

/// How a guest ends under one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Opinion {
    /// So many passed, of so many that were not skipped.
    Passes { passed: u32, of: u32 },
    /// There is no last line.
    Dies,
}

/// What the table says: any of these.
type Opinions = Vec<Opinion>;

/// One row of the table.
struct Row {
    guest: String,
    processors: u32,
    bochs: Opinions,
    qemu: Opinions,
}

/// The first number, if the cell begins with one.
fn number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end).and_then(|digits| digits.parse().ok())
}

/// `58`, `58 of 69 (why)`, `58 or 59 of 69 (why)`, `hangs`, `dies behind the fifth`, or the end that was wanted.
fn opinions(cell: &str, cases: u32) -> Opinions {
    let Some(first) = number(cell) else {
        let dies = cell.starts_with("hangs") || cell.starts_with("dies");
        assert!(dies || cell.ends_with("as it should"), "what is `{cell}`?");
        let ends = Opinion::Passes { passed: cases, of: cases };
        return vec![if dies { Opinion::Dies } else { ends }];
    };
    let behind = |word: &str| cell.split_once(word).and_then(|(_, rest)| number(rest));
    let of = behind(" of ").unwrap_or(cases);
    let counts = [Some(first), behind(" or ")].into_iter().flatten();
    counts.map(|passed| Opinion::Passes { passed, of }).collect()
}

fn table(text: &str) -> Vec<Row> {
    text.lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let ["", name, cases, bochs, qemu, ""] = cells.as_slice() else { return None };
            let cases = number(cases)?;
            let (guest, note) = name.strip_prefix('`')?.split_once('`')?;
            let processors = number(note.trim().trim_start_matches('(')).unwrap_or(1);
            let (bochs, qemu) = (opinions(bochs, cases), opinions(qemu, cases));
            Some(Row { guest: guest.to_owned(), processors, bochs, qemu })
        })
        .collect()
}

fn known_deviations() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests/KNOWN-DEVIATIONS.md");
    fs::read_to_string(path).unwrap()
}

/// A folder that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("kasane-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _left_behind = fs::remove_dir_all(&self.0);
    }
}

/// Runs to the end, or until the patience is; gives what came out.
fn output(command: &mut Command, to: &Path) -> String {
    let file = File::create(to).unwrap();
    command.stdin(Stdio::null()).stdout(file).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    String::from_utf8_lossy(&fs::read(to).unwrap()).into_owned()
}

/// What a console says.
fn heard(guest: &str, console: &str) -> Opinion {
    let head = format!("guest {guest}: ");
    let last = console.lines().find_map(|line| line.trim_end().strip_prefix(&head));
    let Some((passed, failed)) = last.and_then(|line| line.split_once(" passed, ")) else {
        return Opinion::Dies;
    };
    let (passed, failed) = (number(passed).unwrap(), number(failed).unwrap());
    Opinion::Passes { passed, of: passed + failed }
}

fn under_qemu(row: &Row, folder: &Path) -> String {
    let image = Guests::find().image(&format!("asm/{}.elf", row.guest)).unwrap();
    let mut command = Command::new("qemu-system-x86_64");
    command
        // With its display adapter: two guests hang where there is nothing at the VGA window.
        .args(["-accel", "tcg", "-M", "pc", "-cpu", "max", "-m", "64"])
        .args(["-display", "none", "-no-reboot", "-serial", "stdio"])
        .args(["-smp", &row.processors.to_string(), "-kernel"])
        .arg(image);
    output(&mut command, &folder.join(format!("{}.qemu", row.guest)))
}

/// From a CD that GRUB starts. The debugger that Debian builds in wants a terminal and a command.
fn under_bochs(row: &Row, folder: &Path) -> String {
    let image = Guests::find().image(&format!("asm/{}.elf", row.guest)).unwrap();
    let files = folder.join("cd/boot");
    fs::create_dir_all(files.join("grub")).unwrap();
    fs::copy(image, files.join("guest.elf")).unwrap();
    let menu = "set timeout=0\nmenuentry guest { multiboot /boot/guest.elf\nboot }\n";
    fs::write(files.join("grub/grub.cfg"), menu).unwrap();
    let made = Command::new("grub-mkrescue")
        .args(["-o", "guest.iso", "cd"])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let machine = format!(
        "display_library: term\nmegs: 64\n\
         cpu: model=corei7_icelake_u, count={}, ips=200000000, ignore_bad_msrs=0\n\
         romimage: file=/usr/share/bochs/BIOS-bochs-latest\n\
         vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest\n\
         ata0-master: type=cdrom, path=guest.iso, status=inserted\nboot: cdrom\n\
         com1: enabled=1, mode=file, dev=serial.txt\nlog: bochs.log\n\
         panic: action=fatal\nerror: action=report\ninfo: action=ignore\ndebug: action=ignore\n",
        row.processors
    );
    fs::write(folder.join("machine"), machine).unwrap();
    fs::write(folder.join("commands"), "continue\n").unwrap();
    let serial = folder.join("serial.txt");
    fs::write(&serial, "").unwrap();
    let mut command = Command::new("script");
    let bochs = "exec bochs -q -rc commands -f machine";
    command.args(["-qec", bochs, "/dev/null"]).current_dir(folder).env("TERM", "xterm");
    output(&mut command, &folder.join("terminal"));
    String::from_utf8_lossy(&fs::read(serial).unwrap()).into_owned()
}

/// The first line of what a program says of its version.
fn version(program: &str, package: &str, flag: &str) -> String {
    let asked = Command::new(program).arg(flag).stdin(Stdio::null()).output();
    let said = asked.unwrap_or_else(|_| panic!("this test needs `{program}`: package {package}"));
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    text.lines().find(|line| line.chars().any(|c| c.is_ascii_digit())).unwrap_or("").to_owned()
}

/// A guest, what the table says of it and what it does.
type Difference = (String, Opinions, Opinion);

fn differences(
    name: &str,
    expected: impl Fn(&Row) -> &Opinions,
    run: impl Fn(&Row, &Path) -> String,
) -> Vec<Difference> {
    let scratch = Scratch::new(name);
    let rows = table(&known_deviations());
    let heard = rows.iter().map(|row| (row, heard(&row.guest, &run(row, &scratch.0))));
    heard
        .filter(|(row, heard)| !expected(row).contains(heard))
        .map(|(row, heard)| (row.guest.clone(), expected(row).clone(), heard))
        .collect()
}

#[test]
fn every_guest_has_a_row_and_every_row_is_understood() {
    let guests = own_guests().unwrap();
    let mut rows: Vec<String> =
        table(&known_deviations()).into_iter().map(|row| row.guest).collect();
    rows.sort();

    assert_eq!(rows, guests);
}

#[test]
fn cells_are_read_as_a_person_reads_them() {
    let cells =
        ["12", "5 or 6 of 9 (no VME)", "hangs", "dies behind the fifth", "ends as it should"];
    let read: Vec<Opinions> = cells.iter().map(|cell| opinions(cell, 20)).collect();

    let passes = |passed, of| Opinion::Passes { passed, of };
    let expected = [
        vec![passes(12, 20)],
        vec![passes(5, 9), passes(6, 9)],
        vec![Opinion::Dies],
        vec![Opinion::Dies],
        vec![passes(20, 20)],
    ];
    assert_eq!(read, expected);
}

#[test]
#[ignore = "long: nightly"]
fn qemu_differs_from_the_manuals_where_the_table_says() {
    let version = version("qemu-system-x86_64", "qemu-system-x86", "--version");

    let differences = differences("opinion-qemu", |row| &row.qemu, under_qemu);

    assert!(differences.is_empty(), "{version}: (guest, table, now): {differences:#?}");
}

#[test]
#[ignore = "long: nightly"]
fn bochs_differs_from_the_manuals_where_the_table_says() {
    let version = version("bochs", "bochs and bochs-term", "--help");
    for (program, package) in [("grub-mkrescue", "grub-common"), ("xorriso", "xorriso")] {
        self::version(program, package, "--version");
    }

    let differences = differences("opinion-bochs", |row| &row.bochs, under_bochs);

    assert!(differences.is_empty(), "{version}: (guest, table, now): {differences:#?}");
}
