//! The chips of the `pc` board: i440FX host bridge, PIIX3 ISA bridge, PIIX4 power management.

use alloc::sync::Arc;

use kasane_spec_pci::chipset::{INTEL, i440fx, piix3, piix4_pm};
use kasane_spec_pci::{class, header};
use lock_api::RawMutex;

use super::address::PciAddress;
use super::bus::{PciBus, PciError};
use super::handle::PciFunction;
use super::layout::{Bar, FunctionLayout, Identity, InterruptPin, Window, WindowEnable};
use crate::bus::Device;

/// A chip that is nothing but its configuration space.
struct Registers(&'static str);

impl PciFunction for Registers {
    fn name(&self) -> &'static str {
        self.0
    }
}

fn identity(device: u16, revision: u8, class: [u8; 3]) -> Identity {
    Identity { vendor: INTEL, device, revision, class, ..Identity::default() }
}

/// A chip's power-on status: medium DEVSEL#, with or without fast back-to-back.
fn status(layout: FunctionLayout, value: u16) -> FunctionLayout {
    layout.registers(header::STATUS, &value.to_le_bytes(), &[])
}

/// The host bridge at 00:00.0. Its PAM and SMRAM registers are stored; what they would map is RAM
/// in any case.
///
/// # Errors
/// When the address is taken.
pub fn attach_i440fx<R>(bus: &Arc<PciBus<R>>) -> Result<(), PciError>
where
    R: RawMutex + Send + Sync + 'static,
{
    let layout =
        FunctionLayout::new(identity(i440fx::DEVICE_ID, i440fx::REVISION, class::HOST_BRIDGE));
    // Memory and bus master are wired on; the host bridge needs no permission.
    let fixed = header::command::MEMORY | header::command::BUS_MASTER;
    let layout = status(layout, header::status::FAST_BACK_TO_BACK | header::status::DEVSEL_MEDIUM)
        .registers(header::COMMAND, &fixed.to_le_bytes(), &[])
        .registers(i440fx::PAM0, &[0; i440fx::PAMS], &[0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33])
        .registers(i440fx::SMRAM, &[i440fx::SMRAM_DEFAULT], &[0x78]);
    bus.attach(PciAddress::new(0, 0), layout, |_| Arc::new(Registers("i440fx")))?;
    Ok(())
}

/// The ISA bridge at 00:01.0, with the PIRQ route control registers.
///
/// # Errors
/// When the address is taken.
pub fn attach_piix3<R>(bus: &Arc<PciBus<R>>) -> Result<(), PciError>
where
    R: RawMutex + Send + Sync + 'static,
{
    let address = PciAddress::new(1, 0);
    let layout = FunctionLayout::new(identity(piix3::DEVICE_ID, 0, class::ISA_BRIDGE));
    let fixed = header::command::IO | header::command::MEMORY | header::command::BUS_MASTER;
    let off = [piix3::PIRQ_OFF; piix3::PIRQS];
    let routes = [piix3::PIRQ_OFF | piix3::PIRQ_IRQ; piix3::PIRQS];
    let layout = status(layout, header::status::DEVSEL_MEDIUM)
        .registers(header::HEADER_TYPE, &[header::MULTI_FUNCTION], &[])
        .registers(header::COMMAND, &fixed.to_le_bytes(), &[])
        // Recovery timer, X-bus chip selects, PIRQ routes, top of memory, miscellaneous.
        .registers(0x4C, &[0x4D], &[0x7F])
        .registers(0x4E, &[0x03, 0x00], &[0xFF, 0x01])
        .registers(piix3::PIRQ_ROUTE, &off, &routes)
        .registers(0x69, &[0x02], &[0xFE])
        .registers(0x6A, &[0x00, 0x00], &[0x50, 0x00])
        .registers(0x82, &[0x00], &[0x0F])
        .registers(0xA0, &[0x08, 0, 0, 0, 0, 0, 0, 0, 0x0F], &[0x1F, 0, 0xFF, 0xBF, 0xFF, 0xFF]);
    bus.attach(address, layout, |_| Arc::new(Registers("piix3")))?;
    bus.set_pirq_router(address);
    Ok(())
}

/// Power management at 00:01.3; `registers` answers at its base once the guest or its firmware
/// has switched that on.
///
/// # Errors
/// When the address is taken.
pub fn attach_piix4_pm<R>(bus: &Arc<PciBus<R>>, registers: Arc<dyn Device>) -> Result<(), PciError>
where
    R: RawMutex + Send + Sync + 'static,
{
    let identity = identity(piix4_pm::DEVICE_ID, piix4_pm::REVISION, class::OTHER_BRIDGE);
    let base = Window {
        register: piix4_pm::PM_BASE,
        bar: Bar::Io { len: piix4_pm::PM_LEN },
        enable: WindowEnable::Bits { at: piix4_pm::PM_MISC, mask: piix4_pm::PM_MISC_ENABLE },
        // Not a BAR's number.
        number: header::BARS,
        device: Some(registers),
    };
    let status_bits = header::status::FAST_BACK_TO_BACK | header::status::DEVSEL_MEDIUM;
    let layout = status(FunctionLayout::new(identity), status_bits)
        .interrupt_pin(InterruptPin::A)
        .registers(piix4_pm::PM_BASE, &[0x01, 0, 0, 0], &[0xC0, 0xFF, 0, 0])
        .registers(piix4_pm::PM_MISC, &[0x00], &[0x01])
        .registers(piix4_pm::SMBUS_BASE, &[0x01, 0, 0, 0], &[0xF0, 0xFF, 0, 0])
        .window(base);
    bus.attach(PciAddress::new(1, 3), layout, |_| Arc::new(Registers("piix4-pm")))?;
    Ok(())
}
