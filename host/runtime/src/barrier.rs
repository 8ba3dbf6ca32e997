//! A memory barrier on every thread of this process.

use std::sync::atomic::{Ordering, fence};

use kasane_ports::HeavyBarrier;

/// How the host makes the barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierKind {
    /// `membarrier(PRIVATE_EXPEDITED)`: an interrupt to each CPU that runs a thread of ours.
    Expedited,
    /// `membarrier(GLOBAL)`: waits until each CPU of the host was seen to switch; milliseconds.
    Global,
    /// None: a fence on the calling thread only. Sound with one vCPU.
    CallerOnly,
}

/// The host's barrier.
#[derive(Clone, Copy, Debug)]
pub struct Barrier {
    kind: BarrierKind,
}

impl Barrier {
    /// Finds and registers the best barrier that the host has.
    #[must_use]
    pub fn detect() -> Self {
        Self { kind: detect() }
    }

    /// What was found.
    #[must_use]
    pub fn kind(&self) -> BarrierKind {
        self.kind
    }

    /// Whether several vCPUs may run.
    #[must_use]
    pub fn reaches_every_thread(&self) -> bool {
        match self.kind {
            BarrierKind::Expedited | BarrierKind::Global => true,
            BarrierKind::CallerOnly => false,
        }
    }
}

impl HeavyBarrier for Barrier {
    fn relax(&self) {
        std::thread::yield_now();
    }
    fn synchronize(&self) {
        fence(Ordering::SeqCst);
        membarrier(self.kind);
        fence(Ordering::SeqCst);
    }
}

#[cfg(target_os = "linux")]
fn detect() -> BarrierKind {
    use rustix::thread::{MembarrierCommand, membarrier, membarrier_query};

    let known = membarrier_query();
    let expedited = known.contains_command(MembarrierCommand::PrivateExpedited)
        && membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok();
    if expedited {
        BarrierKind::Expedited
    } else if known.contains_command(MembarrierCommand::Global) {
        BarrierKind::Global
    } else {
        BarrierKind::CallerOnly
    }
}

#[cfg(target_os = "linux")]
fn membarrier(kind: BarrierKind) {
    use rustix::thread::{MembarrierCommand, membarrier};

    // Once registered neither command can fail (membarrier(2)).
    let _done = match kind {
        BarrierKind::Expedited => membarrier(MembarrierCommand::PrivateExpedited),
        BarrierKind::Global => membarrier(MembarrierCommand::Global),
        BarrierKind::CallerOnly => Ok(()),
    };
}

#[cfg(not(target_os = "linux"))]
fn detect() -> BarrierKind {
    BarrierKind::CallerOnly
}

#[cfg(not(target_os = "linux"))]
fn membarrier(_kind: BarrierKind) {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, compiler_fence};

    /// One side of Dekker's protocol with a plain store and load, the other with the barrier:
    /// at least one side must see the other in every round.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_light_side_needs_no_fence() {
        let barrier = Barrier::detect();
        let cells = Arc::new([const { AtomicU32::new(0) }; 4]);
        let light_cells = Arc::clone(&cells);
        let rounds = if barrier.kind() == BarrierKind::Expedited { 500 } else { 20 };
        let wait_for = |cell: &AtomicU32, round| {
            while cell.load(Ordering::Acquire) != round {
                std::thread::yield_now();
            }
        };
        let light = std::thread::spawn(move || {
            let [turn, done, x, y] = &*light_cells;
            (1..=rounds)
                .map(|round| {
                    wait_for(turn, round);
                    x.store(round, Ordering::Relaxed);
                    compiler_fence(Ordering::SeqCst);
                    let saw = y.load(Ordering::Relaxed) == round;
                    done.store(round, Ordering::Release);
                    saw
                })
                .collect::<Vec<bool>>()
        });
        let [turn, done, x, y] = &*cells;
        let heavy: Vec<bool> = (1..=rounds)
            .map(|round| {
                turn.store(round, Ordering::Release);
                y.store(round, Ordering::Relaxed);
                barrier.synchronize();
                let saw = x.load(Ordering::Relaxed) == round;
                wait_for(done, round);
                saw
            })
            .collect();
        let light = light.join().unwrap();

        let missed = light.iter().zip(&heavy).filter(|(light, heavy)| !**light && !**heavy).count();
        assert!(barrier.reaches_every_thread());
        assert_eq!(missed, 0);
    }
}
