//! The machine as the protocol's implementation wants to see it.

use std::sync::Arc;

use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::base::single_register_access::{
    SingleRegisterAccess, SingleRegisterAccessOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints as BreakpointsSupport, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint,
    HwWatchpointOps, SwBreakpoint, SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps, output};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};
use kasane_cpu::engine::DebugControl;
use kasane_cpu::{CpuState, StateSet};
use kasane_spec_x86::control::{dr6, efer};

use crate::breakpoints::{Breakpoints, Watched};
use crate::describe;
use crate::memory::LinearMemory;
use crate::registers::{self, Processor, Register, RegisterBytes};
use crate::target::{DebugTarget, Run, TargetGone, VcpuStop};

/// Linux' number for "bad address", which GDB shows as such.
const EFAULT: u8 = 14;

const HELP: &str = "\
help         this
info         what the machine is, and what each vCPU does
info segments  the segments and tables of each vCPU
reset        reset the machine; it stands at its start until `continue`
             (GDB keeps old registers until `flushregs`)
";

/// A machine and what the debugger wants of it.
pub(crate) struct Stub {
    target: Arc<dyn DebugTarget>,
    breakpoints: Breakpoints,
    plan: Plan,
    /// What each vCPU's engine was told last; `None`: nobody knows.
    told: Vec<Option<DebugControl>>,
    /// Which vCPU the debugger was told of last.
    reported: Option<u32>,
    running: bool,
    /// Stops of other vCPUs that happened together with the one that was reported and that would
    /// not happen again (watchpoints); they are told when the machine goes on.
    owed: Vec<VcpuStop>,
}

/// What the next resume does.
#[derive(Default)]
struct Plan {
    steps: Vec<u32>,
    continues: Vec<u32>,
    locked: bool,
}

fn vcpu_of(tid: Tid) -> u32 {
    u32::try_from(tid.get()).unwrap_or(u32::MAX).wrapping_sub(1)
}

pub(crate) fn tid_of(vcpu: u32) -> Tid {
    Tid::MIN.saturating_add(vcpu as usize)
}

impl<E> From<TargetGone> for TargetError<E> {
    fn from(_: TargetGone) -> Self {
        Self::NonFatal
    }
}

impl Stub {
    pub(crate) fn new(target: Arc<dyn DebugTarget>) -> Self {
        let vcpus = target.vcpus() as usize;
        Self {
            target,
            breakpoints: Breakpoints::default(),
            plan: Plan::default(),
            told: vec![None; vcpus],
            reported: None,
            running: false,
            owed: Vec::new(),
        }
    }

    pub(crate) fn target(&self) -> &dyn DebugTarget {
        &*self.target
    }

    /// Whether the debugger has let the machine go on.
    pub(crate) fn running(&self) -> bool {
        self.running
    }

    /// The machine stands and the debugger is about to hear of it.
    pub(crate) fn stands(&mut self, vcpu: Option<u32>) {
        self.running = false;
        self.reported = vcpu;
    }

    /// The machine is a new one, which knows no breakpoint.
    pub(crate) fn forget_told(&mut self) {
        self.told.fill(None);
        self.owed.clear();
    }

    /// Keeps what must be told later.
    pub(crate) fn owe(&mut self, stop: VcpuStop) {
        if stop.dr6 & 15 != 0 {
            self.owed.push(stop);
        }
    }

    /// What is to be told in place of letting the machine go on.
    pub(crate) fn take_owed(&mut self) -> Option<VcpuStop> {
        (!self.owed.is_empty()).then(|| self.owed.remove(0))
    }

    /// The debugger is gone: no breakpoint is left.
    pub(crate) fn clear(&mut self) {
        for vcpu in 0..self.target.vcpus() {
            let _gone = self.target.set_debug(vcpu, DebugControl::default());
        }
    }

    /// What the debugger is told of a stop.
    pub(crate) fn reason(&self, stop: VcpuStop) -> MultiThreadStopReason<u64> {
        let tid = tid_of(stop.vcpu);
        if let Some(Watched { address, kind, .. }) = self.breakpoints.watched(stop.dr6) {
            return MultiThreadStopReason::Watch { tid, kind, addr: address };
        }
        if u64::from(stop.dr6) & (dr6::BS | 15) != 0 {
            return MultiThreadStopReason::SignalWithThread { tid, signal: Signal::SIGTRAP };
        }
        match self.breakpoints.is_software(self.linear_pc(stop)) {
            true => MultiThreadStopReason::SwBreak(tid),
            false => MultiThreadStopReason::HwBreak(tid),
        }
    }

    fn linear_pc(&self, stop: VcpuStop) -> u64 {
        let Ok(state) = self.target.read(stop.vcpu, StateSet::SYSTEM) else { return stop.rip };
        if state.efer & efer::LMA != 0 && state.cs.long() {
            return stop.rip;
        }
        state.cs.base.wrapping_add(stop.rip) & 0xFFFF_FFFF
    }

    /// Tells the engines of the breakpoints. A vCPU that stands at a breakpoint of which the
    /// debugger has not heard is told again even if nothing changed, so that it stops there again.
    fn tell(&mut self) {
        for (vcpu, told) in (0..).zip(&mut self.told) {
            let mut control = self.breakpoints.control();
            control.single_step = self.plan.steps.contains(&vcpu);
            if self.reported == Some(vcpu) && told.as_ref() == Some(&control) {
                continue;
            }
            let done = self.target.set_debug(vcpu, control.clone());
            *told = done.is_ok().then_some(control);
        }
    }

    /// Lets the machine go on as the debugger said last.
    pub(crate) fn go(&mut self) {
        self.tell();
        let Plan { steps, continues, locked } = &self.plan;
        let run = if *locked {
            Run::Only(steps.iter().chain(continues).copied().collect())
        } else {
            Run::All
        };
        self.target.resume(&run);
    }

    fn linear<T>(
        &self,
        tid: Tid,
        look: impl FnOnce(LinearMemory<'_>) -> T,
    ) -> TargetResult<T, Self> {
        let state = self.target.read(vcpu_of(tid), StateSet::SYSTEM)?;
        let memory = self.target.memory();
        Ok(look(LinearMemory::new(&*memory, &state, self.target.physical_view())))
    }

    fn change(&self, tid: Tid, changes: &[(&'static Register, u128)]) -> TargetResult<(), Self> {
        for set in [StateSet::GENERAL, StateSet::SYSTEM, StateSet::VECTOR, StateSet::PLATFORM] {
            let of_set = |one: &&(&Register, u128)| registers::set_of(one.0.what) == set;
            if changes.iter().any(|one| of_set(&one)) {
                self.change_part(tid, set, changes.iter().filter(of_set))?;
            }
        }
        Ok(())
    }

    fn change_part<'a>(
        &self,
        tid: Tid,
        set: StateSet,
        changes: impl Iterator<Item = &'a (&'static Register, u128)>,
    ) -> TargetResult<(), Self> {
        let vcpu = vcpu_of(tid);
        // Selectors are looked at by mode, so the flags and CR0 are read in any case.
        let seen = set.union(StateSet::GENERAL).union(StateSet::SYSTEM);
        let before = self.target.read(vcpu, seen)?;
        let mut state = before.clone();
        for (register, value) in changes {
            registers::write(&mut state, register.what, *value)
                .map_err(|_| TargetError::NonFatal)?;
        }
        if state != before {
            self.target.write(vcpu, set, state)?;
        }
        Ok(())
    }

    fn whole(&self, tid: Tid) -> TargetResult<CpuState, Self> {
        Ok(self.target.read(vcpu_of(tid), StateSet::ALL)?)
    }

    fn lines(&self, line: impl Fn(u32, &CpuState) -> String) -> String {
        let of = |vcpu| match self.target.read(vcpu, StateSet::ALL) {
            Ok(state) => line(vcpu, &state),
            Err(gone) => format!("vCPU {vcpu}: {gone}\n"),
        };
        (0..self.target.vcpus()).map(of).collect()
    }

    fn monitor(&self, command: &str) -> String {
        match command.split_whitespace().collect::<Vec<_>>().as_slice() {
            [] | ["help"] => HELP.to_owned(),
            ["info"] => self.target.description() + &self.lines(describe::line),
            ["info", "segments"] => {
                self.lines(|vcpu, state| describe::line(vcpu, state) + &describe::segments(state))
            }
            ["reset"] => {
                self.target.reset();
                "the machine is reset; `flushregs`, then `continue`\n".to_owned()
            }
            [other, ..] => format!("there is no command `{other}`; `monitor help` lists them\n"),
        }
    }
}

fn value(bytes: &[u8]) -> u128 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u128::from(*byte))
}

impl Target for Stub {
    type Arch = Processor;
    type Error = TargetGone;

    fn base_ops(&mut self) -> BaseOps<'_, Processor, TargetGone> {
        BaseOps::MultiThread(self)
    }
    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Stub {
    fn read_registers(&mut self, regs: &mut RegisterBytes, tid: Tid) -> TargetResult<(), Self> {
        *regs = RegisterBytes::of(&self.whole(tid)?);
        Ok(())
    }

    fn write_registers(&mut self, regs: &RegisterBytes, tid: Tid) -> TargetResult<(), Self> {
        let state = self.whole(tid)?;
        let changed = |(register, bytes): (&'static Register, &[u8])| {
            let value = value(bytes);
            (registers::read(&state, register.what) != value).then_some((register, value))
        };
        let changes: Vec<_> = regs.iter().filter_map(changed).collect();
        self.change(tid, &changes)
    }

    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, Tid, Self>> {
        Some(self)
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        match self.linear(tid, |memory| memory.read(start, data))? {
            0 => Err(TargetError::Errno(EFAULT)),
            read => Ok(read),
        }
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        match self.linear(tid, |memory| memory.write(start, data))? {
            true => Ok(()),
            false => Err(TargetError::Errno(EFAULT)),
        }
    }

    fn list_active_threads(&mut self, register: &mut dyn FnMut(Tid)) -> Result<(), TargetGone> {
        (0..self.target.vcpus()).map(tid_of).for_each(register);
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl SingleRegisterAccess<Tid> for Stub {
    fn read_register(
        &mut self,
        tid: Tid,
        register: &'static Register,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        let state = self.target.read(vcpu_of(tid), registers::set_of(register.what))?;
        let bytes = registers::value_bytes(register, &state);
        let to = buf.get_mut(..bytes.len()).ok_or(TargetError::NonFatal)?;
        to.copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn write_register(
        &mut self,
        tid: Tid,
        register: &'static Register,
        bytes: &[u8],
    ) -> TargetResult<(), Self> {
        if bytes.len() != register.bytes() {
            return Err(TargetError::NonFatal);
        }
        self.change(tid, &[(register, value(bytes))])
    }
}

impl ThreadExtraInfo for Stub {
    fn thread_extra_info(&self, tid: Tid, buf: &mut [u8]) -> Result<usize, TargetGone> {
        let vcpu = vcpu_of(tid);
        let text = match self.target.read(vcpu, StateSet::ALL) {
            Ok(state) => {
                let (activity, mode) = (describe::activity(&state), describe::mode(&state));
                format!("vCPU {vcpu}: {activity}, {mode}")
            }
            Err(_) => format!("vCPU {vcpu}"),
        };
        let len = text.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), text.as_bytes().get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(len)
    }
}

impl MultiThreadResume for Stub {
    /// Only notes it: the session looks first for something that is still to be told.
    fn resume(&mut self) -> Result<(), TargetGone> {
        self.running = true;
        Ok(())
    }
    fn clear_resume_actions(&mut self) -> Result<(), TargetGone> {
        self.plan = Plan::default();
        Ok(())
    }
    /// Signals mean nothing to a processor; GDB sends one when the person says so.
    fn set_resume_action_continue(
        &mut self,
        tid: Tid,
        _signal: Option<Signal>,
    ) -> Result<(), TargetGone> {
        self.plan.continues.push(vcpu_of(tid));
        Ok(())
    }
    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }
    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Stub {
    fn set_resume_action_step(
        &mut self,
        tid: Tid,
        _signal: Option<Signal>,
    ) -> Result<(), TargetGone> {
        self.plan.steps.push(vcpu_of(tid));
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Stub {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), TargetGone> {
        self.plan.locked = true;
        Ok(())
    }
}

impl BreakpointsSupport for Stub {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }
    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }
    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Stub {
    fn add_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.breakpoints.insert_software(address))
    }
    fn remove_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.breakpoints.remove_software(address);
        Ok(true)
    }
}

impl HwBreakpoint for Stub {
    fn add_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.breakpoints.insert_hardware(address))
    }
    fn remove_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.breakpoints.remove_hardware(address);
        Ok(true)
    }
}

impl HwWatchpoint for Stub {
    fn add_hw_watchpoint(
        &mut self,
        address: u64,
        len: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        Ok(self.breakpoints.insert_watched(Watched { address, len, kind }))
    }
    fn remove_hw_watchpoint(
        &mut self,
        address: u64,
        len: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        self.breakpoints.remove_watched(Watched { address, len, kind });
        Ok(true)
    }
}

impl MonitorCmd for Stub {
    fn handle_monitor_cmd(
        &mut self,
        command: &[u8],
        mut out: ConsoleOutput<'_>,
    ) -> Result<(), TargetGone> {
        let text = self.monitor(&String::from_utf8_lossy(command));
        output!(out, "{text}");
        Ok(())
    }
}
