//! How long to wait for the guest's acknowledgement (RFC 6298).

use std::time::{Duration, Instant};

use super::seq::Seq;

/// A guest may run in an interpreter on a busy host: less than this is no sign of a loss.
const RTO_MIN: Duration = Duration::from_millis(300);
/// The first guess (RFC 6298 §2.1), and the most.
const RTO_FIRST: Duration = Duration::from_secs(1);
const RTO_MAX: Duration = Duration::from_secs(60);

/// The estimate, and the one segment that is being timed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoundTrip {
    smoothed: Option<(Duration, Duration)>,
    /// The acknowledgement that is waited for, and since when.
    timed: Option<(Seq, Instant)>,
    backoff: u32,
}

impl RoundTrip {
    pub(crate) fn new() -> Self {
        Self { smoothed: None, timed: None, backoff: 0 }
    }

    /// Data up to `end` was sent for the first time.
    pub(crate) fn sent(&mut self, end: Seq, now: Instant) {
        self.timed.get_or_insert((end, now));
    }

    /// Something was sent again, so that an acknowledgement could mean either (Karn's rule).
    pub(crate) fn sent_again(&mut self) {
        self.timed = None;
    }

    /// No answer came in time: wait longer.
    pub(crate) fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(10);
    }

    /// New data was acknowledged.
    pub(crate) fn acknowledged(&mut self, ack: Seq, now: Instant) {
        self.backoff = 0;
        let Some((end, since)) = self.timed else { return };
        if ack.is_before(end) {
            return;
        }
        self.timed = None;
        let sample = now.saturating_duration_since(since);
        self.smoothed = Some(match self.smoothed {
            None => (sample, sample / 2),
            Some((mean, deviation)) => {
                (mean * 7 / 8 + sample / 8, deviation * 3 / 4 + mean.abs_diff(sample) / 4)
            }
        });
    }

    /// How long to wait now.
    pub(crate) fn timeout(&self) -> Duration {
        let plain = match self.smoothed {
            None => RTO_FIRST,
            Some((mean, deviation)) => (mean + deviation * 4).max(RTO_MIN),
        };
        plain.saturating_mul(1 << self.backoff).min(RTO_MAX)
    }
}
