//! Starts workers, watches them, sums up.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use iced_x86::Code;
use kasane_interp::exec;

use crate::compare::text;
use crate::generate::{Generator, codes};
use crate::worker::{CODES, Job, Progress, shared, work};

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seed of the cases.
    pub seed: u64,
    /// How long.
    pub duration: Option<Duration>,
    /// How many cases.
    pub count: Option<u64>,
    /// Opcodes whose name contains this.
    pub only: Option<String>,
    /// No opcodes with x87, MMX, SSE or AVX state.
    pub own: bool,
    /// Processes.
    pub jobs: u64,
    /// Where differences go.
    pub save: Option<std::path::PathBuf>,
    /// Compare undefined flags too.
    pub strict: bool,
    /// Say how it goes.
    pub verbose: bool,
}

/// What came of it.
pub struct Summary {
    /// Cases compared.
    pub compared: u64,
    /// Cases that differ.
    pub different: u64,
    /// Cases of instructions that the interpreter lacks.
    pub missing: u64,
    /// Workers that died or hung.
    pub broken: u64,
    /// By opcode: same, different, missing.
    pub by_code: Vec<(Code, u64, u64, u64)>,
}

struct Worker {
    pid: libc::pid_t,
    progress: &'static Progress,
    job: Job,
    /// `current` when it was last seen to move.
    seen: (u64, Instant),
}

/// A worker that stays on one case for so long hangs.
const HANG: Duration = Duration::from_secs(5);
/// After so many broken workers there is no point in going on.
const MAX_BROKEN: u64 = 100;

fn start(generator: &Generator, job: Job, progress: &'static Progress) -> std::io::Result<Worker> {
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(std::io::Error::last_os_error());
    }
    if pid == 0 {
        let code = match work(generator, &job, progress) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("error: a worker can't start: {error:#}");
                3
            }
        };
        // SAFETY: the child ends here, without the parent's destructors.
        unsafe { libc::_exit(code) };
    }
    let current = progress.current.load(Ordering::Relaxed);
    Ok(Worker { pid, progress, job, seen: (current, Instant::now()) })
}

/// How a worker is.
enum Health {
    Running,
    Finished,
    CannotStart,
    Broken(String),
}

impl Worker {
    fn health(&mut self) -> Health {
        let mut status = 0;
        // SAFETY: our own child.
        let got = unsafe { libc::waitpid(self.pid, &raw mut status, libc::WNOHANG) };
        if got == self.pid {
            if libc::WIFEXITED(status) {
                return match libc::WEXITSTATUS(status) {
                    0 => Health::Finished,
                    3 => Health::CannotStart,
                    code => Health::Broken(format!("ended with code {code}")),
                };
            }
            return Health::Broken(format!("was killed by signal {}", libc::WTERMSIG(status)));
        }
        let current = self.progress.current.load(Ordering::Relaxed);
        if current != self.seen.0 {
            self.seen = (current, Instant::now());
        } else if self.seen.1.elapsed() > HANG && current != 0 {
            // SAFETY: our own child, which is then waited for.
            unsafe {
                libc::kill(self.pid, libc::SIGKILL);
                libc::waitpid(self.pid, &raw mut status, 0);
            }
            return Health::Broken("hung".into());
        }
        Health::Running
    }
}

fn describe(generator: &Generator, n: u64) -> String {
    match generator.make(n) {
        None => format!("case {n}"),
        Some(made) => {
            let file = made.case.to_file(text(&made.instr), Vec::new());
            let json = serde_json::to_string(&file).unwrap_or_default();
            format!("case {n}: {} ({:?})\n    {json}", file.text, made.instr.code())
        }
    }
}

/// Runs a plan.
///
/// # Errors
/// When no worker can be started.
pub fn run(plan: &Plan) -> anyhow::Result<Summary> {
    let mut list = codes::all();
    if plan.own {
        list.retain(|(code, _)| !codes::uses_vectors(*code));
    }
    if let Some(only) = &plan.only {
        list.retain(|(code, _)| format!("{code:?}").to_lowercase().contains(&only.to_lowercase()));
    }
    anyhow::ensure!(!list.is_empty(), "no opcode has that name");
    let generator = Generator::new(list, plan.seed);
    let began = Instant::now();
    let mut workers = Vec::new();
    for n in 0..plan.jobs {
        let job = Job {
            first: n,
            step: plan.jobs,
            end: plan.count.unwrap_or(u64::MAX),
            save: plan.save.clone(),
            strict: plan.strict,
        };
        workers.push(start(&generator, job, shared::<Progress>()?)?);
    }
    let all: Vec<_> = workers.iter().map(|worker| worker.progress).collect();
    let mut broken = 0;
    let mut said = Instant::now();
    while !workers.is_empty() {
        std::thread::sleep(Duration::from_millis(50));
        if plan.duration.is_some_and(|limit| began.elapsed() >= limit) || broken > MAX_BROKEN {
            all.iter().for_each(|progress| progress.stop.store(true, Ordering::Relaxed));
        }
        let mut next = Vec::new();
        for mut worker in workers {
            match worker.health() {
                Health::Running => next.push(worker),
                Health::Finished => {}
                Health::CannotStart => anyhow::bail!("the comparison can't run on this host"),
                Health::Broken(how) => {
                    broken += 1;
                    let n = worker.progress.current.load(Ordering::Relaxed);
                    eprintln!("a worker {how} at {}", describe(&generator, n));
                    let first = n.saturating_add(worker.job.step);
                    next.push(start(&generator, Job { first, ..worker.job }, worker.progress)?);
                }
            }
        }
        workers = next;
        if plan.verbose && said.elapsed() > Duration::from_secs(10) {
            said = Instant::now();
            let now = sum(&all, broken);
            eprintln!("{}", line(&now, began.elapsed()));
        }
    }
    Ok(sum(&all, broken))
}

/// One line of progress.
#[must_use]
pub fn line(summary: &Summary, time: Duration) -> String {
    let rate = summary.compared as f64 / time.as_secs_f64().max(0.001);
    format!(
        "{} compared in {:.0} s ({rate:.0}/s), {} different, {} not implemented, {} broken workers",
        summary.compared,
        time.as_secs_f64(),
        summary.different,
        summary.missing,
        summary.broken
    )
}

fn sum(all: &[&'static Progress], broken: u64) -> Summary {
    let mut summary =
        Summary { compared: 0, different: 0, missing: 0, broken, by_code: Vec::new() };
    let mut by_code = vec![(0u64, 0u64, 0u64); CODES];
    for progress in all {
        summary.compared += progress.compared.load(Ordering::Relaxed);
        summary.different += progress.different.load(Ordering::Relaxed);
        summary.missing += progress.missing.load(Ordering::Relaxed);
        let counters = progress
            .same_by_code
            .iter()
            .zip(&progress.different_by_code)
            .zip(&progress.missing_by_code);
        for (total, ((same, different), missing)) in by_code.iter_mut().zip(counters) {
            total.0 += u64::from(same.load(Ordering::Relaxed));
            total.1 += u64::from(different.load(Ordering::Relaxed));
            total.2 += u64::from(missing.load(Ordering::Relaxed));
        }
    }
    summary.by_code = Code::values()
        .zip(by_code)
        .filter(|(_, (same, different, missing))| same + different + missing > 0)
        .map(|(code, (same, different, missing))| (code, same, different, missing))
        .collect();
    summary
}

/// Who executes an opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executor {
    /// The interpreter's own semantics.
    Interpreter,
    /// The vector group, which passes most of its instructions to the host's CPU.
    Host,
}

/// Who executes the instruction of a made case.
#[must_use]
pub fn executor(instr: &iced_x86::Instruction) -> Executor {
    if exec::integer::lower(instr).is_some() || exec::system::lower(instr).is_some() {
        Executor::Interpreter
    } else {
        Executor::Host
    }
}
