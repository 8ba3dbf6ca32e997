use super::*;
use crate::saved::Saved;
use crate::{AddressSpace, Device};
use alloc::sync::Arc;
use alloc::vec::Vec;
use kasane_cpu::AccessSize;
use kasane_ports::{IrqLine, Level, Msi, MsiSink};
use parking_lot::{Mutex, RawMutex as Raw};

#[derive(Default)]
struct Cpu {
    intr: Mutex<Vec<Level>>,
    messages: Mutex<Vec<Msi>>,
}
impl IrqLine for Cpu {
    fn set(&self, level: Level) {
        self.intr.lock().push(level);
    }
}
impl MsiSink for Cpu {
    fn signal(&self, msi: Msi) {
        self.messages.lock().push(msi);
    }
}

fn router() -> (Arc<InterruptRouter<Raw>>, Arc<Cpu>) {
    let cpu = Arc::new(Cpu::default());
    let router = InterruptRouter::<Raw>::new(cpu.clone(), cpu.clone());
    (router, cpu)
}

fn init_pics(router: &Arc<InterruptRouter<Raw>>) {
    let pics = PicPorts(router.clone());
    for (offset, value) in
        [(0, 0x11), (1, 0x20), (1, 4), (1, 1), (2, 0x11), (3, 0x28), (3, 2), (3, 1)]
    {
        pics.write(offset, AccessSize::Byte, value, 0);
    }
}

fn redirect(router: &Arc<InterruptRouter<Raw>>, pin: u64, low: u64) {
    let window = IoapicWindow(router.clone());
    window.write(0, AccessSize::Dword, 0x10 + 2 * pin, 0);
    window.write(0x10, AccessSize::Dword, low, 0);
}

#[test]
fn a_wire_reaches_both_controllers() {
    let (router, cpu) = router();
    init_pics(&router);
    redirect(&router, 4, 0x51);
    router.isa_line(4).set(Level::High);
    assert_eq!(*cpu.intr.lock(), [Level::High]);
    assert_eq!(cpu.messages.lock()[0].data, 0x51);
    assert_eq!(router.acknowledge(), Some(0x24));
    assert_eq!(*cpu.intr.lock(), [Level::High, Level::Low]);
    assert_eq!(router.acknowledge(), None);
}

#[test]
fn the_timer_is_at_pin_two() {
    let (router, cpu) = router();
    redirect(&router, 0, 0x50);
    redirect(&router, 2, 0x52);
    router.isa_line(0).set(Level::High);
    assert_eq!(cpu.messages.lock().len(), 1);
    assert_eq!(cpu.messages.lock()[0].data, 0x52);
}

#[test]
fn shared_wires_are_or_ed() {
    let (router, cpu) = router();
    redirect(&router, 16, 0x8060);
    let (one, two) = (router.gsi_line(16), router.gsi_line(16));
    one.set(Level::High);
    two.set(Level::High);
    one.set(Level::Low);
    router.end_of_interrupt(0x60);
    assert_eq!(cpu.messages.lock().len(), 2, "the second source still holds the pin");
    two.set(Level::Low);
    router.end_of_interrupt(0x60);
    assert_eq!(cpu.messages.lock().len(), 2);
}

#[test]
fn the_hpet_replaces_the_legacy_timers() {
    let (router, cpu) = router();
    redirect(&router, 2, 0x52);
    let (pit, hpet) = (router.wire(Target::LegacyTimer(0)), router.isa_line(0));
    router.set_timer_route(TimerRoute::Hpet);
    pit.set(Level::High);
    assert_eq!(cpu.messages.lock().len(), 0);
    hpet.set(Level::High);
    assert_eq!(cpu.messages.lock().len(), 1);
}

#[test]
fn everything_is_at_its_address() {
    let (router, _) = router();
    let (ports, memory) = (AddressSpace::<Raw>::ports(), AddressSpace::<Raw>::memory());
    router.attach(&ports, &memory).unwrap();
    ports.write(0x4D1, AccessSize::Byte, 0xFF, 0);
    assert_eq!(ports.read(0x4D0, AccessSize::Word, 0).value, 0xDE00);
    memory.write(0xFEC0_0000, AccessSize::Dword, 1, 0);
    assert_eq!(memory.read(0xFEC0_0010, AccessSize::Dword, 0).value, 0x0017_0020);
}

#[test]
fn a_restored_router_has_the_requests_and_makes_no_edges() {
    let (old, _) = router();
    let wire = old.isa_line(4);
    init_pics(&old);
    redirect(&old, 4, 0x51);
    wire.set(Level::High);
    let (new, cpu) = router();
    let wire = new.isa_line(4);
    new.restore(&old.save()).unwrap();
    wire.set(Level::High);
    assert_eq!(*cpu.intr.lock(), [Level::High]);
    assert_eq!(*cpu.messages.lock(), []);
    assert_eq!(new.acknowledge(), Some(0x24));
    assert!(router().0.restore(&old.save()).is_err(), "another number of wires");
}
