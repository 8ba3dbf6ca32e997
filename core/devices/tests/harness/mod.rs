//! A board with all chips of this crate, for tests and fuzzing.
#![allow(missing_docs, unreachable_pub, dead_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kasane_cpu::AccessSize::Byte;
use kasane_devices::system::{self, A20Gate, SystemPort, SystemRequest};
use kasane_devices::{
    AddressSpace, InterruptRouter, MapError, Saved, Socket, Timed, acpi_pm, debug_port, dma, hpet,
    i8042, pit, rtc, uart,
};
use kasane_ports::{A20Line, Console, IrqLine, Kick, Level, Msi, MsiSink};
use parking_lot::{Mutex, RawMutex as Raw};

#[derive(Default)]
pub struct Home {
    pub output: Mutex<Vec<u8>>,
    pub messages: Mutex<Vec<Msi>>,
    pub intr: Mutex<Level>,
    pub requests: Mutex<Vec<SystemRequest>>,
    pub kicks: AtomicU64,
}
impl Console for Home {
    fn output(&self, bytes: &[u8]) {
        self.output.lock().extend(bytes);
    }
}
impl MsiSink for Home {
    fn signal(&self, msi: Msi) {
        self.messages.lock().push(msi);
    }
}
impl SystemPort for Home {
    fn request(&self, request: SystemRequest) {
        self.requests.lock().push(request);
    }
}
impl Kick for Home {
    fn kick(&self) {
        self.kicks.fetch_add(1, Ordering::Relaxed);
    }
}
impl A20Line for Home {
    fn set(&self, _level: Level) {}
}
struct Intr(Arc<Home>);
impl IrqLine for Intr {
    fn set(&self, level: Level) {
        *self.0.intr.lock() = level;
    }
}

pub struct Board {
    pub home: Arc<Home>,
    pub ports: AddressSpace<Raw>,
    pub memory: AddressSpace<Raw>,
    pub router: Arc<InterruptRouter<Raw>>,
    pub serial: Arc<Socket<Raw, uart::Uart>>,
    pub timed: Vec<Arc<dyn Timed>>,
    pub saved: Vec<Arc<dyn Saved>>,
}

impl Board {
    pub fn new() -> Result<Self, MapError> {
        let home = Arc::new(Home::default());
        let (ports, memory) = (AddressSpace::ports(), AddressSpace::memory());
        let router = InterruptRouter::<Raw>::new(Arc::new(Intr(home.clone())), home.clone());
        router.attach(&ports, &memory)?;
        let gate = A20Gate::new(home.clone());
        let pit = pit::attach(&ports, &router, home.clone())?;
        let cmos = rtc::CmosConfig {
            wall_clock_ns: 1_700_000_000_000_000_000,
            memory: rtc::Extent { below_4g: 64 << 20, above_4g: 0 },
            cpus: 1,
        };
        let rtc = rtc::attach(&ports, &router, home.clone(), None, &cmos)?;
        let outputs = i8042::OutputPortWires { a20: gate.wire(0), system: home.clone() };
        let keyboard = i8042::attach(&ports, &router, home.clone(), outputs)?;
        let place = uart::SerialPort::Com1;
        let line = uart::SerialLine { place, console: home.clone(), room: None };
        let serial = uart::attach(&ports, &router, home.clone(), line)?;
        let delivery = hpet::Delivery::Wires;
        let outputs = hpet::Outputs { delivery, messages: home.clone() };
        let hpet = hpet::attach(&memory, &router, home.clone(), outputs)?;
        let connections = acpi_pm::Connections { system: home.clone(), base: Some(0x600) };
        let (pm, _) = acpi_pm::attach(&ports, &router, home.clone(), connections)?;
        let port92 = system::attach_system_control(&ports, gate.wire(1), home.clone())?;
        let reset = system::attach_reset_control(&ports, home.clone())?;
        let dma = dma::attach(&ports)?;
        debug_port::attach(&ports, home.clone())?;
        let timed: Vec<Arc<dyn Timed>> = vec![
            pit.clone(),
            rtc.clone(),
            keyboard.clone(),
            serial.clone(),
            hpet.clone(),
            pm.clone(),
        ];
        let saved: Vec<Arc<dyn Saved>> =
            vec![router.clone(), pit, rtc, keyboard, serial.clone(), hpet, pm, port92, reset, dma];
        Ok(Self { home, ports, memory, router, serial, timed, saved })
    }

    pub fn out(&self, port: u64, value: u64) {
        self.ports.write(port, Byte, value, 0);
    }
    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.timed.iter().filter_map(|device| device.next_deadline_ns()).min()
    }
    pub fn advance(&self, now_ns: u64) {
        self.timed.iter().for_each(|device| device.advance(now_ns));
    }
    pub fn init_pics(&self) {
        for (port, value) in
            [(0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0xA0, 0x11), (0xA1, 0x28)]
        {
            self.out(port, value);
        }
        for (port, value) in [(0xA1, 2), (0xA1, 1), (0x21, 0), (0xA1, 0)] {
            self.out(port, value);
        }
    }
}
