//! What the conformance tests share: finding the program and the guests, running a guest by the
//! program's own command line, and looking at its console.

mod bochs;
mod debian;
mod dialogue;
mod hypervisor;
mod kill;
mod own;
mod program;
pub mod record;
mod saves;

pub use debian::DebianDisk;
pub use dialogue::{Answer, Dialogue};
pub use hypervisor::{Hypervisor, PcMachine};
pub use kill::{Format, Kills, Outcome};
pub use own::OwnGuest;
pub use program::{Guests, Kasane, Run, own_guests, run_parameter};
pub use saves::Saves;
