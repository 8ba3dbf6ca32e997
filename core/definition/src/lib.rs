//! The VM definition: one TOML file, the same in every home (DESIGN §2).
//!
//! The top of the file says what the guest sees; `[home.hosted]` and `[home.metal]` say what the
//! place that runs it lends to it. Unknown keys are errors, since a misspelt key that is silently
//! ignored is a machine that nobody asked for. [`VmDefinition::schema`] gives the JSON schema that
//! editors use.
//!
//! ```toml
//! name = "debian"
//! memory = "512M"
//! cpus = 2
//!
//! [boot]
//! kernel = "vmlinuz"          # relative to this file
//! initrd = "initrd.img"
//! append = "console=ttyS0"
//!
//! [home.hosted]
//! serial = "stdio"
//! ```
#![no_std]
extern crate alloc;

mod boot;
mod devices;
mod error;
mod hint;
mod home;
mod machine;
mod net;
mod size;

pub use boot::BootDefinition;
pub use devices::{
    DeviceName, DevicesDefinition, DiskDefinition, DiskSerial, GuestCid, InvalidDevice, MacAddress,
    NetDefinition, PciSlot, ShareDefinition, VirtioTransport,
};
pub use error::DefinitionError;
pub use home::{
    Display, Engine, HomeDefinition, HostedDisk, HostedHome, HostedNet, HostedShare, MetalEngine,
    MetalHome, MetalStart, ParseSerialError, Serial,
};
pub use machine::{Board, CpuCount, CpuModel, InvalidName, OutOfRange, VmDefinition, VmName};
pub use net::{Forward, LanName, NetChoice, ParseForwardError, ParseNetError, Transport};
pub use size::{DiskSize, MemorySize, ParseSizeError};
