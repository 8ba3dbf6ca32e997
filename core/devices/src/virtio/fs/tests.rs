//! The device by its driver's sequences (virtio 1.2 §5.11.6).

use alloc::vec::Vec;

use kasane_ports::{ShareCompletions, ShareRequest};
use kasane_spec_virtio::{feature as common, status};
use proptest::prelude::*;

use super::chip::{Fs, FsEffect};
use crate::virtio::VirtioDevice;
use crate::virtio::rig::Rig;

fn started(features: u64) -> Rig<Fs> {
    let mut rig = Rig::new(Fs::new("home"));
    rig.start(64, features);
    rig.effects.lock().clear();
    rig
}

/// Requests that went to the server since this was last asked.
fn submitted(rig: &Rig<Fs>) -> Vec<ShareRequest> {
    let effects = core::mem::take(&mut *rig.effects.lock());
    let requests = effects.into_iter().map(|effect| match effect {
        FsEffect::Submit(batch) => batch,
        FsEffect::Reset => Vec::new(),
    });
    requests.flatten().collect()
}

#[test]
fn the_tag_is_told() {
    let rig = Rig::new(Fs::new("home"));
    let mut config = [9; 40];
    rig.device.config_read(0, &mut config);
    assert_eq!((&config[..5], &config[36..]), (&b"home\0"[..], &[1, 0, 0, 0][..]));
    let long = "häufig".repeat(9);
    Rig::new(Fs::new(&long)).device.config_read(0, &mut config);
    assert_eq!(core::str::from_utf8(&config[..36]).unwrap().trim_end_matches('\0'), &long[..36]);
}

#[test]
fn requests_come_back_in_any_order() {
    let mut rig = started(0);
    let pieces = [rig.readable(b"one"), rig.writable(10), rig.readable(b"two"), rig.writable(10)];
    let first = rig.send(1, &pieces[..2]);
    let second = rig.send(1, &pieces[2..]);
    let requests = submitted(&rig);
    assert_eq!(requests.len(), 2);
    rig.device.completed(requests[1].token, 7);
    rig.device.completed(requests[0].token, 700);
    rig.device.completed(requests[0].token, 7);
    assert_eq!([rig.used(1), rig.used(1)], [Some((second, 7)), Some((first, 10))]);
    assert_eq!((rig.used(1), rig.interrupted()), (None, Vec::from([1, 1])));
}

#[test]
fn after_a_reset_late_completions_are_of_no_chain() {
    let mut rig = started(0);
    let piece = rig.readable(b"one");
    rig.send(0, &[piece]);
    let token = submitted(&rig)[0].token;
    rig.start(64, 0);
    assert!(rig.effects.lock().contains(&FsEffect::Reset));
    rig.device.completed(token, 0);
    assert_eq!(rig.used(0), None);
    let room = rig.writable(5);
    rig.send(1, &[room]);
    assert_ne!(rig.device.status() & status::NEEDS_RESET, 0, "no message");
}

proptest! {
    #[test]
    fn each_request_is_answered_once(
        ring in prop::sample::select(Vec::from([0, common::RING_PACKED])),
        order in Just((0..20usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut rig = started(ring);
        let mut ids = Vec::new();
        for n in 0..20u8 {
            let pieces = [rig.readable(&[n]), rig.writable(4)];
            ids.push(rig.send(u16::from(n % 2), &pieces));
        }
        let requests = submitted(&rig);
        for n in order {
            rig.device.completed(requests[n].token, 4);
            prop_assert_eq!(rig.used(n as u16 % 2), Some((ids[n], 4)));
        }
        prop_assert_eq!(rig.device.inspect(|core| core.chip().under_way()), 0);
    }
}
