//! `--jitdump`: `perf` is told of translated code.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use kasane_host_code::jitdump::{JitDump, JitDumpError};
use kasane_passthrough::CodeObserver;
use serde_json::json;

use crate::outcome::Failure;
use crate::report::Form;
use crate::settings::JitDumping;
use crate::vm::EngineKind;

/// The file, if one was asked for.
pub(super) struct Described(Option<Arc<JitDump>>);

impl Described {
    /// Begins the file, and says so.
    pub(super) fn open(
        wanted: JitDumping,
        engine: EngineKind,
        form: Form,
    ) -> Result<Self, Failure> {
        match (wanted, engine) {
            (JitDumping::Off, _) => Ok(Self(None)),
            (JitDumping::Here, EngineKind::Interp) => {
                let error = anyhow::anyhow!("`--jitdump` has no translated code to describe")
                    .context("the interpreter runs this machine");
                Err(Failure::usage(error, "use `--engine translate`, or leave out `--jitdump`"))
            }
            (JitDumping::Here, EngineKind::Translate | EngineKind::Shadow) => {
                let dump = JitDump::create(Path::new("")).map_err(refused)?;
                let path = dump.path().display().to_string();
                let sentence = format!("translated code is described to perf in `{path}`");
                form.event(&sentence, "jitdump", &json!({ "path": path }));
                Ok(Self(Some(Arc::new(dump))))
            }
        }
    }

    /// Who is to be told of code.
    pub(super) fn observer(&self) -> Option<Arc<dyn CodeObserver>> {
        self.0.as_ref().map(|dump| Arc::clone(dump) as Arc<dyn CodeObserver>)
    }

    /// Ends the file.
    pub(super) fn finish(&self) -> Result<(), Failure> {
        let Some(dump) = &self.0 else { return Ok(()) };
        dump.finish()
            .with_context(|| format!("`{}` is not complete", dump.path().display()))
            .map_err(|error| Failure::host(error, "make room where it is written"))
    }
}

fn refused(error: JitDumpError) -> Failure {
    let help = match &error {
        JitDumpError::Create { .. } => "run it in a folder that you may write to",
        JitDumpError::Map { .. } => "run it in a folder from which programs may be run",
        JitDumpError::Unavailable => "leave out `--jitdump`",
    };
    Failure::usage(error, help)
}
