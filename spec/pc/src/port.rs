//! I/O ports.

/// First 8237A: channels 0 to 3.
pub const DMA_1: u16 = 0x00;
/// First 8259A: command, data.
pub const PIC_1: u16 = 0x20;
/// 8254: three counters and the control word.
pub const PIT: u16 = 0x40;
/// i8042 data.
pub const I8042_DATA: u16 = 0x60;
/// System control port B: counter 2's gate, speaker, OUT2, refresh toggle.
pub const SYSTEM_CONTROL_B: u16 = 0x61;
/// i8042 status and command.
pub const I8042_COMMAND: u16 = 0x64;
/// CMOS address (bit 7: NMI mask) and data.
pub const CMOS: u16 = 0x70;
/// DMA page registers; 0x80 is where firmware shows its POST codes.
pub const DMA_PAGE: u16 = 0x80;
/// System control port A: fast A20 and reset.
pub const SYSTEM_CONTROL_A: u16 = 0x92;
/// Second 8259A: command, data.
pub const PIC_2: u16 = 0xA0;
/// PIIX4 advanced power management control: writing raises an SMI.
pub const APM_CONTROL: u16 = 0xB2;
/// PIIX4 advanced power management status: a scratch byte for the SMI handler.
pub const APM_STATUS: u16 = 0xB3;
/// Second 8237A: channels 4 to 7, registers two bytes apart.
pub const DMA_2: u16 = 0xC0;
/// Coprocessor error: writing takes IRQ 13 back and asserts IGNNE#; 0xF1 is the next.
pub const NUMERIC_ERROR: u16 = 0xF0;
/// Console of Bochs and others; reads as 0xE9 where it is there.
pub const DEBUG_E9: u16 = 0xE9;
/// Fourth serial port.
pub const SERIAL_4: u16 = 0x2E8;
/// Second serial port.
pub const SERIAL_2: u16 = 0x2F8;
/// Third serial port.
pub const SERIAL_3: u16 = 0x3E8;
/// First serial port.
pub const SERIAL_1: u16 = 0x3F8;
/// Console of firmware (SeaBIOS and OVMF write there); reads as 0xE9 where it is there.
pub const DEBUG_FIRMWARE: u16 = 0x402;
/// Edge/level control registers of the two 8259A (PIIX4 §4.2.5).
pub const ELCR: u16 = 0x4D0;
/// PCI configuration address.
pub const PCI_CONFIG_ADDRESS: u16 = 0xCF8;
/// Reset control (PIIX4 §4.2.8); shares its address with byte 1 of `PCI_CONFIG_ADDRESS`.
pub const RESET_CONTROL: u16 = 0xCF9;
/// PCI configuration data.
pub const PCI_CONFIG_DATA: u16 = 0xCFC;
