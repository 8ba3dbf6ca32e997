//! Sockets: a connection to a program on the host, which says what it hears.

use alloc::format;
use alloc::vec;

use virtio_drivers::device::socket::{
    VirtIOSocket, VsockAddr, VsockConnectionManager, VsockEventType,
};
use virtio_drivers::transport::Transport;

use super::{Outcome, driver};
use crate::memory::Bare;

const HOST: VsockAddr = VsockAddr { cid: 2, port: 1234 };
const OWN_PORT: u32 = 4321;
/// More than a packet's buffer holds.
const LEN: usize = 10_000;

/// Connects, sends, and hears the same.
pub fn run(transport: impl Transport) -> Outcome {
    let socket = VirtIOSocket::<Bare, _>::new(transport).map_err(driver("no sockets"))?;
    let mut sockets = VsockConnectionManager::new_with_capacity(socket, 0x1_0000);
    let cid = sockets.guest_cid();
    sockets.connect(HOST, OWN_PORT).map_err(driver("connect"))?;
    match sockets.wait_for_event().map_err(driver("wait"))?.event_type {
        VsockEventType::Connected => {}
        other => return Err(format!("not connected but {other:?}")),
    }
    let said: vec::Vec<u8> = (0..LEN).map(|n| (n % 251) as u8).collect();
    sockets.send(HOST, OWN_PORT, &said).map_err(driver("send"))?;
    let mut heard = vec![0; LEN];
    let mut len = 0;
    while len < LEN {
        let event = sockets.wait_for_event().map_err(driver("wait"))?;
        if let VsockEventType::Disconnected { reason } = event.event_type {
            return Err(format!("disconnected after {len} bytes: {reason:?}"));
        }
        len += sockets.recv(HOST, OWN_PORT, &mut heard[len..]).map_err(driver("receive"))?;
    }
    if heard != said {
        return Err("what came back is not what was sent".into());
    }
    sockets.shutdown(HOST, OWN_PORT).map_err(driver("shut down"))?;
    loop {
        let event = sockets.wait_for_event().map_err(driver("wait"))?;
        if let VsockEventType::Disconnected { .. } = event.event_type {
            return Ok(format!("context {cid}, {LEN} bytes there and back"));
        }
    }
}
