//! The chips of the `pc` board: 82441FX (datasheet 290549), 82371SB (PIIX3) and 82371AB (PIIX4)
//! (datasheets 290550 and 290562).

/// Intel.
pub const INTEL: u16 = 0x8086;

/// i440FX host bridge (82441FX), in slot 0.
pub mod i440fx {
    /// Device id.
    pub const DEVICE_ID: u16 = 0x1237;
    /// Revision.
    pub const REVISION: u8 = 0x02;
    /// First of the seven programmable attribute map registers.
    pub const PAM0: usize = 0x59;
    /// Number of those.
    pub const PAMS: usize = 7;
    /// PAM: both halves readable and writable RAM.
    pub const PAM_RAM: u8 = 0x33;
    /// System management RAM control.
    pub const SMRAM: usize = 0x72;
    /// Its power-on value: C_BASE_SEG = A0000.
    pub const SMRAM_DEFAULT: u8 = 0x02;
}

/// PIIX3 ISA bridge (82371SB function 0), in slot 1.
pub mod piix3 {
    /// Device id.
    pub const DEVICE_ID: u16 = 0x7000;
    /// First of the four PIRQ route control registers.
    pub const PIRQ_ROUTE: usize = 0x60;
    /// Number of those.
    pub const PIRQS: usize = 4;
    /// Route control: not routed. Power-on value.
    pub const PIRQ_OFF: u8 = 0x80;
    /// Route control: the ISA interrupt.
    pub const PIRQ_IRQ: u8 = 0x0F;
    /// ISA interrupts that a PIRQ may be routed to, by bit: 3-7, 9-12, 14, 15.
    pub const PIRQ_ALLOWED: u16 = 0xDEF8;
}

/// PIIX4 power management (82371AB function 3), in slot 1.
pub mod piix4_pm {
    /// Device id.
    pub const DEVICE_ID: u16 = 0x7113;
    /// Revision.
    pub const REVISION: u8 = 0x03;
    /// Power management base address; bit 0 reads as one.
    pub const PM_BASE: usize = 0x40;
    /// Ports from the base on.
    pub const PM_LEN: u64 = 64;
    /// Power management miscellaneous.
    pub const PM_MISC: usize = 0x80;
    /// `PM_MISC`: the ports at the base answer.
    pub const PM_MISC_ENABLE: u8 = 1;
    /// SMBus base address; the controller is not there, the register is.
    pub const SMBUS_BASE: usize = 0x90;
}
