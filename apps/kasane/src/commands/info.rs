//! `kasane info`.

use serde_json::{Value, json};

use kasane_cpu::cpuid::{CpuModelName, Feature};
use kasane_host_code::HostCode;
use kasane_host_runtime::{Barrier, BarrierKind};
use kasane_host_sandbox::Support;
use kasane_passthrough::{CodeRunner, HostFeatures};

use super::print;
use crate::outcome::{ExitStatus, Failure};
use crate::report::Form;
use crate::vm::cpu_model;

/// Something that works, or why it doesn't.
type Works = Result<String, String>;

pub(super) fn info(form: Form) -> Result<ExitStatus, Failure> {
    let runner = HostCode::new();
    let features = runner.as_ref().map(CodeRunner::features).unwrap_or_default();
    let translator = match &runner {
        Ok(runner) => crate::vm::translator_works(runner),
        Err(error) => Err(error.to_string()),
    };
    let host = [
        ("cpu", host_cpu()),
        ("cpus", std::thread::available_parallelism().map_or(0, usize::from).to_string()),
        ("system", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
    ];
    let lent = [
        ("vector instructions", runner.map(|_| vector_words(features)).map_err(|e| e.to_string())),
        ("several processors", barrier_words(Barrier::detect())),
    ];
    let Support { filter, files } = kasane_host_sandbox::support();
    let sandbox = [("system calls", filter), ("files", files)];
    let engines = [("interp", crate::vm::self_test(features)), ("translate", translator)];
    let models = CpuModelName::ALL.map(|name| {
        let works = cpu_model(name, features).map(|_| "works".to_owned());
        (name.as_str(), works.map_err(|error| error.to_string()))
    });
    match form {
        Form::Text => {
            let mut text = format!("kasane {}\nhost\n", env!("CARGO_PKG_VERSION"));
            host.iter().for_each(|(name, value)| text += &line(name, value));
            text += "what the host lends to guests\n";
            lent.iter().for_each(|(name, works)| text += &line(name, words(works)));
            text += "sandbox\n";
            sandbox.iter().for_each(|(name, works)| text += &line(name, words(works)));
            text += "engines\n";
            engines.iter().for_each(|(name, works)| text += &line(name, words(works)));
            text += "processor models\n";
            models.iter().for_each(|(name, works)| text += &line(name, words(works)));
            print(&text)
        }
        Form::Json => {
            let value = json!({
                "version": env!("CARGO_PKG_VERSION"),
                "host": host.iter().map(|(k, v)| ((*k).to_owned(), json!(v)))
                    .collect::<serde_json::Map<_, _>>(),
                "lent": table(&lent),
                "sandbox": table(&sandbox),
                "engines": table(&engines),
                "models": table(&models),
            });
            print(&format!("{value}\n"))
        }
    }
}

fn line(name: &str, value: &str) -> String {
    format!("  {name:<22}{value}\n")
}

fn words(works: &Works) -> &str {
    match works {
        Ok(text) | Err(text) => text,
    }
}

fn table(list: &[(&str, Works)]) -> Value {
    list.iter()
        .map(|(name, works)| {
            ((*name).to_owned(), json!({ "works": works.is_ok(), "detail": words(works) }))
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn vector_words(features: HostFeatures) -> String {
    let Ok(model) = cpu_model(CpuModelName::Max, features) else { return String::new() };
    let shown = [
        (Feature::Sse42, "SSE4.2"),
        (Feature::Aes, "AES"),
        (Feature::Pclmulqdq, "PCLMULQDQ"),
        (Feature::Sha, "SHA"),
        (Feature::Avx, "AVX"),
        (Feature::Avx2, "AVX2"),
        (Feature::Fma, "FMA"),
        (Feature::F16c, "F16C"),
    ];
    let has: Vec<&str> =
        shown.iter().filter(|(feature, _)| model.has(*feature)).map(|(_, name)| *name).collect();
    format!("up to {}", has.join(", "))
}

fn barrier_words(barrier: Barrier) -> Works {
    match barrier.kind() {
        BarrierKind::Expedited => Ok("works (membarrier)".to_owned()),
        BarrierKind::Global => Ok("works, slowly (global membarrier only)".to_owned()),
        BarrierKind::CallerOnly => {
            Err("no memory barrier over all threads: one processor only".to_owned())
        }
    }
}

/// The processor's own name for itself.
fn host_cpu() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = text.lines().find_map(|line| line.strip_prefix("model name"));
    let name = named.and_then(|rest| rest.split_once(':')).map(|(_, name)| name.trim());
    name.unwrap_or("unknown").to_owned()
}
