//! A chip in its socket: the lock around it, its output wires and its effects.
//!
//! # Effects after unlocking
//! A chip's call returns with new levels of its output wires and with effects. Both are applied
//! after the chip's lock is released, so that a wire that leads back to the chip, DMA into the
//! chip's own registers or an interrupt that is answered at once can't deadlock (DESIGN §3).
//!
//! Two threads may then drive the same wires in the wrong order. So levels have a version: who has
//! driven wires looks whether the levels are still those, and drives them again if not. The last
//! to drive a wire has then driven what stands. Edges aren't lost, because each thread drives the
//! change that it made, late or not.
//!
//! What a call has lowered is low when it returns (or was raised again): a guest that has served a
//! level-triggered interrupt ends it right after that, and would be interrupted for as long as a
//! wire stayed up. A first design left the change to a thread that was just driving; when that one
//! lost its processor in between, guests were flooded.
//!
//! The rejected way: holding the chip's lock while driving wires. It is simpler and right for
//! interrupt wires, but wrong for effects that can come back (MSI, a backend's request).
//!
//! Lock order: a chip's lock is a leaf; nothing else is locked under it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use kasane_cpu::AccessSize;
use kasane_ports::{IrqLine, Kick, Level};
use lock_api::{Mutex, RawMutex};

use crate::bus::Device;
use crate::saved::{RestoreError, Saved, Section};

/// Where and when a chip's register is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Offset in the chip's own space.
    pub offset: u32,
    /// Width; at most the chip's widest.
    pub size: AccessSize,
    /// Guest time.
    pub now_ns: u64,
}

/// What a chip's call asks for, beyond wire levels.
#[derive(Debug)]
pub struct Effects<E> {
    /// Output wires (by bit) that went through both levels within the call.
    pub pulses: u32,
    /// One-time effects, in order.
    pub list: Vec<E>,
}

impl<E> Default for Effects<E> {
    fn default() -> Self {
        Self { pulses: 0, list: Vec::new() }
    }
}

impl<E> Effects<E> {
    /// Adds a one-time effect.
    pub fn push(&mut self, effect: E) {
        self.list.push(effect);
    }
}

/// A chip: a pure state machine. No clock, no lock, no host.
pub trait Chip: Send + 'static {
    /// One-time effects; `core::convert::Infallible` for a chip that has only wires.
    type Effect: Send;
    /// A short stable name for traces and statistics.
    const NAME: &'static str;
    /// The widest access it takes as a whole.
    const WIDEST: AccessSize = AccessSize::Byte;

    /// A register read.
    fn read(&mut self, access: Access, effects: &mut Effects<Self::Effect>) -> u64;
    /// A register write.
    fn write(&mut self, access: Access, value: u64, effects: &mut Effects<Self::Effect>);
    /// The levels of the output wires, by bit.
    fn levels(&self) -> u32 {
        0
    }
    /// The guest time at which `advance` has to be called, if nothing happens before.
    fn next_deadline_ns(&self) -> Option<u64> {
        None
    }
    /// Brings the chip to `now_ns`. May be called at any time.
    fn advance(&mut self, _now_ns: u64, _effects: &mut Effects<Self::Effect>) {}
    /// The state as a section called `name`.
    fn save(&self, name: &str) -> Section;
    /// Takes over a saved state; keeps its own on an error.
    ///
    /// # Errors
    /// A section of another name or version, or malformed.
    fn restore(&mut self, name: &str, section: &Section) -> Result<(), RestoreError>;
}

/// A device that has to be called at a guest time.
pub trait Timed: Send + Sync {
    /// The next guest time at which `advance` is wanted.
    fn next_deadline_ns(&self) -> Option<u64>;
    /// Brings the device to `now_ns`.
    fn advance(&self, now_ns: u64);
}

/// Told when a device's next deadline became earlier than it was.
pub type DeadlineKick = Arc<dyn Kick>;

/// What a chip's outputs are connected to.
pub struct Wiring<E> {
    /// The output wires by bit; `None` is not connected.
    pub wires: Vec<Option<Arc<dyn IrqLine>>>,
    /// Who is told of an earlier deadline.
    pub deadline: Option<DeadlineKick>,
    /// Who takes the one-time effects. Called without any lock of the socket.
    pub effects: Box<dyn Fn(E) + Send + Sync>,
}

impl<E> Wiring<E> {
    /// Connects `wires`, and nothing else.
    #[must_use]
    pub fn wires(wires: Vec<Option<Arc<dyn IrqLine>>>) -> Self {
        Self { wires, deadline: None, effects: Box::new(|_| {}) }
    }
    /// Who is told of an earlier deadline.
    #[must_use]
    pub fn deadline(mut self, kick: DeadlineKick) -> Self {
        self.deadline = Some(kick);
        self
    }
    /// Who takes the one-time effects.
    #[must_use]
    pub fn effects(mut self, effects: impl Fn(E) + Send + Sync + 'static) -> Self {
        self.effects = Box::new(effects);
        self
    }
}

/// Levels on their way out of a lock (see the module's head).
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    levels: u32,
    /// Counts changes of the levels.
    version: u64,
}

/// What a thread has to drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Changes {
    touched: u32,
    /// Of those, wires that went through both levels and have the one that they had.
    pulses: u32,
    levels: u32,
    version: u64,
}

impl Outbox {
    /// Takes note of new levels and of wires that went through both: what is to be driven.
    pub(crate) fn note(&mut self, levels: u32, pulses: u32) -> Option<Changes> {
        let toggled = levels ^ self.levels;
        let pulses = pulses & !toggled;
        self.levels = levels;
        if toggled != 0 {
            self.version = self.version.wrapping_add(1);
        }
        let touched = toggled | pulses;
        (touched != 0).then_some(Changes { touched, pulses, levels, version: self.version })
    }
    /// These were driven: what is to be driven again, as the levels have changed meanwhile.
    pub(crate) fn after(&self, driven: Changes) -> Option<Changes> {
        let Changes { touched, version, .. } = driven;
        let again = Changes { touched, pulses: 0, levels: self.levels, version: self.version };
        (version != self.version).then_some(again)
    }
    /// After a restore, all wires are driven afresh.
    pub(crate) fn reset(&mut self, levels: u32) {
        self.levels = levels;
        self.version = self.version.wrapping_add(1);
    }
}

impl Changes {
    /// Drives the wires.
    pub(crate) fn drive(self, wires: &[Option<Arc<dyn IrqLine>>]) {
        for (bit, wire) in wires.iter().enumerate().take(32) {
            let mask = 1u32 << bit;
            let Some(wire) = wire else { continue };
            if self.touched & mask == 0 {
                continue;
            }
            let level = self.levels & mask != 0;
            if self.pulses & mask != 0 {
                wire.set(Level::from_asserted(!level));
            }
            wire.set(Level::from_asserted(level));
        }
    }
}

struct Seated<C> {
    chip: C,
    outbox: Outbox,
}

/// A chip behind a lock, on a bus, with its outputs connected.
pub struct Socket<R: RawMutex, C: Chip> {
    section: &'static str,
    seated: Mutex<R, Seated<C>>,
    wiring: Wiring<C::Effect>,
    deadline_ns: AtomicU64,
}

impl<R: RawMutex, C: Chip> Socket<R, C> {
    /// Puts `chip` into a socket whose saved section is called `section`.
    #[must_use]
    pub fn new(section: &'static str, chip: C, wiring: Wiring<C::Effect>) -> Self {
        let socket = Self {
            section,
            deadline_ns: AtomicU64::new(chip.next_deadline_ns().unwrap_or(u64::MAX)),
            seated: Mutex::new(Seated { chip, outbox: Outbox::default() }),
            wiring,
        };
        socket.with(|_, _| ());
        socket
    }

    /// Calls the chip, then applies what came out of it.
    pub fn with<T>(&self, call: impl FnOnce(&mut C, &mut Effects<C::Effect>) -> T) -> T {
        let mut effects = Effects::default();
        let mut seated = self.seated.lock();
        let result = call(&mut seated.chip, &mut effects);
        let levels = seated.chip.levels();
        let changes = seated.outbox.note(levels, effects.pulses);
        // Stored under the lock, so that an older deadline can't overwrite a newer one.
        let deadline_ns = seated.chip.next_deadline_ns().unwrap_or(u64::MAX);
        let before_ns = self.deadline_ns.swap(deadline_ns, Ordering::Release);
        drop(seated);
        self.publish(changes);
        for effect in effects.list {
            (self.wiring.effects)(effect);
        }
        if deadline_ns < before_ns
            && let Some(kick) = &self.wiring.deadline
        {
            kick.kick();
        }
        result
    }

    /// Looks at the chip without changing it.
    pub fn inspect<T>(&self, look: impl FnOnce(&C) -> T) -> T {
        look(&self.seated.lock().chip)
    }

    fn publish(&self, mut changes: Option<Changes>) {
        while let Some(now) = changes {
            now.drive(&self.wiring.wires);
            changes = self.seated.lock().outbox.after(now);
        }
    }
}

impl<R, C> Device for Socket<R, C>
where
    R: RawMutex + Send + Sync,
    C: Chip,
{
    fn name(&self) -> &'static str {
        C::NAME
    }
    fn widest_access(&self) -> AccessSize {
        C::WIDEST
    }
    fn read(&self, offset: u32, size: AccessSize, now_ns: u64) -> u64 {
        self.with(|chip, effects| chip.read(Access { offset, size, now_ns }, effects))
    }
    fn write(&self, offset: u32, size: AccessSize, value: u64, now_ns: u64) {
        self.with(|chip, effects| chip.write(Access { offset, size, now_ns }, value, effects));
    }
}

impl<R, C> Timed for Socket<R, C>
where
    R: RawMutex + Send + Sync,
    C: Chip,
{
    fn next_deadline_ns(&self) -> Option<u64> {
        Some(self.deadline_ns.load(Ordering::Acquire)).filter(|ns| *ns != u64::MAX)
    }
    fn advance(&self, now_ns: u64) {
        self.with(|chip, effects| chip.advance(now_ns, effects));
    }
}

impl<R, C> Saved for Socket<R, C>
where
    R: RawMutex + Send + Sync,
    C: Chip,
{
    fn section_name(&self) -> &str {
        self.section
    }
    fn save(&self) -> Section {
        self.inspect(|chip| chip.save(self.section))
    }
    fn restore(&self, section: &Section) -> Result<(), RestoreError> {
        let mut seated = self.seated.lock();
        seated.chip.restore(self.section, section)?;
        let levels = seated.chip.levels();
        seated.outbox.reset(levels);
        let deadline_ns = seated.chip.next_deadline_ns().unwrap_or(u64::MAX);
        self.deadline_ns.store(deadline_ns, Ordering::Release);
        drop(seated);
        for (bit, wire) in self.wiring.wires.iter().enumerate().take(32) {
            if let Some(wire) = wire {
                wire.set(Level::from_asserted(levels & (1 << bit) != 0));
            }
        }
        if let Some(kick) = &self.wiring.deadline {
            kick.kick();
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
