//! One debugger, from its connection to its end.

use std::io::{self, Write};
use std::sync::Arc;

use gdbstub::common::Signal;
use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::{GdbStubStateMachine, GdbStubStateMachineInner, state};
use gdbstub::stub::{DisconnectReason, GdbStubBuilder, GdbStubError, MultiThreadStopReason};

use crate::link::{Inbox, Next, Outbox};
use crate::stub::{Stub, tid_of};
use crate::target::{DebugTarget, Ended, Run, Stop, TargetGone, VcpuStop};

/// Room for a packet of the debugger; GDB asks for at most half of it as memory at once.
const PACKET_BYTES: usize = 0x4000;

type Machine<W> = GdbStubStateMachine<'static, Stub, Outbox<W>>;
type Error = GdbStubError<TargetGone, io::Error>;
type Running<W> = GdbStubStateMachineInner<'static, state::Running, Stub, Outbox<W>>;

/// Why a session is over, and so what becomes of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// The debugger said goodbye.
    Detached,
    /// The debugger wants the machine dead.
    Killed,
    /// The machine has ended.
    MachineEnded,
    /// The connection broke, or something on it was not the protocol.
    Lost,
}

/// How a turn of the session's loop ends.
enum Turn<W: Write> {
    Goes(Machine<W>),
    Over(Over),
}

/// Serves one debugger. The machine is stopped first.
pub(crate) fn serve(target: &Arc<dyn DebugTarget>, inbox: Inbox, to: impl Write) -> Over {
    if target.pause().is_err() {
        return Over::MachineEnded;
    }
    let mut session = Session { stub: Stub::new(Arc::clone(target)), inbox };
    let over = session.run(Outbox::new(to)).unwrap_or(Over::Lost);
    session.finish(over);
    over
}

struct Session {
    stub: Stub,
    inbox: Inbox,
}

impl Session {
    fn run<W: Write>(&mut self, outbox: Outbox<W>) -> Result<Over, Error> {
        let builder = GdbStubBuilder::new(outbox).packet_buffer_size(PACKET_BYTES);
        let Ok(gdb) = builder.build() else { return Ok(Over::Lost) };
        let mut machine = gdb.run_state_machine(&mut self.stub)?;
        loop {
            let turn = match machine {
                GdbStubStateMachine::Idle(idle) => self.idle(idle)?,
                GdbStubStateMachine::Running(running) => self.running(running)?,
                GdbStubStateMachine::CtrlCInterrupt(interrupt) => {
                    let reason = if self.stub.running() { self.interrupt() } else { None };
                    Turn::Goes(interrupt.interrupt_handled(&mut self.stub, reason)?)
                }
                GdbStubStateMachine::Disconnected(mut gone) => {
                    let _lost = gone.borrow_conn().flush();
                    return Ok(over(gone.get_reason()));
                }
            };
            machine = match turn {
                Turn::Goes(machine) => machine,
                Turn::Over(over) => return Ok(over),
            };
        }
    }

    /// The machine stands: the debugger's packets.
    fn idle<W: Write>(
        &mut self,
        mut idle: GdbStubStateMachineInner<'static, state::Idle<Stub>, Stub, Outbox<W>>,
    ) -> Result<Turn<W>, Error> {
        if idle.borrow_conn().flush().is_err() {
            return Ok(Turn::Over(Over::Lost));
        }
        match self.inbox.next() {
            Next::Byte(byte) => {
                let machine = idle.incoming_data(&mut self.stub, byte)?;
                match machine {
                    GdbStubStateMachine::Running(running) => self.set_off(running),
                    other => Ok(Turn::Goes(other)),
                }
            }
            Next::Closed => Ok(Turn::Over(Over::Lost)),
            Next::Stop(Stop::Ended(_)) => Ok(Turn::Over(Over::MachineEnded)),
            Next::Stop(Stop::Restarted) => {
                self.stub.forget_told();
                Ok(Turn::Goes(idle.into()))
            }
            // It stands already, and the debugger has heard why.
            Next::Stop(Stop::Vcpu(stop)) => {
                self.stub.owe(stop);
                Ok(Turn::Goes(idle.into()))
            }
        }
    }

    /// The debugger lets the machine go on.
    fn set_off<W: Write>(&mut self, running: Running<W>) -> Result<Turn<W>, Error> {
        if let Some(stop) = self.stub.take_owed() {
            return self.report(running, stop);
        }
        self.stub.go();
        Ok(Turn::Goes(running.into()))
    }

    /// The machine runs: until it stops, or the debugger has something to say.
    fn running<W: Write>(&mut self, mut running: Running<W>) -> Result<Turn<W>, Error> {
        if running.borrow_conn().flush().is_err() {
            return Ok(Turn::Over(Over::Lost));
        }
        match self.inbox.next() {
            Next::Byte(byte) => Ok(Turn::Goes(running.incoming_data(&mut self.stub, byte)?)),
            Next::Closed => Ok(Turn::Over(Over::Lost)),
            Next::Stop(Stop::Ended(how)) => {
                let reason = match how {
                    Ended::Normally => MultiThreadStopReason::Exited(0),
                    Ended::Crashed => MultiThreadStopReason::Terminated(Signal::SIGABRT),
                };
                Ok(Turn::Goes(running.report_stop(&mut self.stub, reason)?))
            }
            Next::Stop(Stop::Restarted) => {
                self.stub.forget_told();
                self.stub.go();
                Ok(Turn::Goes(running.into()))
            }
            Next::Stop(Stop::Vcpu(stop)) => {
                let _ended_meanwhile = self.stub.target().pause();
                self.collect();
                self.report(running, stop)
            }
        }
    }

    fn report<W: Write>(&mut self, running: Running<W>, stop: VcpuStop) -> Result<Turn<W>, Error> {
        let reason = self.stub.reason(stop);
        self.stub.stands(Some(stop.vcpu));
        Ok(Turn::Goes(running.report_stop(&mut self.stub, reason)?))
    }

    /// Ctrl-C. If a vCPU stopped by itself just then, that is what is told.
    fn interrupt(&mut self) -> Option<MultiThreadStopReason<u64>> {
        if self.stub.target().pause().is_err() {
            return None; // its end is on the way
        }
        self.collect();
        let reason = match self.stub.take_owed() {
            Some(stop) => {
                self.stub.stands(Some(stop.vcpu));
                self.stub.reason(stop)
            }
            None => {
                self.stub.stands(None);
                let tid = tid_of(0);
                MultiThreadStopReason::SignalWithThread { tid, signal: Signal::SIGINT }
            }
        };
        Some(reason)
    }

    /// Takes up what else happened before the machine stood.
    fn collect(&mut self) {
        while let Some(stop) = self.stub.target().pending_stop() {
            self.stub.owe(stop);
        }
    }

    /// What becomes of the machine.
    fn finish(&mut self, over: Over) {
        let ran = self.stub.running();
        match over {
            Over::MachineEnded => {}
            Over::Killed => self.stub.target().kill(),
            Over::Detached | Over::Lost => {
                if self.stub.target().pause().is_ok() {
                    self.stub.clear();
                    if ran || over == Over::Detached {
                        self.stub.target().resume(&Run::All);
                    }
                }
            }
        }
    }
}

fn over(reason: DisconnectReason) -> Over {
    match reason {
        DisconnectReason::TargetExited(_) | DisconnectReason::TargetTerminated(_) => {
            Over::MachineEnded
        }
        DisconnectReason::Disconnect => Over::Detached,
        DisconnectReason::Kill => Over::Killed,
    }
}
