//! Bits of the device status (virtio 1.2 §2.1).

/// The guest has found the device.
pub const ACKNOWLEDGE: u8 = 1;
/// The guest knows how to drive it.
pub const DRIVER: u8 = 2;
/// The driver is ready.
pub const DRIVER_OK: u8 = 4;
/// The features are agreed on.
pub const FEATURES_OK: u8 = 8;
/// The device can't go on until it is reset.
pub const NEEDS_RESET: u8 = 64;
/// The guest has given up on it.
pub const FAILED: u8 = 128;
