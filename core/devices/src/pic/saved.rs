//! Saved form of the pair, version 1.

use super::chip::{Expect, Pic};
use super::pair::PicPair;
use crate::saved::saved_form;

saved_form!(PicForm of Pic {
    inputs: u8, latched: u8, in_service: u8, mask: u8, elcr: u8, vector_base: u8,
    icw1: u8, icw4: u8, expect: Expect, lowest: u8, rotate_in_auto_eoi: bool,
    special_mask: bool, read_in_service: bool, poll: bool,
} not { role });

/// Both controllers.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct PicPairForm {
    first: PicForm,
    second: PicForm,
}

impl PicPairForm {
    pub(crate) fn of(pair: &PicPair) -> Self {
        let PicPair { first, second } = pair;
        Self { first: PicForm::of(first), second: PicForm::of(second) }
    }
    pub(crate) fn put(self, pair: &mut PicPair) {
        let Self { first, second } = self;
        first.put(&mut pair.first);
        second.put(&mut pair.second);
    }
}
