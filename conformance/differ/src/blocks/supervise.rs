//! Starts processes that compare blocks, watches them, sums up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Block;
use super::compare::{Session, Verdict};
use super::generate::Generator;
use super::shrink::show;
use crate::worker::{Shared, shared};

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seed of the blocks.
    pub seed: u64,
    /// Number of the first.
    pub first: u64,
    /// How many.
    pub count: Option<u64>,
    /// How long.
    pub duration: Option<Duration>,
    /// Only code of this bitness.
    pub bits: Option<u32>,
    /// Processes.
    pub jobs: u64,
}

const VECTORS: usize = 32;
/// What is counted of translators.
const TRANSLATED: [&str; 11] = [
    "blocks",
    "instructions",
    "invalidated_blocks",
    "cache_flushes",
    "tlb_misses",
    "refused_accesses",
    "entries",
    "links",
    "indirect_misses",
    "host_exceptions",
    INTERPRETED,
];
/// All that begin with this are counted together.
const INTERPRETED: &str = "interpreted";

/// What one process tells.
#[repr(C)]
pub struct Progress {
    /// Number of the block that runs, and one more.
    current: AtomicU64,
    compared: AtomicU64,
    instructions: AtomicU64,
    different: AtomicU64,
    /// Could not be made.
    not_made: AtomicU64,
    /// Ran too long, or astray.
    unfit: AtomicU64,
    /// By vector; the last is no exception.
    ended_by: [AtomicU64; VECTORS + 1],
    /// In the order of [`TRANSLATED`].
    translated: [AtomicU64; TRANSLATED.len()],
    stop: AtomicBool,
}

// SAFETY: atomics only.
unsafe impl Shared for Progress {}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Blocks compared.
    pub compared: u64,
    /// Instructions in them.
    pub instructions: u64,
    /// Blocks that differ.
    pub different: u64,
    /// Numbers that gave no block.
    pub not_made: u64,
    /// Blocks that ran too long, or astray.
    pub unfit: u64,
    /// Processes that died or hung.
    pub broken: u64,
    /// How blocks ended, and how many.
    pub ends: Vec<(String, u64)>,
    /// What the translators did.
    pub translated: Vec<(&'static str, u64)>,
}

/// A process that stays on one block for so long hangs.
const HANG: Duration = Duration::from_secs(20);
/// After so many differences or broken processes there is no point in going on.
const ENOUGH: u64 = 20;
/// Blocks that run on the same machines. A difference that depends on what ran before is in them.
const TOGETHER: usize = 4096;

struct Worker {
    pid: libc::pid_t,
    progress: &'static Progress,
    /// Numbers from, step, end.
    job: (u64, u64, u64),
    seen: (u64, Instant),
}

/// What one process works with.
struct Work<'a> {
    plan: &'a Plan,
    progress: &'a Progress,
    generator: Generator,
    session: Session,
    /// Blocks that ran on the machines at hand.
    together: Vec<u64>,
}

/// Compares blocks until told to stop.
fn work(plan: &Plan, job: (u64, u64, u64), progress: &Progress) -> anyhow::Result<()> {
    let generator = Generator::new(plan.seed, plan.bits);
    let mut it = Work { plan, progress, generator, session: Session::new()?, together: Vec::new() };
    let (mut n, step, end) = job;
    while n < end && !progress.stop.load(Ordering::Relaxed) {
        progress.current.store(n + 1, Ordering::Relaxed);
        if it.together.len() == TOGETHER {
            it.next_machines()?;
        }
        it.together.push(n);
        it.check(n);
        n = n.saturating_add(step);
    }
    it.next_machines()
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Work<'_> {
    fn check(&mut self, n: u64) {
        let progress = self.progress;
        let Some(block) = self.generator.make(n) else { return count(&progress.not_made) };
        match self.session.check(&block) {
            Verdict::Same => {
                count(&progress.compared);
                let instructions = block.starts.len() as u64;
                progress.instructions.fetch_add(instructions, Ordering::Relaxed);
                let end = self.session.ended_by.map_or(VECTORS, usize::from);
                progress.ended_by.get(end).into_iter().for_each(count);
            }
            Verdict::Unfit | Verdict::Missing => count(&progress.unfit),
            Verdict::Different(why) => {
                count(&progress.compared);
                self.report(n, &block, why);
            }
        }
    }

    fn report(&mut self, n: u64, block: &Block, why: Vec<String>) {
        count(&self.progress.different);
        let first = self.together.first().copied().unwrap_or(n);
        report(&mut self.session, self.plan.seed, (first, n), block, why);
        self.together.clear();
    }

    /// Counts what was done on the machines at hand, and makes others.
    fn next_machines(&mut self) -> anyhow::Result<()> {
        for (name, value) in self.session.counts() {
            let known = |known: &&str| {
                *known == name || *known == INTERPRETED && name.starts_with(INTERPRETED)
            };
            let counter =
                TRANSLATED.iter().position(known).and_then(|n| self.progress.translated.get(n));
            if let Some(counter) = counter {
                counter.fetch_add(value, Ordering::Relaxed);
            }
        }
        if self.session.refused() > 0 {
            self.find_refused()?;
        }
        self.session.renew()?;
        self.together.clear();
        Ok(())
    }

    /// Which of the blocks makes code that the verifier refuses.
    fn find_refused(&mut self) -> anyhow::Result<()> {
        let why = || vec!["the verifier refuses what the translator made".into()];
        for n in self.together.clone() {
            let Some(block) = self.generator.make(n) else { continue };
            self.session.renew()?;
            if self.session.check(&block) == Verdict::Same && self.session.refused() > 0 {
                self.report(n, &block, why());
                return Ok(());
            }
        }
        count(&self.progress.different);
        eprintln!("the verifier refused a block, and not again");
        Ok(())
    }
}

/// Makes a difference small and prints it. `first`: of the blocks that ran on the same machines.
fn report(
    session: &mut Session,
    seed: u64,
    (first, n): (u64, u64),
    block: &Block,
    why: Vec<String>,
) {
    let shrunk = session.shrink(block, why);
    eprintln!("block {n} (--seed {seed} --from {n} --count 1):");
    if !shrunk.alone {
        eprintln!("not seen alone: it depends on what ran before; try --from {first}");
    }
    shrunk.why.iter().for_each(|line| eprintln!("    {line}"));
    eprintln!("{}", show(&shrunk.block));
}

fn start(
    plan: &Plan,
    job: (u64, u64, u64),
    progress: &'static Progress,
) -> std::io::Result<Worker> {
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(std::io::Error::last_os_error());
    }
    if pid == 0 {
        let code = match work(plan, job, progress) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("error: a process can't start: {error:#}");
                3
            }
        };
        // SAFETY: the child ends here, without the parent's destructors.
        unsafe { libc::_exit(code) };
    }
    let current = progress.current.load(Ordering::Relaxed);
    Ok(Worker { pid, progress, job, seen: (current, Instant::now()) })
}

/// How a process is.
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
            return match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
                (true, 0) => Health::Finished,
                (true, 3) => Health::CannotStart,
                (true, code) => Health::Broken(format!("ended with code {code}")),
                (false, _) => {
                    Health::Broken(format!("was killed by signal {}", libc::WTERMSIG(status)))
                }
            };
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

/// Runs a plan.
///
/// # Errors
/// When no process can be started.
pub fn run(plan: &Plan) -> anyhow::Result<Summary> {
    let began = Instant::now();
    let end = plan.count.map_or(u64::MAX, |count| plan.first.saturating_add(count));
    let mut workers = Vec::new();
    for n in 0..plan.jobs {
        let job = (plan.first.saturating_add(n), plan.jobs, end);
        workers.push(start(plan, job, shared::<Progress>()?)?);
    }
    let all: Vec<_> = workers.iter().map(|worker| worker.progress).collect();
    let mut broken = 0;
    let mut said = Instant::now();
    while !workers.is_empty() {
        std::thread::sleep(Duration::from_millis(20));
        let now = sum(&all, broken);
        let late = plan.duration.is_some_and(|limit| began.elapsed() >= limit);
        if late || now.different + broken >= ENOUGH {
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
                    let n = worker.progress.current.load(Ordering::Relaxed).saturating_sub(1);
                    eprintln!("a process {how} at block {n} (--seed {} --from {n})", plan.seed);
                    if let Some(block) = Generator::new(plan.seed, plan.bits).make(n) {
                        eprintln!("{}", show(&block));
                    }
                    let (_, step, end) = worker.job;
                    let job = (n.saturating_add(step), step, end);
                    next.push(start(plan, job, worker.progress)?);
                }
            }
        }
        workers = next;
        if said.elapsed() > Duration::from_secs(10) {
            said = Instant::now();
            eprintln!("{}", line(&now, began.elapsed()));
        }
    }
    Ok(sum(&all, broken))
}

fn sum(all: &[&'static Progress], broken: u64) -> Summary {
    let total = |field: fn(&Progress) -> &AtomicU64| {
        all.iter().map(|progress| field(progress).load(Ordering::Relaxed)).sum()
    };
    Summary {
        compared: total(|progress| &progress.compared),
        instructions: total(|progress| &progress.instructions),
        different: total(|progress| &progress.different),
        not_made: total(|progress| &progress.not_made),
        unfit: total(|progress| &progress.unfit),
        broken,
        ends: (0..=VECTORS)
            .map(|n| {
                let name = if n == VECTORS { "end".into() } else { format!("vector {n}") };
                let of = |it: &&Progress| {
                    it.ended_by.get(n).map_or(0, |count| count.load(Ordering::Relaxed))
                };
                (name, all.iter().map(of).sum())
            })
            .filter(|(_, count)| *count != 0)
            .collect(),
        translated: TRANSLATED
            .iter()
            .enumerate()
            .map(|(n, name)| {
                let of = |it: &&Progress| {
                    it.translated.get(n).map_or(0, |count| count.load(Ordering::Relaxed))
                };
                (*name, all.iter().map(of).sum())
            })
            .collect(),
    }
}

/// One line of progress.
#[must_use]
pub fn line(summary: &Summary, time: Duration) -> String {
    let rate = summary.compared as f64 / time.as_secs_f64().max(0.001);
    format!(
        "{} blocks of {} instructions compared in {:.0} s ({rate:.0}/s), {} different, {} not made, \
         {} unfit, {} broken processes",
        summary.compared,
        summary.instructions,
        time.as_secs_f64(),
        summary.different,
        summary.not_made,
        summary.unfit,
        summary.broken
    )
}
