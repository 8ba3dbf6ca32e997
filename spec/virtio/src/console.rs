//! The console device (virtio 1.2 §5.3).

/// Feature bits (§5.3.3), as masks.
pub mod feature {
    /// `cols` and `rows` are valid.
    pub const SIZE: u64 = 1 << 0;
    /// Several ports and control queues.
    pub const MULTIPORT: u64 = 1 << 1;
    /// `emerg_wr` can be written.
    pub const EMERG_WRITE: u64 = 1 << 2;
}

/// `virtio_console_config` (§5.3.4): offsets.
pub mod config {
    /// Columns, 16 bits.
    pub const COLS: usize = 0;
    /// Rows, 16 bits.
    pub const ROWS: usize = 2;
    /// Most ports, 32 bits.
    pub const MAX_NR_PORTS: usize = 4;
    /// A character that is put out at once, 32 bits.
    pub const EMERG_WR: usize = 8;
    /// Bytes.
    pub const LEN: usize = 12;
}

/// Queues (§5.3.2). Port N from 1 on has queues 2N + 2 and 2N + 3.
pub mod queue {
    /// Input of port 0.
    pub const RECEIVE: u16 = 0;
    /// Output of port 0.
    pub const TRANSMIT: u16 = 1;
    /// Control messages to the driver.
    pub const CONTROL_RECEIVE: u16 = 2;
    /// Control messages of the driver.
    pub const CONTROL_TRANSMIT: u16 = 3;
}

/// Control messages (§5.3.6.2): id (32 bits), event (16 bits), value (16 bits), data.
pub mod control {
    /// Bytes of a message without data.
    pub const LEN: usize = 8;
    /// Driver: it is ready (value 1) or not.
    pub const DEVICE_READY: u16 = 0;
    /// Device: there is a port.
    pub const DEVICE_ADD: u16 = 1;
    /// Device: a port is gone.
    pub const DEVICE_REMOVE: u16 = 2;
    /// Driver: the port can be used (value 1) or not.
    pub const PORT_READY: u16 = 3;
    /// Device: the port is a console.
    pub const CONSOLE_PORT: u16 = 4;
    /// Device: columns and rows (16 bits each).
    pub const RESIZE: u16 = 5;
    /// Either side: the port was opened (value 1) or closed (0).
    pub const PORT_OPEN: u16 = 6;
    /// Device: the port's name, in UTF-8 without a zero.
    pub const PORT_NAME: u16 = 7;
}
