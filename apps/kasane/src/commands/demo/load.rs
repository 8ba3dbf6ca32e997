//! How much of a processor a process takes.

use std::time::{Duration, Instant};

/// How often it is measured.
const PERIOD: Duration = Duration::from_secs(1);
/// Ticks of `/proc/PID/stat` in a second: Linux shows 100 to every program on x86-64.
const TICKS_PER_SECOND: u64 = 100;

/// A process's share, measured once a second; unknown on hosts without `/proc`.
pub(super) struct Load {
    process: u32,
    last: Instant,
    ticks: Option<u64>,
    percent: Option<u64>,
}

impl Load {
    pub(super) fn of(process: u32) -> Self {
        Self { process, last: Instant::now(), ticks: ticks(process), percent: None }
    }

    /// Measures, if it is time to. True if it did.
    pub(super) fn look(&mut self) -> bool {
        let passed = self.last.elapsed();
        if passed < PERIOD {
            return false;
        }
        let ticks = ticks(self.process);
        let ran = ticks.zip(self.ticks).map(|(now, before)| now.saturating_sub(before));
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1);
        self.percent = ran.map(|ran| ran.saturating_mul(100_000 / TICKS_PER_SECOND) / millis);
        self.ticks = ticks;
        self.last = Instant::now();
        true
    }

    /// Of one processor.
    pub(super) fn percent(&self) -> Option<u64> {
        self.percent
    }
}

/// User and system time (proc(5)).
fn ticks(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    ticks_in(&text)
}

/// They are the 14th and 15th field; the second may have blanks and parentheses in it.
fn ticks_in(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
    Some(fields.next()??.saturating_add(fields.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_strange_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 1500 25 0 0 20 0 1 0 99";

        assert_eq!(ticks_in(stat), Some(1525));
        assert_eq!(ticks_in("nothing"), None);
    }
}
