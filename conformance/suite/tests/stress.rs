//! A guest that computes and checks what it computed: Debian's stress-ng with `--verify`, dd,
//! sha256sum and gzip, in a stock kernel with two processors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests may panic

use kasane_conformance::{Guests, Kasane, Run, run_parameter};

/// Of each of the classes: CPU, vector, memory, switch, fault. `cpu` is all its methods.
const STRESSORS: [&str; 21] = [
    "cpu", "matrix", "hash", "qsort", "tree", "crypt", "vecmath", "vecfp", "vecshuf", "vecwide",
    "vm", "memcpy", "str", "wcs", "mmap", "atomic", "switch", "context", "futex", "fault",
    "sigsegv",
];

/// SHA-256 of 256 MiB of zeros.
const ZEROS: &str = "a6d72ac7690f53be6ae46ba88506bd97302a093f7108472bd9efc3cefda06484";

fn run_guest(script: &str, timeout: &str) -> Run {
    let guests = Guests::find();
    let kernel = guests.image("cloud/vmlinuz").unwrap().display().to_string();
    let initrd = guests.image("initramfs-stress.gz").unwrap().display().to_string();
    let append = format!("console=ttyS0 panic=-1 quiet {}", run_parameter(script));
    let arguments = [
        ["run", "--no-reboot"],
        ["--kernel", &kernel],
        ["--initrd", &initrd],
        ["--append", &append],
        ["--memory", "1G"],
        ["--cpus", "2"],
        ["--timeout", timeout],
    ];
    Kasane::find().unwrap().run(&arguments.concat()).unwrap()
}

/// Every one for a minute and a half, on both processors: more than half an hour in all.
#[test]
#[ignore = "long: nightly"]
fn stress_ng_finds_no_error_in_half_an_hour() {
    let script = format!(
        "for s in {}; do
            stress-ng --verify --timeout 90s --$s 2 >/tmp/log 2>&1 && echo passed=$s ||
                {{ echo failed=$s; cat /tmp/log; }}
        done
        dmesg | grep -E 'BUG:|WARNING:|Oops|traps:|segfault' | grep -v stress-ng",
        STRESSORS.join(" ")
    );

    let run = run_guest(&script, "7200");

    let shown = format!("{}\n{}", run.console, run.messages);
    assert_eq!(run.code, 0, "{shown}");
    for stressor in STRESSORS {
        assert!(run.console.contains(&format!("passed={stressor}\r\n")), "{stressor}: {shown}");
    }
    for word in ["failed=", "BUG:", "WARNING:", "Oops", "traps:", "segfault"] {
        assert!(!run.console.contains(word), "{word}: {shown}");
    }
}

#[test]
#[ignore = "long: nightly"]
fn large_data_is_summed_packed_and_unpacked() {
    let script = "
        echo zeros=$(dd if=/dev/zero bs=1M count=256 2>/dev/null | sha256sum | cut -d' ' -f1)
        dd if=/dev/urandom of=/tmp/data bs=1M count=96 2>/dev/null
        dd if=/dev/zero bs=1M count=32 >>/tmp/data 2>/dev/null
        sum=$(sha256sum </tmp/data)
        gzip -1 /tmp/data && gzip -t /tmp/data.gz && gzip -d /tmp/data.gz
        [ \"$sum\" = \"$(sha256sum </tmp/data)\" ] && echo unpacked=same || echo unpacked=other";

    let run = run_guest(script, "1200");

    let shown = format!("{}\n{}", run.console, run.messages);
    assert_eq!(run.code, 0, "{shown}");
    assert!(run.console.contains(&format!("zeros={ZEROS}")), "{shown}");
    assert!(run.console.contains("unpacked=same"), "{shown}");
}
