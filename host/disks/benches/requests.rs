//! How many requests a second each backend does, beside the host's own calls on the same file:
//! `cargo bench -p kasane-host-disks`. The folder is `KASANE_BENCH_DIR`, or the temporary one.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)] // no part of the program

#[cfg(target_os = "linux")]
#[path = "../tests/support/mod.rs"]
mod support;

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::path::{Path, PathBuf};
    use std::time::Instant;

    use kasane_host_disks::{DiskOptions, HostCache, Waiting};
    use kasane_ports::BlockOperation;

    use crate::support::{Rig, qemu_img, range, text};

    const SIZE: u64 = 256 << 20;

    #[derive(Clone, Copy)]
    struct Load {
        name: &'static str,
        operation: BlockOperation,
        bytes: usize,
        depth: usize,
        random: bool,
        requests: usize,
    }

    const fn load(
        name: &'static str,
        operation: BlockOperation,
        (bytes, depth): (usize, usize),
        random: bool,
    ) -> Load {
        let requests = if bytes > 4096 { 8192 } else { 40_000 };
        Load { name, operation, bytes, depth, random, requests }
    }

    const LOADS: [Load; 7] = [
        load("read 64K", BlockOperation::Read, (65536, 1), false),
        load("write 64K", BlockOperation::Write, (65536, 1), false),
        load("read 4K", BlockOperation::Read, (4096, 1), true),
        load("read 4K x32", BlockOperation::Read, (4096, 32), true),
        load("write 4K", BlockOperation::Write, (4096, 1), true),
        load("write 4K x32", BlockOperation::Write, (4096, 32), true),
        load("write 64K", BlockOperation::Write, (65536, 1), false),
    ];

    fn offset(load: Load, number: usize) -> u64 {
        let place = if load.random { number.wrapping_mul(2_654_435_761) } else { number };
        (place as u64 * load.bytes as u64) % SIZE
    }

    fn say(backend: &str, load: Load, began: Instant, requests: usize) {
        let seconds = began.elapsed().as_secs_f64();
        #[allow(clippy::cast_precision_loss)] // for show
        let (each, rate) =
            (seconds * 1e6 / requests as f64, (requests * load.bytes) as f64 / seconds / 1e6);
        println!("{backend:<16}{:<14}{each:>9.2} us {rate:>9.0} MB/s", load.name);
    }

    fn host(path: &Path) {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut buffer = vec![0; 65536];
        for load in LOADS {
            let began = Instant::now();
            for number in 0..load.requests {
                let at = offset(load, number);
                let buffer = &mut buffer[..load.bytes];
                match load.operation {
                    BlockOperation::Read => file.read_exact_at(buffer, at).unwrap(),
                    _ => file.write_all_at(buffer, at).unwrap(),
                }
            }
            say("host file", load, began, load.requests);
        }
    }

    fn disk(backend: &str, options: &DiskOptions, fraction: usize) {
        let mut rig = Rig::new(options).unwrap();
        for load in LOADS {
            let requests = load.requests / fraction;
            let began = Instant::now();
            for first in (0..requests).step_by(load.depth) {
                let batch = (0..load.depth)
                    .map(|slot| {
                        let memory = range((slot * load.bytes) as u64, load.bytes);
                        (load.operation, offset(load, first + slot), vec![memory])
                    })
                    .collect();
                for token in rig.submit(batch) {
                    rig.wait(token).unwrap();
                }
            }
            say(backend, load, began, requests);
        }
        let began = Instant::now();
        rig.flush().unwrap();
        println!("{backend:<16}{:<14}{:>9.2} us", "flush", began.elapsed().as_secs_f64() * 1e6);
    }

    pub(super) fn main() {
        let folder = std::env::var_os("KASANE_BENCH_DIR")
            .map_or_else(std::env::temp_dir, PathBuf::from)
            .join(format!("kasane-disks-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let [raw, qcow2] = ["disk.img", "disk.qcow2"].map(|name| folder.join(name));
        let file = File::create(&raw).unwrap();
        (0..SIZE >> 20).for_each(|mib| file.write_all_at(&[1; 1 << 20], mib << 20).unwrap());
        qemu_img(&["create", "-q", "-f", "qcow2", text(&qcow2), &SIZE.to_string()]);

        host(&raw);
        disk("raw, ring", &DiskOptions::new(&raw), 1);
        let threads = DiskOptions { waiting: Waiting::Threads, ..DiskOptions::new(&raw) };
        disk("raw, threads", &threads, 1);
        disk("qcow2", &DiskOptions::new(&qcow2), 1);
        let direct = DiskOptions { cache: HostCache::Direct, ..DiskOptions::new(&raw) };
        disk("raw, direct", &direct, 10);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
