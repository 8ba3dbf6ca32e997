//! The monitor's commands.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;

/// What the monitor can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// An empty line.
    Nothing,
    /// The list of commands.
    Help,
    /// The machines.
    List,
    /// Starts a machine, by name or number.
    Start(String),
    /// Ends a machine.
    Stop(String),
    /// Joins a machine's serial port.
    Console(String),
    /// What the hypervisor said.
    Log,
    /// Physical memory.
    Memory,
    /// Processors and tasks.
    Cpus,
    /// PCI functions.
    Pci,
    /// Switches the whole machine off.
    PowerOff,
    /// Resets the whole machine.
    Reboot,
}

/// Commands with what they do, for `help`.
pub const COMMANDS: [(&str, &str); 11] = [
    ("list", "the machines, with their numbers"),
    ("start MACHINE", "start a machine, by name or number"),
    ("stop MACHINE", "end a machine"),
    ("console MACHINE", "join a machine's serial port; Ctrl-] leaves it"),
    ("log", "what the hypervisor said so far"),
    ("memory", "physical memory"),
    ("cpus", "processors, and what they do"),
    ("pci", "PCI functions"),
    ("poweroff", "switch the whole machine off"),
    ("reboot", "reset the whole machine"),
    ("help", "this list"),
];

/// A line that is no command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The first word is none.
    Unknown(String),
    /// It wants a machine.
    NoMachine(&'static str),
    /// It takes fewer words.
    TooMany(&'static str),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => write!(f, "`{word}` is no command: try `help`"),
            Self::NoMachine(word) => write!(f, "`{word}` wants a machine's name or number"),
            Self::TooMany(word) => write!(f, "too many words for `{word}`"),
        }
    }
}

impl core::error::Error for CommandError {}

/// Reads a line.
///
/// # Errors
/// When it is no command.
pub fn parse(line: &str) -> Result<Command, CommandError> {
    let mut words = line.split_ascii_whitespace();
    let Some(word) = words.next() else { return Ok(Command::Nothing) };
    let argument = words.next().map(ToOwned::to_owned);
    let excess = words.next().is_some();
    let alone = |name: &'static str, command: Command| match argument {
        None => Ok(command),
        Some(_) => Err(CommandError::TooMany(name)),
    };
    let with = |name: &'static str, make: fn(String) -> Command| match (&argument, excess) {
        (Some(machine), false) => Ok(make(machine.clone())),
        (None, _) => Err(CommandError::NoMachine(name)),
        (Some(_), true) => Err(CommandError::TooMany(name)),
    };
    match word {
        "help" | "?" => alone("help", Command::Help),
        "list" => alone("list", Command::List),
        "start" => with("start", Command::Start),
        "stop" => with("stop", Command::Stop),
        "console" => with("console", Command::Console),
        "log" => alone("log", Command::Log),
        "memory" => alone("memory", Command::Memory),
        "cpus" => alone("cpus", Command::Cpus),
        "pci" => alone("pci", Command::Pci),
        "poweroff" => alone("poweroff", Command::PowerOff),
        "reboot" => alone("reboot", Command::Reboot),
        _ => Err(CommandError::Unknown(word.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_with_their_machine() {
        assert_eq!(parse("  list "), Ok(Command::List));
        assert_eq!(parse("console 1"), Ok(Command::Console("1".into())));
        assert_eq!(parse(""), Ok(Command::Nothing));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said = |line| parse(line).unwrap_err().to_string();
        use alloc::string::ToString;

        assert_eq!(said("frob"), "`frob` is no command: try `help`");
        assert_eq!(said("start"), "`start` wants a machine's name or number");
        assert_eq!(said("start a b"), "too many words for `start`");
        assert_eq!(said("log x"), "too many words for `log`");
    }

    #[test]
    fn every_command_of_the_help_is_one() {
        for (usage, _) in COMMANDS {
            let line = usage.replace("MACHINE", "1");
            assert!(parse(&line).is_ok(), "{line}");
        }
    }
}
