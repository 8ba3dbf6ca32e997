//! The controllers at 0x00 and 0xC0, the page registers at 0x80.

use alloc::sync::Arc;
use alloc::vec::Vec;

use kasane_spec_pc::port;
use lock_api::RawMutex;

use super::chip::{Dma, PAGES, SECOND};
use crate::bus::{AddressSpace, MapError, Mapping};
use crate::socket::{Socket, Wiring};

/// Makes the controllers and puts them on the bus.
///
/// # Errors
/// When something else has their ports.
pub fn attach<R: RawMutex + Send + Sync + 'static>(
    ports: &AddressSpace<R>,
) -> Result<Arc<Socket<R, Dma>>, MapError> {
    let socket = Arc::new(Socket::new("dma", Dma::default(), Wiring::wires(Vec::new())));
    ports.map(Mapping::new(u64::from(port::DMA_1), 16, socket.clone()))?;
    // The second controller's address lines are shifted by one: each register has two ports.
    for register in 0..16u32 {
        let base = u64::from(port::DMA_2) + u64::from(register) * 2;
        let offset = SECOND.wrapping_add(register);
        ports.map(Mapping::new(base, 1, socket.clone()).at_offset(offset))?;
    }
    ports.map(Mapping::new(u64::from(port::DMA_PAGE), 16, socket.clone()).at_offset(PAGES))?;
    Ok(socket)
}
