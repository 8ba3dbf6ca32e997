use super::*;
use crate::{AddressSpace, Saved};
use alloc::sync::Arc;
use alloc::vec::Vec;
use kasane_cpu::AccessSize::Byte;
use kasane_ports::{A20Line, Level};
use parking_lot::{Mutex, RawMutex as Raw};

#[derive(Default)]
struct Home {
    a20: Mutex<Vec<Level>>,
    requests: Mutex<Vec<SystemRequest>>,
}
impl A20Line for Home {
    fn set(&self, level: Level) {
        self.a20.lock().push(level);
    }
}
impl SystemPort for Home {
    fn request(&self, request: SystemRequest) {
        self.requests.lock().push(request);
    }
}

#[test]
fn port_92_opens_a20_and_resets_on_an_edge() {
    let (home, ports) = (Arc::new(Home::default()), AddressSpace::<Raw>::ports());
    let gate = A20Gate::new(home.clone());
    attach_system_control(&ports, gate.wire(1), home.clone()).unwrap();
    ports.write(0x92, Byte, 0x02, 0);
    assert_eq!(*home.a20.lock(), [Level::High]);
    assert_eq!(ports.read(0x92, Byte, 0).value, 0x02);
    ports.write(0x92, Byte, 0x03, 0);
    ports.write(0x92, Byte, 0x03, 0);
    assert_eq!(*home.requests.lock(), [SystemRequest::Reset(ResetKind::Processor)]);
}

#[test]
fn a20_stays_open_while_any_source_opens_it() {
    let home = Arc::new(Home::default());
    let gate = A20Gate::new(home.clone());
    let (one, two) = (gate.wire(0), gate.wire(1));
    one.set(Level::High);
    two.set(Level::High);
    one.set(Level::Low);
    assert_eq!(*home.a20.lock(), [Level::High]);
    two.set(Level::Low);
    assert_eq!(*home.a20.lock(), [Level::High, Level::Low]);
}

#[test]
fn cf9_resets_as_linux_asks_for_it() {
    let (home, ports) = (Arc::new(Home::default()), AddressSpace::<Raw>::ports());
    let socket = attach_reset_control(&ports, home.clone()).unwrap();
    let value = ports.read(0xCF9, Byte, 0).value & !0x0E;
    ports.write(0xCF9, Byte, value | 0x02, 0);
    assert_eq!(*home.requests.lock(), []);
    ports.write(0xCF9, Byte, value | 0x06, 0);
    assert_eq!(*home.requests.lock(), [SystemRequest::Reset(ResetKind::System)]);
    ports.write(0xCF9, Byte, 0, 0);
    ports.write(0xCF9, Byte, 0x04, 0);
    assert_eq!(home.requests.lock()[1], SystemRequest::Reset(ResetKind::Processor));
    let section = socket.save();
    socket.restore(&section).unwrap();
    assert_eq!(ports.read(0xCF9, Byte, 0).value, 0x04);
}
