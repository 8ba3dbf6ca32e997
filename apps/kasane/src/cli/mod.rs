//! The command line: what can be said, with its help.

mod devices;
mod disk;
mod usage;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use kasane_definition::{
    CpuCount, CpuModel, Display, Engine, Forward, GuestCid, MemorySize, NetChoice, Serial,
    VirtioTransport, VmName,
};
use kasane_host_gdb::ListenAddress;

use crate::outcome::EXIT_STATUS_HELP;
pub(crate) use devices::{DiskArgument, ShareArgument};
pub(crate) use disk::{DiskArguments, DiskCommand};
pub(crate) use usage::usage_failure;

const EXAMPLES: &str = "\
Examples:
  kasane demo
      Two stock Debian kernels side by side, each in a virtual machine.
  kasane run --kernel vmlinuz --initrd initrd.img --append console=ttyS0
      Boot a kernel; its serial console is this terminal. Ctrl-] leaves.
  kasane run debian.toml --cpus 4
      Boot the machine that debian.toml defines, with four processors.
  kasane info
      What this host and the engines can do.";

const RUN_EXAMPLES: &str = "\
Examples:
  kasane run --kernel vmlinuz --initrd initrd.img --append console=ttyS0
      Boot a kernel; its serial console is this terminal. Ctrl-] leaves.
  kasane run debian.toml --memory 2G --cpus 4
      Boot the machine that debian.toml defines, with more of both.
  kasane run debian.toml --timeout 120 --no-reboot </dev/null >console.log
      Without a terminal: input comes from a pipe or file, and so goes the output.
  kasane run debian.toml --gdb 127.0.0.1:1234
      Wait for a debugger: gdb -ex 'target remote 127.0.0.1:1234' vmlinux";

const DEMO_HELP: &str = "\
In a terminal both boot to a shell. Tab switches between the machines, Ctrl-] leaves, Shift-PgUp
and Shift-PgDn (or Alt) show older lines, Shift-Tab types a Tab. Into a pipe: both machines run
`uname -a; cat /proc/cpuinfo; poweroff`, and what they said is printed. A machine that resets itself
counts as crashed.

Kernel and busybox are taken from the folder that the environment variable KASANE_GUESTS names
(cloud/vmlinuz and busybox/amd64/busybox), or else fetched with apt into the user's cache.";

/// Runs virtual machines on an ordinary host, without VT-x or AMD-V and without root.
#[derive(Debug, Parser)]
#[command(name = "kasane", version, max_term_width = 100)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_STATUS_HELP}"))]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a virtual machine
    #[command(after_help = format!("{RUN_EXAMPLES}\n\n{EXIT_STATUS_HELP}"))]
    Run(Box<RunArguments>),
    /// Run two stock Debian kernels side by side
    #[command(after_help = format!("{DEMO_HELP}\n\n{EXIT_STATUS_HELP}"))]
    Demo(DemoArguments),
    /// Make, describe, convert, resize and check disk images
    #[command(after_help = format!("{}\n\n{EXIT_STATUS_HELP}", disk::EXAMPLES))]
    Disk(DiskArguments),
    /// Say what this host and the engines can do
    Info(InfoArguments),
    /// Print the JSON schema of the definition file
    Schema,
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page
    Man,
}

/// Whether something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

/// A system call that the sandbox refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ProvokedCall {
    Open,
    Connect,
    Exec,
}

/// Flags say the same as the definition's keys, and override it.
#[derive(Debug, Default, Args)]
pub(crate) struct RunArguments {
    /// The machine's definition
    #[arg(value_name = "DEFINITION.toml")]
    pub(crate) definition: Option<PathBuf>,
    /// The machine's name
    #[arg(long)]
    pub(crate) name: Option<VmName>,
    /// Kernel to boot: a bzImage, or an ELF image with a PVH note or a Multiboot header
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,
    /// The kernel's command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) append: Option<String>,
    /// The guest's memory, 16M to 16G; without it or a definition 512M
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<MemorySize>,
    /// How many processors, 1 to 8; without it or a definition 1
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<CpuCount>,
    /// What each processor can do; without it or a definition max: all that this host allows
    #[arg(long, value_name = "MODEL", value_parser = values::cpu_model())]
    pub(crate) cpu: Option<CpuModel>,
    /// What makes guest instructions run; auto takes the best that works here; shadow is for
    /// developers: the translator, with the interpreter doing everything again to compare the two
    /// (very slow, one processor)
    #[arg(long, value_parser = values::engine())]
    pub(crate) engine: Option<Engine>,
    /// Where the screen goes
    #[arg(long, value_parser = values::display())]
    pub(crate) display: Option<Display>,
    /// Where the first serial port goes: stdio, none or file:PATH; without it or a definition stdio
    #[arg(long, value_name = "WHERE")]
    pub(crate) serial: Option<Serial>,
    /// A disk (virtio): an image file or block device, and words behind commas: format=raw or
    /// format=qcow2, ro (read-only), serial=S, direct (not cached by the host), bps=SIZE and
    /// iops=N (limits per second); several times for several disks
    #[arg(long, value_name = "FILE[,WORD...]")]
    pub(crate) disk: Vec<DiskArgument>,
    /// How the guest reaches its virtio devices: pci, as functions of the PCI bus, or mmio, as
    /// registers in memory, for guests without a driver for PCI; without it or a definition pci
    #[arg(long, value_parser = values::transport())]
    pub(crate) transport: Option<VirtioTransport>,
    /// The network that the machine is on: nat, lan:NAME, tap:INTERFACE or none; several times for
    /// several cards; without it or a definition nat
    #[arg(long, value_name = "WHERE")]
    pub(crate) net: Vec<NetChoice>,
    /// A port of this host that leads into the guest, by the NAT: tcp:2222:22 or
    /// udp:127.0.0.1:5353:53
    #[arg(long, value_name = "tcp|udp:[ADDRESS:]PORT:GUEST_PORT")]
    pub(crate) forward: Vec<Forward>,
    /// Write all frames of the first network to a file, for Wireshark
    #[arg(long, value_name = "FILE.pcap")]
    pub(crate) capture: Option<PathBuf>,
    /// A folder of this host, which the guest mounts by its tag: mount -t virtiofs TAG /mnt;
    /// with `,ro` it can't write to it; without a tag its tag is `share`
    #[arg(long, value_name = "DIR[:TAG][,ro]")]
    pub(crate) share: Vec<ShareArgument>,
    /// Whether the guest has a source of random numbers; without it or a definition it has
    #[arg(long, value_name = "on|off", num_args = 0..=1, default_missing_value = "on")]
    pub(crate) rng: Option<Switch>,
    /// Whether the guest can give back memory; without it or a definition it can
    #[arg(long, value_name = "on|off", num_args = 0..=1, default_missing_value = "on")]
    pub(crate) balloon: Option<Switch>,
    /// Sockets between guest and host, with this context id of the guest, from 3 on
    #[arg(long, value_name = "CID")]
    pub(crate) vsock: Option<GuestCid>,
    /// Where the virtio console (hvc0) goes: stdio, none or file:PATH; with stdio the first serial
    /// port goes nowhere, unless it is named
    #[arg(long, value_name = "WHERE")]
    pub(crate) console: Option<Serial>,
    /// Wait for a debugger (GDB's remote protocol) before the guest starts: at a TCP port of this
    /// host, or at a Unix socket if it has a `/` in it
    #[arg(long, value_name = "ADDRESS:PORT|PATH")]
    pub(crate) gdb: Option<ListenAddress>,
    /// Write every exit, device access, interrupt and deadline to a file, as lines of JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Describe translated code to perf in `jit-PID.dump`, in the current folder: perf record -k mono
    /// kasane run --jitdump ..., then perf inject --jit -i perf.data -o jit.data and perf report -i
    /// jit.data
    #[arg(long)]
    pub(crate) jitdump: bool,
    /// At the end, print exits by reason and device, and what became of the guest's critical
    /// instructions: in how many places the translator met them, in how many of these it does them
    /// in place, and how often they trapped to the interpreter
    #[arg(long)]
    pub(crate) stats: bool,
    /// End the run after this time, with exit status 4
    #[arg(long, value_name = "SECONDS", value_parser = values::seconds)]
    pub(crate) timeout: Option<Duration>,
    /// A reset by the guest ends the run, with exit status 0, and does not restart the machine
    #[arg(long)]
    pub(crate) no_reboot: bool,
    /// Run without the sandbox: no system-call filter for vCPU threads, no Landlock (for finding out
    /// whether it is in the way)
    #[arg(long)]
    pub(crate) no_sandbox: bool,
    /// Let vCPU 0 make a system call that the sandbox refuses (for tests of that)
    #[arg(long, hide = true, value_name = "CALL", conflicts_with = "no_sandbox")]
    pub(crate) provoke: Option<ProvokedCall>,
    /// Save the machine after so many exits and end (for tests; exits come as they come)
    #[arg(long, hide = true, value_name = "EXITS", requires = "save_to")]
    pub(crate) save_after: Option<u64>,
    /// Where to
    #[arg(long, hide = true, value_name = "FILE", requires = "save_after")]
    pub(crate) save_to: Option<PathBuf>,
    /// Go on with a machine that was saved, made with the same flags
    #[arg(long, hide = true, value_name = "FILE", conflicts_with = "gdb")]
    pub(crate) restore: Option<PathBuf>,
    /// The end of standard input ends the run: who started it has gone (for the demonstration)
    #[arg(long, hide = true)]
    pub(crate) end_with_input: bool,
    /// What kasane says about itself (on standard error) is lines of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Without files of one's own, a stock kernel and busybox are fetched.
#[derive(Debug, Default, Args)]
pub(crate) struct DemoArguments {
    /// A Linux kernel of one's own
    #[arg(long, value_name = "FILE", requires = "busybox")]
    pub(crate) kernel: Option<PathBuf>,
    /// A statically linked busybox of one's own
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub(crate) busybox: Option<PathBuf>,
    /// The memory of each machine
    #[arg(long, value_name = "SIZE", default_value = "512M")]
    pub(crate) memory: MemorySize,
    /// How many processors each machine has
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) cpus: CpuCount,
    /// End after this time, with exit status 4
    #[arg(long, value_name = "SECONDS", value_parser = values::seconds)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct InfoArguments {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// The command line's description, for completions and the man page.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_sound() {
        command().debug_assert();
    }
}
