//! A disk: write, flush, read back, the serial number, many requests at a time, and a request that
//! has to fail.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use virtio_drivers::device::blk::{BlkReq, BlkResp, RespStatus, SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::transport::{InterruptStatus, Transport};

use super::{Outcome, driver};
use crate::memory::Bare;

/// Sectors that are written at once.
const RUN: usize = 64;
/// Where: the first, some in the middle, and the last of the disk.
const MIDDLE: usize = 777;
/// Requests at a time.
const TOGETHER: usize = 12;

type Disk<T> = VirtIOBlk<Bare, T>;

/// What sector `number` is filled with, doubleword by doubleword; `conformance/suite` knows it too.
fn content(number: usize) -> Vec<u8> {
    let word = |n: usize| (number as u32).wrapping_mul(0x9E37_79B9).wrapping_add(n as u32);
    (0..SECTOR_SIZE / 4).flat_map(|n| word(n).to_le_bytes()).collect()
}

fn contents(first: usize) -> Vec<u8> {
    (first..first + RUN).flat_map(content).collect()
}

/// Writes, flushes and reads back.
pub fn run(transport: impl Transport) -> Outcome {
    let mut disk = Disk::new(transport).map_err(driver("no disk"))?;
    let sectors = usize::try_from(disk.capacity()).map_err(|_| "too large")?;
    if sectors < 2048 {
        return Err(format!("{sectors} sectors are too few"));
    }
    let serial = serial(&mut disk)?;
    let places = [0, MIDDLE, sectors - RUN];
    for first in places {
        disk.write_blocks(first, &contents(first)).map_err(driver("write"))?;
    }
    if !disk.ack_interrupt().contains(InterruptStatus::QUEUE_INTERRUPT) {
        return Err("there was no interrupt".into());
    }
    disk.flush().map_err(driver("flush"))?;
    disk.disable_interrupts();
    for first in places {
        let mut found = vec![0xFF; RUN * SECTOR_SIZE];
        disk.read_blocks(first, &mut found).map_err(driver("read"))?;
        if found != contents(first) {
            return Err(format!("sectors from {first} on are not what was written"));
        }
    }
    untouched(&mut disk, RUN)?;
    together(&mut disk)?;
    match disk.read_blocks(sectors, &mut [0; SECTOR_SIZE]) {
        Err(virtio_drivers::Error::IoError) => {}
        other => return Err(format!("a read behind the end gave {other:?}")),
    }
    Ok(format!("{sectors} sectors, serial `{serial}`, {} written and read back", 3 * RUN))
}

fn serial<T: Transport>(disk: &mut Disk<T>) -> Result<String, String> {
    let mut id = [0; 20];
    let len = disk.device_id(&mut id).map_err(driver("serial"))?;
    Ok(String::from_utf8_lossy(&id[..len]).into_owned())
}

/// A sector that nobody has written is all zeros.
fn untouched<T: Transport>(disk: &mut Disk<T>, number: usize) -> Result<(), String> {
    let mut found = [0xFF; SECTOR_SIZE];
    disk.read_blocks(number, &mut found).map_err(driver("read"))?;
    if found == [0; SECTOR_SIZE] { Ok(()) } else { Err(format!("sector {number} is not empty")) }
}

/// A read that is under way.
struct Reading {
    token: u16,
    request: BlkReq,
    found: Vec<u8>,
    response: BlkResp,
}

/// Several reads are under way at once, and come back in any order.
fn together<T: Transport>(disk: &mut Disk<T>) -> Result<(), String> {
    let mut under_way: Vec<Option<Reading>> = Vec::with_capacity(TOGETHER);
    for n in 0..TOGETHER {
        let reading = under_way.push_mut(Some(Reading {
            token: 0,
            request: BlkReq::default(),
            found: vec![0; SECTOR_SIZE],
            response: BlkResp::default(),
        }));
        let Some(Reading { token, request, found, response }) = reading else { continue };
        // SAFETY: the three stay where they are until the request is completed below: the vector
        // has room for all, and nothing else touches them.
        *token = unsafe { disk.read_blocks_nb(MIDDLE + n, request, found, response) }
            .map_err(driver("read, one of many"))?;
    }
    for _ in 0..TOGETHER {
        let token = loop {
            if let Some(token) = disk.peek_used() {
                break token;
            }
            core::hint::spin_loop();
        };
        let place = under_way.iter().position(|one| one.as_ref().is_some_and(|r| r.token == token));
        let place = place.ok_or_else(|| format!("nobody waits for token {token}"))?;
        let Some(reading) = &mut under_way[place] else { continue };
        let Reading { token, request, found, response } = reading;
        // SAFETY: what the request was begun with.
        unsafe { disk.complete_read_blocks(*token, request, found, response) }
            .map_err(driver("read, one of many"))?;
        if response.status() != RespStatus::OK || *found != content(MIDDLE + place) {
            return Err(format!("read {place} of many is not what was written"));
        }
        under_way[place] = None;
    }
    Ok(())
}
