//! Sockets between a guest and its host: a backend with a thread of its own takes packets from the
//! device and gives it packets, as a network's does. Connections and their flow control are the
//! backend's.

use alloc::sync::Weak;
use alloc::vec::Vec;

use crate::net::Given;

/// What a packet is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VsockOperation {
    /// Asks for a connection.
    Request,
    /// The connection is there.
    Response,
    /// There is no connection, or no longer.
    Reset,
    /// The sender won't receive, or send, any more.
    Shutdown {
        /// It receives no more.
        receive: bool,
        /// It sends no more.
        send: bool,
    },
    /// Bytes of the stream.
    Data,
    /// The sender's buffer has changed.
    CreditUpdate,
    /// The sender wants to know of the receiver's buffer.
    CreditRequest,
    /// Something else, or not about a stream.
    Unknown,
}

/// A packet without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VsockPacket {
    /// The context at the other end from the guest: 2 is the host.
    pub peer_cid: u64,
    /// Port at the guest's end.
    pub guest_port: u32,
    /// Port at the other end.
    pub peer_port: u32,
    /// What it is about.
    pub operation: VsockOperation,
    /// Bytes that the sender buffers for this connection.
    pub buffer_len: u32,
    /// Bytes that left that buffer since the connection was made, wrapping.
    pub forwarded: u32,
}

/// The host's side of the sockets.
pub trait VsockBackend: Send + Sync {
    /// The device; told once.
    fn connect(&self, device: Weak<dyn VsockDevice>);
    /// The guest has sent packets or made room for some, or was reset. Cheap, from any thread,
    /// never blocks; a call that comes while the backend looks at the device is not lost.
    fn wake(&self);
}

/// The device, as its backend sees it.
pub trait VsockDevice: Send + Sync {
    /// Counts resets of the device: connections of an older count are gone, and the guest is not
    /// told of them.
    fn epoch(&self) -> u64;
    /// Takes the next packet that the guest has sent, and its data (64 KiB at most) into `data`,
    /// which is cleared before.
    fn take(&self, data: &mut Vec<u8>) -> Option<VsockPacket>;
    /// Gives the guest a packet. Of data, as much goes as its buffer takes: how many bytes is said
    /// with `Taken`.
    fn give(&self, packet: VsockPacket, data: &[u8]) -> (Given, usize);
    /// Tells the guest of what was taken and given since the last call.
    fn flush(&self);
}
