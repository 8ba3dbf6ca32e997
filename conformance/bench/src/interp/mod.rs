//! `bench interp`: the interpreter alone, without a machine, on loops that stay in its block cache.

mod bare_cpu;
mod loops;

use anyhow::Result;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Runs of each loop; the median is printed.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Instructions per run, in millions.
    #[arg(long, default_value_t = 100)]
    millions: u64,
    /// Also print a JSON line per loop.
    #[arg(long)]
    json: bool,
}

/// Prints instructions per second for each loop.
pub(crate) fn run(options: &Options) -> Result<()> {
    println!("{:<18} {:>14} {:>10}  mix", "loop", "instructions/s", "ns each");
    for bench in loops::all()? {
        let mut rates = Vec::new();
        for _ in 0..options.runs.max(1) {
            rates.push(loops::rate(&bench, options.millions * 1_000_000)?);
        }
        rates.sort_by(f64::total_cmp);
        let median = rates.get(rates.len() / 2).copied().unwrap_or_default();
        println!(
            "{:<18} {:>12.1} M {:>10.2}  {}",
            bench.name,
            median / 1e6,
            1e9 / median,
            bench.mix
        );
        if options.json {
            let line = serde_json::json!({
                "loop": bench.name, "mix": bench.mix, "instructions_per_second": median,
            });
            println!("{line}");
        }
    }
    Ok(())
}
