use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use kasane_ports::{
    BlockCompletion, BlockCompletions, BlockError, BlockInfo, BlockOperation, BlockRequest,
    GuestRange, ZeroedSpace,
};
use kasane_spec_virtio::blk::{config, feature, request, status};
use kasane_spec_virtio::status::NEEDS_RESET;
use proptest::prelude::*;

use super::{Blk, BlkEffect, DiskShape};
use crate::saved::Saved;
use crate::virtio::VirtioDevice;
use crate::virtio::rig::{Piece, Rig};

const INFO: BlockInfo =
    BlockInfo { capacity: 1 << 20, read_only: false, block_size: 4096, discard: true };

fn disk(info: BlockInfo, queues: u16) -> Rig<Blk> {
    Rig::new(Blk::new(info, DiskShape { serial: *b"SERIAL\0\0\0\0\0\0\0\0\0\0\0\0\0\0", queues }))
}

/// A disk whose driver knows flushes.
fn started() -> Rig<Blk> {
    let mut rig = disk(INFO, 1);
    rig.start(64, feature::FLUSH | feature::CONFIG_WCE);
    rig.effects.lock().clear();
    rig
}

fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..].copy_from_slice(&sector.to_le_bytes());
    bytes
}

fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

/// Requests that went to the backend.
fn submitted(rig: &Rig<Blk>) -> Vec<BlockRequest> {
    let effects = core::mem::take(&mut *rig.effects.lock());
    effects
        .into_iter()
        .flat_map(|effect| match effect {
            BlkEffect::Submit(requests) => requests,
            BlkEffect::Drain => panic!("no reset was asked for"),
        })
        .collect()
}

fn complete(rig: &Rig<Blk>, token: u64, result: Result<(), BlockError>) {
    rig.device.completed(&[BlockCompletion { token, result }]);
}

/// Sends a request whose data (if any) is readable, and gives its status buffer.
fn send(rig: &mut Rig<Blk>, kind: u32, sector: u64, data: &[u8]) -> (u16, Piece) {
    let header = rig.readable(&header(kind, sector));
    let end = rig.writable(1);
    rig.ram_fill(end, 0xEE);
    let mut pieces = vec![header];
    if !data.is_empty() {
        pieces.push(rig.readable(data));
    }
    pieces.push(end);
    (rig.send(0, &pieces), end)
}

#[test]
fn a_read_takes_the_guests_own_memory_and_ends_with_its_status() {
    let mut rig = started();
    let (header, data, end) =
        (rig.readable(&header(request::IN, 3)), rig.writable(1024), rig.writable(1));

    let id = rig.send(0, &[header, data, end]);

    let requests = submitted(&rig);
    let Piece::Writable(range) = data else { panic!() };
    let [BlockRequest { token, queue: 0, operation: BlockOperation::Read, offset: 1536, ranges }] =
        &requests[..]
    else {
        panic!("{requests:?}")
    };
    assert_eq!((ranges, rig.used(0)), (&vec![range], None));
    complete(&rig, *token, Ok(()));
    assert_eq!((rig.used(0), rig.bytes(end)), (Some((id, 1025)), vec![status::OK]));
    assert_eq!(rig.interrupted(), [0]);
}

#[test]
fn the_frame_is_found_wherever_descriptors_end() {
    let mut rig = started();
    let bytes = header(request::IN, 0);
    let pieces =
        [rig.readable(&bytes[..5]), rig.readable(&bytes[5..]), rig.writable(500), rig.writable(13)];

    let id = rig.send(0, &pieces);

    let requests = submitted(&rig);
    let lengths: Vec<u32> = requests[0].ranges.iter().map(|range| range.len).collect();
    assert_eq!(lengths, [500, 12]);
    complete(&rig, requests[0].token, Ok(()));
    assert_eq!((rig.used(0), rig.bytes(pieces[3])[12]), (Some((id, 513)), status::OK));
}

#[test]
fn a_header_and_its_data_may_share_a_descriptor() {
    let mut rig = started();
    let bytes = [&header(request::OUT, 1)[..], &[7; 512]].concat();
    let (all, end) = (rig.readable(&bytes), rig.writable(1));

    rig.send(0, &[all, end]);

    let Piece::Readable(range) = all else { panic!() };
    let data = GuestRange { gpa: range.gpa + 16, len: 512 };
    let requests = submitted(&rig);
    assert_eq!((requests[0].operation, &requests[0].ranges), (BlockOperation::Write, &vec![data]));
}

#[test]
fn failures_are_told() {
    for (error, code) in [
        (BlockError::Io, status::IOERR),
        (BlockError::Memory, status::IOERR),
        (BlockError::NoSpace, status::IOERR),
        (BlockError::Unsupported, status::UNSUPP),
    ] {
        let mut rig = started();
        let (id, end) = send(&mut rig, request::OUT, 0, &[1; 512]);
        complete(&rig, submitted(&rig)[0].token, Err(error));
        assert_eq!((rig.used(0), rig.bytes(end)), (Some((id, 1)), vec![code]), "{error}");
    }
}

#[test]
fn what_can_not_be_is_answered_at_once() {
    let last = INFO.capacity / 512;
    let too_long = super::request::ERASE_SECTORS_MAX + 1;
    let unmap = request::SEGMENT_UNMAP;
    let two = [segment(0, 8, 0), segment(8, 8, 0)].concat();
    let cases: [(u32, u64, Vec<u8>, u8); 11] = [
        (request::OUT, last, vec![0; 512], status::IOERR),
        (request::OUT, u64::MAX / 512, vec![0; 512], status::IOERR),
        (request::OUT, u64::MAX, vec![0; 512], status::IOERR),
        (request::OUT, 0, vec![0; 511], status::IOERR),
        (request::OUT, 0, vec![], status::OK),
        (99, 0, vec![], status::UNSUPP),
        (request::DISCARD, 0, segment(last, 1, 0), status::IOERR),
        (request::DISCARD, 0, segment(0, 8, unmap), status::UNSUPP),
        (request::WRITE_ZEROES, 0, segment(0, 8, 2), status::UNSUPP),
        (request::WRITE_ZEROES, 0, segment(0, too_long, 0), status::IOERR),
        (request::WRITE_ZEROES, 0, two, status::IOERR),
    ];
    for (kind, sector, data, code) in cases {
        let mut rig = started();
        let (id, end) = send(&mut rig, kind, sector, &data);
        let shown = alloc::format!("{kind} {sector} {}", data.len());
        assert_eq!((rig.used(0), rig.bytes(end)), (Some((id, 1)), vec![code]), "{shown}");
        assert_eq!((submitted(&rig), rig.interrupted()), (vec![], vec![0]), "{shown}");
    }
}

#[test]
fn erasing_goes_to_the_backend() {
    let unmap = request::SEGMENT_UNMAP;
    let zeroes = |space| BlockOperation::WriteZeroes { len: 4096, space };
    for (kind, flags, operation) in [
        (request::DISCARD, 0, BlockOperation::Discard { len: 4096 }),
        (request::WRITE_ZEROES, 0, zeroes(ZeroedSpace::Keep)),
        (request::WRITE_ZEROES, unmap, zeroes(ZeroedSpace::Release)),
    ] {
        let mut rig = started();
        send(&mut rig, kind, 0, &segment(16, 8, flags));
        let requests = submitted(&rig);
        assert_eq!((requests[0].operation, requests[0].offset), (operation, 8192));
    }
}

#[test]
fn a_read_only_disk_says_so_and_is_not_written() {
    let mut rig = disk(BlockInfo { read_only: true, ..INFO }, 1);
    rig.start(64, feature::FLUSH);
    assert_ne!(rig.device.offered() & feature::RO, 0);
    for (kind, data) in [
        (request::OUT, vec![0; 512]),
        (request::WRITE_ZEROES, segment(0, 1, 0)),
        (request::DISCARD, segment(0, 1, 0)),
    ] {
        let (_, end) = send(&mut rig, kind, 0, &data);
        assert_eq!(rig.bytes(end), [status::IOERR]);
    }
}

#[test]
fn the_serial_number_is_told() {
    let mut rig = started();
    let pieces = [rig.readable(&header(request::GET_ID, 0)), rig.writable(20), rig.writable(1)];
    let id = rig.send(0, &pieces);
    assert_eq!(rig.used(0), Some((id, 21)));
    assert_eq!(String::from_utf8(rig.bytes(pieces[1])).unwrap().trim_end_matches('\0'), "SERIAL");
    assert_eq!(rig.bytes(pieces[2]), [status::OK]);
}

#[test]
fn a_driver_without_flushes_gets_writes_that_are_durable() {
    let mut rig = disk(INFO, 1);
    rig.start(64, 0);
    rig.effects.lock().clear();
    let (id, _) = send(&mut rig, request::OUT, 0, &[1; 512]);

    complete(&rig, submitted(&rig)[0].token, Ok(()));

    assert_eq!(rig.used(0), None, "not before the flush");
    let flush = submitted(&rig);
    assert_eq!(flush[0].operation, BlockOperation::Flush);
    complete(&rig, flush[0].token, Ok(()));
    assert_eq!(rig.used(0), Some((id, 1)));
}

#[test]
fn a_write_cache_that_was_switched_off_is_written_through() {
    let mut rig = started();
    rig.device.config_write(config::WRITEBACK as u32, &[0]);
    send(&mut rig, request::OUT, 0, &[1; 512]);
    complete(&rig, submitted(&rig)[0].token, Ok(()));
    assert_eq!(submitted(&rig)[0].operation, BlockOperation::Flush);
    let mut writeback = [9];
    rig.device.config_read(config::WRITEBACK as u32, &mut writeback);
    assert_eq!(writeback, [0]);
}

#[test]
fn a_reset_drains_the_backend_and_late_completions_find_nothing() {
    let mut rig = started();
    send(&mut rig, request::FLUSH, 0, &[]);
    let token = submitted(&rig)[0].token;

    rig.device.set_status(0);

    assert_eq!(*rig.effects.lock(), [BlkEffect::Drain]);
    rig.start(64, feature::FLUSH);
    let (id, _) = send(&mut rig, request::FLUSH, 0, &[]);
    complete(&rig, token, Ok(()));
    assert_eq!((rig.used(0), rig.interrupted()), (None, vec![]));
    rig.effects.lock().remove(0);
    complete(&rig, submitted(&rig)[0].token, Ok(()));
    assert_eq!(rig.used(0), Some((id, 1)));
}

#[test]
fn the_configuration_follows_the_disk() {
    let rig = disk(INFO, 4);
    let mut bytes = [0; config::LEN];
    rig.device.config_read(0, &mut bytes);
    assert_eq!(bytes[config::CAPACITY..][..8], 2048u64.to_le_bytes());
    assert_eq!(bytes[config::PHYSICAL_BLOCK_EXP], 3);
    assert_eq!(bytes[config::NUM_QUEUES..][..2], [4, 0]);
    assert_eq!(rig.device.queue_count(), 4);
}

#[test]
fn a_disk_that_grows_tells_its_driver() {
    let mut rig = started();
    rig.device.set_info(BlockInfo { capacity: 2 << 20, ..INFO });
    assert_eq!(*rig.interrupts.configs.lock(), 1);
    send(&mut rig, request::OUT, 2048, &[1; 512]);
    assert_eq!(submitted(&rig).len(), 1);
}

#[test]
fn a_chain_without_header_or_status_needs_a_reset() {
    for chain in [0, 1] {
        let mut rig = started();
        let pieces = if chain == 0 {
            vec![rig.readable(&[0; 15]), rig.writable(1)]
        } else {
            vec![rig.readable(&header(request::FLUSH, 0))]
        };
        rig.send(0, &pieces);
        assert_ne!(rig.device.status() & NEEDS_RESET, 0);
    }
}

#[test]
fn the_write_cache_is_saved() {
    let rig = started();
    rig.device.config_write(config::WRITEBACK as u32, &[0]);
    let section = rig.device.save();
    rig.device.set_status(0);
    rig.device.restore(&section).unwrap();
    assert!(!rig.device.inspect(|core| core.chip().writeback));
}

proptest! {
    #[test]
    fn completions_in_any_order_end_their_own_requests(
        queues in prop::collection::vec(0u16..3, 1..40),
        order in any::<u64>(),
    ) {
        let mut rig = disk(INFO, 3);
        rig.start(16, feature::FLUSH | feature::MQ);
        rig.effects.lock().clear();
        let mut expected = vec![Vec::new(); 3];
        for (n, queue) in queues.iter().enumerate() {
            if rig.queues[usize::from(*queue)].room() < 2 {
                continue;
            }
            let pieces = [rig.readable(&header(request::FLUSH, n as u64)), rig.writable(1)];
            rig.send(*queue, &pieces);
        }
        let mut left = submitted(&rig);
        let mut seed = order;
        while !left.is_empty() {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
            let request = left.swap_remove((seed >> 33) as usize % left.len());
            complete(&rig, request.token, Ok(()));
            expected[usize::from(request.queue)].push(request.token);
            prop_assert!(rig.used(request.queue).is_some());
            prop_assert_eq!(rig.used(request.queue), None);
        }
        prop_assert!(rig.device.inspect(|core| core.chip().under_way()) == 0);
    }
}
