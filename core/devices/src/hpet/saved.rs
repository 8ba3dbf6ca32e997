//! Saved form, version 1. Whether legacy replacement is on is the router's state too.

use super::chip::Hpet;
use super::timer::Timer;
use crate::saved::saved_form;

pub(super) const VERSION: u32 = 1;

saved_form!(TimerForm of Timer {
    configuration: u64, comparator: u64, period: u64, high_follows: bool, message: u64,
    held: bool,
});

saved_form!(BlockForm of Hpet {
    configuration: u64, status: u64, counter: u64, counter_ns: u64,
} not { delivery, timers });

#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Form {
    block: BlockForm,
    timers: [TimerForm; 3],
}

impl Form {
    pub(super) fn of(hpet: &Hpet) -> Self {
        let timers = hpet.timers.each_ref().map(TimerForm::of);
        Self { block: BlockForm::of(hpet), timers }
    }
    pub(super) fn put(self, hpet: &mut Hpet) {
        let Self { block, timers } = self;
        block.put(hpet);
        for (form, timer) in timers.into_iter().zip(&mut hpet.timers) {
            form.put(timer);
        }
    }
}
