//! Which engine runs the processors.

use std::sync::Arc;

use kasane_interp::MakeAccelerator;
use kasane_passthrough::CodeRunner;
use kasane_translate::{Shared, Translated};

/// Address space for translated code; what is not used costs nothing.
const ARENA_BYTES: usize = 256 << 20;

/// An engine that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// The interpreter alone.
    Interp,
    /// The translator, with the interpreter for what is rare.
    Translate,
}

impl EngineKind {
    /// As on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interp => "interp",
            Self::Translate => "translate",
        }
    }

    /// What makes the accelerators of a machine's processors.
    pub(super) fn accelerators(self, runner: &Arc<dyn CodeRunner>, cpus: u32) -> MakeAccelerator {
        let shared = match self {
            Self::Interp => None,
            Self::Translate => {
                runner.arena(ARENA_BYTES).ok().and_then(|arena| Shared::new(arena, cpus))
            }
        };
        Arc::new(move |index| Some(Box::new(Translated::new(Arc::clone(shared.as_ref()?), index))))
    }
}

/// Whether the translator can run a machine with so many processors here.
///
/// # Errors
/// Why not.
pub fn translator_works(runner: &dyn CodeRunner, cpus: u32) -> Result<(), String> {
    if let Some(lack) = kasane_translate::host_lacks(runner.features()) {
        return Err(format!("this host's CPU has no {lack}"));
    }
    let arena = runner.arena(1 << 20).map_err(|error| error.to_string())?;
    Shared::new(arena, cpus).map(drop).ok_or_else(|| "its code can't be written".to_owned())
}
