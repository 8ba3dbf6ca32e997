//! Interrupt status, and the wire that is up while it has a bit.

use alloc::sync::Arc;

use kasane_ports::IrqLine;
use lock_api::{Mutex, RawMutex};

use crate::socket::Outbox;

#[derive(Default)]
struct State {
    bits: u8,
    outbox: Outbox,
}

/// Why a device interrupts. The wire is driven without the lock (see [`crate::socket`]).
pub(super) struct InterruptStatus<R: RawMutex> {
    state: Mutex<R, State>,
    wire: [Option<Arc<dyn IrqLine>>; 1],
}

impl<R: RawMutex> InterruptStatus<R> {
    pub(super) fn new(wire: Arc<dyn IrqLine>) -> Self {
        Self { state: Mutex::new(State::default()), wire: [Some(wire)] }
    }

    /// The reasons now.
    pub(super) fn bits(&self) -> u8 {
        self.state.lock().bits
    }

    /// Adds reasons.
    pub(super) fn raise(&self, bits: u8) {
        self.change(|state| *state |= bits);
    }

    /// Takes reasons away: those that were there.
    pub(super) fn clear(&self, bits: u8) -> u8 {
        self.change(|state| {
            let before = *state;
            *state &= !bits;
            before
        })
    }

    /// Sets all anew, and drives the wire whatever it was before.
    pub(super) fn restore(&self, bits: u8) {
        let mut state = self.state.lock();
        state.bits = bits;
        state.outbox.reset(0);
        drop(state);
        self.change(|_| ());
        if let ([Some(wire)], 0) = (&self.wire, bits) {
            wire.set(kasane_ports::Level::Low);
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut u8) -> T) -> T {
        let mut state = self.state.lock();
        let result = change(&mut state.bits);
        let level = u32::from(state.bits != 0);
        let mut changes = state.outbox.note(level, 0);
        drop(state);
        while let Some(now) = changes {
            now.drive(&self.wire);
            changes = self.state.lock().outbox.after(now);
        }
        result
    }
}
