//! A network card for the targets of networks: frames in, frames out, nothing kept.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use kasane_ports::{FrameOffload, Given, NetBackend, NetDevice, NetGuestOffloads};
use parking_lot::{Condvar, Mutex};

/// The card.
pub struct Card {
    state: Mutex<State>,
    changed: Condvar,
    offloads: NetGuestOffloads,
}

#[derive(Default)]
struct State {
    frames: VecDeque<(Vec<u8>, FrameOffload)>,
    /// Times that the network asked for a frame when there was none.
    empty: u64,
    /// Times that the network has ended a round.
    rounds: u64,
    given: u64,
    /// How many frames are taken before there is no room.
    room: u64,
    /// The last TCP sequence number that was given, and what it acknowledged.
    last: (u32, u32),
}

impl Card {
    /// A card on this network.
    #[must_use]
    pub fn on(network: &dyn NetBackend, offloads: NetGuestOffloads) -> Arc<Self> {
        let state = State { room: u64::MAX, ..State::default() };
        let card = Arc::new(Self { state: Mutex::new(state), changed: Condvar::new(), offloads });
        let weak: Weak<dyn NetDevice> = Arc::downgrade(&(card.clone() as Arc<dyn NetDevice>));
        network.connect(weak);
        card
    }

    /// The guest sends a frame, when [`Self::settle`] is called.
    pub fn send(&self, frame: Vec<u8>, offload: FrameOffload) {
        self.state.lock().frames.push_back((frame, offload));
    }

    /// Sets for how many frames there is room.
    pub fn set_room(&self, room: u64) {
        self.state.lock().room = room;
    }

    /// How many frames were given.
    #[must_use]
    pub fn given(&self) -> u64 {
        self.state.lock().given
    }

    /// The numbers of the last TCP segment that was given.
    #[must_use]
    pub fn last(&self) -> (u32, u32) {
        self.state.lock().last
    }

    /// Waits until the network has taken all that was sent and has ended that round.
    ///
    /// # Panics
    /// If it doesn't: then it hangs.
    pub fn settle(&self, network: &dyn NetBackend) {
        network.wake();
        let mut state = self.state.lock();
        let (empty, rounds) = (state.empty, state.rounds);
        while !state.frames.is_empty() || state.empty == empty || state.rounds < rounds + 2 {
            network.wake();
            let waited = self.changed.wait_for(&mut state, Duration::from_secs(20));
            assert!(!waited.timed_out(), "the network hangs");
        }
    }
}

impl NetDevice for Card {
    fn take(&self, frame: &mut Vec<u8>) -> Option<FrameOffload> {
        let mut state = self.state.lock();
        let Some((taken, offload)) = state.frames.pop_front() else {
            state.empty += 1;
            return None;
        };
        *frame = taken;
        Some(offload)
    }

    fn give(&self, parts: &[&[u8]], _: FrameOffload) -> Given {
        let mut state = self.state.lock();
        if state.room == 0 {
            return Given::NoRoom;
        }
        state.room -= 1;
        state.given += 1;
        let header: Vec<u8> = parts.concat();
        if let (Some(&6), Some(numbers)) = (header.get(23), header.get(38..46)) {
            let word = |at: usize| {
                u32::from_be_bytes([numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]])
            };
            state.last = (word(0), word(4));
        }
        Given::Taken
    }

    fn flush(&self) {
        self.state.lock().rounds += 1;
        self.changed.notify_all();
    }

    fn guest_offloads(&self) -> NetGuestOffloads {
        self.offloads
    }

    fn is_up(&self) -> bool {
        true
    }
}
