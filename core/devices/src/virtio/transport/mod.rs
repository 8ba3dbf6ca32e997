//! Transports: how a driver finds a device.
