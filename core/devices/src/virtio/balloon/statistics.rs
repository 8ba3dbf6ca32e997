//! What the guest says of its memory (virtio 1.2 §5.5.6.4).

use kasane_spec_virtio::balloon::stat;

/// The guest's own view of its memory. What it doesn't say is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GuestStatistics {
    /// Bytes swapped in.
    pub swap_in: Option<u64>,
    /// Bytes swapped out.
    pub swap_out: Option<u64>,
    /// Page faults that had to wait for a disk.
    pub major_faults: Option<u64>,
    /// Other page faults.
    pub minor_faults: Option<u64>,
    /// Bytes that are not used for anything.
    pub free: Option<u64>,
    /// Bytes that there are.
    pub total: Option<u64>,
    /// Bytes that new programs could have without swapping.
    pub available: Option<u64>,
    /// Bytes of caches that can be dropped without I/O.
    pub caches: Option<u64>,
    /// Huge pages that were given to programs.
    pub huge_pages_given: Option<u64>,
    /// Huge pages that could not be given.
    pub huge_pages_refused: Option<u64>,
}

impl GuestStatistics {
    /// What a buffer says. Tags that are not known are left out.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let mut all = Self::default();
        for [t0, t1, value @ ..] in bytes.as_chunks::<{ stat::LEN }>().0 {
            let place = match u16::from_le_bytes([*t0, *t1]) {
                stat::SWAP_IN => &mut all.swap_in,
                stat::SWAP_OUT => &mut all.swap_out,
                stat::MAJFLT => &mut all.major_faults,
                stat::MINFLT => &mut all.minor_faults,
                stat::MEMFREE => &mut all.free,
                stat::MEMTOT => &mut all.total,
                stat::AVAIL => &mut all.available,
                stat::CACHES => &mut all.caches,
                stat::HTLB_PGALLOC => &mut all.huge_pages_given,
                stat::HTLB_PGFAIL => &mut all.huge_pages_refused,
                _ => continue,
            };
            *place = Some(u64::from_le_bytes(*value));
        }
        all
    }
}
