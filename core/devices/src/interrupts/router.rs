//! The router itself.

use alloc::sync::Arc;
use alloc::vec::Vec;

use kasane_cpu::AccessSize;
use kasane_ports::{IrqLine, Level, Msi, MsiSink};
use kasane_spec_pc::{irq, memory, port};
use lock_api::{Mutex, RawMutex};

use crate::bus::{AddressSpace, Device, MapError, Mapping};
use crate::ioapic::{Ioapic, IoapicForm};
use crate::pic::{PicPair, PicPairForm};
use crate::saved::{RestoreError, Saved, Section};
use crate::socket::Outbox;

const SECTION: &str = "interrupts";
const VERSION: u32 = 1;

/// Where a wire ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// ISA IRQ 0 to 15: the 8259A input and the I/O APIC pin of that number (IRQ 0: pin 2).
    Isa(u8),
    /// The same, for the 8254's IRQ 0 and the RTC's IRQ 8: cut off while the HPET replaces them.
    LegacyTimer(u8),
    /// A pin of the I/O APIC only: PCI INTx on GSI 16 to 23, the HPET's own routes.
    Gsi(u32),
}

/// Who drives IRQ 0 and IRQ 8 (IA-PC HPET 1.0a §2.3.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimerRoute {
    /// The 8254 and the RTC.
    #[default]
    Legacy,
    /// The HPET's timers 0 and 1.
    Hpet,
}

struct Source {
    target: Target,
    high: bool,
}

struct State {
    pics: PicPair,
    ioapic: Ioapic,
    sources: Vec<Source>,
    timers: TimerRoute,
    intr: Outbox,
}

impl State {
    fn isa_level(&self, number: u8) -> Level {
        Level::from_asserted(self.sources.iter().any(|source| {
            source.high
                && match source.target {
                    Target::Isa(n) => n == number,
                    Target::LegacyTimer(n) => n == number && self.timers == TimerRoute::Legacy,
                    Target::Gsi(_) => false,
                }
        }))
    }

    fn gsi_level(&self, pin: u32) -> Level {
        let own = self.sources.iter().any(|s| s.high && s.target == Target::Gsi(pin));
        let isa = isa_of_pin(pin).is_some_and(|number| self.isa_level(number).is_high());
        Level::from_asserted(own || isa)
    }

    /// Brings the chips' inputs that `target` leads to up to date.
    fn drive(&mut self, target: Target, messages: &mut Vec<Msi>) {
        let pin = match target {
            Target::Isa(number) | Target::LegacyTimer(number) => {
                let level = self.isa_level(number);
                self.pics.set_input(number, level);
                pin_of_isa(number)
            }
            Target::Gsi(pin) => Some(pin),
        };
        if let Some(pin) = pin {
            let level = self.gsi_level(pin);
            self.ioapic.set_pin(pin, level, messages);
        }
    }
}

/// IRQ 0 is at pin 2, so that nothing is at pin 0; the cascade has no pin.
fn pin_of_isa(number: u8) -> Option<u32> {
    match number {
        irq::TIMER => Some(irq::TIMER_GSI),
        irq::CASCADE => None,
        1..16 => Some(u32::from(number)),
        16.. => None,
    }
}

fn isa_of_pin(pin: u32) -> Option<u8> {
    (0..16).find(|number| pin_of_isa(*number) == Some(pin))
}

/// The router with both interrupt controllers in it.
pub struct InterruptRouter<R: RawMutex> {
    state: Mutex<R, State>,
    intr: [Option<Arc<dyn IrqLine>>; 1],
    messages: Arc<dyn MsiSink>,
}

impl<R: RawMutex + Send + Sync + 'static> InterruptRouter<R> {
    /// A router whose 8259A output drives `intr` and whose I/O APIC sends to `messages`.
    #[must_use]
    pub fn new(intr: Arc<dyn IrqLine>, messages: Arc<dyn MsiSink>) -> Arc<Self> {
        let state = State {
            pics: PicPair::default(),
            ioapic: Ioapic::default(),
            sources: Vec::new(),
            timers: TimerRoute::default(),
            intr: Outbox::default(),
        };
        Arc::new(Self { state: Mutex::new(state), intr: [Some(intr)], messages })
    }

    /// A new wire. Wires to one target are OR-ed. A machine makes its wires in a fixed order:
    /// their levels are saved in it.
    #[must_use]
    pub fn wire(self: &Arc<Self>, target: Target) -> Arc<dyn IrqLine> {
        let mut state = self.state.lock();
        let index = state.sources.len();
        state.sources.push(Source { target, high: false });
        Arc::new(Wire { router: self.clone(), index })
    }

    /// A new wire to ISA interrupt `number`.
    #[must_use]
    pub fn isa_line(self: &Arc<Self>, number: u8) -> Arc<dyn IrqLine> {
        self.wire(Target::Isa(number))
    }

    /// A new wire to pin `pin` of the I/O APIC.
    #[must_use]
    pub fn gsi_line(self: &Arc<Self>, pin: u32) -> Arc<dyn IrqLine> {
        self.wire(Target::Gsi(pin))
    }

    /// The processor takes the interrupt of the 8259A pair: its vector, or none when the request
    /// is gone, as INTR is sampled before the acknowledge cycle starts.
    #[must_use]
    pub fn acknowledge(&self) -> Option<u8> {
        self.with(|state, _| state.pics.output().then(|| state.pics.acknowledge()))
    }

    /// A local APIC ended a level-triggered interrupt.
    pub fn end_of_interrupt(&self, vector: u8) {
        self.with(|state, messages| state.ioapic.end_of_interrupt(vector, messages));
    }

    /// The HPET takes over IRQ 0 and 8, or gives them back.
    pub fn set_timer_route(&self, route: TimerRoute) {
        self.with(|state, messages| {
            state.timers = route;
            state.drive(Target::LegacyTimer(irq::TIMER), messages);
            state.drive(Target::LegacyTimer(irq::RTC), messages);
        });
    }

    /// Puts the 8259A pair and the I/O APIC at their usual addresses.
    ///
    /// # Errors
    /// When something else is there.
    pub fn attach(
        self: &Arc<Self>,
        ports: &AddressSpace<R>,
        memory: &AddressSpace<R>,
    ) -> Result<(), MapError> {
        let pics: Arc<dyn Device> = Arc::new(PicPorts(self.clone()));
        for (base, offset) in [(port::PIC_1, 0), (port::PIC_2, 2), (port::ELCR, 4)] {
            ports.map(Mapping::new(u64::from(base), 2, pics.clone()).at_offset(offset))?;
        }
        let window = Arc::new(IoapicWindow(self.clone()));
        memory.map(Mapping::new(memory::IOAPIC, memory::IOAPIC_LEN, window))?;
        Ok(())
    }

    /// Back to power-on; the wires keep their levels.
    pub fn reset(&self) {
        self.with(|state, messages| {
            state.pics = PicPair::default();
            state.ioapic = Ioapic::default();
            state.timers = TimerRoute::default();
            for index in 0..state.sources.len() {
                if let Some(target) = state.sources.get(index).map(|source| source.target) {
                    state.drive(target, messages);
                }
            }
        });
    }

    fn set(&self, index: usize, level: Level) {
        self.with(|state, messages| {
            let high = level.is_high();
            let Some(source) = state.sources.get_mut(index) else { return };
            if source.high != high {
                source.high = high;
                let target = source.target;
                state.drive(target, messages);
            }
        });
    }

    fn with<T>(&self, call: impl FnOnce(&mut State, &mut Vec<Msi>) -> T) -> T {
        let mut messages = Vec::new();
        let mut state = self.state.lock();
        let result = call(&mut state, &mut messages);
        let intr = u32::from(state.pics.output());
        let mut changes = state.intr.note(intr, 0);
        drop(state);
        for message in messages {
            self.messages.signal(message);
        }
        while let Some(now) = changes {
            now.drive(&self.intr);
            changes = self.state.lock().intr.after(now);
        }
        result
    }
}

struct Wire<R: RawMutex> {
    router: Arc<InterruptRouter<R>>,
    index: usize,
}

impl<R: RawMutex + Send + Sync + 'static> IrqLine for Wire<R> {
    fn set(&self, level: Level) {
        self.router.set(self.index, level);
    }
}

/// The 8259A pair on the port bus: offsets 0 and 1 first, 2 and 3 second, 4 and 5 ELCR.
pub struct PicPorts<R: RawMutex>(pub Arc<InterruptRouter<R>>);

impl<R: RawMutex + Send + Sync + 'static> Device for PicPorts<R> {
    fn name(&self) -> &'static str {
        "pic"
    }
    fn widest_access(&self) -> AccessSize {
        AccessSize::Byte
    }
    fn read(&self, offset: u32, _size: AccessSize, _now_ns: u64) -> u64 {
        u64::from(self.0.with(|state, _| state.pics.read(offset)))
    }
    fn write(&self, offset: u32, _size: AccessSize, value: u64, _now_ns: u64) {
        self.0.with(|state, _| state.pics.write(offset, value as u8));
    }
}

/// The I/O APIC on the memory bus.
pub struct IoapicWindow<R: RawMutex>(pub Arc<InterruptRouter<R>>);

impl<R: RawMutex + Send + Sync + 'static> Device for IoapicWindow<R> {
    fn name(&self) -> &'static str {
        "ioapic"
    }
    fn read(&self, offset: u32, _size: AccessSize, _now_ns: u64) -> u64 {
        u64::from(self.0.with(|state, _| state.ioapic.read(offset)))
    }
    fn write(&self, offset: u32, _size: AccessSize, value: u64, _now_ns: u64) {
        self.0.with(|state, messages| state.ioapic.write(offset, value as u32, messages));
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Form {
    pics: PicPairForm,
    ioapic: IoapicForm,
    levels: Vec<bool>,
    hpet_timers: bool,
}

/// Restore the router before the devices: with the wires' levels back in place, a device that
/// drives its wires to their saved levels makes no edge.
impl<R: RawMutex + Send + Sync + 'static> Saved for InterruptRouter<R> {
    fn section_name(&self) -> &str {
        SECTION
    }
    fn save(&self) -> Section {
        let state = self.state.lock();
        let State { pics, ioapic, sources, timers, intr: _ } = &*state;
        let form = Form {
            pics: PicPairForm::of(pics),
            ioapic: IoapicForm::of(ioapic),
            levels: sources.iter().map(|source| source.high).collect(),
            hpet_timers: *timers == TimerRoute::Hpet,
        };
        Section::encode(SECTION, VERSION, &form)
    }
    fn restore(&self, section: &Section) -> Result<(), RestoreError> {
        let Form { pics, ioapic, levels, hpet_timers } = section.decode(SECTION, VERSION)?;
        self.with(|state, _| {
            if levels.len() != state.sources.len() {
                return Err(RestoreError::Malformed { name: section.name.clone() });
            }
            pics.put(&mut state.pics);
            ioapic.put(&mut state.ioapic);
            state.timers = if hpet_timers { TimerRoute::Hpet } else { TimerRoute::Legacy };
            for (source, high) in state.sources.iter_mut().zip(levels) {
                source.high = high;
            }
            Ok(())
        })
    }
}
