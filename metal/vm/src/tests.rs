//! Machines live and end on a host: the same code with the host's time and memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // tests may panic

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use kasane_memory::{AllocatedRam, RamBacking};
use kasane_metal_memory::NoMemory;
use kasane_metal_sched::{Processors, Runtime};
use kasane_passthrough::NoCodeRunner;
use kasane_ports::{Clock, Console, Entropy, HeavyBarrier, Kick};
use spin::Mutex;

use crate::{End, Engine, Files, Home, Life, Machines, Screen};

fn now_ns() -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// One processor: the thread of the test.
struct Thread;

impl Processors for Thread {
    fn current(&self) -> u32 {
        0
    }
    fn now_ns(&self) -> u64 {
        now_ns()
    }
    fn arm(&self, _at_ns: Option<u64>) {}
    fn poke(&self, _processor: u32) {}
    fn wait(&self, idle: &mut dyn FnMut() -> bool) {
        if idle() {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

struct Time(u64);

impl Clock for Time {
    fn now_ns(&self) -> u64 {
        now_ns() - self.0
    }
    fn wall_clock_s(&self) -> u64 {
        0
    }
}

struct Nothing;

impl Entropy for Nothing {
    fn fill(&self, _buf: &mut [u8]) {}
}
impl HeavyBarrier for Nothing {
    fn synchronize(&self) {}
}
impl Kick for Nothing {
    fn kick(&self) {}
}

#[derive(Default)]
struct Page(Mutex<Vec<u8>>);

impl Console for Page {
    fn output(&self, bytes: &[u8]) {
        self.0.lock().extend(bytes);
    }
}

fn ram(len: u64) -> Result<Box<dyn RamBacking>, NoMemory> {
    if len > 64 << 20 {
        return Err(NoMemory { asked: len, free: 64 << 20 });
    }
    Ok(Box::new(AllocatedRam::new(len as usize)))
}

type Host = Runtime<parking_lot::RawMutex, Thread>;

fn home() -> (Arc<Host>, Arc<Page>, Home) {
    let runtime = Arc::new(Host::new(Thread, 1));
    let screen = Arc::new(Page::default());
    let home = Home {
        spawner: runtime.clone(),
        now_ns,
        clock: || Arc::new(Time(now_ns())),
        tsc_hz: 1_000_000_000,
        entropy: Arc::new(Nothing),
        barrier: Arc::new(Nothing),
        ram,
        runner: Arc::new(NoCodeRunner),
        best: Engine::Interp,
        news: Arc::new(Nothing),
        screen: screen.clone(),
    };
    (runtime, screen, home)
}

/// A Multiboot 1 image at 1 MiB, with its addresses in the header (§3.1.3).
fn image(code: &[u8]) -> &'static [u8] {
    let (magic, flags) = (0x1BAD_B002u32, 0x1_0000u32);
    let base = 0x10_0000u32;
    let end = base + 32 + code.len() as u32;
    let checksum = 0u32.wrapping_sub(magic).wrapping_sub(flags);
    let words = [magic, flags, checksum, base, base, end, end, base + 32];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(code);
    bytes.leak()
}

/// Says `hi`, then switches off: `mov dx, 3F8; mov al, c; out dx, al; ...; mov dx, 604;
/// mov ax, 2000; out dx, ax; hlt`.
const HI: &[u8] = b"\x66\xBA\xF8\x03\xB0h\xEE\xB0i\xEE\x66\xBA\x04\x06\x66\xB8\x00\x20\x66\xEF\xF4";
/// For ever.
const SPIN: &[u8] = b"\xEB\xFE";
/// A fault without an interrupt table that could be used.
const CRASH: &[u8] = b"\x0F\x01\x1D\x0B\x00\x10\x00\x0F\x0B\xF4\x00\x00\x00\x00\x00\x00\x00";

fn files(definition: &'static str, code: &[u8]) -> Files {
    let mut files = Files::default();
    files.add("vm.toml", definition.as_bytes());
    files.add("kernel", image(code));
    files
}

const DEFINITION: &str = "name = 'a'\nmemory = '16M'\n[boot]\nkernel = 'x/kernel'\n";

fn until_the_end(runtime: &Host, machines: &mut Machines) -> End {
    loop {
        runtime.turn();
        if let Some((_, end)) = machines.finished().pop() {
            return end;
        }
    }
}

#[test]
fn a_machine_speaks_and_switches_off_and_can_be_started_again() {
    let (runtime, screen, home) = home();
    let (mut machines, refused) = Machines::new(home, files(DEFINITION, HI));
    let place = machines.find("a").unwrap();
    assert_eq!((refused, machines.report()[0].life.clone()), (Vec::new(), Life::New));
    for _ in 0..2 {
        machines.start(place).unwrap();
        assert_eq!(machines.report()[0].life, Life::Runs("interp"));
        assert_eq!(until_the_end(&runtime, &mut machines), End::PoweredOff);
    }
    machines.console(place).unwrap().set_screen(Screen::Joined);

    assert_eq!(*screen.0.lock(), b"hihi");
    assert_eq!(machines.report()[0].life, Life::Ended(End::PoweredOff));
    assert!(runtime.report().is_empty(), "its tasks are gone");
}

#[test]
fn a_machine_that_spins_is_stopped() {
    let (runtime, _, home) = home();
    let preempted = Arc::clone(&runtime);
    let (mut machines, _) = Machines::new(home, files(DEFINITION, SPIN));
    let place = machines.find("1").unwrap();
    machines.start(place).unwrap();
    let ticks = std::thread::spawn(move || {
        while !preempted.report().is_empty() {
            std::thread::sleep(Duration::from_millis(1));
            preempted.tick();
        }
    });
    for _ in 0..20 {
        runtime.turn();
    }
    let ran: u64 = runtime.report().iter().map(|task| task.ran_ns).sum();
    assert!(machines.stop(place));

    assert_eq!(until_the_end(&runtime, &mut machines), End::Stopped);
    assert!(ran > 0);
    ticks.join().unwrap();
    assert!(!machines.stop(place));
}

#[test]
fn a_crash_says_where() {
    let (runtime, _, home) = home();
    let (mut machines, _) = Machines::new(home, files(DEFINITION, CRASH));
    machines.start(machines.find("1").unwrap()).unwrap();

    let end = until_the_end(&runtime, &mut machines);

    assert_eq!(end.to_string(), "crashed: processor 0 shut down by a triple fault at 0x100027");
}

#[test]
fn what_is_wrong_with_a_definition_is_said() {
    let why = |text: &'static str| {
        let (_, _, home) = home();
        let (mut machines, refused) = Machines::new(home, files(text, HI));
        let start = machines.find("1").map(|place| machines.start(place).unwrap_err().to_string());
        start.unwrap_or_else(|| refused.concat())
    };
    let said: [(&str, &str); 5] = [
        ("name = 'a'", "its definition names no kernel"),
        ("[boot]\nkernel = 'bzImage'", "the loader brought no file `bzImage`"),
        (
            "memory = '128M'\n[boot]\nkernel = 'kernel'",
            "131072 KiB of RAM asked in one piece, 65536 KiB are free",
        ),
        ("[boot]\nkernel = 'kernel'\n[home.metal]\nengine = 'svm'", "this processor has no `svm`"),
        ("speed = 1", "vm.toml: line 1, column 1: unknown key `speed`"),
    ];
    for (text, expected) in said {
        assert_eq!(why(text), String::from(expected));
    }
}
