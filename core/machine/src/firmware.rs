//! What firmware does to the chips before it starts an operating system. A kernel that is booted
//! directly finds them as if that had happened; the machine's own power-on state is this one.

use kasane_cpu::AccessSize;
use kasane_devices::ioapic::spec as ioapic;
use kasane_devices::pci::PciAddress;
use kasane_spec_pc::{memory, port};
use kasane_spec_pci::chipset::{i440fx, piix3, piix4_pm};
use kasane_spec_pci::header;
use lock_api::RawMutex;

use crate::config::MachineConfig;
use crate::layout;
use crate::wiring::Board;

/// Interrupts 9 to 11 are level-triggered: bits of the second edge/level control register.
const LEVEL_9_TO_11: u8 = 0b0000_1110;

/// Sets the chips up.
pub(crate) fn run<R: RawMutex + Send + Sync + 'static>(config: &MachineConfig, board: &Board<R>) {
    let pci = |function: PciAddress, at: usize, value: u8| {
        board.pci.config_write(function, at as u16, AccessSize::Byte, value.into());
    };
    let host_bridge = PciAddress::new(0, 0);
    for pam in 0..i440fx::PAMS {
        pci(host_bridge, i440fx::PAM0.wrapping_add(pam), i440fx::PAM_RAM);
    }
    let isa_bridge = PciAddress::new(1, 0);
    for pirq in 0..piix3::PIRQS as u8 {
        // Slot 1's pin A would be PIRQ A, were it not wired to the SCI.
        let irq = config.pci_irq(pirq.wrapping_add(5), 0);
        pci(isa_bridge, piix3::PIRQ_ROUTE.wrapping_add(pirq.into()), irq);
    }
    let power_management = PciAddress::new(1, 3);
    let [low, high] = layout::PM_BASE.to_le_bytes();
    pci(power_management, piix4_pm::PM_BASE, low);
    pci(power_management, piix4_pm::PM_BASE + 1, high);
    pci(power_management, piix4_pm::PM_MISC, piix4_pm::PM_MISC_ENABLE);
    pci(power_management, header::INTERRUPT_LINE, layout::SCI_IRQ);
    for (slot, _) in &board.slots {
        pci(PciAddress::new(*slot, 0), header::INTERRUPT_LINE, config.pci_irq(*slot, 0));
    }
    set_up_pics(board);
    // The MADT's and the MP table's id (82093AA §3.2.1: bits 24 to 27).
    let id = u64::from(config.ioapic_id() & 0xF) << 24;
    for (register, value) in [(ioapic::INDEX, ioapic::ID.into()), (ioapic::WINDOW, id)] {
        let at = memory::IOAPIC + u64::from(register);
        board.memory.write(at, AccessSize::Dword, value, 0);
    }
    // The A20 gate is open.
    board.ports.write(port::SYSTEM_CONTROL_A.into(), AccessSize::Byte, 2, 0);
}

/// Vectors 0x08 and 0x70 as under DOS, cascade on input 2, everything masked but the cascade.
fn set_up_pics<R: RawMutex + Send + Sync + 'static>(board: &Board<R>) {
    let writes = [
        (port::PIC_1, 0x11),
        (port::PIC_2, 0x11),
        (port::PIC_1 + 1, 0x08),
        (port::PIC_2 + 1, 0x70),
        (port::PIC_1 + 1, 0x04),
        (port::PIC_2 + 1, 0x02),
        (port::PIC_1 + 1, 0x01),
        (port::PIC_2 + 1, 0x01),
        (port::PIC_1 + 1, 0xFB),
        (port::PIC_2 + 1, 0xFF),
        (port::ELCR + 1, LEVEL_9_TO_11),
    ];
    for (at, value) in writes {
        board.ports.write(at.into(), AccessSize::Byte, u64::from(value), 0);
    }
}
