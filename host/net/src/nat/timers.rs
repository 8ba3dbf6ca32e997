//! Deadlines of flows: an ordered set, with one entry for each flow at most.
//!
//! A flow's deadline moves with almost every frame, nearly always to a later time. Moving it in
//! the set each time would cost more than the frame, so a flow is only moved to an *earlier* time;
//! when a deadline comes that has moved meanwhile, the flow is put in anew.

use std::collections::BTreeSet;
use std::time::Instant;

use super::slots::Id;

/// All deadlines.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(Instant, Id)>);

/// When a flow stands in the set; a part of the flow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Armed(Option<Instant>);

impl Timers {
    /// Sees to it that `id` comes up at `deadline` or before.
    pub(crate) fn arm(&mut self, id: Id, armed: &mut Armed, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        match armed.0 {
            Some(before) if before <= deadline => return,
            Some(before) => {
                self.0.remove(&(before, id));
            }
            None => {}
        }
        self.0.insert((deadline, id));
        armed.0 = Some(deadline);
    }

    /// Takes a flow out that is no more.
    pub(crate) fn disarm(&mut self, id: Id, armed: Armed) {
        if let Some(time) = armed.0 {
            self.0.remove(&(time, id));
        }
    }

    /// The next flow whose time has come. It has to be armed anew.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Id> {
        let first = *self.0.first()?;
        if first.0 > now {
            return None;
        }
        self.0.remove(&first);
        Some(first.1)
    }

    /// The next time.
    pub(crate) fn next(&self) -> Option<Instant> {
        Some(self.0.first()?.0)
    }

    /// The flow that comes up first, in the kind's own set.
    pub(crate) fn first(&self) -> Option<Id> {
        Some(self.0.first()?.1)
    }
}

impl Armed {
    /// The deadline has come: the flow is not in the set any more.
    pub(crate) fn popped(&mut self) {
        self.0 = None;
    }
}
