//! Networks: a backend with a thread of its own takes frames from a device and gives it frames.
//!
//! The backend pulls. A guest that sends faster than the network takes fills its own queue and
//! waits; a network that sends faster than the guest takes is told so, and keeps the frame. So
//! there is no queue in between that could grow, and back-pressure reaches from end to end.

use alloc::sync::Weak;
use alloc::vec::Vec;

/// What is still to be done to a frame that a device with offloads sends or takes (virtio 1.2
/// §5.1.6, whose header this is in other words).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameOffload {
    /// The checksum is not whole yet: sum from `start` to the frame's end and store at
    /// `start + offset`.
    pub checksum: Option<PartialChecksum>,
    /// The frame's checksums are known to be right.
    pub checked: bool,
    /// The frame is longer than the link takes and stands for several segments.
    pub segmentation: Option<Segmentation>,
}

/// Where a checksum is to be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// First byte that is summed, from the frame's beginning.
    pub start: u16,
    /// Where the sum goes, from `start`.
    pub offset: u16,
}

/// How a long frame is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// Which protocol it carries.
    pub kind: SegmentationKind,
    /// Payload bytes of each segment, not 0.
    pub size: u16,
    /// Bytes of all headers, which each segment repeats.
    pub header_len: u16,
    /// The first segment alone has CWR set (TCP's explicit congestion notification).
    pub ecn: bool,
}

/// The protocol of a frame that is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentationKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over either.
    Udp,
}

/// What offloads a backend can take in frames that the guest sends, and would like to use in those
/// that it gives. The device offers the guest no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetOffloads {
    /// Partial checksums from the guest.
    pub takes_partial_checksum: bool,
    /// TCP segmentation by the backend (needs `takes_partial_checksum`).
    pub takes_tcp_segmentation: bool,
    /// Gives frames with partial checksums, if the guest takes them.
    pub gives_partial_checksum: bool,
    /// Gives frames longer than the link, if the guest takes them.
    pub gives_tcp_segmentation: bool,
}

impl NetOffloads {
    /// Every one.
    pub const ALL: Self = Self {
        takes_partial_checksum: true,
        takes_tcp_segmentation: true,
        gives_partial_checksum: true,
        gives_tcp_segmentation: true,
    };
}

/// What a network is, for the device on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetInfo {
    /// Largest payload of an Ethernet frame in bytes (1500 as a rule).
    pub mtu: u16,
    /// Offloads.
    pub offloads: NetOffloads,
    /// How many queue pairs are of use to it, at least 1.
    pub queue_pairs: u16,
}

/// What the guest agreed to: the backend gives nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetGuestOffloads {
    /// It takes frames with partial checksums.
    pub partial_checksum: bool,
    /// It takes TCP over IPv4 that is to be cut.
    pub tcp4: bool,
    /// It takes TCP over IPv6 that is to be cut.
    pub tcp6: bool,
}

/// A network, or a way to one.
pub trait NetBackend: Send + Sync {
    /// What it is.
    fn info(&self) -> NetInfo;
    /// The device on it; told once. Without a device (or with one that is gone), frames are lost.
    fn connect(&self, device: Weak<dyn NetDevice>);
    /// The guest has sent frames or made room for some. Cheap, from any thread, never blocks; a
    /// call that comes while the backend looks at the device is not lost.
    fn wake(&self);
}

/// The device on a network, as its backend sees it.
pub trait NetDevice: Send + Sync {
    /// Takes the next frame that the guest has sent, from the Ethernet header on, into `frame`
    /// (cleared before). Frames that make no sense are dropped on the way.
    fn take(&self, frame: &mut Vec<u8>) -> Option<FrameOffload>;
    /// Gives the guest a frame, whose parts follow one another.
    fn give(&self, parts: &[&[u8]], offload: FrameOffload) -> Given;
    /// Tells the guest of what was taken and given since the last call: one interrupt for many
    /// frames. The backend calls it after each round.
    fn flush(&self);
    /// What the guest takes.
    fn guest_offloads(&self) -> NetGuestOffloads;
    /// Whether the guest's driver runs.
    fn is_up(&self) -> bool;
}

/// What became of a frame that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// The guest has it.
    Taken,
    /// The guest has no room; the backend's `wake` is called when it has made some.
    NoRoom,
    /// The guest will never take it (it is too long, or the driver is not there): drop it.
    Refused,
}
