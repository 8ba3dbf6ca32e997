use alloc::vec;

use kasane_spec_virtio::status::NEEDS_RESET;

use super::{Rng, RngEffect};
use crate::virtio::VirtioDevice;
use crate::virtio::rig::Rig;

fn started() -> Rig<Rng> {
    let mut rig = Rig::new(Rng::default());
    rig.start(8, 0);
    rig
}

#[test]
fn a_buffer_is_filled_with_what_was_given() {
    let mut rig = started();
    let pieces = [rig.writable(3), rig.writable(5)];
    let id = rig.send(0, &pieces);
    assert_eq!(*rig.effects.lock(), [RngEffect::Wanted { len: 8 }]);

    rig.device.with(|rng, io| rng.give(b"abcdefgh", io));

    assert_eq!(rig.used(0), Some((id, 8)));
    assert_eq!((rig.bytes(pieces[0]), rig.bytes(pieces[1])), (b"abc".to_vec(), b"defgh".to_vec()));
    assert_eq!(rig.interrupted(), [0]);
}

#[test]
fn a_large_buffer_gets_a_bounded_number_of_bytes() {
    let mut rig = started();
    let piece = rig.writable(1 << 20);
    let id = rig.send(0, &[piece]);
    assert_eq!(*rig.effects.lock(), [RngEffect::Wanted { len: 4096 }]);
    rig.device.with(|rng, io| rng.give(&[1; 4096], io));
    assert_eq!(rig.used(0), Some((id, 4096)));
}

#[test]
fn bytes_of_before_a_reset_fill_nothing_after_it() {
    let mut rig = started();
    let piece = rig.writable(4);
    rig.send(0, &[piece]);
    rig.start(8, 0);
    rig.device.with(|rng, io| rng.give(b"1234", io));
    assert_eq!((rig.used(0), rig.bytes(piece)), (None, vec![0; 4]));
}

#[test]
fn a_buffer_to_be_read_makes_no_sense() {
    let mut rig = started();
    let piece = rig.readable(b"no");
    rig.send(0, &[piece]);
    assert_eq!(rig.device.status() & NEEDS_RESET, NEEDS_RESET);
}
