//! `kasane run`.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use kasane_cpu::cpuid::CpuModelName;
use kasane_definition::{CpuModel, Engine};
use kasane_host_code::HostCode;
use kasane_host_control::{
    RawTerminal, TerminationSignal, die_of, restore_on_panic, stdin_is_terminal,
    survive_file_size_limit, termination,
};
use kasane_host_gdb::{Ended, Server};
use kasane_host_runtime::{Barrier, HostEntropy};
use kasane_machine::boot::BootError;
use kasane_passthrough::{CodeRunner, NoCodeRunner};
use kasane_ports::{NullTrace, Trace};
use parking_lot::Mutex;
use serde_json::json;

use super::jitdump::Described;
use super::{sandbox, saving};
use crate::cli::RunArguments;
use crate::console::{InputPort, InputTarget, SerialOutput, read_stdin};
use crate::gdb::Debuggee;
use crate::notices::Notices;
use crate::outcome::{ExitStatus, Failure};
use crate::report::{Form, RunEnd, RunStatistics, Screen};
use crate::settings::{OnReset, SaveAfter, SerialTarget, Settings, Statistics};
use crate::trace::TraceFile;
use crate::vm::{
    Battery, Control, End, EngineKind, Image, Lent, Registers, Remains, Specification, StartError,
    VirtualMachine, cpu_model, self_test, translator_works,
};

pub(super) fn run(arguments: RunArguments, form: Form) -> Result<ExitStatus, Failure> {
    let settings = Settings::new(arguments)?;
    let runner = runner();
    let engine = choose_engine(&settings, &*runner, form)?;
    let specification = specification(&settings, engine)?;
    let described = Described::open(settings.jit_dump, engine, form)?;
    let confinement = sandbox::enter(&settings, form)?;
    restore_on_panic();
    survive_file_size_limit()
        .context("can't listen for signals")
        .map_err(|error| Failure::host(error, "report this: it is a bug"))?;
    let serial = SerialOutput::open(&settings.serial)?;
    let console = SerialOutput::open(&settings.console)?;
    let trace = open_trace(&settings)?;
    let mut session = Session::new(&settings, form);
    let notices = session.notices()?;
    let told = notices.clone();
    let lent = Lent {
        confinement,
        notices: Arc::new(move |notice| told.notice(notice)),
        code_observer: described.observer(),
        ..lent(runner, (&serial, &console), &session.input, trace.as_ref())?
    };
    let outcome = session.run(&specification, &lent);
    notices.finish();
    serial.close();
    console.close();
    let traced = trace.map_or(Ok(()), |trace| trace.finish());
    let finished = session.finish(outcome)?;
    traced.context("the trace is not complete").map_err(|error| {
        Failure::host(error, "make room where the trace is written, or name another file")
    })?;
    described.finish()?;
    match finished {
        Finish::Status(status) => Ok(status),
        Finish::Signal(signal) => die_of(signal),
    }
}

/// Without it there is no `x86-64-v2`, but a plain machine still runs.
fn runner() -> Arc<dyn CodeRunner> {
    match HostCode::new() {
        Ok(code) => Arc::new(code),
        Err(_) => Arc::new(NoCodeRunner),
    }
}

/// `auto` takes the best engine that passes its self-test; one that is named is taken as it is.
fn choose_engine(
    settings: &Settings,
    runner: &dyn CodeRunner,
    form: Form,
) -> Result<EngineKind, Failure> {
    match settings.engine {
        Engine::Interp => Ok(EngineKind::Interp),
        Engine::Shadow if settings.cpus > 1 => {
            let error = anyhow::anyhow!("the shadow mode compares machines with one processor");
            Err(Failure::usage(error, "use `--cpus 1`"))
        }
        Engine::Translate | Engine::Shadow => {
            translator_works(runner).map_err(|why| {
                let error = anyhow::anyhow!(why).context("the translator can't run this machine");
                Failure::host(error, "use `--engine interp`, or `auto` for what works")
            })?;
            Ok(if settings.engine == Engine::Shadow {
                EngineKind::Shadow
            } else {
                EngineKind::Translate
            })
        }
        Engine::Auto => match translator_works(runner) {
            Ok(_works) => Ok(EngineKind::Translate),
            Err(why) => interpreter(runner, form, &why),
        },
    }
}

/// The interpreter, because the translator does not work; says so.
fn interpreter(runner: &dyn CodeRunner, form: Form, why: &str) -> Result<EngineKind, Failure> {
    match self_test(runner.features()) {
        Ok(_works) => {
            let sentence = format!("the slow interpreter runs this machine, because {why}");
            form.event(&sentence, "slow-engine", &json!({ "engine": "interp", "why": why }));
            Ok(EngineKind::Interp)
        }
        Err(other) => {
            let error = anyhow::anyhow!("translate: {why}; interp: {other}")
                .context("no engine works on this host");
            Err(Failure::host(error, "`kasane info` says more about this host"))
        }
    }
}

fn specification(settings: &Settings, engine: EngineKind) -> Result<Specification, Failure> {
    let kernel = open_image("kernel", &settings.kernel)?;
    let initrd = settings.initrd.as_deref().map(|path| open_image("initrd", path)).transpose()?;
    Ok(Specification {
        engine,
        name: settings.name.clone(),
        cpus: settings.cpus,
        memory_bytes: settings.memory.bytes(),
        model: match settings.cpu {
            CpuModel::V2 => CpuModelName::X86_64V2,
            CpuModel::V3 => CpuModelName::X86_64V3,
            CpuModel::Max => CpuModelName::Max,
        },
        kernel,
        initrd,
        append: settings.append.clone(),
        devices: settings.devices.clone(),
    })
}

fn open_image(what: &str, path: &Path) -> Result<Image, Failure> {
    Image::open(path)
        .with_context(|| format!("can't read the {what} `{}`", path.display()))
        .map_err(|error| {
            Failure::usage(error, format!("name a file that can be read: `--{what} FILE`"))
        })
}

fn open_trace(settings: &Settings) -> Result<Option<Arc<TraceFile>>, Failure> {
    let Some(path) = &settings.trace else { return Ok(None) };
    TraceFile::create(path)
        .with_context(|| format!("can't write the trace to `{}`", path.display()))
        .map(|trace| Some(Arc::new(trace)))
        .map_err(|error| Failure::usage(error, "name a file that can be written: `--trace FILE`"))
}

/// What to do about an image that can't be booted.
fn boot_help(error: &BootError) -> &'static str {
    match error {
        BootError::OutsideRam { .. } | BootError::NoRoom { .. } => {
            "give the machine more memory: `--memory SIZE`"
        }
        BootError::Truncated { .. } => "fetch or build the file again: it is not whole",
        BootError::CommandLineTooLong { .. } | BootError::CommandLineZero { .. } => {
            "give another command line: `--append TEXT`"
        }
        BootError::UnknownFormat { .. }
        | BootError::Compressed { .. }
        | BootError::BadField { .. }
        | BootError::Overlap { .. }
        | BootError::Unsupported { .. }
        | BootError::Memory(_) => {
            "give a Linux bzImage, an ELF image with a PVH note or a Multiboot image"
        }
    }
}

/// What this host gives to any machine.
fn lent(
    runner: Arc<dyn CodeRunner>,
    (serial, console): (&SerialOutput, &SerialOutput),
    input: &InputTarget,
    trace: Option<&Arc<TraceFile>>,
) -> Result<Lent, Failure> {
    let entropy = HostEntropy::open()
        .context("this host gives no random bytes")
        .map_err(|error| Failure::host(error, "let the program reach the host's random source"))?;
    Ok(Lent {
        console: serial.console(),
        console_room: Some(input.room()),
        virtio_console: console.console(),
        virtio_console_room: Some(input.room()),
        debug_console: None,
        trace: match trace {
            Some(trace) => Arc::clone(trace) as Arc<dyn Trace>,
            None => Arc::new(NullTrace),
        },
        entropy,
        barrier: Barrier::detect(),
        runner,
        code_observer: None,
        battery: Battery::default(),
        confinement: None,
        notices: Arc::new(|_| {}),
    })
}

/// Why a machine was stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Left,
    Saved,
    Signal(TerminationSignal),
}

/// How the run goes on to its end.
enum Finish {
    Status(ExitStatus),
    Signal(TerminationSignal),
}

/// Reaches the machine of the moment from the input's and the signals' threads.
#[derive(Clone, Default)]
struct Stopper(Arc<Mutex<StopperState>>);

#[derive(Default)]
struct StopperState {
    stop: Option<Stop>,
    control: Option<Arc<Control>>,
}

impl Stopper {
    fn stop(&self, why: Stop) {
        let mut state = self.0.lock();
        state.stop.get_or_insert(why);
        if let Some(control) = &state.control {
            control.end(End::Stopped);
        }
    }

    /// From now on stops end this machine; one that came before does at once.
    fn aim(&self, control: Option<Arc<Control>>) {
        let mut state = self.0.lock();
        if let (Some(control), Some(_)) = (&control, state.stop) {
            control.end(End::Stopped);
        }
        state.control = control;
    }

    fn why(&self) -> Option<Stop> {
        self.0.lock().stop
    }
}

/// One run: a machine, and after each reset another one.
struct Session<'a> {
    settings: &'a Settings,
    form: Form,
    stopper: Stopper,
    input: InputTarget,
    began: Instant,
    statistics: RunStatistics,
}

/// The way of a debugger to the machine.
struct Debugger {
    debuggee: Arc<Debuggee>,
    server: Server,
}

impl Debugger {
    /// Tells the debugger that the machine has ended.
    fn finish(self, end: &End) {
        self.debuggee.end(match end {
            End::PoweredOff | End::Reset | End::Stopped => Ended::Normally,
            End::Crashed { .. } | End::Fault(_) => Ended::Crashed,
        });
        self.server.finish();
    }
}

/// How the last machine ended.
enum Outcome {
    Ended(Remains),
    TimedOut,
}

impl<'a> Session<'a> {
    fn new(settings: &'a Settings, form: Form) -> Self {
        Self {
            settings,
            form,
            stopper: Stopper::default(),
            input: InputTarget::new(match settings.console {
                SerialTarget::Stdio => InputPort::VirtioConsole,
                SerialTarget::None | SerialTarget::File(_) => InputPort::Serial,
            }),
            began: Instant::now(),
            statistics: RunStatistics::default(),
        }
    }

    fn run(&mut self, specification: &Specification, lent: &Lent) -> Result<Outcome, Failure> {
        let deadline = self.settings.timeout.and_then(|time| self.began.checked_add(time));
        let mut vm = self.begin(specification, lent)?;
        let stopper = self.stopper.clone();
        termination(move |signal| stopper.stop(Stop::Signal(signal)))
            .context("can't listen for signals")
            .map_err(|error| Failure::host(error, "report this: it is a bug"))?;
        self.announce(specification);
        let debugger = self.debugger(&vm, specification, lent)?;
        let _terminal = self.take_terminal()?;
        if debugger.is_none() {
            vm.control().resume();
        }
        loop {
            self.stopper.aim(Some(Arc::clone(vm.control())));
            self.input.set(Some(Arc::clone(vm.machine())));
            let in_time = self.wait(&vm, deadline)?;
            self.stopper.aim(None);
            self.input.set(None);
            let remains = vm.finish();
            self.count(&remains);
            let restarts = self.settings.on_reset == OnReset::Restart;
            if in_time && restarts && matches!(remains.end, End::Reset) {
                self.statistics.resets += 1;
                vm = self.start(specification, lent)?;
                if let Some(debugger) = &debugger {
                    debugger.debuggee.replace(&vm);
                }
                continue;
            }
            if let Some(debugger) = debugger {
                debugger.finish(&remains.end);
            }
            return Ok(if in_time { Outcome::Ended(remains) } else { Outcome::TimedOut });
        }
    }

    /// The first machine: one that was saved, or one at its kernel's entry. It stands until
    /// everything around it is ready.
    fn begin(&self, specification: &Specification, lent: &Lent) -> Result<VirtualMachine, Failure> {
        match &self.settings.restore {
            Some(path) => saving::restore(path, specification, lent),
            None => VirtualMachine::start_paused(specification, lent)
                .map_err(|error| self.start_failure(error)),
        }
    }

    /// Waits for the machine's end, and saves it on the way if that was asked for. False if the
    /// time was up first.
    fn wait(&self, vm: &VirtualMachine, deadline: Option<Instant>) -> Result<bool, Failure> {
        if let Some(SaveAfter { exits, path }) = &self.settings.save {
            vm.control().pause_after(*exits);
            if vm.control().wait_for_countdown(deadline) {
                saving::save(vm, path)?;
                self.stopper.stop(Stop::Saved);
            }
        }
        Ok(vm.wait(deadline))
    }

    /// A machine; under a debugger it stands until that lets it go on.
    fn start(&self, specification: &Specification, lent: &Lent) -> Result<VirtualMachine, Failure> {
        let vm = match self.settings.gdb {
            Some(_) => VirtualMachine::start_paused(specification, lent),
            None => VirtualMachine::start(specification, lent),
        };
        vm.map_err(|error| self.start_failure(error))
    }

    /// Listens for a debugger, if one was asked for.
    fn debugger(
        &self,
        vm: &VirtualMachine,
        specification: &Specification,
        lent: &Lent,
    ) -> Result<Option<Debugger>, Failure> {
        let Some(address) = &self.settings.gdb else { return Ok(None) };
        let model = cpu_model(specification.model, lent.runner.features())
            .map_err(|error| self.start_failure(error.into()))?;
        let settings = self.settings;
        let description = format!(
            "`{}`: {}, {} of memory\n",
            settings.name, specification.model, settings.memory
        );
        let debuggee = Arc::new(Debuggee::new(vm, description, model.physical_bits()));
        let server = Server::start(address, debuggee.clone())
            .with_context(|| format!("can't listen for a debugger at `{address}`"))
            .map_err(|error| Failure::host(error, "name another address: `--gdb ADDRESS`"))?;
        let at = server.address();
        let sentence = format!("the guest waits for a debugger: gdb -ex 'target remote {at}'");
        self.form.event(&sentence, "debugger", &json!({ "address": at.to_string() }));
        Ok(Some(Debugger { debuggee, server }))
    }

    fn start_failure(&self, error: StartError) -> Failure {
        let settings = self.settings;
        match error {
            StartError::Boot(cause) => {
                let help = boot_help(&cause);
                let context = format!("can't boot `{}`", settings.kernel.display());
                Failure::usage(anyhow::Error::new(cause).context(context), help)
            }
            error @ StartError::Model(_) => Failure::usage(error, "choose `--cpu max`"),
            StartError::Device(cause) => {
                let help = cause.help();
                Failure::usage(anyhow::Error::new(cause), help)
            }
            error @ StartError::Barrier => Failure::usage(error, "choose `--cpus 1`"),
            error @ StartError::Ram(_) => {
                Failure::host(error, "give the guest less memory: `--memory SIZE`")
            }
            error @ (StartError::Machine(_) | StartError::Engine(_)) => {
                Failure::host(error, "report this: it is a bug")
            }
            error @ StartError::Image(_) => {
                Failure::usage(error, "name files that stay readable while the guest runs")
            }
            error @ StartError::Thread(_) => {
                Failure::host(error, "end other programs and try again")
            }
        }
    }

    /// Says what runs, and how to leave, before the terminal belongs to the guest.
    fn announce(&self, specification: &Specification) {
        let settings = self.settings;
        let leave = if self.is_interactive() { "; Ctrl-] leaves" } else { "" };
        let sentence = format!(
            "`{}`: {} processor{} ({}), {} of memory, engine {}{leave}",
            settings.name,
            settings.cpus,
            if settings.cpus == 1 { "" } else { "s" },
            specification.model,
            settings.memory,
            specification.engine.as_str(),
        );
        let details = json!({
            "name": settings.name,
            "cpus": settings.cpus,
            "cpu": specification.model.as_str(),
            "memory_bytes": settings.memory.bytes(),
            "engine": specification.engine.as_str(),
        });
        self.form.event(&sentence, "start", &details);
    }

    /// Says what the machine's devices have to tell.
    fn notices(&self) -> Result<Notices, Failure> {
        let screen = if self.is_interactive() { Screen::Raw } else { Screen::Lines };
        Notices::start(self.form, screen)
            .context("no thread for messages")
            .map_err(|error| Failure::host(error, "end other programs and try again"))
    }

    /// Whether one of the guest's consoles is this program's standard input and output.
    fn has_stdio(&self) -> bool {
        [&self.settings.serial, &self.settings.console].contains(&&SerialTarget::Stdio)
    }

    fn is_interactive(&self) -> bool {
        self.has_stdio() && stdin_is_terminal()
    }

    /// Connects standard input, raw if a person types there.
    fn take_terminal(&self) -> Result<Option<RawTerminal>, Failure> {
        if !self.has_stdio() {
            return Ok(None);
        }
        let help = "redirect standard input, as in `kasane run … </dev/null`";
        let raw = if stdin_is_terminal() {
            let raw = RawTerminal::enter().context("can't put the terminal into raw mode");
            Some(raw.map_err(|error| Failure::host(error, help))?)
        } else {
            None
        };
        let stopper = self.stopper.clone();
        read_stdin(self.input.clone(), self.settings.on_input_end, move || {
            stopper.stop(Stop::Left)
        })
        .context("no thread for standard input")
        .map_err(|error| Failure::host(error, help))?;
        Ok(raw)
    }

    fn count(&mut self, remains: &Remains) {
        self.statistics.add(&remains.processors);
        for count in &remains.stats.exits {
            self.statistics.add_exits(count.name, count.count);
        }
        for count in &remains.stats.devices {
            self.statistics.add_device(count.name, count.count);
        }
    }

    /// Says how it ended.
    fn finish(mut self, outcome: Result<Outcome, Failure>) -> Result<Finish, Failure> {
        let outcome = outcome?;
        self.statistics.finish(self.began.elapsed());
        let end = match outcome {
            Outcome::TimedOut => RunEnd::new("the time is up", "timed-out", ExitStatus::TimedOut),
            Outcome::Ended(remains) => match remains.end {
                End::PoweredOff => {
                    RunEnd::new("the guest powered off", "powered-off", ExitStatus::Done)
                }
                End::Reset => RunEnd::new("the guest asked for a reset", "reset", ExitStatus::Done),
                End::Crashed { vcpu, state } => RunEnd {
                    sentence: format!("the guest crashed: triple fault on vcpu {vcpu}"),
                    reason: "crashed",
                    status: ExitStatus::GuestCrashed,
                    registers: Some(Registers(&state).to_string()),
                },
                End::Stopped => match self.stopper.why() {
                    Some(Stop::Signal(signal)) => {
                        let sentence = format!("ended by signal {}", signal.0);
                        self.say(&RunEnd::new(sentence, "signal", ExitStatus::Done));
                        return Ok(Finish::Signal(signal));
                    }
                    Some(Stop::Saved) => RunEnd::new("saved", "saved", ExitStatus::Done),
                    Some(Stop::Left) => RunEnd::new("left", "left", ExitStatus::Done),
                    None => RunEnd::new("ended by the debugger", "debugger", ExitStatus::Done),
                },
                End::Fault(message) => {
                    let error = anyhow::anyhow!("{message}").context("kasane has a bug");
                    return Err(Failure::host(error, "report this, with the command line"));
                }
            },
        };
        self.say(&end);
        self.say_what_is_missing();
        Ok(Finish::Status(end.status))
    }

    fn say(&self, end: &RunEnd) {
        if self.is_interactive() && self.form == Form::Text {
            // The guest's last line has no end.
            eprintln!();
        }
        let wanted = self.settings.stats == Statistics::Print;
        end.print(self.form, wanted.then_some(&self.statistics));
    }

    /// Instructions that we lack are named even when nobody asked for numbers.
    fn say_what_is_missing(&self) {
        if self.statistics.missing.is_empty() || self.settings.stats == Statistics::Print {
            return;
        }
        let list: Vec<String> =
            self.statistics.missing.iter().map(|(name, n)| format!("{name} ({n})")).collect();
        let sentence = format!("instructions that the engine lacks were met: {}", list.join(", "));
        self.form.event(&sentence, "missing-instructions", &json!({ "instructions": list }));
    }
}
