//! Running tasks: the loop of each processor.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use kasane_ports::Kick;
use lock_api::{Mutex, RawMutex};

use crate::queue::{Next, Pick, Poke, Queue, TaskId};

/// Something to be run.
pub trait Task: Send {
    /// Works until `until_ns`, until it has nothing to do, or until it is kicked.
    fn run(&mut self, until_ns: u64) -> Next;
}

/// The processors, as far as the runtime uses them.
pub trait Processors: Send + Sync {
    /// The number of the one that this runs on.
    fn current(&self) -> u32;
    /// Time in nanoseconds.
    fn now_ns(&self) -> u64;
    /// Has [`Runtime::tick`] called on this processor at a time.
    fn arm(&self, at_ns: Option<u64>);
    /// Interrupts another processor's idling.
    fn poke(&self, processor: u32);
    /// Waits for any interrupt if `idle`, asked with interrupts off, agrees.
    fn wait(&self, idle: &mut dyn FnMut() -> bool);
}

/// A task on its way into the runtime.
pub struct NewTask {
    /// For people.
    pub name: String,
    /// Share of the processors, relative to the others'.
    pub weight: u32,
    /// The one processor that it may run on.
    pub pinned: Option<u32>,
    /// Makes `run` return soon.
    pub preempt: Option<Arc<dyn Kick>>,
    /// What to run.
    pub task: Box<dyn Task>,
}

/// A task, for people.
#[derive(Clone, Debug)]
pub struct TaskReport {
    /// Its name.
    pub name: String,
    /// Nanoseconds that it ran.
    pub ran_ns: u64,
    /// Where it runs now.
    pub processor: Option<u32>,
}

struct Slot {
    name: String,
    preempt: Option<Arc<dyn Kick>>,
    /// Not here while it runs.
    task: Option<Box<dyn Task>>,
}

struct State {
    queue: Queue,
    slots: Vec<Option<Slot>>,
    /// By processor: the task that runs there.
    running: Vec<Option<Pick>>,
}

/// Where tasks are started and woken, without the types of lock and processors.
pub trait Spawner: Send + Sync {
    /// Adds a task, which is ready.
    fn spawn(&self, new: NewTask) -> TaskId;
    /// A task has something to do.
    fn wake(&self, task: TaskId);
}

impl<R: RawMutex + Send + Sync, P: Processors> Spawner for Runtime<R, P> {
    fn spawn(&self, new: NewTask) -> TaskId {
        Self::spawn(self, new)
    }
    fn wake(&self, task: TaskId) {
        Self::wake(self, task);
    }
}

/// Wakes a task that may not have a number yet: until it has one it is ready anyway.
pub struct Waker {
    spawner: Arc<dyn Spawner>,
    task: AtomicUsize,
}

impl Waker {
    /// For a task that will be.
    #[must_use]
    pub fn new(spawner: Arc<dyn Spawner>) -> Arc<Self> {
        Arc::new(Self { spawner, task: AtomicUsize::new(usize::MAX) })
    }
    /// From now on it wakes this task.
    pub fn set(&self, task: TaskId) {
        self.task.store(task.0, Ordering::Release);
    }
}

impl Kick for Waker {
    fn kick(&self) {
        self.spawner.wake(TaskId(self.task.load(Ordering::Acquire)));
    }
}

/// Tasks and processors. The lock is one that interrupt handlers may take; no task and no kick is
/// called under it.
pub struct Runtime<R: RawMutex, P> {
    state: Mutex<R, State>,
    processors: P,
}

impl<R: RawMutex, P: Processors> Runtime<R, P> {
    /// No tasks yet, on `count` processors.
    pub fn new(processors: P, count: u32) -> Self {
        let running = alloc::vec![None; count as usize];
        let state = State { queue: Queue::new(count), slots: Vec::new(), running };
        Self { state: Mutex::new(state), processors }
    }

    /// Adds a task, which is ready.
    pub fn spawn(&self, new: NewTask) -> TaskId {
        let NewTask { name, weight, pinned, preempt, task } = new;
        let slot = Slot { name, preempt, task: Some(task) };
        let mut state = self.state.lock();
        let id = state.queue.add(weight, pinned);
        if state.slots.len() <= id.0 {
            state.slots.resize_with(id.0.saturating_add(1), || None);
        }
        if let Some(place) = state.slots.get_mut(id.0) {
            *place = Some(slot);
        }
        let idle = state.queue.idle_processor(id);
        drop(state);
        self.poke(idle);
        id
    }

    fn poke(&self, poke: Poke) {
        match poke {
            Poke::Processor(number) if number != self.processors.current() => {
                self.processors.poke(number);
            }
            Poke::Processor(_) | Poke::Nobody => {}
        }
    }

    /// A task has something to do. May be called by interrupt handlers.
    pub fn wake(&self, task: TaskId) {
        let poke = self.state.lock().queue.wake(task);
        self.poke(poke);
    }

    /// The timer of this processor has come. For its interrupt handler.
    pub fn tick(&self) {
        let now_ns = self.processors.now_ns();
        let number = self.processors.current();
        let mut state = self.state.lock();
        let woken = state.queue.expire(now_ns);
        let Some(pick) = state.running.get(number as usize).copied().flatten() else {
            return;
        };
        let idle = if woken > 0 { state.queue.any_idle() } else { Poke::Nobody };
        let over = pick.until_ns <= now_ns;
        let preempt = over.then(|| state.slots.get(pick.task.0)?.as_ref()?.preempt.clone());
        let next = state.queue.next_deadline_ns();
        drop(state);
        self.poke(idle);
        // Its slice is over: if the kick comes too early to be seen, it comes again.
        let again = if over { now_ns.saturating_add(1_000_000) } else { pick.until_ns };
        self.processors.arm(Some(next.map_or(again, |next| next.min(again))));
        if let Some(preempt) = preempt.flatten() {
            preempt.kick();
        }
    }

    /// Runs tasks on this processor for ever.
    pub fn live(&self) -> ! {
        loop {
            self.turn();
        }
    }

    /// Runs one task, or waits for one.
    pub fn turn(&self) {
        let number = self.processors.current();
        let now_ns = self.processors.now_ns();
        let mut state = self.state.lock();
        let Some(pick) = state.queue.pick(number, now_ns) else {
            drop(state);
            self.idle();
            return;
        };
        let task = state.slots.get_mut(pick.task.0).and_then(Option::as_mut);
        let task = task.and_then(|slot| slot.task.take());
        if let Some(place) = state.running.get_mut(number as usize) {
            *place = Some(pick);
        }
        let next = state.queue.next_deadline_ns();
        let missed = state.queue.missed();
        drop(state);
        self.poke(missed);
        self.processors.arm(Some(next.map_or(pick.until_ns, |next| next.min(pick.until_ns))));
        let Some(mut task) = task else { return };
        let wish = task.run(pick.until_ns);
        self.put_back(pick, task, wish);
    }

    fn put_back(&self, pick: Pick, task: Box<dyn Task>, wish: Next) {
        let number = self.processors.current();
        let mut gone = None;
        let mut state = self.state.lock();
        let now_ns = self.processors.now_ns();
        if let Some(place) = state.running.get_mut(number as usize) {
            *place = None;
        }
        let is_gone = state.queue.returned(pick.task, now_ns, wish);
        if let Some(place) = state.slots.get_mut(pick.task.0) {
            match place {
                Some(slot) if !is_gone => slot.task = Some(task),
                Some(_) | None => gone = Some((place.take(), task)),
            }
        }
        drop(state);
        // A task's drop may free memory and wake others: not under the lock.
        drop(gone);
    }

    fn idle(&self) {
        let number = self.processors.current();
        self.processors.wait(&mut || {
            let now_ns = self.processors.now_ns();
            let mut state = self.state.lock();
            state.queue.expire(now_ns);
            if state.queue.is_wanted(number) {
                return false;
            }
            self.processors.arm(state.queue.next_deadline_ns());
            true
        });
    }

    /// All tasks, for people.
    pub fn report(&self) -> Vec<TaskReport> {
        let state = self.state.lock();
        let slots = state.slots.iter().enumerate();
        let reports = slots.filter_map(|(index, slot)| {
            let name = slot.as_ref()?.name.clone();
            let id = TaskId(index);
            let (ran_ns, processor) = (state.queue.ran_ns(id), state.queue.processor_of(id));
            Some(TaskReport { name, ran_ns, processor })
        });
        reports.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicU64;
    use parking_lot::RawMutex as Raw;

    /// One processor whose time goes on by 1000 ns at each look.
    #[derive(Default)]
    struct Fake {
        now: AtomicU64,
        waits: AtomicU64,
    }

    impl Processors for Fake {
        fn current(&self) -> u32 {
            0
        }
        fn now_ns(&self) -> u64 {
            self.now.fetch_add(1000, Ordering::Relaxed)
        }
        fn arm(&self, _at_ns: Option<u64>) {}
        fn poke(&self, _processor: u32) {}
        fn wait(&self, idle: &mut dyn FnMut() -> bool) {
            if idle() {
                self.waits.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    struct Count(Arc<AtomicU64>, Next);

    impl Task for Count {
        fn run(&mut self, _until_ns: u64) -> Next {
            self.0.fetch_add(1, Ordering::Relaxed);
            self.1
        }
    }

    fn spawn(runtime: &Runtime<Raw, Fake>, next: Next) -> (TaskId, Arc<AtomicU64>) {
        let count = Arc::new(AtomicU64::new(0));
        let task = Box::new(Count(count.clone(), next));
        let name = String::from("count");
        let new = NewTask { name, weight: 100, pinned: None, preempt: None, task };
        (runtime.spawn(new), count)
    }

    #[test]
    fn tasks_run_wait_are_woken_and_end() {
        let runtime = Runtime::<Raw, _>::new(Fake::default(), 1);
        let (waiter, waited) = spawn(&runtime, Next::Wait(None));
        let (_, ended) = spawn(&runtime, Next::Done);
        (0..4).for_each(|_| runtime.turn());
        let before = waited.load(Ordering::Relaxed);
        runtime.wake(waiter);
        runtime.turn();

        assert_eq!((before, waited.load(Ordering::Relaxed)), (1, 2));
        assert_eq!(ended.load(Ordering::Relaxed), 1);
        assert_eq!(Arc::strong_count(&ended), 1, "the task that is done is gone");
        assert_eq!(runtime.processors.waits.load(Ordering::Relaxed), 2);
        assert_eq!(runtime.report().len(), 1);
    }

    struct Kicks(Arc<AtomicU64>);

    impl Kick for Kicks {
        fn kick(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Runs until it is kicked, which its runtime does in the tick.
    struct Spin(Arc<Runtime<Raw, Fake>>, Arc<AtomicU64>);

    impl Task for Spin {
        fn run(&mut self, until_ns: u64) -> Next {
            self.0.processors.now.store(until_ns - 1, Ordering::Relaxed);
            self.0.tick();
            assert_eq!(self.1.load(Ordering::Relaxed), 0, "too early");
            self.0.tick();
            Next::Done
        }
    }

    #[test]
    fn a_task_whose_slice_is_over_is_kicked() {
        let runtime = Arc::new(Runtime::<Raw, _>::new(Fake::default(), 1));
        let kicks = Arc::new(AtomicU64::new(0));
        runtime.spawn(NewTask {
            name: String::from("spin"),
            weight: 100,
            pinned: None,
            preempt: Some(Arc::new(Kicks(kicks.clone()))),
            task: Box::new(Spin(runtime.clone(), kicks.clone())),
        });
        runtime.turn();

        assert_eq!(kicks.load(Ordering::Relaxed), 1);
    }
}
