//! The serial port and the log.

use core::fmt::{self, Write};

use kasane_metal_console::{Registers, Scrollback, Uart};
use kasane_metal_cpu::{self as cpu, IrqSpinLock, SerialPort, vector};
use kasane_ports::{Console, Kick};
use lock_api::Mutex;

use super::firmware::Firmware;
use super::runtime;

/// The ISA line of the first serial port.
const LINE: u8 = 4;
/// What is kept of the log.
const LOG_BYTES: usize = 64 << 10;

struct Port;

impl Registers for Port {
    fn read(&self, register: u8) -> u8 {
        SerialPort::FIRST.read(register)
    }
    fn write(&self, register: u8, value: u8) {
        SerialPort::FIRST.write(register, value);
    }
}

static SERIAL: Mutex<IrqSpinLock, Uart<Port>> = Mutex::new(Uart::new(Port));
static LOG: spin::Mutex<Scrollback> = spin::Mutex::new(Scrollback::new(LOG_BYTES));

/// Sets the port up, for polling.
pub(crate) fn set_up() {
    SERIAL.lock().set_up();
}

/// From now on the port interrupts the first processor.
pub(crate) fn enable_interrupts(firmware: &Firmware) {
    let (gsi, flags) = firmware.interrupts.isa(LINE);
    let Some((ioapic, pin)) = firmware.interrupts.pin(gsi) else {
        log!("no I/O APIC has the serial port's interrupt: nothing can be typed");
        return;
    };
    super::memory::map_device(ioapic.address, 4096);
    cpu::set_handler(vector::ISA + LINE, |_| {
        if SERIAL.lock().interrupted() {
            runtime::monitor_waker().kick();
        }
    });
    let polarity =
        if flags & 3 == 3 { cpu::Polarity::ActiveLow } else { cpu::Polarity::ActiveHigh };
    let trigger =
        if flags >> 2 & 3 == 3 { cpu::TriggerMode::Level } else { cpu::TriggerMode::Edge };
    let line = cpu::IsaLine { ioapic: ioapic.address, pin, polarity, trigger };
    // SAFETY: just mapped; only this function routes a line, once.
    unsafe { cpu::route(&line, vector::ISA + LINE, cpu::local_apic_id()) }
    SERIAL.lock().enable_interrupts();
}

/// Sends bytes. With no room in the queue it waits until the line has taken some.
pub(crate) fn send(bytes: &[u8]) {
    let mut rest = bytes;
    loop {
        let taken = SERIAL.lock().offer(rest);
        rest = rest.get(taken..).unwrap_or_default();
        if rest.is_empty() {
            return;
        }
        core::hint::spin_loop();
    }
}

/// The next byte that was typed.
pub(crate) fn typed() -> Option<u8> {
    SERIAL.lock().take()
}

/// All that was logged.
pub(crate) fn log_text() -> alloc::vec::Vec<u8> {
    LOG.lock().text()
}

/// Waits until all that was said is out.
pub(crate) fn flush() {
    SERIAL.lock().flush();
}

/// Lines with CR LF.
pub(crate) struct Lines;

impl Write for Lines {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (index, line) in text.split('\n').enumerate() {
            if index > 0 {
                send(b"\r\n");
            }
            send(line.as_bytes());
        }
        Ok(())
    }
}

/// The port, past whoever holds it: for a panic.
pub(crate) struct LastWords;

impl Write for LastWords {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut uart = Uart::new(Port);
        for byte in text.bytes() {
            if byte == b'\n' {
                uart.send(b"\r");
            }
            uart.send(&[byte]);
        }
        Ok(())
    }
}

/// The screen of a console that is joined.
pub(crate) struct Screen;

impl Console for Screen {
    fn output(&self, bytes: &[u8]) {
        send(bytes);
    }
}

/// Adds to the log and says it.
pub(crate) fn log_line(what: fmt::Arguments<'_>) {
    let _never_fails = writeln!(Lines, "kasane: {what}");
    // Before there is a heap nothing is kept.
    if super::memory::has_heap() {
        LOG.lock().push(alloc::format!("{what}\r\n").as_bytes());
    }
}

macro_rules! log {
    ($($what:tt)*) => { $crate::bare::serial::log_line(format_args!($($what)*)) };
}
pub(crate) use log;
