//! One run of the program in one place: started, watched line by line, and timed from outside as
//! well, because a guest's clock is one of the things that an emulator could get wrong.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::process::{self, Resident};
use super::protocol::{Line, Measured, parse};
use super::systems::GUEST_MIB;

/// Lines that are shown when a run fails.
const LAST_LINES: usize = 15;

/// What one run gave.
#[derive(Debug, Clone, Default)]
pub(super) struct Session {
    pub(super) measured: Vec<Timed>,
    pub(super) skipped: Vec<String>,
    /// From the start of the process to the program's first line.
    pub(super) boot: Option<Boot>,
    /// At the same moment.
    pub(super) resident: Option<Resident>,
    /// The interval from the first to the last line, seen by both clocks.
    pub(super) interval: Option<Interval>,
    /// Kasane's events `start` and `end`, when there are such.
    pub(super) start: Option<Value>,
    pub(super) end: Option<Value>,
}

/// A measurement, seen from inside and from outside.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Timed {
    pub(super) inside: Measured,
    /// Processor time of the process meanwhile, in nanoseconds. It begins and ends when the lines
    /// arrive, a moment later than inside.
    pub(super) cpu_ns: u64,
}

impl Timed {
    /// Nanoseconds of processor time per unit.
    pub(super) fn cpu_ns_per_unit(&self) -> f64 {
        self.cpu_ns as f64 / self.inside.units.max(1) as f64
    }
}

/// A boot to user space.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Boot {
    pub(super) wall_s: f64,
    /// Processor time of the whole process, to 10 ms.
    pub(super) cpu_s: f64,
}

/// The same span by the clocks of the program and of the host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Interval {
    pub(super) inside_s: f64,
    pub(super) outside_s: f64,
    /// Processor time that the process had in it.
    pub(super) cpu_s: f64,
}

impl Interval {
    /// By how much the inner clock is fast.
    pub(super) fn drift(&self) -> f64 {
        self.inside_s / self.outside_s.max(1e-9) - 1.0
    }

    /// Within 3 %, and 50 ms for the way of a line through a serial port and a busy host.
    pub(super) fn agrees(&self) -> bool {
        (self.inside_s - self.outside_s).abs() <= 0.03 * self.outside_s + 0.05
    }

    /// The part of the time in which the process had a processor.
    pub(super) fn share(&self) -> f64 {
        self.cpu_s / self.outside_s.max(1e-9)
    }
}

/// Runs `command` to its end.
///
/// # Errors
/// When it can't be started, fails, doesn't end in `limit`, prints what can't be read, or found a
/// wrong result.
pub(super) fn run(mut command: Command, log: &Path, limit: Duration) -> Result<Session> {
    let messages =
        File::create(log).with_context(|| format!("could not create {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(messages);
    let began = Instant::now();
    let mut child = command.spawn().with_context(|| format!("could not start {command:?}"))?;
    let pid = child.id();
    let output = child.stdout.take().context("the process has no output")?;
    let child = Arc::new(Mutex::new(child));
    let watchdog = Watchdog::start(Arc::clone(&child), limit);
    let mut watch =
        Watch { began, pid, session: Session::default(), begun: None, started_cpu_ns: 0 };
    let read = watch.read_all(output);
    if read.is_err() {
        drop(child.lock().unwrap_or_else(PoisonError::into_inner).kill());
    }
    let status = wait(&child)?;
    let timed_out = watchdog.stop();
    let last = read.with_context(|| format!("the run of {command:?} was broken off"))?;
    if timed_out || !status.success() || watch.session.interval.is_none() {
        let why = if timed_out { "it took too long".to_owned() } else { status.to_string() };
        let said = std::fs::read_to_string(log).unwrap_or_default();
        bail!("{command:?} did not measure to the end: {why}\n{}\n{said}", last.into_text());
    }
    watch.session.keep_events(log);
    Ok(watch.session)
}

impl Session {
    fn keep_events(&mut self, log: &Path) {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        self.start = process::event(&text, "start");
        self.end = process::event(&text, "end");
    }
}

/// Waits without holding the lock, which the watchdog needs.
fn wait(child: &Mutex<Child>) -> Result<ExitStatus> {
    loop {
        let ended = child.lock().unwrap_or_else(PoisonError::into_inner).try_wait();
        if let Some(status) = ended.context("could not wait for the process")? {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Kills a process that takes too long.
struct Watchdog {
    done: mpsc::Sender<()>,
    thread: thread::JoinHandle<bool>,
}

impl Watchdog {
    fn start(child: Arc<Mutex<Child>>, limit: Duration) -> Self {
        let (done, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let late = told.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            if late {
                drop(child.lock().unwrap_or_else(PoisonError::into_inner).kill());
            }
            late
        });
        Self { done, thread }
    }

    /// Whether it had to.
    fn stop(self) -> bool {
        // The thread has ended already when it had to kill.
        let _ = self.done.send(());
        self.thread.join().unwrap_or(false)
    }
}

/// The last lines of a console.
#[derive(Default)]
struct LastLines(VecDeque<String>);

impl LastLines {
    fn push(&mut self, line: &str) {
        if self.0.len() == LAST_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line.trim_end().to_owned());
    }

    fn into_text(mut self) -> String {
        self.0.make_contiguous().join("\n")
    }
}

/// One moment by all clocks.
#[derive(Clone, Copy)]
struct Mark {
    inside_ns: u64,
    outside: Instant,
    cpu_ns: u64,
}

struct Watch {
    began: Instant,
    pid: u32,
    session: Session,
    begun: Option<Mark>,
    started_cpu_ns: u64,
}

impl Watch {
    fn read_all(&mut self, output: ChildStdout) -> Result<LastLines> {
        let mut reader = BufReader::new(output);
        let mut last = LastLines::default();
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).context("could not read the output")? > 0 {
            let line = String::from_utf8_lossy(&bytes).into_owned();
            bytes.clear();
            last.push(&line);
            if let Some(line) = parse(&line)? {
                self.take(line)?;
            }
        }
        Ok(last)
    }

    fn mark(&self, inside_ns: u64) -> Mark {
        let outside = Instant::now();
        Mark { inside_ns, outside, cpu_ns: self.cpu_ns() }
    }

    fn cpu_ns(&self) -> u64 {
        process::cpu_ns(self.pid).unwrap_or(0)
    }

    fn take(&mut self, line: Line) -> Result<()> {
        match line {
            Line::Begin { at_ns } => self.begin(at_ns),
            Line::End { at_ns } => self.end(at_ns),
            Line::Start { .. } => self.started_cpu_ns = self.cpu_ns(),
            Line::Measured(inside) => {
                let cpu_ns = self.cpu_ns().saturating_sub(self.started_cpu_ns);
                self.session.measured.push(Timed { inside, cpu_ns });
            }
            Line::Skip { name } => self.session.skipped.push(name),
            Line::Wrong { name } => bail!("`{name}` gave two results for the same work"),
            Line::Failed { what } => bail!("the measured program failed: {what}"),
        }
        Ok(())
    }

    fn begin(&mut self, at_ns: u64) {
        let mark = self.mark(at_ns);
        self.session.boot = Some(Boot {
            wall_s: (mark.outside - self.began).as_secs_f64(),
            cpu_s: mark.cpu_ns as f64 / 1e9,
        });
        self.session.resident = process::resident(self.pid, GUEST_MIB << 20);
        self.begun = Some(mark);
    }

    fn end(&mut self, at_ns: u64) {
        let Some(begin) = self.begun else { return };
        let end = self.mark(at_ns);
        self.session.interval = Some(Interval {
            inside_s: end.inside_ns.saturating_sub(begin.inside_ns) as f64 / 1e9,
            outside_s: (end.outside - begin.outside).as_secs_f64(),
            cpu_s: end.cpu_ns.saturating_sub(begin.cpu_ns) as f64 / 1e9,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn log(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("kasane-bench-{name}-{}", std::process::id()))
    }

    const RESULT: &str = "@bench result sort class=integer unit=element units=4 ns=8 sum=1 t=5";

    #[test]
    fn a_session_keeps_what_was_measured_and_both_clocks() {
        let script = format!(
            "echo '@bench begin t=1000000000'; echo '{RESULT}'; echo '@bench skip avx t=6';
             echo '@bench end t=3000000000'"
        );

        let session = run(shell(&script), &log("kept"), Duration::from_secs(20)).unwrap();

        assert_eq!(session.measured.len(), 1);
        assert_eq!(session.skipped, ["avx"]);
        assert_eq!(session.interval.map(|interval| interval.inside_s), Some(2.0));
        assert!(session.boot.is_some_and(|boot| boot.wall_s > 0.0));
    }

    #[test]
    fn a_clock_that_runs_fast_is_noticed() {
        let interval = Interval { inside_s: 10.6, outside_s: 10.0, cpu_s: 9.0 };

        assert!(!interval.agrees());
        assert!((interval.drift() - 0.06).abs() < 1e-9);
        assert!(Interval { inside_s: 10.2, ..interval }.agrees());
    }

    #[test]
    fn a_run_without_an_end_is_an_error_that_shows_the_last_lines() {
        let error = run(shell("echo Kernel panic"), &log("no-end"), Duration::from_secs(20));

        assert!(error.unwrap_err().to_string().contains("Kernel panic"));
    }

    #[test]
    fn two_results_of_the_same_work_are_an_error() {
        let script = "echo '@bench begin t=1'; echo '@bench wrong sort t=2'; exec sleep 60";

        let error = run(shell(script), &log("wrong"), Duration::from_secs(20)).unwrap_err();

        assert!(format!("{error:#}").contains("`sort` gave two results"), "{error:#}");
    }

    #[test]
    fn a_run_that_takes_too_long_is_ended() {
        let error = run(shell("exec sleep 60"), &log("slow"), Duration::from_millis(50));

        assert!(error.unwrap_err().to_string().contains("too long"));
    }
}
