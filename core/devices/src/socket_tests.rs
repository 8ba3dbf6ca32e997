use super::*;
use parking_lot::RawMutex as Raw;

/// Wire 0 is bit 0 of the register; a write of 0x80 pulses wire 1 and is an effect; the deadline
/// is the register's value.
#[derive(Default)]
struct Toy(u8);

impl Chip for Toy {
    type Effect = u8;
    const NAME: &'static str = "toy";
    fn read(&mut self, _access: Access, _effects: &mut Effects<u8>) -> u64 {
        u64::from(self.0)
    }
    fn write(&mut self, _access: Access, value: u64, effects: &mut Effects<u8>) {
        self.0 = value as u8;
        if self.0 & 0x80 != 0 {
            effects.pulses |= 2;
            effects.push(self.0);
        }
    }
    fn levels(&self) -> u32 {
        u32::from(self.0 & 1)
    }
    fn next_deadline_ns(&self) -> Option<u64> {
        Some(u64::from(self.0)).filter(|ns| *ns != 0)
    }
    fn save(&self, name: &str) -> Section {
        Section::encode(name, 1, &self.0)
    }
    fn restore(&mut self, name: &str, section: &Section) -> Result<(), RestoreError> {
        self.0 = section.decode(name, 1)?;
        Ok(())
    }
}

#[derive(Default)]
struct Log(parking_lot::Mutex<Vec<Level>>);
impl IrqLine for Log {
    fn set(&self, level: Level) {
        self.0.lock().push(level);
    }
}
#[derive(Default)]
struct Kicks(AtomicU64);
impl Kick for Kicks {
    fn kick(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn wires_are_driven_on_changes_only_and_pulses_pass_both_levels() {
    let (wire0, wire1) = (Arc::new(Log::default()), Arc::new(Log::default()));
    let wiring = Wiring::wires(alloc::vec![Some(wire0.clone() as _), Some(wire1.clone() as _)]);
    let socket = Socket::<Raw, Toy>::new("toy", Toy::default(), wiring);
    for value in [1, 1, 0x80, 0] {
        socket.write(0, AccessSize::Byte, value, 0);
    }
    assert_eq!(*wire0.0.lock(), [Level::High, Level::Low]);
    assert_eq!(*wire1.0.lock(), [Level::High, Level::Low]);
}

#[test]
fn effects_come_in_order_and_may_call_back() {
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let log = seen.clone();
    let wiring = Wiring::wires(Vec::new()).effects(move |e| log.lock().push(e));
    let socket = Socket::<Raw, Toy>::new("toy", Toy::default(), wiring);
    socket.write(0, AccessSize::Byte, 0x81, 0);
    socket.write(0, AccessSize::Byte, 0x82, 0);
    assert_eq!(*seen.lock(), [0x81, 0x82]);
}

#[test]
fn an_earlier_deadline_kicks_and_a_later_one_does_not() {
    let kicks = Arc::new(Kicks::default());
    let wiring = Wiring::wires(Vec::new()).deadline(kicks.clone());
    let socket = Socket::<Raw, Toy>::new("toy", Toy::default(), wiring);
    socket.write(0, AccessSize::Byte, 50, 0);
    socket.write(0, AccessSize::Byte, 60, 0);
    assert_eq!(kicks.0.load(Ordering::Relaxed), 1);
    assert_eq!(socket.next_deadline_ns(), Some(60));
    socket.write(0, AccessSize::Byte, 0, 0);
    assert_eq!(socket.next_deadline_ns(), None);
}

#[test]
fn what_was_lowered_is_low_although_another_thread_is_late_with_its_change() {
    let wire = Arc::new(Log::default());
    let wires = [Some(wire.clone() as Arc<dyn IrqLine>)];
    let mut outbox = Outbox::default();
    let late = outbox.note(1, 0).unwrap();
    late.drive(&wires);
    // It has lost its processor. Another thread lowers the wire, and goes on.
    let lowered = outbox.note(0, 0).unwrap();
    lowered.drive(&wires);
    assert_eq!((outbox.after(lowered), wire.0.lock().last()), (None, Some(&Level::Low)));
    outbox.after(late).unwrap().drive(&wires);
    assert_eq!(*wire.0.lock(), [Level::High, Level::Low, Level::Low]);
}

#[test]
fn an_edge_that_came_and_went_before_it_was_driven_is_still_driven() {
    let wire = Arc::new(Log::default());
    let wires = [Some(wire.clone() as Arc<dyn IrqLine>)];
    let mut outbox = Outbox::default();
    let raised = outbox.note(1, 0).unwrap();
    outbox.note(0, 0).unwrap().drive(&wires);
    raised.drive(&wires);
    let again = outbox.after(raised).unwrap();
    again.drive(&wires);
    assert_eq!(outbox.after(again), None);
    assert_eq!(*wire.0.lock(), [Level::Low, Level::High, Level::Low]);
}

#[test]
fn threads_that_raise_and_lower_leave_the_wire_as_it_stands() {
    let wire = Arc::new(Log::default());
    let wiring = Wiring::wires(alloc::vec![Some(wire.clone() as _)]);
    let socket = Arc::new(Socket::<Raw, Toy>::new("toy", Toy::default(), wiring));
    for round in 0..50u64 {
        std::thread::scope(|scope| {
            for value in [round & 1, 1, 0, !round & 1] {
                let socket = &socket;
                scope.spawn(move || socket.write(0, AccessSize::Byte, value, 0));
            }
        });
        let level = Level::from_asserted(socket.read(0, AccessSize::Byte, 0) & 1 != 0);
        assert_eq!(wire.0.lock().last().copied().unwrap_or_default(), level);
    }
}

#[test]
fn restore_drives_the_wires_and_refuses_foreign_sections() {
    let wire = Arc::new(Log::default());
    let wiring = Wiring::wires(alloc::vec![Some(wire.clone() as _)]);
    let socket = Socket::<Raw, Toy>::new("toy", Toy::default(), wiring);
    let section = Section::encode("toy", 1, &1u8);
    socket.restore(&section).unwrap();
    assert_eq!(*wire.0.lock(), [Level::High]);
    assert_eq!(socket.save(), section);
    assert!(socket.restore(&Section::encode("other", 1, &1u8)).is_err());
    assert!(socket.restore(&Section::encode("toy", 2, &1u8)).is_err());
    assert!(socket.restore(&Section { bytes: Vec::new(), ..section }).is_err());
}
