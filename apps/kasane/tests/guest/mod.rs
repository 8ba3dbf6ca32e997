//! Guests of a few instructions, as Multiboot images, and a folder to put them in.
#![allow(dead_code)] // each file of tests uses some

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// `mov dx, 0x3f8`, then each letter by `mov al, …; out dx, al`.
pub(crate) const HELLO: &[u8] = &[
    0x66, 0xBA, 0xF8, 0x03, 0xB0, b'h', 0xEE, 0xB0, b'e', 0xEE, 0xB0, b'l', 0xEE, 0xB0, b'l', 0xEE,
    0xB0, b'o', 0xEE,
];

/// `mov dx, 0x604; mov ax, 0x2000; out dx, ax; cli; hlt`: ACPI S5.
pub(crate) const POWER_OFF: &[u8] =
    &[0x66, 0xBA, 0x04, 0x06, 0x66, 0xB8, 0x00, 0x20, 0x66, 0xEF, 0xFA, 0xF4];

/// `push 0; push 0; lidt [esp]; int3`: no interrupt can be delivered.
pub(crate) const CRASH: &[u8] = &[0x6A, 0x00, 0x6A, 0x00, 0x0F, 0x01, 0x1C, 0x24, 0xCC];

/// `cli; hlt`, again and again.
pub(crate) const HANG: &[u8] = &[0xFA, 0xF4, 0xEB, 0xFC];

/// `mov dx, 0xcf9; mov al, 6; out dx, al; hlt`.
pub(crate) const RESET: &[u8] = &[0x66, 0xBA, 0xF9, 0x0C, 0xB0, 0x06, 0xEE, 0xF4];

/// Resets the machine unless it has done so before: it leaves a mark in the clock's memory.
/// ```text
/// mov al, 0x40; out 0x70, al; in al, 0x71; cmp al, 0x99; je end
/// mov al, 0x99; out 0x71, al; (the same as RESET); end:
/// ```
pub(crate) const RESET_ONCE: &[u8] = &[
    0xB0, 0x40, 0xE6, 0x70, 0xE4, 0x71, 0x3C, 0x99, 0x74, 0x0C, 0xB0, 0x99, 0xE6, 0x71, 0x66, 0xBA,
    0xF9, 0x0C, 0xB0, 0x06, 0xEE, 0xF4,
];

/// Echoes input by polling, up to and with a full stop.
/// ```text
/// again: mov dx, 0x3fd; in al, dx; test al, 1; jz again
///        mov dx, 0x3f8; in al, dx; out dx, al; cmp al, '.'; jne again
/// ```
pub(crate) const ECHO: &[u8] = &[
    0x66, 0xBA, 0xFD, 0x03, 0xEC, 0xA8, 0x01, 0x74, 0xF7, 0x66, 0xBA, 0xF8, 0x03, 0xEC, 0xEE, 0x3C,
    b'.', 0x75, 0xED,
];

/// Where the image is loaded.
const BASE: u32 = 0x10_0000;
/// Header and the instruction that sets the stack pointer.
const STACK: u32 = BASE + 0x8000;

/// A Multiboot 1 image of 32-bit code (Multiboot specification 0.6.96 §3.1, with address fields).
fn image(code: &[u8]) -> Vec<u8> {
    const MAGIC: u32 = 0x1BAD_B002;
    const ADDRESSES: u32 = 1 << 16;
    let checksum = 0u32.wrapping_sub(MAGIC).wrapping_sub(ADDRESSES);
    let entry = BASE + 32;
    let header = [MAGIC, ADDRESSES, checksum, BASE, BASE, 0, 0, entry];
    let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.push(0xBC); // mov esp, STACK
    bytes.extend(STACK.to_le_bytes());
    bytes.extend(code);
    bytes
}

/// A folder of one test, removed at its end.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kasane-run-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a guest's image.
    pub(crate) fn kernel(&self, code: &[u8]) -> PathBuf {
        let path = self.path("kernel");
        std::fs::write(&path, image(code)).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _left_behind = std::fs::remove_dir_all(&self.0);
    }
}
