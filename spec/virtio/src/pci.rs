//! The PCI transport (virtio 1.2 §4.1).

/// Vendor of all virtio functions.
pub const VENDOR_ID: u16 = 0x1AF4;
/// Device id of a modern function, plus its type.
pub const DEVICE_ID_MODERN: u16 = 0x1040;
/// Revision of a modern function.
pub const REVISION_MODERN: u8 = 1;
/// Revision of a transitional function.
pub const REVISION_TRANSITIONAL: u8 = 0;
/// In MSI-X vector registers: none.
pub const NO_VECTOR: u16 = 0xFFFF;

/// Device ids of transitional functions (§4.1.2.1).
pub mod transitional {
    /// Network card.
    pub const NET: u16 = 0x1000;
    /// Block device.
    pub const BLOCK: u16 = 0x1001;
    /// Memory balloon.
    pub const BALLOON: u16 = 0x1002;
    /// Console.
    pub const CONSOLE: u16 = 0x1003;
    /// Entropy source.
    pub const ENTROPY: u16 = 0x1005;
    /// 9P transport.
    pub const P9: u16 = 0x1009;
}

/// The vendor-specific capability `virtio_pci_cap` (§4.1.4): offsets from the capability's start.
pub mod capability {
    /// Bytes of the plain form.
    pub const LEN: u8 = 16;
    /// Bytes with the notification multiplier.
    pub const NOTIFY_LEN: u8 = 20;
    /// Bytes with the data window.
    pub const PCI_LEN: u8 = 20;
    /// Length of the capability, 8 bits.
    pub const CAP_LEN: usize = 2;
    /// Type, 8 bits.
    pub const TYPE: usize = 3;
    /// BAR, 8 bits.
    pub const BAR: usize = 4;
    /// Offset in the BAR, 32 bits.
    pub const OFFSET: usize = 8;
    /// Length in the BAR, 32 bits.
    pub const LENGTH: usize = 12;
    /// Behind a notification capability: `notify_off_multiplier`, 32 bits.
    pub const NOTIFY_MULTIPLIER: usize = 16;
    /// Behind a configuration access capability: the data window, 32 bits.
    pub const PCI_DATA: usize = 16;

    /// Common configuration.
    pub const COMMON: u8 = 1;
    /// Notifications.
    pub const NOTIFY: u8 = 2;
    /// Interrupt status.
    pub const ISR: u8 = 3;
    /// Device-specific configuration.
    pub const DEVICE: u8 = 4;
    /// Access by the configuration space.
    pub const PCI: u8 = 5;
}

/// `virtio_pci_common_cfg` (§4.1.4.3): offsets.
pub mod common {
    /// Which half of the offered features is shown, 32 bits.
    pub const DEVICE_FEATURE_SELECT: u32 = 0x00;
    /// Offered features, 32 bits.
    pub const DEVICE_FEATURE: u32 = 0x04;
    /// Which half of the accepted features is shown, 32 bits.
    pub const DRIVER_FEATURE_SELECT: u32 = 0x08;
    /// Accepted features, 32 bits.
    pub const DRIVER_FEATURE: u32 = 0x0C;
    /// Vector of configuration changes, 16 bits.
    pub const CONFIG_VECTOR: u32 = 0x10;
    /// Number of queues, 16 bits.
    pub const NUM_QUEUES: u32 = 0x12;
    /// Device status, 8 bits.
    pub const STATUS: u32 = 0x14;
    /// Configuration generation, 8 bits.
    pub const CONFIG_GENERATION: u32 = 0x15;
    /// The queue that the registers below are of, 16 bits.
    pub const QUEUE_SELECT: u32 = 0x16;
    /// Entries, 16 bits.
    pub const QUEUE_SIZE: u32 = 0x18;
    /// Vector, 16 bits.
    pub const QUEUE_VECTOR: u32 = 0x1A;
    /// On, 16 bits.
    pub const QUEUE_ENABLE: u32 = 0x1C;
    /// Where notifications go, in units of the multiplier, 16 bits.
    pub const QUEUE_NOTIFY_OFF: u32 = 0x1E;
    /// Descriptor area, 64 bits.
    pub const QUEUE_DESC: u32 = 0x20;
    /// Driver area, 64 bits.
    pub const QUEUE_DRIVER: u32 = 0x28;
    /// Device area, 64 bits.
    pub const QUEUE_DEVICE: u32 = 0x30;
    /// What a notification carries, 16 bits.
    pub const QUEUE_NOTIFY_DATA: u32 = 0x38;
    /// Reset of one queue, 16 bits.
    pub const QUEUE_RESET: u32 = 0x3A;
    /// Bytes.
    pub const LEN: u32 = 0x3C;
}

/// Interrupt status (§4.1.4.5).
pub mod isr {
    /// A queue wants to be looked at.
    pub const QUEUE: u8 = 1;
    /// The configuration has changed.
    pub const CONFIG: u8 = 2;
}

/// The legacy interface in an I/O BAR (§4.1.4.8): offsets.
pub mod legacy {
    /// Offered features 0 to 31, 32 bits.
    pub const DEVICE_FEATURES: u32 = 0x00;
    /// Accepted features 0 to 31, 32 bits.
    pub const DRIVER_FEATURES: u32 = 0x04;
    /// The selected queue's page, 32 bits.
    pub const QUEUE_ADDRESS: u32 = 0x08;
    /// Its entries, 16 bits.
    pub const QUEUE_SIZE: u32 = 0x0C;
    /// The selected queue, 16 bits.
    pub const QUEUE_SELECT: u32 = 0x0E;
    /// Notification, 16 bits.
    pub const QUEUE_NOTIFY: u32 = 0x10;
    /// Device status, 8 bits.
    pub const STATUS: u32 = 0x12;
    /// Interrupt status, 8 bits.
    pub const ISR: u32 = 0x13;
    /// With MSI-X on: vector of configuration changes, 16 bits.
    pub const CONFIG_VECTOR: u32 = 0x14;
    /// With MSI-X on: the selected queue's vector, 16 bits.
    pub const QUEUE_VECTOR: u32 = 0x16;
    /// Where the device's configuration begins without MSI-X.
    pub const CONFIG: u32 = 0x14;
    /// Where it begins with MSI-X on.
    pub const CONFIG_WITH_MSIX: u32 = 0x18;
    /// The page number of a queue is its address shifted so far.
    pub const PAGE_SHIFT: u32 = 12;
}
