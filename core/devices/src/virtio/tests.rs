//! What all devices have in common, by a device that answers each chain with its bytes.

use alloc::vec;
use alloc::vec::Vec;

use kasane_spec_virtio::{feature, status};
use proptest::prelude::*;

use super::queue::{gather, len, scatter};
use super::rig::{Piece, Rig, Told};
use super::{ChipDoesNotFit, Io, QueueError, VirtioChip, VirtioDevice};
use crate::saved::Saved;

/// Writes what a chain reads into what it lets write.
#[derive(Default)]
struct Echo {
    resets: u32,
}

impl VirtioChip for Echo {
    type Effect = u64;
    type Form = u32;
    const NAME: &'static str = "virtio-echo";
    const DEVICE_TYPE: u16 = 0x3F;
    const FORM_VERSION: u32 = 1;

    fn features(&self) -> u64 {
        0b111
    }
    fn accepts(&self, features: u64) -> bool {
        // The second needs the first.
        features & 0b11 != 0b10
    }
    fn queue_sizes(&self) -> Vec<u16> {
        vec![256, 8]
    }
    fn config(&self) -> Vec<u8> {
        vec![1, 2, 3]
    }
    fn config_write(&mut self, _offset: u32, _data: &[u8], io: &mut Io<'_, u64>) {
        io.config_changed();
    }
    fn reset(&mut self, effects: &mut Vec<u64>) {
        self.resets += 1;
        effects.push(self.resets.into());
    }
    fn notified(&mut self, queue: u16, io: &mut Io<'_, u64>) {
        while let Some(chain) = io.pop(queue) {
            let mut bytes = vec![0; len(&chain.readable) as usize];
            let done = gather(io.memory(), &chain.readable, 0, &mut bytes)
                .and_then(|_| scatter(io.memory(), &chain.writable, 0, &bytes));
            match done {
                Ok(written) => io.push(queue, chain.id, written as u32),
                Err(error) => io.fail(error.into()),
            }
            io.effect(bytes.len() as u64);
        }
        io.signal(queue);
    }
    fn save(&self) -> u32 {
        self.resets
    }
    fn restore(&mut self, form: u32) -> Result<(), ChipDoesNotFit> {
        self.resets = form;
        Ok(())
    }
}

fn started(features: u64) -> Rig<Echo> {
    let mut rig = Rig::new(Echo::default());
    rig.start(64, features);
    rig
}

#[test]
fn a_chain_comes_back_with_its_bytes_and_one_interrupt() {
    let mut rig = started(0);
    let pieces = [rig.readable(b"ab"), rig.readable(b"cde"), rig.writable(1), rig.writable(9)];
    let id = rig.send(0, &pieces);
    assert_eq!(rig.used(0), Some((id, 5)));
    assert_eq!((rig.bytes(pieces[2]), &rig.bytes(pieces[3])[..5]), (vec![b'a'], &b"bcde\0"[..]));
    assert_eq!(rig.interrupted(), [0]);
    assert_eq!(*rig.effects.lock(), [1, 5], "the reset's, the chain's");
}

#[test]
fn features_that_do_not_agree_are_refused() {
    let refused = [0b001, feature::VERSION_1 | 0b1000, feature::VERSION_1 | 0b10];
    let rig = Rig::new(Echo::default());
    for features in refused {
        rig.device.set_status(0);
        rig.device.accept(features);
        rig.device.set_status(status::DRIVER | status::FEATURES_OK);
        assert_eq!(rig.device.status(), status::DRIVER, "{features:#x}");
        rig.device.set_status(status::DRIVER | status::DRIVER_OK);
        assert_eq!(rig.device.status(), status::DRIVER, "nothing runs without features");
    }
}

#[test]
fn features_are_fixed_once_agreed_on() {
    let rig = started(0b1);
    rig.device.accept(0);
    assert_eq!(rig.device.accepted(), feature::VERSION_1 | 0b1);
}

#[test]
fn a_reset_forgets_everything() {
    let mut rig = started(0b1);
    rig.device.set_status(0);
    assert_eq!((rig.device.status(), rig.device.accepted()), (0, 0));
    assert!(!rig.device.queue(0).unwrap().enabled);
    rig.start(8, feature::RING_PACKED);
    let pieces = [rig.readable(b"x"), rig.writable(1)];
    rig.send(0, &pieces);
    assert_eq!(rig.used(0), Some((0, 1)));
}

#[test]
fn a_ring_that_makes_no_sense_needs_a_reset_and_tells_the_driver() {
    let mut rig = started(0);
    let beyond = Piece::Readable(kasane_ports::GuestRange { gpa: u64::MAX, len: 2 });
    rig.send(0, &[beyond]);
    assert_eq!(rig.device.status() & status::NEEDS_RESET, status::NEEDS_RESET);
    assert_eq!(*rig.interrupts.configs.lock(), 1);
    let error = rig.device.inspect(super::VirtioCore::broken);
    assert_eq!(error, Some(QueueError::AddressOverflow { address: u64::MAX }));
    let piece = rig.readable(b"x");
    rig.send(1, &[piece]);
    assert_eq!(rig.used(1), None, "nothing moves until the reset");
    rig.start(64, 0);
    assert_eq!(rig.device.status() & status::NEEDS_RESET, 0);
}

#[test]
fn a_change_of_the_configuration_counts_and_is_told() {
    let rig = started(0);
    let before = rig.device.config_generation();
    rig.device.config_write(0, &[1]);
    assert_eq!(rig.device.config_generation(), before + 1);
    assert_eq!(*rig.interrupts.configs.lock(), 1);
    let mut bytes = [9; 4];
    rig.device.config_read(1, &mut bytes);
    assert_eq!(bytes, [2, 3, 0, 0]);
}

proptest! {
    #[test]
    fn a_device_goes_on_from_its_saved_state(
        features in prop::sample::select(vec![
            0, feature::EVENT_IDX, feature::RING_PACKED, feature::RING_PACKED | feature::EVENT_IDX,
        ]),
        before in 0u8..100,
        after in 1u8..100,
    ) {
        let mut rig = Rig::new(Echo::default());
        rig.start(8, features | feature::INDIRECT_DESC);
        for n in 0..=before.saturating_add(after) {
            if n == before {
                let section = rig.device.save();
                prop_assert_eq!(section.name.as_str(), "virtio-echo.test");
                rig.device.set_status(0);
                rig.device.restore(&section).unwrap();
                prop_assert_eq!(rig.device.save(), section);
            }
            let pieces = [rig.readable(&[n, 2]), rig.writable(1), rig.writable(1)];
            let told = if n % 3 == 0 { Told::Indirectly } else { Told::InTheRing };
            let id = rig.queues[0].add(&pieces, told);
            prop_assert!(rig.queues[0].wants_notification(3));
            rig.queues[0].ask_for_next();
            rig.device.notify(0);
            prop_assert_eq!(rig.used(0), Some((id, 2)));
            prop_assert_eq!(rig.bytes(pieces[1]), vec![n]);
            prop_assert_eq!(rig.interrupted(), vec![0]);
        }
    }
}
