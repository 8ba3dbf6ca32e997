//! A saved machine as a stream of bytes: the sections of its chips and processors, then the guest's
//! memory (DESIGN §4).
//!
//! ```text
//! file    = "\x89KSTATE\n"  u32 format version  record*  end
//! record  = u8 kind  u32 length of the rest of the head and the body  head  body  u32 CRC
//! section = kind 1: u16 name length, name, u32 section version | bytes
//! memory  = kind 2: u64 guest-physical address, u32 bytes of memory | the same, compressed (LZ4 block)
//! end     = kind 3: u64 number of records before it
//! ```
//! All little-endian; the CRC-32 (ISO-HDLC) is over the record from its kind on. Sections come
//! first, so that a reader knows of which machine the state is before it takes any memory. Memory
//! comes in ascending order, in whole pages; pages that are all zero are left out, and so a reader
//! begins with memory that is all zero.
//!
//! Neither side holds more than one record of memory at a time, and a reader believes no length
//! before the bytes are there: what it allocates is bounded by what it was given, and by
//! [`SECTIONS_BYTES_MAX`].

mod error;
mod memory;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

pub use error::StateError;
pub use memory::{read_memory, write_memory};
pub use reader::StateReader;
pub use writer::StateWriter;

/// What every file begins with. The first byte is no text in any encoding, and the last one is
/// lost where a transfer changes line ends.
const MAGIC: [u8; 8] = *b"\x89KSTATE\n";
/// Raised with every change of the form.
const FORMAT: u32 = 1;

const KIND_SECTION: u8 = 1;
const KIND_MEMORY: u8 = 2;
const KIND_END: u8 = 3;

/// Bytes of a page.
const PAGE: usize = 4096;
/// Bytes of memory in one record, at most.
const CHUNK: usize = 256 * PAGE;
/// Bytes of a record after its length, at most for memory and the end.
const CHUNK_RECORD_MAX: usize = 12 + CHUNK + CHUNK / 64;
/// Bytes of all sections together, at most.
pub const SECTIONS_BYTES_MAX: usize = 256 << 20;
/// Sections, at most.
pub const SECTIONS_MAX: usize = 4096;
