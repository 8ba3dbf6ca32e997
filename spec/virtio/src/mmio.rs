//! The MMIO transport's registers (virtio 1.2 §4.2.2): offsets, all 32 bits wide.

/// Reads "virt".
pub const MAGIC: u32 = 0x000;
/// "virt".
pub const MAGIC_VALUE: u32 = 0x7472_6976;
/// Reads 2.
pub const VERSION: u32 = 0x004;
/// Version of a device that is not legacy.
pub const VERSION_VALUE: u32 = 2;
/// Device type; 0 if there is none.
pub const DEVICE_ID: u32 = 0x008;
/// Vendor.
pub const VENDOR_ID: u32 = 0x00C;
/// Offered features, of the selected half.
pub const DEVICE_FEATURES: u32 = 0x010;
/// Selects that half.
pub const DEVICE_FEATURES_SEL: u32 = 0x014;
/// Accepted features, of the selected half.
pub const DRIVER_FEATURES: u32 = 0x020;
/// Selects that half.
pub const DRIVER_FEATURES_SEL: u32 = 0x024;
/// Selects a queue.
pub const QUEUE_SEL: u32 = 0x030;
/// Its most entries.
pub const QUEUE_NUM_MAX: u32 = 0x034;
/// Its entries.
pub const QUEUE_NUM: u32 = 0x038;
/// Whether it is on.
pub const QUEUE_READY: u32 = 0x044;
/// Notifies a queue.
pub const QUEUE_NOTIFY: u32 = 0x050;
/// Why the device interrupts.
pub const INTERRUPT_STATUS: u32 = 0x060;
/// Clears reasons.
pub const INTERRUPT_ACK: u32 = 0x064;
/// Device status.
pub const STATUS: u32 = 0x070;
/// Descriptor area, low half; the high half follows.
pub const QUEUE_DESC_LOW: u32 = 0x080;
/// Its high half.
pub const QUEUE_DESC_HIGH: u32 = 0x084;
/// Driver area, low half.
pub const QUEUE_DRIVER_LOW: u32 = 0x090;
/// Its high half.
pub const QUEUE_DRIVER_HIGH: u32 = 0x094;
/// Device area, low half.
pub const QUEUE_DEVICE_LOW: u32 = 0x0A0;
/// Its high half.
pub const QUEUE_DEVICE_HIGH: u32 = 0x0A4;
/// Selects a shared memory region.
pub const SHM_SEL: u32 = 0x0AC;
/// Its length and base, four registers; all-ones where there is none.
pub const SHM_LEN_LOW: u32 = 0x0B0;
/// The last of those.
pub const SHM_BASE_HIGH: u32 = 0x0BC;
/// Configuration generation.
pub const CONFIG_GENERATION: u32 = 0x0FC;
/// The device's configuration; any width.
pub const CONFIG: u32 = 0x100;
/// Bytes that a device takes here.
pub const LEN: u64 = 0x200;
