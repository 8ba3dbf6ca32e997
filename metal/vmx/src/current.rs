//! The processor's current control structure.

use core::arch::asm;

use crate::vmcs::Fields;

/// Fields of what is current. A field that isn't there reads as 0, and writes to it are lost:
/// neither happens but by a fault of ours.
pub(crate) struct Current;

impl Fields for Current {
    fn read(&self, field: u32) -> u64 {
        let mut value = 0;
        // SAFETY: reading changes nothing; `Current` is used between `begin` and `end` only, when
        // VT-x is on and a structure is current.
        unsafe {
            asm!("vmread {}, {}", inout(reg) value, in(reg) u64::from(field), options(nomem, nostack));
        }
        value
    }
    fn write(&mut self, field: u32, value: u64) {
        // SAFETY: as above; what a field means for the guest is checked at entry.
        unsafe { asm!("vmwrite {}, {}", in(reg) u64::from(field), in(reg) value, options(nostack)) }
    }
}

/// An instruction on a control structure, by its physical address; whether it went well.
macro_rules! by_address {
    ($name:ident, $instruction:literal, $doc:literal) => {
        #[doc = $doc]
        ///
        /// # Safety
        /// VT-x is on, and `address` is that of a structure or region with its identifier.
        pub(crate) unsafe fn $name(address: u64) -> bool {
            let failed: u8;
            // SAFETY: by the caller.
            unsafe {
                asm!(
                    concat!($instruction, " [{at}]"),
                    "setbe {failed}",
                    at = in(reg) &raw const address,
                    failed = out(reg_byte) failed,
                    options(nostack),
                );
            }
            failed == 0
        }
    };
}

by_address!(vmxon, "vmxon", "Switches VT-x on.");
by_address!(clear, "vmclear", "Brings a structure to memory: it is no processor's any more.");
by_address!(load, "vmptrld", "Makes a structure current.");

/// Flushes the translations with a tag.
///
/// # Safety
/// The processor has INVVPID for one context.
pub(crate) unsafe fn flush(tag: u16) {
    let descriptor = [u64::from(tag), 0];
    // SAFETY: by the caller.
    unsafe {
        asm!("invvpid {}, [{}]", in(reg) 1u64, in(reg) descriptor.as_ptr(), options(nostack));
    }
}
