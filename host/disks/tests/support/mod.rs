//! What the tests share: a folder of their own, a machine's memory, and a device that waits.
// Each test uses a part; helpers assert by unwrapping.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use kasane_host_disks::{Disk, DiskError, DiskOptions};
use kasane_memory::{GuestMemory, Ram, RamSlot};
use kasane_ports::{
    BlockBackend, BlockCompletion, BlockCompletions, BlockError, BlockOperation, BlockRequest,
    GuestRange,
};

/// A folder that goes with the value.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kasane-disks-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Completions, by token.
#[derive(Default)]
struct Done {
    results: Mutex<HashMap<u64, Result<(), BlockError>>>,
    came: Condvar,
}

impl BlockCompletions for Done {
    fn completed(&self, done: &[BlockCompletion]) {
        let mut results = self.results.lock().unwrap();
        for one in done {
            let before = results.insert(one.token, one.result);
            assert_eq!(before, None, "request {} was completed twice", one.token);
        }
        self.came.notify_all();
    }
}

pub(crate) const MEMORY: usize = 4 << 20;

/// A disk with a device that waits for each request.
pub(crate) struct Rig {
    pub(crate) disk: Disk,
    pub(crate) ram: Arc<Ram>,
    done: Arc<Done>,
    next: u64,
}

impl Rig {
    pub(crate) fn new(options: &DiskOptions) -> Result<Self, DiskError> {
        let ram = Arc::new(Ram::new(vec![
            RamSlot::allocated(0, MEMORY / 2),
            RamSlot::allocated(MEMORY as u64 / 2, MEMORY / 2),
        ]));
        let disk = Disk::open(options, ram.clone())?;
        let done: Arc<Done> = Arc::default();
        let weak = Arc::downgrade(&done);
        disk.connect(weak);
        Ok(Self { disk, ram, done, next: 0 })
    }
    /// Submits requests; gives their tokens.
    pub(crate) fn submit(
        &mut self,
        requests: Vec<(BlockOperation, u64, Vec<GuestRange>)>,
    ) -> Vec<u64> {
        let requests: Vec<_> = requests
            .into_iter()
            .map(|(operation, offset, ranges)| {
                self.next += 1;
                BlockRequest { token: self.next, queue: 0, operation, offset, ranges }
            })
            .collect();
        let tokens = requests.iter().map(|request| request.token).collect();
        self.disk.submit(requests);
        tokens
    }
    /// Submits one request from any thread.
    pub(crate) fn submit_as(
        &self,
        token: u64,
        operation: BlockOperation,
        offset: u64,
        ranges: Vec<GuestRange>,
    ) {
        self.disk.submit(vec![BlockRequest { token, queue: 0, operation, offset, ranges }]);
    }
    pub(crate) fn wait(&self, token: u64) -> Result<(), BlockError> {
        let mut results = self.done.results.lock().unwrap();
        loop {
            if let Some(result) = results.remove(&token) {
                return result;
            }
            results = self.done.came.wait(results).unwrap();
        }
    }
    pub(crate) fn one(
        &mut self,
        operation: BlockOperation,
        offset: u64,
        ranges: Vec<GuestRange>,
    ) -> Result<(), BlockError> {
        let tokens = self.submit(vec![(operation, offset, ranges)]);
        self.wait(tokens[0])
    }
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), BlockError> {
        self.ram.write(0, data).unwrap();
        self.one(BlockOperation::Write, offset, vec![range(0, data.len())])
    }
    pub(crate) fn read(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, BlockError> {
        self.one(BlockOperation::Read, offset, vec![range(0, len)])?;
        let mut data = vec![0; len];
        self.ram.read(0, &mut data).unwrap();
        Ok(data)
    }
    pub(crate) fn flush(&mut self) -> Result<(), BlockError> {
        self.one(BlockOperation::Flush, 0, Vec::new())
    }
}

pub(crate) const fn range(gpa: u64, len: usize) -> GuestRange {
    GuestRange { gpa, len: len as u32 }
}

/// Starts a program, one at a time: until it has become that program, a child has this process's
/// open files, and so the locks of images that other tests have just closed.
pub(crate) fn spawn(command: &mut Command) -> Child {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap();
    command.spawn().expect("the program (qemu-img and qemu-io are in qemu-utils)")
}

/// Runs a program to its end.
pub(crate) fn output(command: &mut Command) -> Output {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    spawn(command).wait_with_output().unwrap()
}

/// QEMU's tool, which is an oracle for qcow2.
pub(crate) fn qemu_img(arguments: &[&str]) -> String {
    let output = output(Command::new("qemu-img").args(arguments));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "qemu-img {arguments:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Errors are none; leaks may be, after a kill.
pub(crate) fn qemu_check(path: &Path) {
    let output = output(Command::new("qemu-img").args(["check", "-f", "qcow2"]).arg(path));
    let code = output.status.code();
    assert!(
        matches!(code, Some(0 | 3)),
        "{code:?} {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
