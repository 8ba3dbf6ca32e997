use super::{Dma, attach};
use crate::socket::{Access, Chip, Effects};
use crate::{AddressSpace, Saved};
use kasane_cpu::AccessSize::Byte;
use parking_lot::RawMutex as Raw;
use proptest::prelude::*;

#[test]
fn addresses_and_counts_read_back_through_the_flip_flop() {
    let ports = AddressSpace::<Raw>::ports();
    let socket = attach(&ports).unwrap();
    for (port, value) in
        [(0x0C, 0), (0x04, 0x34), (0x04, 0x12), (0xD8, 0), (0xC6, 0xCD), (0xC6, 0xAB)]
    {
        ports.write(port, Byte, value, 0);
    }
    assert_eq!([ports.read(4, Byte, 0).value, ports.read(4, Byte, 0).value], [0x34, 0x12]);
    assert_eq!([ports.read(0xC6, Byte, 0).value, ports.read(0xC6, Byte, 0).value], [0xCD, 0xAB]);
    let section = socket.save();
    socket.restore(&section).unwrap();
    assert_eq!(socket.save(), section);
}

#[test]
fn masks_and_master_clear() {
    let ports = AddressSpace::<Raw>::ports();
    attach(&ports).unwrap();
    assert_eq!(ports.read(0x0F, Byte, 0).value, 0xFF);
    ports.write(0x0A, Byte, 0x02, 0);
    assert_eq!(ports.read(0x0F, Byte, 0).value, 0xFB);
    ports.write(0x0D, Byte, 0, 0);
    assert_eq!(ports.read(0x0F, Byte, 0).value, 0xFF);
    assert_eq!(ports.read(0x08, Byte, 0).value, 0);
}

#[test]
fn the_post_port_keeps_its_code() {
    let ports = AddressSpace::<Raw>::ports();
    attach(&ports).unwrap();
    ports.write(0x80, Byte, 0x55, 0);
    assert_eq!(ports.read(0x80, Byte, 0).value, 0x55);
}

proptest! {
    #[test]
    fn any_traffic_is_survived(
        traffic in proptest::collection::vec((0u32..0x40, any::<u8>()), 0..100),
    ) {
        let (mut dma, mut effects) = (Dma::default(), Effects::default());
        for (offset, value) in traffic {
            let access = Access { offset, size: Byte, now_ns: 0 };
            dma.write(access, u64::from(value), &mut effects);
            prop_assert!(dma.read(access, &mut effects) <= 0xFF);
        }
    }
}
