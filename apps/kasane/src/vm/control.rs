//! Running, paused, ended: what others may do to a machine's vCPUs.
//!
//! One thread owns a vCPU; whoever wants something of it leaves a request here and kicks. A vCPU
//! looks at one atomic flag after each exit, and only when it is set takes the lock. A pause takes
//! effect at a *consistent* exit, when no instruction waits for an answer. Lock order: the state's
//! lock is taken alone, and is not held while a request runs or a vCPU is kicked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use kasane_cpu::Vcpu;
use kasane_cpu::apic::ApicBus;
use kasane_host_runtime::{HostClock, Parker};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::assemble::Parts;
use super::{End, HostedMachine};

/// Whether a machine begins to run by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    Running,
    Paused,
}

/// Something that is asked of a vCPU's thread.
type Request = Box<dyn FnOnce(&mut dyn Vcpu) + Send>;

/// The machine is not paused, so its vCPUs can't be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the machine is not paused")]
pub struct NotPaused;

/// A stop that a debugger wants to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebugStop {
    /// Which vCPU.
    pub vcpu: u32,
    /// RIP of the next instruction.
    pub rip: u64,
    /// DR6's bits; 0 for a breakpoint.
    pub dr6: u32,
}

/// Whether an instruction of the vCPU waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// None does: the state is complete.
    Rest,
    /// One does.
    Instruction,
}

/// What a vCPU does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Go,
    End,
}

/// Controls one machine.
pub struct Control {
    state: Mutex<State>,
    changed: Condvar,
    /// The vCPU of that number must look at `state`.
    attention: Vec<AtomicBool>,
    /// Held while devices' deadlines are served; taken after the state's lock is released.
    deadlines: Mutex<()>,
    /// Exits until the machine pauses by itself; 0: it doesn't.
    countdown: AtomicU64,
    apics: Arc<ApicBus>,
    clock: Arc<HostClock>,
    machine: Arc<HostedMachine>,
    timer_parker: Arc<Parker>,
}

struct State {
    end: Option<End>,
    ended: bool,
    paused: bool,
    counted_down: bool,
    slots: Vec<Slot>,
    debug_stops: VecDeque<DebugStop>,
}

#[derive(Default)]
struct Slot {
    at_rest: bool,
    /// Stands although the machine is not paused.
    held: bool,
    gone: bool,
    requests: VecDeque<Request>,
}

impl Control {
    pub(super) fn new(parts: &Parts, begin: Begin) -> Self {
        let paused = begin == Begin::Paused;
        if paused {
            parts.clock.pause();
        }
        let state = State {
            end: None,
            ended: false,
            paused,
            counted_down: false,
            slots: parts.vcpus.iter().map(|_| Slot::default()).collect(),
            debug_stops: VecDeque::new(),
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            attention: parts.vcpus.iter().map(|_| AtomicBool::new(paused)).collect(),
            deadlines: Mutex::new(()),
            countdown: AtomicU64::new(0),
            apics: Arc::clone(&parts.apics),
            clock: Arc::clone(&parts.clock),
            machine: Arc::clone(&parts.machine),
            timer_parker: Arc::clone(&parts.timer_parker),
        }
    }

    /// Ends the machine. The first end counts.
    pub fn end(&self, end: End) {
        let mut state = self.state.lock();
        if !state.ended {
            state.ended = true;
            state.end = Some(end);
        }
        self.notify(state);
    }

    /// Whether the machine has ended or is about to.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.state.lock().ended
    }

    /// Stops all vCPUs at a consistent exit and guest time with them; returns when they stand.
    /// False if the machine ended instead.
    pub fn pause(&self) -> bool {
        let mut state = self.state.lock();
        state.paused = true;
        self.notify(state);
        let mut state = self.state.lock();
        while !state.ended && !state.slots.iter().all(|slot| slot.at_rest) {
            self.changed.wait(&mut state);
        }
        self.clock.pause();
        let stands = !state.ended;
        drop(state);
        // What the timer's thread is at, it finishes.
        drop(self.deadlines.lock());
        stands
    }

    /// Pauses the machine by itself after so many exits of all vCPUs together, at least 1.
    pub fn pause_after(&self, exits: u64) {
        self.countdown.store(exits.max(1), Ordering::Release);
    }

    /// Waits until [`Control::pause_after`] has paused the machine, the machine ended, or
    /// `deadline`. True if it paused.
    #[must_use]
    pub fn wait_for_countdown(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        while !state.ended && !state.counted_down {
            match deadline {
                None => self.changed.wait(&mut state),
                Some(deadline) => {
                    if self.changed.wait_until(&mut state, deadline).timed_out() {
                        break;
                    }
                }
            }
        }
        let counted_down = state.counted_down;
        drop(state);
        counted_down && self.pause()
    }

    /// An exit of any vCPU.
    pub(super) fn count_exit(&self) {
        if self.countdown.load(Ordering::Relaxed) != 0
            && self.countdown.fetch_sub(1, Ordering::AcqRel) == 1
        {
            let mut state = self.state.lock();
            state.paused = true;
            state.counted_down = true;
            self.notify(state);
        }
    }

    /// Serves devices' deadlines, unless the machine is paused. True if it did.
    pub(super) fn serve_deadlines(&self, serve: impl FnOnce()) -> bool {
        let _serving = self.deadlines.lock();
        let paused = self.state.lock().paused;
        if !paused {
            serve();
        }
        !paused
    }

    /// Lets a paused machine go on.
    pub fn resume(&self) {
        self.resume_where(|_| true);
    }

    /// Lets only these vCPUs of a paused machine go on, and guest time with them; the others
    /// stand until the next `resume`.
    pub fn resume_only(&self, vcpus: &[u32]) {
        self.resume_where(|index| vcpus.contains(&index));
    }

    fn resume_where(&self, goes: impl Fn(u32) -> bool) {
        // Before guest time goes on, so that no vCPU can see the old time.
        self.machine.follow_wall_clock();
        let mut state = self.state.lock();
        state.paused = false;
        state.debug_stops.clear();
        for (index, slot) in (0..).zip(&mut state.slots) {
            slot.held = !goes(index);
            slot.at_rest &= slot.held;
        }
        self.clock.resume();
        self.notify(state);
        self.timer_parker.unpark();
    }

    /// Runs `ask` on a paused vCPU's thread and gives its answer.
    ///
    /// # Errors
    /// When the machine is not paused, has ended, or has no such vCPU.
    pub fn with_vcpu<T: Send + 'static>(
        &self,
        index: u32,
        ask: impl FnOnce(&mut dyn Vcpu) -> T + Send + 'static,
    ) -> Result<T, NotPaused> {
        let (answer, answered) = mpsc::sync_channel(1);
        let mut state = self.state.lock();
        if !state.paused || state.ended {
            return Err(NotPaused);
        }
        let slot = state.slots.get_mut(index as usize).filter(|slot| !slot.gone);
        slot.ok_or(NotPaused)?.requests.push_back(Box::new(move |vcpu| {
            let _nobody_waits = answer.send(ask(vcpu));
        }));
        self.notify(state);
        answered.recv().map_err(|_| NotPaused)
    }

    /// Waits for the end, or until `deadline`. True if the machine ended.
    #[must_use]
    pub fn wait_for_end(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        while !state.ended {
            match deadline {
                None => self.changed.wait(&mut state),
                Some(deadline) => {
                    if self.changed.wait_until(&mut state, deadline).timed_out() {
                        break;
                    }
                }
            }
        }
        state.ended
    }

    /// Waits until a vCPU stopped for the debugger, the machine ended, or `deadline`.
    #[must_use]
    pub fn wait_for_debug_stop(&self, deadline: Instant) -> Option<DebugStop> {
        let mut state = self.state.lock();
        loop {
            if let Some(stop) = state.debug_stops.pop_front() {
                return Some(stop);
            }
            if state.ended || self.changed.wait_until(&mut state, deadline).timed_out() {
                return state.debug_stops.pop_front();
            }
        }
    }

    /// How it ended, for the one who finishes it.
    pub(super) fn take_end(&self) -> Option<End> {
        self.state.lock().end.take()
    }

    /// Whether a vCPU must call [`Control::attend`].
    pub(super) fn wants_attention(&self, index: u32) -> bool {
        self.attention.get(index as usize).is_none_or(|one| one.load(Ordering::Acquire))
    }

    /// A vCPU stopped for the debugger: the whole machine pauses.
    pub(super) fn debug_stop(&self, stop: DebugStop) {
        let mut state = self.state.lock();
        state.paused = true;
        state.debug_stops.push_back(stop);
        self.notify(state);
    }

    /// A vCPU's look at what is wanted; returns when it may go on.
    pub(super) fn attend(&self, index: u32, at: At, vcpu: &mut dyn Vcpu) -> Flow {
        let mut state = self.state.lock();
        loop {
            if state.ended {
                return Flow::End;
            }
            let paused = state.paused;
            let Some(slot) = state.slots.get_mut(index as usize) else { return Flow::End };
            if !(paused || slot.held) || at == At::Instruction {
                return Flow::Go;
            }
            if let Some(request) = slot.requests.pop_front() {
                drop(state);
                request(vcpu);
                state = self.state.lock();
            } else if slot.at_rest {
                self.changed.wait(&mut state);
            } else {
                slot.at_rest = true;
                self.changed.notify_all();
            }
        }
    }

    /// A vCPU's thread ends. Requests to it are dropped, so that nobody waits for an answer.
    pub(super) fn gone(&self, index: u32) {
        let mut state = self.state.lock();
        if let Some(slot) = state.slots.get_mut(index as usize) {
            slot.gone = true;
            slot.requests.clear();
        }
    }

    /// Tells everybody that something changed.
    fn notify(&self, state: MutexGuard<'_, State>) {
        let all = state.paused || state.ended;
        let ended = state.ended;
        let mut wanted = false;
        for (slot, attention) in state.slots.iter().zip(&self.attention) {
            attention.store(all || slot.held, Ordering::Release);
            wanted |= all || slot.held;
        }
        self.changed.notify_all();
        drop(state);
        if wanted {
            self.apics.kick_all();
        }
        if ended {
            self.timer_parker.unpark();
        }
    }
}
