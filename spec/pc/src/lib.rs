//! The PC's fixed addresses: I/O ports, interrupt numbers, memory-mapped chips, and the registers
//! of its chips that more than one part of the system has to name (a device and the firmware
//! tables that describe it, a driver and a test).
//!
//! Sources: IBM PC/AT Technical Reference; Intel 82371AB (PIIX4) datasheet 290562; ISA
//! assignments as in ACPI 6.5 §5.2.12 and MultiProcessor Specification 1.4.
#![no_std]

pub mod acpi_pm;
pub mod hpet;
pub mod irq;
pub mod memory;
pub mod port;
