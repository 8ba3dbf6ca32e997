//! Saved form, version 1. A device is saved when nothing is under way; what the disk is comes from
//! its backend.

use super::chip::Blk;

/// The state of a disk.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Form {
    writeback: bool,
}

impl Form {
    pub(super) fn of(blk: &Blk) -> Self {
        Self { writeback: blk.writeback }
    }
    pub(super) fn put(self, blk: &mut Blk) {
        let Self { writeback } = self;
        blk.writeback = writeback;
    }
}
