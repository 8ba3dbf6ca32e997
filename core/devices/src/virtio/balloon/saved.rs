//! Saved form, version 1. No pages are on their way while the machine is paused; the driver's
//! buffer for statistics is.

use super::chip::Balloon;
use super::statistics::GuestStatistics;
use crate::virtio::ChainId;

/// The state of a balloon.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct Form {
    wanted: u32,
    actual: u32,
    statistics: GuestStatistics,
    statistics_chain: Option<ChainId>,
}

impl Form {
    pub(super) fn of(balloon: &Balloon) -> Self {
        Self {
            wanted: balloon.wanted,
            actual: balloon.actual,
            statistics: balloon.statistics,
            statistics_chain: balloon.statistics_chain,
        }
    }
    pub(super) fn put(self, balloon: &mut Balloon) {
        let Self { wanted, actual, statistics, statistics_chain } = self;
        balloon.wanted = wanted;
        balloon.actual = actual;
        balloon.statistics = statistics;
        balloon.statistics_chain = statistics_chain;
    }
}
