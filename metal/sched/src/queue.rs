//! Which task runs next.

use alloc::vec::Vec;

/// A task that becomes ready runs at most so much later than its share says, and runs at most so
/// long in one piece.
pub const LATENCY_NS: u64 = 8_000_000;
/// It runs at least so long in one piece, if it has something to do.
pub const SLICE_MIN_NS: u64 = 1_000_000;
/// The weight of an ordinary task.
pub const WEIGHT: u32 = 100;

/// A task's number. It is used again when the task is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskId(pub usize);

/// What a task wants when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// To go on.
    Again,
    /// To be woken, or to go on at this time in nanoseconds.
    Wait(Option<u64>),
    /// Nothing more.
    Done,
}

/// Which processor has to be interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poke {
    /// None.
    Nobody,
    /// This one: it is idle and has something to do now, or it runs the task that was woken.
    Processor(u32),
}

/// A task that may run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Which.
    pub task: TaskId,
    /// Until when, in nanoseconds.
    pub until_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    /// On a processor since a time; woken meanwhile?
    Running {
        processor: u32,
        since_ns: u64,
        woken: bool,
    },
    Waiting {
        deadline_ns: Option<u64>,
    },
}

#[derive(Clone, Debug)]
struct Entry {
    state: State,
    weight: u32,
    /// Only on this one.
    pinned: Option<u32>,
    /// Nanoseconds that it ran, times [`WEIGHT`], divided by its weight.
    virtual_ns: u64,
    ran_ns: u64,
}

impl Entry {
    fn may_run_on(&self, processor: u32) -> bool {
        self.pinned.is_none_or(|pinned| pinned == processor)
    }
}

/// All tasks, and which processors have none.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    tasks: Vec<Option<Entry>>,
    idle: Vec<bool>,
    /// Virtual time never goes back: where a task that waited begins.
    floor_ns: u64,
}

impl Queue {
    /// No tasks, and so many processors.
    #[must_use]
    pub fn new(processors: u32) -> Self {
        Self { idle: alloc::vec![false; processors as usize], ..Self::default() }
    }

    /// Adds a task that is ready.
    pub fn add(&mut self, weight: u32, pinned: Option<u32>) -> TaskId {
        let virtual_ns = self.floor_ns;
        let weight = weight.max(1);
        let entry = Entry { state: State::Ready, weight, pinned, virtual_ns, ran_ns: 0 };
        let free = self.tasks.iter().position(Option::is_none);
        let index = free.unwrap_or(self.tasks.len());
        match self.tasks.get_mut(index) {
            Some(slot) => *slot = Some(entry),
            None => self.tasks.push(Some(entry)),
        }
        TaskId(index)
    }

    /// A processor that is idle although a task that it may run is ready.
    #[must_use]
    pub fn missed(&self) -> Poke {
        let idle = (0u32..).zip(&self.idle).find(|(n, idle)| **idle && self.is_wanted(*n));
        idle.map_or(Poke::Nobody, |(n, _)| Poke::Processor(n))
    }

    /// Any processor that is idle.
    #[must_use]
    pub fn any_idle(&self) -> Poke {
        let idle = (0u32..).zip(&self.idle).find(|(_, idle)| **idle);
        idle.map_or(Poke::Nobody, |(n, _)| Poke::Processor(n))
    }

    /// A processor that is idle and may run the task.
    #[must_use]
    pub fn idle_processor(&self, task: TaskId) -> Poke {
        let Some(Some(entry)) = self.tasks.get(task.0) else { return Poke::Nobody };
        let idle = (0u32..).zip(&self.idle).find(|(n, idle)| **idle && entry.may_run_on(*n));
        idle.map_or(Poke::Nobody, |(n, _)| Poke::Processor(n))
    }

    /// A task has something to do. If it runs, it will run once more.
    pub fn wake(&mut self, task: TaskId) -> Poke {
        let floor = self.floor_ns;
        let Some(Some(entry)) = self.tasks.get_mut(task.0) else { return Poke::Nobody };
        match &mut entry.state {
            State::Ready => Poke::Nobody,
            State::Running { processor, woken, .. } => {
                *woken = true;
                Poke::Processor(*processor)
            }
            State::Waiting { .. } => {
                make_ready(entry, floor);
                self.idle_processor(task)
            }
        }
    }

    /// Wakes the tasks whose time has come; gives how many.
    pub fn expire(&mut self, now_ns: u64) -> usize {
        let floor = self.floor_ns;
        let due = self.tasks.iter_mut().flatten().filter(
            |entry| matches!(entry.state, State::Waiting { deadline_ns: Some(at) } if at <= now_ns),
        );
        due.map(|entry| make_ready(entry, floor)).count()
    }

    /// The earliest time at which a task wants to go on.
    #[must_use]
    pub fn next_deadline_ns(&self) -> Option<u64> {
        let deadlines = self.tasks.iter().flatten().filter_map(|entry| match entry.state {
            State::Waiting { deadline_ns } => deadline_ns,
            State::Ready | State::Running { .. } => None,
        });
        deadlines.min()
    }

    /// The task that runs next on a processor; without one the processor counts as idle.
    pub fn pick(&mut self, processor: u32, now_ns: u64) -> Option<Pick> {
        self.expire(now_ns);
        let ready = (0..).zip(&self.tasks).filter_map(|(index, entry)| {
            let entry = entry.as_ref()?;
            let fits = entry.state == State::Ready && entry.may_run_on(processor);
            fits.then_some((entry.virtual_ns, index))
        });
        let chosen = ready.min().map(|(_, index)| index);
        if let Some(idle) = self.idle.get_mut(processor as usize) {
            *idle = chosen.is_none();
        }
        let index = chosen?;
        let slice_ns = self.slice_ns(index);
        let entry = self.tasks.get_mut(index)?.as_mut()?;
        entry.state = State::Running { processor, since_ns: now_ns, woken: false };
        self.floor_ns = self.floor_ns.max(entry.virtual_ns);
        Some(Pick { task: TaskId(index), until_ns: now_ns.saturating_add(slice_ns) })
    }

    /// Its share of [`LATENCY_NS`] among those that want to run.
    fn slice_ns(&self, index: usize) -> u64 {
        let wants = self.tasks.iter().flatten().filter(|entry| match entry.state {
            State::Ready | State::Running { .. } => true,
            State::Waiting { .. } => false,
        });
        let all: u64 = wants.map(|entry| u64::from(entry.weight)).sum();
        let own = self.tasks.get(index).and_then(Option::as_ref).map_or(1, |entry| entry.weight);
        let share = LATENCY_NS.saturating_mul(own.into()) / all.max(1);
        share.clamp(SLICE_MIN_NS, LATENCY_NS)
    }

    /// A task has returned. True if it is gone.
    pub fn returned(&mut self, task: TaskId, now_ns: u64, next: Next) -> bool {
        let Some(slot) = self.tasks.get_mut(task.0) else { return false };
        let Some(entry) = slot else { return false };
        let State::Running { since_ns, woken, .. } = entry.state else { return false };
        let ran_ns = now_ns.saturating_sub(since_ns);
        entry.ran_ns = entry.ran_ns.saturating_add(ran_ns);
        let virtual_ns = ran_ns.saturating_mul(WEIGHT.into()) / u64::from(entry.weight);
        entry.virtual_ns = entry.virtual_ns.saturating_add(virtual_ns);
        entry.state = match next {
            Next::Again => State::Ready,
            Next::Wait(_) if woken => State::Ready,
            Next::Wait(deadline_ns) => State::Waiting { deadline_ns },
            Next::Done => {
                *slot = None;
                return true;
            }
        };
        false
    }

    /// Whether somebody else wants the processor on which this task runs.
    #[must_use]
    pub fn is_wanted(&self, processor: u32) -> bool {
        let mut entries = self.tasks.iter().flatten();
        entries.any(|entry| entry.state == State::Ready && entry.may_run_on(processor))
    }

    /// Nanoseconds that a task ran.
    #[must_use]
    pub fn ran_ns(&self, task: TaskId) -> u64 {
        self.tasks.get(task.0).and_then(Option::as_ref).map_or(0, |entry| entry.ran_ns)
    }

    /// Where a task runs now.
    #[must_use]
    pub fn processor_of(&self, task: TaskId) -> Option<u32> {
        match self.tasks.get(task.0)?.as_ref()?.state {
            State::Running { processor, .. } => Some(processor),
            State::Ready | State::Waiting { .. } => None,
        }
    }
}

fn make_ready(entry: &mut Entry, floor_ns: u64) {
    entry.state = State::Ready;
    entry.virtual_ns = entry.virtual_ns.max(floor_ns.saturating_sub(LATENCY_NS));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::vec;

    /// Lets `processors` run for `total_ns`; each task spins for ever. Gives what each ran.
    fn spin(queue: &mut Queue, processors: u32, total_ns: u64) -> BTreeMap<TaskId, u64> {
        let mut now = vec![0; processors as usize];
        let mut running: Vec<Option<Pick>> = vec![None; processors as usize];
        while let Some(next) = (0..now.len()).min_by_key(|n| now[*n]).filter(|n| now[*n] < total_ns)
        {
            if let Some(pick) = running[next].take() {
                queue.returned(pick.task, now[next], Next::Again);
            }
            running[next] = queue.pick(next as u32, now[next]);
            now[next] = running[next].map_or(now[next] + SLICE_MIN_NS, |pick| pick.until_ns);
        }
        (0..queue.tasks.len()).map(|n| (TaskId(n), queue.ran_ns(TaskId(n)))).collect()
    }

    #[test]
    fn spinning_tasks_share_by_their_weights() {
        let mut queue = Queue::new(1);
        let weights = [100, 200, 50];
        let tasks = weights.map(|weight| queue.add(weight, None));

        let ran = spin(&mut queue, 1, 10_000_000_000);

        let all: u64 = ran.values().sum();
        for (task, weight) in tasks.iter().zip(weights) {
            let share = ran[task] as f64 / all as f64;
            let wanted = f64::from(weight) / 350.0;
            assert!((share - wanted).abs() < 0.05 * wanted, "{share} of {wanted}");
        }
    }

    #[test]
    fn two_processors_run_three_tasks_alike() {
        let mut queue = Queue::new(2);
        let tasks = [100, 100, 100].map(|weight| queue.add(weight, None));

        let ran = spin(&mut queue, 2, 10_000_000_000);

        let all: u64 = ran.values().sum();
        assert!(all > 19_900_000_000);
        for task in tasks {
            assert!((ran[&task] as f64 / all as f64 - 1.0 / 3.0).abs() < 0.02, "{ran:?}");
        }
    }

    #[test]
    fn a_task_that_waited_runs_soon_and_not_for_long() {
        let mut queue = Queue::new(1);
        let spinner = queue.add(WEIGHT, None);
        let sleeper = queue.add(WEIGHT, None);
        let first = queue.pick(0, 0).unwrap();
        queue.returned(first.task, 0, Next::Again);
        let second = queue.pick(0, 0).unwrap().task;
        assert_eq!([first.task, second], [spinner, spinner]);
        queue.returned(spinner, 0, Next::Again);
        // The sleeper sleeps for a second in which the other runs.
        let mut now = 1_000;
        let picked = loop {
            let pick = queue.pick(0, now).unwrap();
            if pick.task == sleeper {
                break pick;
            }
            now = pick.until_ns;
            queue.returned(pick.task, now, Next::Again);
        };
        queue.returned(picked.task, now, Next::Wait(Some(1_000_000_000)));
        while now < 1_000_000_000 {
            let pick = queue.pick(0, now).unwrap();
            assert_eq!(pick.task, spinner);
            now = pick.until_ns;
            queue.returned(pick.task, now, Next::Again);
        }

        let pick = queue.pick(0, now).unwrap();
        assert_eq!(pick.task, sleeper);
        assert!(now < 1_000_000_000 + LATENCY_NS);
        // It spins now; the other gets its turn after no more than twice the latency.
        let began = now;
        let mut next = pick;
        while next.task == sleeper {
            now = next.until_ns;
            queue.returned(sleeper, now, Next::Again);
            next = queue.pick(0, now).unwrap();
        }
        assert!(now - began <= 2 * LATENCY_NS, "{}", now - began);
    }

    #[test]
    fn a_wake_up_while_it_runs_is_kept() {
        let mut queue = Queue::new(1);
        let task = queue.add(WEIGHT, None);
        queue.pick(0, 0).unwrap();
        let poke = queue.wake(task);
        queue.returned(task, 10, Next::Wait(None));

        assert_eq!(poke, Poke::Processor(0));
        assert_eq!(queue.pick(0, 10).map(|pick| pick.task), Some(task));
        queue.returned(task, 20, Next::Wait(None));
        assert_eq!(queue.pick(0, 20), None);
        assert_eq!(queue.wake(task), Poke::Processor(0));
    }

    #[test]
    fn a_pinned_task_runs_on_its_processor_only() {
        let mut queue = Queue::new(2);
        let task = queue.add(WEIGHT, Some(1));

        assert_eq!(queue.pick(0, 0), None);
        assert!(!queue.is_wanted(0) && queue.is_wanted(1));
        assert_eq!(queue.pick(1, 0).map(|pick| pick.task), Some(task));
        assert_eq!(queue.processor_of(task), Some(1));
    }

    #[test]
    fn a_number_is_free_again_when_its_task_is_done() {
        let mut queue = Queue::new(1);
        let first = queue.add(WEIGHT, None);
        queue.pick(0, 0).unwrap();
        assert!(queue.returned(first, 0, Next::Done));

        assert_eq!(queue.wake(first), Poke::Nobody);
        assert_eq!(queue.add(WEIGHT, None), first);
    }

    #[test]
    fn deadlines_wake_in_time() {
        let mut queue = Queue::new(1);
        let task = queue.add(WEIGHT, None);
        queue.pick(0, 0).unwrap();
        queue.returned(task, 0, Next::Wait(Some(500)));

        assert_eq!((queue.next_deadline_ns(), queue.pick(0, 499)), (Some(500), None));
        assert_eq!(queue.pick(0, 500).map(|pick| pick.task), Some(task));
    }
}
