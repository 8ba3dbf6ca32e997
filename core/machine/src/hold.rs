//! A machine that stands still, so that it can be saved: nothing comes in from its home.
//!
//! vCPUs that don't run are not enough. Backends have threads of their own, which move frames and
//! bytes when they like, and a home's threads give input. While a machine is held, all of them are
//! turned away (virtio devices at their gates, see `kasane_devices::virtio`; the serial port and
//! the power button here), and hear of it when it is released.

use lock_api::{Mutex, RawMutex};

use crate::machine::Machine;

/// Where the home comes in. Locked while its call is inside, before any chip's lock; vCPUs never
/// take it.
pub(crate) struct Gate<R: RawMutex>(Mutex<R, State>);

#[derive(Default)]
struct State {
    /// Holds that were not released.
    holds: u32,
    /// Input for the serial port was turned away.
    starved: bool,
    /// The power button was pressed.
    button: bool,
}

impl<R: RawMutex> Default for Gate<R> {
    fn default() -> Self {
        Self(Mutex::new(State::default()))
    }
}

/// Keeps a machine from changing until it is dropped. There may be several at a time.
#[must_use = "the machine is held for as long as this lives"]
pub struct Hold<'a, R: RawMutex + Send + Sync + 'static>(&'a Machine<R>);

impl<R: RawMutex + Send + Sync + 'static> Drop for Hold<'_, R> {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl<R: RawMutex + Send + Sync + 'static> Machine<R> {
    /// Holds the machine: until the answer is dropped nothing but the caller changes its devices
    /// or its memory. Waits for what is under way in backends. No vCPU may be running, and no
    /// deadline being served.
    ///
    /// A home that saves holds the machine from before [`save`](Self::save) until its memory and
    /// processors are saved too; one that restores, from before [`restore`](Self::restore) until
    /// its memory is back. Backends then look at the machine anew.
    pub fn hold(&self) -> Hold<'_, R> {
        let mut state = self.gate.0.lock();
        state.holds = state.holds.saturating_add(1);
        drop(state);
        self.board.saved.iter().for_each(|device| device.hold());
        self.board.saved.iter().for_each(|device| device.settle());
        Hold(self)
    }

    fn release(&self) {
        self.board.saved.iter().for_each(|device| device.release());
        let mut state = self.gate.0.lock();
        state.holds = state.holds.saturating_sub(1);
        if state.holds > 0 {
            return;
        }
        let State { starved, button, .. } = core::mem::take(&mut *state);
        drop(state);
        if let (true, Some(room)) = (starved, &self.console_room) {
            room.kick();
        }
        if button {
            self.power_button();
        }
    }

    /// Input for the first serial port; gives the number of bytes that it took. `console_room`
    /// is kicked when it takes more. While the machine is held it takes none.
    pub fn console_input(&self, bytes: &[u8]) -> usize {
        let mut state = self.gate.0.lock();
        if state.holds > 0 {
            state.starved |= !bytes.is_empty();
            return 0;
        }
        self.board.serial.receive(bytes, self.clock.now_ns())
    }

    /// Somebody pressed the power button: a guest with ACPI shuts down and switches off. While the
    /// machine is held it waits.
    pub fn power_button(&self) {
        let mut state = self.gate.0.lock();
        if state.holds > 0 {
            state.button = true;
            return;
        }
        self.board.power_management.press_power_button();
    }
}
