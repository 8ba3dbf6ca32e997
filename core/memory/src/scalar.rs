//! Values that one instruction loads or stores, at any alignment.
//!
//! Inline assembly, because that is what the access is: one instruction on memory that others
//! change at the same time. Rust's plain and volatile accesses call that a data race; atomics
//! need alignment that x86 does not. Volatile `asm!` blocks keep their program order, so the
//! guest gets the TSO order of the host.

mod sealed {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for u16 {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
    impl Sealed for u128 {}
}

/// An integer of 1, 2, 4, 8 or 16 bytes.
pub trait Scalar: Copy + Eq + Default + sealed::Sealed + Send + Sync + 'static {
    /// Bytes.
    const SIZE: usize;
    /// The low bits of `value`.
    fn truncate(value: u128) -> Self;
    /// Zero-extended.
    fn widen(self) -> u128;
    /// Zero-extended or truncated to 64 bits.
    fn to_u64(self) -> u64;
    /// Truncated from 64 bits (zero-extended for 128).
    fn from_u64(value: u64) -> Self;

    /// Loads from guest memory.
    ///
    /// # Safety
    /// `ptr` is valid for reads of `SIZE` bytes of guest memory, at any alignment.
    unsafe fn load(ptr: *const u8) -> Self;
    /// Stores to guest memory.
    ///
    /// # Safety
    /// `ptr` is valid for writes of `SIZE` bytes of guest memory, at any alignment.
    unsafe fn store(ptr: *mut u8, value: Self);
    /// LOCK CMPXCHG: exchanges if memory equals `current`; gives the old value.
    ///
    /// # Safety
    /// As `store`; 16 bytes need 16-byte alignment.
    unsafe fn compare_exchange(ptr: *mut u8, current: Self, new: Self) -> Self;
}

macro_rules! scalar {
    ($t:ty, $size:literal, $class:ident, $mod:literal, $ax:tt) => {
        impl Scalar for $t {
            const SIZE: usize = $size;
            #[inline(always)]
            fn truncate(value: u128) -> Self {
                value as $t
            }
            #[inline(always)]
            fn widen(self) -> u128 {
                u128::from(self)
            }
            #[inline(always)]
            fn to_u64(self) -> u64 {
                u64::from(self)
            }
            #[inline(always)]
            fn from_u64(value: u64) -> Self {
                value as $t
            }
            #[inline(always)]
            unsafe fn load(ptr: *const u8) -> Self {
                let value: $t;
                // SAFETY: one load of SIZE bytes that the caller made valid.
                unsafe {
                    core::arch::asm!(
                        concat!("mov {value", $mod, "}, [{ptr}]"),
                        ptr = in(reg) ptr, value = out($class) value,
                        options(nostack, preserves_flags));
                }
                value
            }
            #[inline(always)]
            unsafe fn store(ptr: *mut u8, value: Self) {
                // SAFETY: one store of SIZE bytes that the caller made valid.
                unsafe {
                    core::arch::asm!(
                        concat!("mov [{ptr}], {value", $mod, "}"),
                        ptr = in(reg) ptr, value = in($class) value,
                        options(nostack, preserves_flags));
                }
            }
            #[inline(always)]
            unsafe fn compare_exchange(ptr: *mut u8, current: Self, new: Self) -> Self {
                let old: $t;
                // SAFETY: one locked access of SIZE bytes that the caller made valid.
                unsafe {
                    core::arch::asm!(
                        concat!("lock cmpxchg [{ptr}], {new", $mod, "}"),
                        ptr = in(reg) ptr, new = in($class) new,
                        inout($ax) current => old,
                        options(nostack));
                }
                old
            }
        }
    };
}

scalar!(u8, 1, reg_byte, "", "al");
scalar!(u16, 2, reg, ":x", "ax");
scalar!(u32, 4, reg, ":e", "eax");
scalar!(u64, 8, reg, "", "rax");

impl Scalar for u128 {
    const SIZE: usize = 16;
    #[inline(always)]
    fn truncate(value: u128) -> Self {
        value
    }
    #[inline(always)]
    fn widen(self) -> u128 {
        self
    }
    #[inline(always)]
    fn to_u64(self) -> u64 {
        self as u64
    }
    #[inline(always)]
    fn from_u64(value: u64) -> Self {
        u128::from(value)
    }
    #[inline(always)]
    unsafe fn load(ptr: *const u8) -> Self {
        // SAFETY: passed on.
        unsafe { wide::load(ptr) }
    }
    #[inline(always)]
    unsafe fn store(ptr: *mut u8, value: Self) {
        // SAFETY: passed on.
        unsafe { wide::store(ptr, value) }
    }
    #[inline(always)]
    unsafe fn compare_exchange(ptr: *mut u8, current: Self, new: Self) -> Self {
        let (mut low, mut high) = (current as u64, (current >> 64) as u64);
        // SAFETY: 16 valid, aligned bytes; RBX, which the compiler keeps for itself, is swapped
        // in and back out. Every CPU that the software engines accept has CMPXCHG16B.
        unsafe {
            core::arch::asm!(
                "xchg {b}, rbx",
                "lock cmpxchg16b [{ptr}]",
                "mov rbx, {b}",
                ptr = in(reg) ptr,
                b = inout(reg) new as u64 => _,
                in("rcx") (new >> 64) as u64,
                inout("rax") low, inout("rdx") high,
                options(nostack));
        }
        u128::from(low) | u128::from(high) << 64
    }
}

/// One vector access: on a processor with AVX it is atomic if its address is aligned (SDM vol. 3A
/// §9.1.1), and guests that see AVX rely on that.
#[cfg(target_feature = "sse2")]
mod wide {
    use core::arch::x86_64::__m128i;

    #[inline(always)]
    pub(super) unsafe fn load(ptr: *const u8) -> u128 {
        let value: __m128i;
        // SAFETY: 16 bytes that the caller made valid, at any alignment.
        unsafe {
            core::arch::asm!("movups {value}, [{ptr}]", ptr = in(reg) ptr,
                value = out(xmm_reg) value, options(nostack, preserves_flags, readonly));
            core::mem::transmute(value)
        }
    }
    #[inline(always)]
    pub(super) unsafe fn store(ptr: *mut u8, value: u128) {
        // SAFETY: as in `load`.
        unsafe {
            let value: __m128i = core::mem::transmute(value);
            core::arch::asm!("movups [{ptr}], {value}", ptr = in(reg) ptr,
                value = in(xmm_reg) value, options(nostack, preserves_flags));
        }
    }
}

/// Where the compiler may not touch vector registers, because they are the guest's: two halves,
/// each atomic.
#[cfg(not(target_feature = "sse2"))]
mod wide {
    use super::Scalar;

    #[inline(always)]
    pub(super) unsafe fn load(ptr: *const u8) -> u128 {
        // SAFETY: both halves are inside the 16 bytes that the caller made valid.
        unsafe { u128::from(u64::load(ptr)) | u128::from(u64::load(ptr.add(8))) << 64 }
    }
    #[inline(always)]
    pub(super) unsafe fn store(ptr: *mut u8, value: u128) {
        // SAFETY: as in `load`.
        unsafe {
            u64::store(ptr, value as u64);
            u64::store(ptr.add(8), (value >> 64) as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_and_stores_work_at_any_alignment() {
        let mut buf = [0u8; 32];
        // SAFETY: offset 3 with 8 bytes is inside the buffer.
        let value = unsafe {
            u64::store(buf.as_mut_ptr().add(3), 0x1122_3344_5566_7788);
            u64::load(buf.as_ptr().add(3))
        };
        assert_eq!(value, 0x1122_3344_5566_7788);
        assert_eq!(buf[3], 0x88);
    }

    #[test]
    fn sixteen_aligned_bytes_are_never_seen_half_written() {
        #[repr(align(16))]
        struct Shared(core::cell::UnsafeCell<[u8; 16]>);
        // SAFETY: all accesses are the ones under test, which are atomic.
        unsafe impl Sync for Shared {}
        fn pointer(shared: &Shared) -> *mut u8 {
            shared.0.get().cast()
        }
        let shared = &Shared(core::cell::UnsafeCell::new([0; 16]));
        let torn = std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0..200_000u64 {
                    let value = u128::from(i) << 64 | u128::from(i);
                    // SAFETY: 16 valid bytes.
                    unsafe { u128::store(pointer(shared), value) };
                }
            });
            // SAFETY: 16 valid bytes.
            let read = || unsafe { u128::load(pointer(shared)) };
            (0..200_000)
                .map(|_| read())
                .filter(|value| (value >> 64) as u64 != *value as u64)
                .count()
        });

        assert_eq!(torn, 0);
    }

    #[test]
    fn compare_exchange_gives_the_old_value_and_swaps_only_on_equality() {
        #[repr(align(16))]
        struct Aligned([u8; 16]);
        let mut buf = Aligned([1; 16]);
        let ones = u128::from_le_bytes([1; 16]);
        // SAFETY: 16 aligned bytes.
        let (first, second) = unsafe {
            (
                u128::compare_exchange(buf.0.as_mut_ptr(), 7, 9),
                u128::compare_exchange(buf.0.as_mut_ptr(), ones, 1 << 127 | 5),
            )
        };
        assert_eq!((first, second), (ones, ones));
        assert_eq!(u128::from_le_bytes(buf.0), 1 << 127 | 5);
    }
}
