//! Which engine runs the processors.

use std::sync::Arc;

use kasane_interp::MakeAccelerator;
use kasane_passthrough::{CodeObserver, CodeRunner};
use kasane_translate::{Shared, Translated};

use super::self_test::translator_self_test;

/// Address space for translated code; what is not used costs nothing.
const ARENA_BYTES: usize = 256 << 20;

/// About as much slower than the interpreter is the comparison, on a host that does other things
/// too: a guest in real time would do nothing but handle its timer.
const SHADOW_SLOWNESS: u32 = 32;

/// An engine that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// The interpreter alone.
    Interp,
    /// The translator, with the interpreter for what is rare.
    Translate,
    /// The translator, with the interpreter doing everything again to compare.
    Shadow,
}

impl EngineKind {
    /// As on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interp => "interp",
            Self::Translate => "translate",
            Self::Shadow => "shadow",
        }
    }

    /// So many times slower than the host's does guest time go.
    pub(super) const fn slowness(self) -> u32 {
        match self {
            Self::Interp | Self::Translate => 1,
            Self::Shadow => SHADOW_SLOWNESS,
        }
    }

    /// What makes the accelerators of a machine's processors.
    pub(super) fn accelerators(
        self,
        runner: &Arc<dyn CodeRunner>,
        cpus: u32,
        observer: Option<Arc<dyn CodeObserver>>,
    ) -> MakeAccelerator {
        let shared = match self {
            Self::Interp => None,
            Self::Translate | Self::Shadow => {
                let arena = runner.arena(ARENA_BYTES).ok();
                arena.and_then(|arena| Shared::observed(arena, cpus, observer))
            }
        };
        Arc::new(move |index| {
            let translated = Translated::new(Arc::clone(shared.as_ref()?), index);
            Some(Box::new(match self {
                Self::Interp | Self::Translate => translated,
                Self::Shadow => translated.shadowed(),
            }))
        })
    }
}

/// What the translator's self-test says.
///
/// # Errors
/// Why it can't run machines here.
pub fn translator_works(runner: &dyn CodeRunner) -> Result<String, String> {
    if let Some(lack) = kasane_translate::host_lacks(runner.features()) {
        return Err(format!("this host's CPU has no {lack}"));
    }
    let arena = runner.arena(1 << 20).map_err(|error| error.to_string())?;
    let shared = Shared::new(arena, 1).ok_or("its code can't be written")?;
    translator_self_test(runner.features(), &shared)
}
