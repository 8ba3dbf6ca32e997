//! Why guest execution stopped, and how it goes on.
//!
//! Both are small `Copy` values without pointers: they are what a trace records, what a replay
//! feeds back, and what crosses to the management OS in the microkernel type.

/// The size of a port or memory access in bytes: 1, 2, 4 or 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AccessSize {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Word,
    /// 4 bytes.
    Dword,
    /// 8 bytes (memory only).
    Qword,
}

impl AccessSize {
    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u8 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
            Self::Qword => 8,
        }
    }
    /// The size for a number of bytes, if it is one of the four.
    #[must_use]
    pub const fn from_bytes(bytes: usize) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Dword),
            8 => Some(Self::Qword),
            _ => None,
        }
    }
    /// A mask of the bits that the size has.
    #[must_use]
    pub const fn mask(self) -> u64 {
        match self {
            Self::Byte => 0xFF,
            Self::Word => 0xFFFF,
            Self::Dword => 0xFFFF_FFFF,
            Self::Qword => u64::MAX,
        }
    }
}

/// Why `run` returned. Each variant says which [`Entry`] answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// IN. Answer: [`Entry::Value`].
    PortRead {
        /// I/O port.
        port: u16,
        /// Width; never `Qword`.
        size: AccessSize,
    },
    /// OUT. Answer: [`Entry::Resume`].
    PortWrite {
        /// I/O port.
        port: u16,
        /// Width; never `Qword`.
        size: AccessSize,
        /// Data, zero-extended.
        value: u32,
    },
    /// A chunk of REP OUTS: `count` items of `size`, packed in `data`. Answer: [`Entry::Resume`].
    PortWriteString {
        /// I/O port.
        port: u16,
        /// Width of an item.
        size: AccessSize,
        /// Number of items; `count * size <= 32`.
        count: u8,
        /// The items, packed.
        data: [u8; 32],
    },
    /// A load from an address without RAM. Answer: [`Entry::Value`].
    MmioRead {
        /// Guest-physical address; the access does not cross a page.
        gpa: u64,
        /// Width.
        size: AccessSize,
    },
    /// A store to an address without RAM, or to read-only memory. Answer: [`Entry::Resume`].
    MmioWrite {
        /// Guest-physical address; the access does not cross a page.
        gpa: u64,
        /// Width.
        size: AccessSize,
        /// Data, zero-extended.
        value: u64,
    },
    /// RDMSR of an MSR that the engine does not have. Answer: `Value`, or `Fault` for #GP(0).
    MsrRead {
        /// MSR number.
        index: u32,
    },
    /// WRMSR of an MSR that the engine does not have. Answer: `Resume`, or `Fault` for #GP(0).
    MsrWrite {
        /// MSR number.
        index: u32,
        /// EDX:EAX.
        value: u64,
    },
    /// VMCALL or VMMCALL. Arguments are in the registers. Answer: `Value` (into RAX).
    Hypercall,
    /// HLT: nothing to do until an interrupt. Answer: `Resume` (after a wake-up).
    Halt,
    /// An ExtINT interrupt can be taken now: ask the PIC for its vector.
    /// Answer: `ExternalInterrupt`, or `Resume` when the PIC has none any more.
    InterruptWindow,
    /// The guest ended a level-triggered interrupt of this vector (to the I/O APICs).
    /// Answer: `Resume`.
    Eoi {
        /// The vector.
        vector: u8,
    },
    /// The processor entered the shutdown state: a fault while delivering #DF.
    TripleFault,
    /// A system-management interrupt was taken while the board reports SMM as set up already.
    Smi,
    /// The instruction budget given by [`Vcpu::set_budget`](crate::Vcpu::set_budget) is used up.
    BudgetUsed,
    /// Somebody kicked the vCPU.
    Kicked,
    /// A breakpoint, watchpoint or single step of the debugger (not of the guest).
    Debug {
        /// RIP of the next instruction.
        rip: u64,
        /// Why: DR6's BS for a single step, B0 to B3 for the first four watchpoints, 0 for a
        /// breakpoint.
        dr6: u32,
    },
}

impl Exit {
    /// A short stable name for statistics and traces.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::PortRead { .. } => "port-read",
            Self::PortWrite { .. } => "port-write",
            Self::PortWriteString { .. } => "port-write-string",
            Self::MmioRead { .. } => "mmio-read",
            Self::MmioWrite { .. } => "mmio-write",
            Self::MsrRead { .. } => "msr-read",
            Self::MsrWrite { .. } => "msr-write",
            Self::Hypercall => "hypercall",
            Self::Halt => "halt",
            Self::InterruptWindow => "interrupt-window",
            Self::Eoi { .. } => "eoi",
            Self::TripleFault => "triple-fault",
            Self::Smi => "smi",
            Self::BudgetUsed => "budget-used",
            Self::Kicked => "kicked",
            Self::Debug { .. } => "debug",
        }
    }
}

/// How a vCPU goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Go on.
    Resume,
    /// The value of a read, zero-extended.
    Value(u64),
    /// The PIC's vector for the ExtINT that `InterruptWindow` offered.
    ExternalInterrupt {
        /// The vector.
        vector: u8,
    },
    /// The MSR access faults: #GP(0).
    Fault,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_and_entries_are_small_values() {
        assert!(size_of::<Exit>() <= 64);
        assert!(size_of::<Entry>() <= 64);
    }
}
