use super::NumericError;
use crate::socket::{Access, Chip, Effects};
use kasane_cpu::AccessSize::Byte;
use kasane_ports::Level;

fn clear(chip: &mut NumericError) {
    chip.write(Access { offset: 0, size: Byte, now_ns: 0 }, 0, &mut Effects::default());
}

#[test]
fn an_error_is_an_interrupt_and_after_the_port_it_is_ignored_until_it_is_gone() {
    let mut chip = NumericError::default();
    let quiet = chip.levels();
    chip.set_ferr(Level::High);
    let raised = chip.levels();
    clear(&mut chip);
    let ignored = chip.levels();
    chip.set_ferr(Level::Low);
    let gone = chip.levels();
    chip.set_ferr(Level::High);

    assert_eq!([quiet, raised, ignored, gone, chip.levels()], [0, 1, 2, 0, 1]);
}

#[test]
fn the_port_alone_ignores_nothing_and_an_interrupt_stays_until_it_is_taken_back() {
    let mut chip = NumericError::default();
    clear(&mut chip);
    let without_error = chip.levels();
    chip.set_ferr(Level::High);
    chip.set_ferr(Level::Low);

    assert_eq!([without_error, chip.levels()], [0, 1]);
}

#[test]
fn a_restored_chip_drives_the_same_wires() {
    let mut one = NumericError::default();
    one.set_ferr(Level::High);
    clear(&mut one);
    let mut two = NumericError::default();

    two.restore("numeric-error", &one.save("numeric-error")).unwrap();

    assert_eq!(two, one);
}
