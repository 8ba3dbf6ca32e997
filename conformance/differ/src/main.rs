//! `kasane-differ`: compares the interpreter with the CPU that it runs on.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Parser;
use kasane_differ::blocks;
use kasane_differ::case::{Case, CaseFile};
use kasane_differ::compare::{Session, Verdict, text};
use kasane_differ::generate::{Generator, codes, decode};
use kasane_differ::supervise::{Executor, Plan, Summary, executor, line, run};
use kasane_differ::undefined::RULES;

/// Compares single instructions between the interpreter and the CPU that this runs on.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Compare blocks of instructions, by this CPU, the interpreter and the translator.
    #[arg(long)]
    blocks: bool,
    /// Blocks: number of the first.
    #[arg(long, default_value_t = 0, requires = "blocks")]
    from: u64,
    /// Blocks: only 64-bit or 32-bit code.
    #[arg(long, requires = "blocks")]
    bits: Option<u32>,
    /// Blocks: print them.
    #[arg(long, requires = "blocks")]
    show: bool,
    /// Stop after so many minutes.
    #[arg(long)]
    minutes: Option<f64>,
    /// Stop after so many seconds (30, if nothing else is said).
    #[arg(long)]
    seconds: Option<u64>,
    /// Stop after so many hours, and store what differs (in target/differ, if nothing else is said).
    #[arg(long)]
    hours: Option<f64>,
    /// Stop after so many cases.
    #[arg(long)]
    count: Option<u64>,
    /// A number, `fixed`, or `fresh` for a new one.
    #[arg(long, default_value = "fixed")]
    seed: String,
    /// Only opcodes whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// No opcodes with x87, MMX, SSE or AVX state.
    #[arg(long)]
    integer: bool,
    /// Processes to use (all CPUs, if nothing else is said).
    #[arg(long)]
    jobs: Option<u64>,
    /// Folder for differing cases, made if need be.
    #[arg(long)]
    save: Option<PathBuf>,
    /// Print the table of opcodes and that of what is undefined; of blocks, how they ended.
    #[arg(long)]
    table: bool,
    /// Compare what the manual leaves undefined, too.
    #[arg(long)]
    strict: bool,
    /// Run a stored case again.
    #[arg(long)]
    replay: Option<PathBuf>,
}

fn seed(text: &str) -> anyhow::Result<u64> {
    match text {
        "fixed" => Ok(1),
        "fresh" => Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64),
        number => number.parse().with_context(|| format!("{number} is no seed")),
    }
}

fn duration(arguments: &Arguments) -> Option<Duration> {
    let minutes = arguments.hours.map(|hours| hours * 60.0).or(arguments.minutes);
    match (minutes, arguments.seconds, arguments.count) {
        (Some(minutes), _, _) => Some(Duration::from_secs_f64(minutes.clamp(0.0, 1e8) * 60.0)),
        (None, Some(seconds), _) => Some(Duration::from_secs(seconds)),
        (None, None, Some(_)) => None,
        (None, None, None) => Some(Duration::from_secs(30)),
    }
}

/// The comparison of blocks.
fn compare_blocks(arguments: &Arguments, jobs: u64) -> anyhow::Result<ExitCode> {
    let plan = blocks::supervise::Plan {
        seed: seed(&arguments.seed)?,
        first: arguments.from,
        count: arguments.count,
        duration: duration(arguments),
        bits: arguments.bits.filter(|bits| [32, 64].contains(bits)),
        jobs,
    };
    if arguments.show {
        let generator = blocks::generate::Generator::new(plan.seed, plan.bits);
        let numbers = plan.first..plan.first.saturating_add(plan.count.unwrap_or(1));
        for block in numbers.filter_map(|n| generator.make(n)) {
            println!("{}", blocks::shrink::show(&block));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let began = Instant::now();
    let summary = blocks::supervise::run(&plan)?;
    if arguments.table {
        summary.ends.iter().for_each(|(name, count)| println!("{name:<40} {count:>12}"));
        summary.translated.iter().for_each(|(name, count)| println!("{name:<40} {count:>12}"));
    }
    println!("seed {}: {}", plan.seed, blocks::supervise::line(&summary, began.elapsed()));
    let good = summary.different == 0 && summary.broken == 0;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn replay(path: &Path) -> anyhow::Result<ExitCode> {
    let json = std::fs::read_to_string(path)
        .with_context(|| format!("can't read the case {}", path.display()))?;
    let file: CaseFile =
        serde_json::from_str(&json).with_context(|| format!("{} is no case", path.display()))?;
    let case = Case::from_file(&file)?;
    println!("{}", text(&decode(&case)));
    match Session::new()?.check(&case) {
        Verdict::Same => println!("no difference"),
        Verdict::Missing => println!("not implemented"),
        Verdict::Different(why) => {
            why.iter().for_each(|line| println!("    {line}"));
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table(summary: &Summary) {
    let list = codes::all();
    let generator = Generator::new(list.clone(), 1);
    let (mut own, mut host, mut lacking) = (0, 0, 0);
    for (code, same, different, missing) in &summary.by_code {
        let Some(at) = list.iter().position(|(c, _)| c == code) else { continue };
        let step = list.len() as u64;
        let instr = (0..50).find_map(|n| generator.make(at as u64 + n * step));
        let who = instr.map_or(Executor::Interpreter, |made| executor(&made.instr));
        let by = match (who, missing) {
            (_, 1..) => "not implemented",
            (Executor::Interpreter, 0) => "interpreter",
            (Executor::Host, 0) => "host CPU",
        };
        match (by, same) {
            ("not implemented", _) => lacking += 1,
            ("interpreter", _) => own += 1,
            _ => host += 1,
        }
        println!("{:<44} {by:<16} same {same:>10}  different {different}", format!("{code:?}"));
    }
    println!(
        "opcodes: {own} by the interpreter, {host} in the vector group (mostly by the host CPU), \
         {lacking} not implemented"
    );
    println!("\nundefined, and so not compared:");
    for rule in RULES {
        println!("{:<26} {:<66} {}", rule.what, rule.undefined, rule.source);
    }
}

fn start() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(path) = &arguments.replay {
        return replay(path);
    }
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let jobs = arguments.jobs.unwrap_or(cpus).clamp(1, 64);
    if arguments.blocks {
        return compare_blocks(&arguments, jobs);
    }
    let save = match arguments.hours {
        Some(_) => arguments.save.clone().or_else(|| Some("target/differ".into())),
        None => arguments.save.clone(),
    };
    if let Some(folder) = &save {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("can't make the folder {}", folder.display()))?;
    }
    let seed = seed(&arguments.seed)?;
    let plan = Plan {
        seed,
        duration: duration(&arguments),
        count: arguments.count,
        only: arguments.only.clone(),
        own: arguments.integer,
        jobs,
        save,
        strict: arguments.strict,
        verbose: true,
    };
    let began = Instant::now();
    let summary = run(&plan)?;
    if arguments.table {
        table(&summary);
    }
    println!("seed {seed}: {}", line(&summary, began.elapsed()));
    let good = summary.different == 0 && summary.broken == 0;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn main() -> ExitCode {
    match start() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            error.chain().skip(1).for_each(|cause| eprintln!("    {cause}"));
            ExitCode::from(2)
        }
    }
}
