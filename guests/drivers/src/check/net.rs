//! A network card: the gateway's address by ARP (RFC 826), then echoes (RFC 792) of several sizes,
//! more of them than the rings have entries.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use virtio_drivers::device::net::VirtIONet;
use virtio_drivers::transport::Transport;

use super::{Outcome, driver};
use crate::memory::Bare;

const RING: usize = 16;
const BUFFER_LEN: usize = 2048;
const ECHOES: u16 = 40;

const OWN: [u8; 4] = [10, 0, 2, 15];
const GATEWAY: [u8; 4] = [10, 0, 2, 2];
const ARP: [u8; 2] = [0x08, 0x06];
const IPV4: [u8; 2] = [0x08, 0x00];
/// Where an Ethernet frame's type and contents are.
const TYPE: usize = 12;
const INSIDE: usize = 14;
const IP_HEADER_LEN: usize = 20;
const ECHO_HEADER_LEN: usize = 8;

type Card<T> = VirtIONet<Bare, T, RING>;

/// Asks for the gateway, then sends echoes to it.
pub fn run(transport: impl Transport) -> Outcome {
    let mut card = Card::new(transport, BUFFER_LEN).map_err(driver("no card"))?;
    let own = card.mac_address();
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &own, &OWN, &[0; 6], &GATEWAY].concat();
    send(&mut card, &frame([0xFF; 6], own, ARP, &arp))?;
    let answer = receive(&mut card, |frame| {
        frame.get(TYPE..INSIDE) == Some(&ARP) && frame.get(20..22) == Some(&[0, 2])
    })?;
    if answer.get(28..32) != Some(&GATEWAY) || answer.get(32..38) != Some(&own) {
        return Err("the answer to the ARP request is of another".into());
    }
    let gateway: [u8; 6] = answer[22..28].try_into().map_err(|_| "no address")?;
    for number in 0..ECHOES {
        echo(&mut card, gateway, number)?;
    }
    Ok(format!("{}, gateway {}, {ECHOES} echoes", shown(own), shown(gateway)))
}

/// An echo with its own length and contents comes back.
fn echo<T: Transport>(card: &mut Card<T>, to: [u8; 6], number: u16) -> Result<(), String> {
    let len = usize::from(number) * 37 % 1400;
    let data: Vec<u8> = (0..len).map(|n| (n as u16 ^ number) as u8).collect();
    let [high, low] = number.to_be_bytes();
    let mut message = [&[8, 0, 0, 0, 0x4B, 0x53, high, low][..], &data].concat();
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    let own = card.mac_address();
    send(card, &frame(to, own, IPV4, &ip(&message)))?;

    let is_answer = |frame: &[u8]| {
        let message = frame.get(INSIDE + IP_HEADER_LEN..);
        let head = message.and_then(|message| message.get(..ECHO_HEADER_LEN));
        frame.get(TYPE..INSIDE) == Some(&IPV4)
            && frame.get(INSIDE + 9) == Some(&1)
            && head.is_some_and(|head| head[0] == 0 && head[6..] == [high, low])
    };
    let answer = receive(card, is_answer)?;
    let total = usize::from(u16::from_be_bytes([answer[INSIDE + 2], answer[INSIDE + 3]]));
    let message = answer.get(INSIDE + IP_HEADER_LEN..INSIDE + total).unwrap_or_default();
    if message.get(ECHO_HEADER_LEN..) != Some(&data) || checksum(message) != [0, 0] {
        return Err(format!("echo {number} of {len} bytes came back damaged"));
    }
    Ok(())
}

fn frame(to: [u8; 6], from: [u8; 6], kind: [u8; 2], inside: &[u8]) -> Vec<u8> {
    let mut frame = [&to[..], &from, &kind, inside].concat();
    // The least that an Ethernet has.
    frame.resize(frame.len().max(60), 0);
    frame
}

/// A packet of ICMP to the gateway.
fn ip(message: &[u8]) -> Vec<u8> {
    let total = ((IP_HEADER_LEN + message.len()) as u16).to_be_bytes();
    let mut header = [&[0x45, 0][..], &total, &[0, 0, 0, 0, 64, 1, 0, 0], &OWN, &GATEWAY].concat();
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    [&header, message].concat()
}

/// The Internet's checksum (RFC 1071): 0 over what has it.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| {
        u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or_default()]))
    });
    let sum: u32 = words.sum();
    let sum = (sum & 0xFFFF) + (sum >> 16);
    (!((sum & 0xFFFF) + (sum >> 16)) as u16).to_be_bytes()
}

fn send<T: Transport>(card: &mut Card<T>, frame: &[u8]) -> Result<(), String> {
    let mut buffer = card.new_tx_buffer(frame.len());
    buffer.packet_mut().copy_from_slice(frame);
    card.send(buffer).map_err(driver("send"))
}

/// The next frame that is wanted; others (the gateway's own announcements) are dropped.
fn receive<T: Transport>(
    card: &mut Card<T>,
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>, String> {
    loop {
        match card.receive() {
            Ok(buffer) => {
                let frame = buffer.packet().to_vec();
                card.recycle_rx_buffer(buffer).map_err(driver("give a buffer back"))?;
                if wanted(&frame) {
                    return Ok(frame);
                }
            }
            Err(virtio_drivers::Error::NotReady) => core::hint::spin_loop(),
            Err(error) => return Err(driver("receive")(error)),
        }
    }
}

fn shown(address: [u8; 6]) -> String {
    let digits: Vec<String> = address.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.join(":")
}
