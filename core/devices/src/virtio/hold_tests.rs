//! A device that is held stands still, whatever its backend's threads do.

use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use kasane_memory::GuestMemory;
use kasane_ports::{FrameOffload, Given, NetDevice, NetInfo, NetOffloads};
use kasane_spec_virtio::feature as common;
use kasane_spec_virtio::net::feature;
use proptest::prelude::*;

use super::VirtioDevice;
use super::net::{Link, Net, NetEffect, NetShape};
use super::rig::{Piece, RAM_LEN, Rig, Told};
use crate::saved::{Saved, Section};

const FRAME: [u8; 60] = [0xFF; 60];
/// Chains of each queue's ring.
const RING: u16 = 16;
const RX: usize = 0;
const TX: usize = 1;

fn rig() -> Rig<Net> {
    let info = NetInfo { mtu: 1500, offloads: NetOffloads::ALL, queue_pairs: 1 };
    Rig::new(Net::new(info, NetShape { mac: [2; 6], queue_pairs: 1 }))
}

/// What backends' threads do to a device, and how much of it came through.
#[derive(Default)]
struct Hammers {
    stop: AtomicBool,
    /// Rounds that began and ended.
    rounds: AtomicUsize,
    taken: AtomicUsize,
    given: AtomicUsize,
}

impl Hammers {
    fn strike(&self, device: &dyn NetDevice) {
        let mut frame = Vec::new();
        while !self.stop.load(Ordering::SeqCst) {
            let taken = device.take(&mut frame).is_some();
            self.taken.fetch_add(taken.into(), Ordering::SeqCst);
            let given = device.give(&[&FRAME], FrameOffload::default());
            self.given.fetch_add((given == Given::Taken).into(), Ordering::SeqCst);
            device.flush();
            self.rounds.fetch_add(1, Ordering::SeqCst);
        }
    }
    /// Waits until so many more rounds are over.
    fn wait(&self, more: usize) {
        let until = self.rounds.load(Ordering::SeqCst) + more;
        while self.rounds.load(Ordering::SeqCst) < until {
            std::thread::yield_now();
        }
    }
}

/// Everything that a home saves.
fn snapshot(rig: &Rig<Net>) -> (Section, Vec<u8>) {
    let mut ram = vec![0; RAM_LEN];
    rig.ram.read(0, &mut ram).unwrap();
    (rig.device.save(), ram)
}

/// The driver takes what was used and fills both rings: how many frames it has sent.
fn drive(rig: &mut Rig<Net>, used: &mut [usize; 2], room: [Piece; 2]) -> usize {
    let mut sent = 0;
    for queue in [RX, TX] {
        while rig.used(queue as u16).is_some() {
            used[queue] += 1;
        }
        rig.queues[queue].ask_for_next();
        while rig.queues[queue].room() > 0 {
            rig.queues[queue].add(&[room[queue]], Told::InTheRing);
            sent += usize::from(queue == TX);
        }
        rig.device.notify(queue as u16);
    }
    sent
}

impl Rig<Net> {
    fn buffers(&mut self) -> [Piece; 2] {
        [self.writable(1600), self.readable(&[&[0; 12][..], &FRAME].concat())]
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn ram_and_saved_state_agree_while_threads_strike(
        features in prop::sample::select(vec![
            0,
            common::EVENT_IDX,
            common::RING_PACKED,
            common::RING_PACKED | common::EVENT_IDX,
        ]),
        threads in 1usize..4,
        pauses in prop::collection::vec(0usize..20, 1..8),
    ) {
        let mut first = rig();
        first.start(RING, features | feature::MRG_RXBUF);
        let buffers = first.buffers();
        let hammers = Hammers::default();
        let device = first.device.clone();
        let mut used = [0; 2];
        let mut sent = 0;
        let mut held = None;
        let mut still = true;
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| hammers.strike(&*device));
            }
            for rounds in &pauses {
                if held.is_some() {
                    device.release();
                }
                sent += drive(&mut first, &mut used, buffers);
                hammers.wait(*rounds);
                device.hold();
                let before = snapshot(&first);
                let interrupts = first.interrupts.queues.lock().len();
                hammers.wait(threads * 4);
                let after = snapshot(&first);
                still &= before == after;
                still &= first.interrupts.queues.lock().len() == interrupts;
                held = Some(after);
            }
            hammers.stop.store(true, Ordering::SeqCst);
        });

        prop_assert!(still, "something moved while the device was held");
        // Another device goes on with what was saved, and the driver's own memory.
        let (section, ram) = held.unwrap();
        let mut second = rig();
        second.ram.write(0, &ram).unwrap();
        second.device.restore(&section).unwrap();
        second.queues = core::mem::take(&mut first.queues);
        for queue in &mut second.queues {
            queue.ram = second.ram.clone();
        }
        let mut frame = Vec::new();
        let mut taken = hammers.taken.load(Ordering::SeqCst);
        while second.device.take(&mut frame).is_some() {
            prop_assert_eq!(&frame, &FRAME);
            taken += 1;
        }
        let mut given = hammers.given.load(Ordering::SeqCst);
        while second.device.give(&[&FRAME], FrameOffload::default()) == Given::Taken {
            given += 1;
        }
        for queue in [RX, TX] {
            while second.used(queue as u16).is_some() {
                used[queue] += 1;
            }
        }
        prop_assert_eq!(taken, sent, "each frame that was sent is taken once");
        prop_assert_eq!(used[TX], sent);
        prop_assert_eq!(used[RX], given, "each frame that was given arrives once");
        prop_assert_eq!(second.queues[RX].room(), usize::from(RING));
    }
}

#[test]
fn a_hold_tells_the_driver_of_what_was_not_flushed() {
    let mut rig = rig();
    rig.start(RING, 0);
    let buffers = rig.buffers();
    drive(&mut rig, &mut [0; 2], buffers);
    rig.device.take(&mut Vec::new()).unwrap();
    assert_eq!(rig.interrupted(), []);

    rig.device.hold();

    assert_eq!(rig.interrupted(), [TX as u16]);
}

#[test]
fn the_last_release_wakes_the_backend_and_makes_changes_that_came_meanwhile() {
    let mut rig = rig();
    rig.start(RING, 0);
    rig.device.hold();
    rig.device.hold();
    rig.effects.lock().clear();
    rig.device.set_link(Link::Down);
    rig.device.release();
    assert!(rig.device.is_up(), "it is still held");
    assert_eq!(*rig.effects.lock(), []);

    rig.device.release();

    assert!(!rig.device.is_up());
    assert_eq!(rig.effects.lock().last(), Some(&NetEffect::Wake));
}
