//! A 16550 as the hypervisor's own port (National PC16550D datasheet): both directions by
//! interrupts, with queues in memory.

use alloc::collections::VecDeque;

const DATA: u8 = 0;
const INTERRUPT_ENABLE: u8 = 1;
const FIFO_CONTROL: u8 = 2;
const LINE_CONTROL: u8 = 3;
const MODEM_CONTROL: u8 = 4;
const LINE_STATUS: u8 = 5;

const RECEIVED: u8 = 1;
const ROOM: u8 = 1 << 5;
const INTERRUPT_RECEIVED: u8 = 1;
const INTERRUPT_ROOM: u8 = 2;
/// Bytes that the transmitter's FIFO takes.
const FIFO: usize = 16;
/// Bytes that may wait for the line.
const QUEUE_MAX: usize = 64 << 10;
/// Bytes that may have been typed ahead.
const TYPED_MAX: usize = 4096;

/// The eight registers.
pub trait Registers {
    /// Reads register 0 to 7.
    fn read(&self, register: u8) -> u8;
    /// Writes register 0 to 7.
    fn write(&self, register: u8, value: u8);
}

/// The port.
#[derive(Debug)]
pub struct Uart<T> {
    registers: T,
    to_send: VecDeque<u8>,
    typed: VecDeque<u8>,
    enabled: u8,
}

impl<T: Registers> Uart<T> {
    /// The port, not yet set up.
    #[must_use]
    pub const fn new(registers: T) -> Self {
        Self { registers, to_send: VecDeque::new(), typed: VecDeque::new(), enabled: 0 }
    }

    /// 115200 baud, 8 data bits, FIFOs on, no interrupts yet: what is written goes out at once.
    pub fn set_up(&self) {
        let writes = [
            (INTERRUPT_ENABLE, 0),
            (LINE_CONTROL, 0x83),
            (DATA, 1),
            (INTERRUPT_ENABLE, 0),
            (LINE_CONTROL, 3),
            (FIFO_CONTROL, 7),
            (MODEM_CONTROL, 0x0B),
        ];
        writes.into_iter().for_each(|(register, value)| self.registers.write(register, value));
        // What came before is gone with the FIFO; QEMU sends more only after a read.
        self.registers.read(DATA);
    }

    /// From now on the port interrupts.
    pub fn enable_interrupts(&mut self) {
        self.enabled = INTERRUPT_RECEIVED;
        self.registers.write(INTERRUPT_ENABLE, self.enabled);
    }

    /// Takes as many bytes to send as there is room for; gives how many.
    pub fn offer(&mut self, bytes: &[u8]) -> usize {
        let room = QUEUE_MAX.saturating_sub(self.to_send.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.send(taken);
        taken.len()
    }

    /// Takes bytes to send. Those that find no room wait until there is some, polling.
    pub fn send(&mut self, bytes: &[u8]) {
        for byte in bytes {
            while self.to_send.len() >= QUEUE_MAX {
                self.fill();
            }
            self.to_send.push_back(*byte);
        }
        self.fill();
        if self.enabled == 0 {
            self.flush();
        }
    }

    /// Sends all that waits, polling: for the time before interrupts, and for the last words.
    pub fn flush(&mut self) {
        while !self.to_send.is_empty() {
            self.fill();
        }
    }

    /// Gives the transmitter what it takes, and has it interrupt while something is left.
    fn fill(&mut self) {
        if self.registers.read(LINE_STATUS) & ROOM != 0 {
            let len = self.to_send.len().min(FIFO);
            self.to_send.drain(..len).for_each(|byte| self.registers.write(DATA, byte));
        }
        let waiting = if self.to_send.is_empty() { 0 } else { INTERRUPT_ROOM };
        let wanted = INTERRUPT_RECEIVED | waiting;
        if self.enabled != 0 && self.enabled != wanted {
            self.enabled = wanted;
            self.registers.write(INTERRUPT_ENABLE, wanted);
        }
    }

    /// The port interrupted, or may have. True if something was typed.
    pub fn interrupted(&mut self) -> bool {
        let mut any = false;
        // A bound: a broken port that always has something must not hold the processor.
        for _ in 0..TYPED_MAX {
            if self.registers.read(LINE_STATUS) & RECEIVED == 0 {
                break;
            }
            let byte = self.registers.read(DATA);
            if self.typed.len() < TYPED_MAX {
                self.typed.push_back(byte);
            }
            any = true;
        }
        // Reading its identification ends the transmitter's interrupt.
        self.registers.read(FIFO_CONTROL);
        self.fill();
        // The line triggers by its edge: what came meanwhile has to make one.
        self.registers.write(INTERRUPT_ENABLE, 0);
        self.registers.write(INTERRUPT_ENABLE, self.enabled);
        any
    }

    /// The next byte that was typed.
    pub fn take(&mut self) -> Option<u8> {
        self.typed.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::{Cell, RefCell};
    use std::vec::Vec;

    #[derive(Default)]
    struct Fake {
        sent: RefCell<Vec<u8>>,
        typed: RefCell<Vec<u8>>,
        enabled: Cell<u8>,
        /// The line went down since the test last looked.
        dropped: Cell<bool>,
        full: Cell<bool>,
    }

    impl Registers for &Fake {
        fn read(&self, register: u8) -> u8 {
            match register {
                DATA => self.typed.borrow_mut().pop().unwrap_or(0),
                LINE_STATUS => {
                    u8::from(!self.typed.borrow().is_empty())
                        | if self.full.get() { 0 } else { ROOM }
                }
                _ => 0,
            }
        }
        fn write(&self, register: u8, value: u8) {
            match register {
                DATA => self.sent.borrow_mut().push(value),
                INTERRUPT_ENABLE => {
                    self.enabled.set(value);
                    self.dropped.set(self.dropped.get() || value == 0);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn what_finds_no_room_goes_out_by_interrupts() {
        let fake = Fake::default();
        let mut uart = Uart::new(&fake);
        uart.enable_interrupts();
        fake.full.set(true);
        uart.send(&[7; 40]);
        let before = (fake.sent.borrow().len(), fake.enabled.get());
        fake.full.set(false);
        let mut sizes = Vec::new();
        for _ in 0..3 {
            uart.interrupted();
            sizes.push(fake.sent.borrow().len());
        }

        assert_eq!(before, (0, 3));
        assert_eq!((sizes, fake.enabled.get()), (std::vec![16, 32, 40], 1));
    }

    #[test]
    fn without_interrupts_all_goes_out_at_once() {
        let fake = Fake::default();
        let mut uart = Uart::new(&fake);
        uart.send(&[7; 40]);

        assert_eq!((fake.sent.borrow().len(), fake.enabled.get()), (40, 0));
    }

    /// A byte that comes between the last look and the end of the handler keeps the line up, and a
    /// line that stays up makes no edge.
    #[test]
    fn the_line_goes_down_after_each_interrupt() {
        let fake = Fake::default();
        let mut uart = Uart::new(&fake);
        uart.enable_interrupts();
        fake.dropped.set(false);
        uart.interrupted();

        assert_eq!((fake.dropped.get(), fake.enabled.get()), (true, 1));
    }

    #[test]
    fn what_is_typed_is_kept_in_order() {
        let fake = Fake::default();
        let mut uart = Uart::new(&fake);
        fake.typed.borrow_mut().extend(b"ba");
        let any = uart.interrupted();

        assert_eq!((any, uart.interrupted()), (true, false));
        assert_eq!([uart.take(), uart.take(), uart.take()], [Some(b'a'), Some(b'b'), None]);
    }
}
