//! What a run is made of: the definition, overridden by the command line.

mod devices;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use kasane_definition::{CpuModel, Engine, MemorySize, Serial, VmDefinition};
use kasane_host_gdb::ListenAddress;
use kasane_host_sandbox::Provocation;

use crate::cli::{ProvokedCall, RunArguments};
use crate::outcome::Failure;
use crate::vm::Devices;
use devices::Sources;

/// Everything that a run needs to know, paths made usable from here.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) memory: MemorySize,
    pub(crate) cpus: u32,
    pub(crate) cpu: CpuModel,
    pub(crate) engine: Engine,
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: Option<PathBuf>,
    pub(crate) append: String,
    pub(crate) serial: SerialTarget,
    /// Where the virtio console goes.
    pub(crate) console: SerialTarget,
    pub(crate) devices: Devices,
    pub(crate) gdb: Option<ListenAddress>,
    pub(crate) trace: Option<PathBuf>,
    pub(crate) jit_dump: JitDumping,
    pub(crate) stats: Statistics,
    pub(crate) timeout: Option<Duration>,
    pub(crate) on_reset: OnReset,
    pub(crate) on_input_end: OnInputEnd,
    pub(crate) save: Option<SaveAfter>,
    pub(crate) restore: Option<PathBuf>,
    pub(crate) sandbox: Sandbox,
    pub(crate) provoke: Option<Provocation>,
}

/// When the machine is saved, and where to.
#[derive(Debug)]
pub(crate) struct SaveAfter {
    pub(crate) exits: u64,
    pub(crate) path: PathBuf,
}

/// Where the first serial port goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SerialTarget {
    Stdio,
    None,
    File(PathBuf),
}

/// Whether translated code is described to `perf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JitDumping {
    /// In the current folder.
    Here,
    Off,
}

/// Whether the program confines itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sandbox {
    On,
    Off,
}

/// Whether statistics are printed at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statistics {
    Print,
    Off,
}

/// What a reset by the guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnReset {
    Restart,
    End,
}

/// What the end of standard input does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnInputEnd {
    /// The guest runs on.
    Nothing,
    End,
}

impl Settings {
    /// Reads the definition, if one is named, and lets the flags override it.
    pub(crate) fn new(arguments: RunArguments) -> Result<Self, Failure> {
        let (definition, folder) = match &arguments.definition {
            Some(file) => (read_definition(file)?, file.parent().map(Path::to_owned)),
            None => (VmDefinition::default(), None),
        };
        let folder = folder.unwrap_or_default();
        let name = arguments.name.clone().unwrap_or_else(|| definition.name.clone()).to_string();
        let devices = Sources {
            machine: &name,
            arguments: &arguments,
            definition: &definition.devices,
            hosted: &definition.home.hosted,
            folder: &folder,
        }
        .devices()?;
        let hosted = definition.home.hosted;
        let from_file = |path: String| folder.join(path);
        let target = |flag: Option<Serial>, defined: Serial| match (flag, defined) {
            (Some(Serial::File(path)), _) => SerialTarget::File(path.into()),
            (None, Serial::File(path)) => SerialTarget::File(folder.join(path)),
            (Some(Serial::Stdio), _) | (None, Serial::Stdio) => SerialTarget::Stdio,
            (Some(Serial::None), _) | (None, Serial::None) => SerialTarget::None,
        };
        let console = target(arguments.console, hosted.console);
        let serial = match (&console, arguments.serial, hosted.serial) {
            (SerialTarget::Stdio, Some(Serial::Stdio), _) => return Err(one_terminal()),
            (SerialTarget::Stdio, None, Serial::Stdio) => SerialTarget::None,
            (_, flag, defined) => target(flag, defined),
        };
        let kernel = arguments.kernel.or_else(|| definition.boot.kernel.map(from_file));
        let kernel = kernel.ok_or_else(|| nothing_to_boot(arguments.definition.as_deref()))?;
        Ok(Self {
            name,
            memory: arguments.memory.unwrap_or(definition.memory),
            cpus: arguments.cpus.unwrap_or(definition.cpus).get(),
            cpu: arguments.cpu.unwrap_or(definition.cpu),
            engine: arguments.engine.unwrap_or(hosted.engine),
            kernel,
            initrd: arguments.initrd.or_else(|| definition.boot.initrd.map(from_file)),
            append: arguments.append.unwrap_or(definition.boot.append),
            serial,
            console,
            devices,
            gdb: arguments.gdb,
            trace: arguments.trace,
            jit_dump: if arguments.jitdump { JitDumping::Here } else { JitDumping::Off },
            stats: if arguments.stats { Statistics::Print } else { Statistics::Off },
            timeout: arguments.timeout,
            save: arguments
                .save_after
                .zip(arguments.save_to)
                .map(|(exits, path)| SaveAfter { exits, path }),
            restore: arguments.restore,
            sandbox: if arguments.no_sandbox { Sandbox::Off } else { Sandbox::On },
            provoke: arguments.provoke.map(|call| match call {
                ProvokedCall::Open => Provocation::Open,
                ProvokedCall::Connect => Provocation::Connect,
                ProvokedCall::Exec => Provocation::Exec,
            }),
            on_input_end: if arguments.end_with_input {
                OnInputEnd::End
            } else {
                OnInputEnd::Nothing
            },
            on_reset: if arguments.no_reboot { OnReset::End } else { OnReset::Restart },
        })
    }
}

fn one_terminal() -> Failure {
    Failure::usage(
        anyhow::anyhow!("the serial port and the virtio console can't both be this terminal"),
        "send one of them elsewhere: `--serial file:PATH`, or `--console none`",
    )
}

fn nothing_to_boot(definition: Option<&Path>) -> Failure {
    match definition {
        Some(file) => Failure::usage(
            anyhow::anyhow!("the machine in `{}` has nothing to boot", file.display()),
            "name a kernel with `--kernel FILE`, or with `kernel` in the definition's `[boot]`",
        ),
        None => Failure::usage(
            anyhow::anyhow!("there is nothing to boot"),
            "name a kernel with `--kernel FILE`, or a definition: `kasane run DEFINITION.toml`",
        ),
    }
}

fn read_definition(file: &Path) -> Result<VmDefinition, Failure> {
    let context = || format!("can't read the definition `{}`", file.display());
    let text = fs::read_to_string(file)
        .with_context(context)
        .map_err(|error| Failure::usage(error, "`kasane run --help` shows how to name one"))?;
    VmDefinition::parse(&text).map_err(|error| {
        let help = error.help.clone();
        let help = help.unwrap_or_else(|| "`kasane schema` prints what may stand there".to_owned());
        Failure::usage(anyhow::Error::new(error).context(context()), help)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("kasane-settings-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn paths_of_the_definition_are_relative_to_it_and_those_of_flags_are_not() {
        let folder = folder("paths");
        let file = folder.join("vm.toml");
        let text = "[boot]\nkernel = \"k\"\ninitrd = \"i\"\n[home.hosted]\nserial = \"file:s\"\n";
        fs::write(&file, text).unwrap();
        let arguments = RunArguments {
            definition: Some(file),
            initrd: Some("here".into()),
            ..RunArguments::default()
        };

        let settings = Settings::new(arguments).unwrap();

        assert_eq!(settings.kernel, folder.join("k"));
        assert_eq!(settings.initrd, Some("here".into()));
        assert_eq!(settings.serial, SerialTarget::File(folder.join("s")));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn flags_override_the_definition() {
        let folder = folder("override");
        let file = folder.join("vm.toml");
        fs::write(&file, "name = \"a\"\nmemory = \"1G\"\ncpus = 2\n[boot]\nkernel = \"k\"\n")
            .unwrap();
        let arguments = RunArguments {
            definition: Some(file),
            memory: Some("2G".parse().unwrap()),
            append: Some("quiet".into()),
            ..RunArguments::default()
        };

        let settings = Settings::new(arguments).unwrap();

        assert_eq!(settings.name, "a");
        assert_eq!(settings.memory.bytes(), 2 << 30);
        assert_eq!(settings.cpus, 2);
        assert_eq!(settings.append, "quiet");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn without_a_kernel_there_is_nothing_to_boot() {
        let failure = Settings::new(RunArguments::default()).unwrap_err();

        assert_eq!(
            failure.to_string(),
            "error: there is nothing to boot\n\
             help: name a kernel with `--kernel FILE`, or a definition: `kasane run DEFINITION.toml`"
        );
    }
}
