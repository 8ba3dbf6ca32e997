//! A packet's header (virtio 1.2 §5.10.6).

use kasane_ports::{VsockOperation, VsockPacket};
use kasane_spec_virtio::vsock::{TYPE_STREAM, cid, header, op, shutdown};

pub(super) type Bytes = [u8; header::LEN];

/// A header that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) from_cid: u64,
    pub(super) data_len: u32,
    pub(super) packet: VsockPacket,
}

fn array<const N: usize>(bytes: &Bytes, at: usize) -> [u8; N] {
    // All offsets are inside.
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or([0; N])
}

fn u32_at(bytes: &Bytes, at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

/// Reads the header of a packet from the guest.
pub(super) fn decode(bytes: &Bytes) -> Read {
    let flags = u32_at(bytes, header::FLAGS);
    let operation = match u16::from_le_bytes(array(bytes, header::OP)) {
        _ if u16::from_le_bytes(array(bytes, header::TYPE)) != TYPE_STREAM => {
            VsockOperation::Unknown
        }
        op::REQUEST => VsockOperation::Request,
        op::RESPONSE => VsockOperation::Response,
        op::RST => VsockOperation::Reset,
        op::SHUTDOWN => VsockOperation::Shutdown {
            receive: flags & shutdown::RECEIVE != 0,
            send: flags & shutdown::SEND != 0,
        },
        op::RW => VsockOperation::Data,
        op::CREDIT_UPDATE => VsockOperation::CreditUpdate,
        op::CREDIT_REQUEST => VsockOperation::CreditRequest,
        _ => VsockOperation::Unknown,
    };
    Read {
        from_cid: u64::from_le_bytes(array(bytes, header::SRC_CID)),
        data_len: u32_at(bytes, header::SIZE),
        packet: VsockPacket {
            peer_cid: u64::from_le_bytes(array(bytes, header::DST_CID)),
            guest_port: u32_at(bytes, header::SRC_PORT),
            peer_port: u32_at(bytes, header::DST_PORT),
            operation,
            buffer_len: u32_at(bytes, header::BUF_ALLOC),
            forwarded: u32_at(bytes, header::FWD_CNT),
        },
    }
}

/// The header of a packet for the guest at `guest_cid`.
pub(super) fn encode(packet: &VsockPacket, guest_cid: u64, data_len: u32) -> Bytes {
    let (operation, flags) = match packet.operation {
        VsockOperation::Request => (op::REQUEST, 0),
        VsockOperation::Response => (op::RESPONSE, 0),
        VsockOperation::Reset | VsockOperation::Unknown => (op::RST, 0),
        VsockOperation::Shutdown { receive, send } => {
            let receive = if receive { shutdown::RECEIVE } else { 0 };
            (op::SHUTDOWN, receive | if send { shutdown::SEND } else { 0 })
        }
        VsockOperation::Data => (op::RW, 0),
        VsockOperation::CreditUpdate => (op::CREDIT_UPDATE, 0),
        VsockOperation::CreditRequest => (op::CREDIT_REQUEST, 0),
    };
    let mut bytes = [0; header::LEN];
    let mut put = |at: usize, value: &[u8]| {
        for (to, from) in bytes.iter_mut().skip(at).zip(value) {
            *to = *from;
        }
    };
    put(header::SRC_CID, &packet.peer_cid.to_le_bytes());
    put(header::DST_CID, &guest_cid.to_le_bytes());
    put(header::SRC_PORT, &packet.peer_port.to_le_bytes());
    put(header::DST_PORT, &packet.guest_port.to_le_bytes());
    put(header::SIZE, &data_len.to_le_bytes());
    put(header::TYPE, &TYPE_STREAM.to_le_bytes());
    put(header::OP, &operation.to_le_bytes());
    put(header::FLAGS, &flags.to_le_bytes());
    put(header::BUF_ALLOC, &packet.buffer_len.to_le_bytes());
    put(header::FWD_CNT, &packet.forwarded.to_le_bytes());
    bytes
}

/// Whether a guest can have this context id (§5.10.4).
pub(super) const fn is_guest(id: u64) -> bool {
    cid::FIRST_GUEST <= id && id <= cid::LAST_GUEST
}
