//! A thread under the filter makes calls that it may not make: the process ends with a report.
//! Each happens in a process of its own: this program again, with one of the ignored tests.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used)] // tests assert by it

use std::process::Command;

use kasane_host_sandbox::{
    FileAccess, Provocation, Right, VcpuFilter, confine_files, provoke, watch,
};

/// This program again, with one of its ignored tests: how it ended, and what it said.
fn again(test: &str) -> (Option<i32>, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", test])
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn on_vcpu(body: impl FnOnce() + Send + 'static) {
    watch(5, |refused| {
        eprintln!("vCPU {}: {}", refused.vcpu, refused.call);
        std::process::exit(5)
    })
    .unwrap();
    let filter = VcpuFilter::new().unwrap();
    let vcpu = std::thread::spawn(move || {
        filter.enter(3).unwrap();
        body();
    });
    vcpu.join().unwrap();
}

#[test]
fn forbidden_calls_end_the_process_with_their_name() {
    for (test, name) in [("opens", "open"), ("connects", "connect"), ("executes", "execve")] {
        let (status, text) = again(test);
        assert_eq!(status, Some(5), "{text}");
        assert!(text.contains(&format!("vCPU 3: {name}")), "{text}");
    }
}

#[test]
fn allowed_work_goes_on_and_files_beyond_the_rules_are_refused() {
    for test in ["works", "reads"] {
        let (status, text) = again(test);
        assert_eq!(status, Some(0), "{text}");
    }
}

#[test]
#[ignore = "run by another test, in a process of its own"]
fn opens() {
    on_vcpu(|| provoke(Provocation::Open));
}

#[test]
#[ignore = "run by another test, in a process of its own"]
fn connects() {
    on_vcpu(|| provoke(Provocation::Connect));
}

#[test]
#[ignore = "run by another test, in a process of its own"]
fn executes() {
    on_vcpu(|| provoke(Provocation::Exec));
}

/// A large heap grows and shrinks: then the C library reads system files by itself.
#[test]
#[ignore = "run by another test, in a process of its own"]
fn works() {
    on_vcpu(|| {
        for _ in 0..3 {
            let blocks: Vec<Vec<u8>> = (0..4096).map(|n| vec![n as u8; 60_000]).collect();
            drop(std::hint::black_box(blocks));
        }
    });
}

#[test]
#[ignore = "run by another test, in a process of its own"]
fn reads() {
    let mut access = FileAccess::default();
    access.add("/proc", Right::Read);
    confine_files(&access).unwrap();
    assert!(std::fs::read("/proc/self/stat").is_ok());
    if kasane_host_sandbox::support().files.is_ok() {
        let refused = std::fs::read_dir("/etc").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    }
}
