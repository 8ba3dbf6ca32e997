//! The chip: how large the balloon should be and is, and chains whose pages are on their way.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use kasane_spec_virtio::balloon::{PAGE_SHIFT, config, feature};
use kasane_spec_virtio::device_type;

use super::pages::{self, Run};
use super::saved::Form;
use super::statistics::GuestStatistics;
use crate::virtio::queue::{gather, len};
use crate::virtio::{Chain, ChainId, ChipDoesNotFit, Io, QueueError, VirtioChip};

/// Entries of each queue.
const QUEUE_SIZE: u16 = 128;
const INFLATE: u16 = 0;
const DEFLATE: u16 = 1;
const STATISTICS: u16 = 2;
/// Queues that the specification knows; see [`Balloon::use_of`].
const QUEUES: usize = 5;
/// Bytes of statistics that are looked at.
const STATISTICS_MAX: u64 = 640;

/// What the device asks of its home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BalloonEffect {
    /// There are pages for the host: by `next_pages`, until there are none.
    Reclaim,
    /// Wait until no pages are on their way.
    Settle,
}

/// A chain whose pages are for the host.
#[derive(Clone, Debug)]
pub(super) struct Returned {
    queue: u16,
    id: ChainId,
    pages: Vec<Run>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Inflate,
    Deflate,
    Statistics,
    Reporting,
}

/// A balloon.
#[derive(Clone, Debug, Default)]
pub struct Balloon {
    /// Pages that the driver should give.
    pub(super) wanted: u32,
    /// Pages that it has given.
    pub(super) actual: u32,
    pub(super) statistics: GuestStatistics,
    /// The buffer that the driver fills with statistics when it gets it back.
    pub(super) statistics_chain: Option<ChainId>,
    /// Chains whose pages are not with the host yet.
    waiting: VecDeque<Returned>,
    /// The chain whose pages are on their way.
    current: Option<(u16, ChainId)>,
}

impl Balloon {
    /// Bytes that the driver has given.
    #[must_use]
    pub const fn actual_bytes(&self) -> u64 {
        (self.actual as u64) << PAGE_SHIFT
    }

    /// Bytes that it should give.
    #[must_use]
    pub const fn wanted_bytes(&self) -> u64 {
        (self.wanted as u64) << PAGE_SHIFT
    }

    /// What the guest said last of its memory.
    #[must_use]
    pub const fn statistics(&self) -> GuestStatistics {
        self.statistics
    }

    /// Asks the driver for so many bytes; of more than there is RAM, for that.
    pub(super) fn set_wanted(&mut self, bytes: u64, io: &mut Io<'_, BalloonEffect>) {
        let ram: u64 = io.memory().ram_ranges().iter().map(|(_, len)| len).sum();
        let pages = u32::try_from(bytes.min(ram) >> PAGE_SHIFT).unwrap_or(u32::MAX);
        if self.wanted != pages {
            self.wanted = pages;
            io.config_changed();
        }
    }

    /// Asks the driver for new statistics.
    pub(super) fn ask_for_statistics(&mut self, io: &mut Io<'_, BalloonEffect>) {
        if let Some(id) = self.statistics_chain.take() {
            io.push(STATISTICS, id, 0);
            io.signal(STATISTICS);
        }
    }

    /// What a queue is for. Drivers that leave a feature out number the queues behind it anew
    /// (Linux before 6.11) or don't (the specification). No queue but the one of the feature comes
    /// to be there, so each that is not taken by another is the reports'.
    fn use_of(queue: u16, io: &Io<'_, BalloonEffect>) -> Use {
        match queue {
            INFLATE => Use::Inflate,
            DEFLATE => Use::Deflate,
            STATISTICS if io.has(feature::STATS_VQ) => Use::Statistics,
            _ => Use::Reporting,
        }
    }

    /// The pages of a chain; `None` if it makes no sense.
    fn pages(
        kind: Use,
        chain: &Chain,
        io: &Io<'_, BalloonEffect>,
    ) -> Result<Option<Vec<Run>>, QueueError> {
        let reports = kind == Use::Reporting;
        let (used, unused) = if reports {
            (&chain.writable, &chain.readable)
        } else {
            (&chain.readable, &chain.writable)
        };
        if used.is_empty() || !unused.is_empty() || (reports && !io.has(feature::REPORTING)) {
            return Ok(None);
        }
        if reports {
            return Ok(Some(pages::reported(io.memory(), used)));
        }
        Ok(pages::numbered(io.memory(), used)?)
    }

    fn take_statistics(&mut self, chain: &Chain, io: &mut Io<'_, BalloonEffect>) {
        let mut bytes = alloc::vec![0; len(&chain.readable).min(STATISTICS_MAX) as usize];
        if let Err(error) = gather(io.memory(), &chain.readable, 0, &mut bytes) {
            return io.fail(error.into());
        }
        self.statistics = GuestStatistics::read(&bytes);
        // A driver has one such buffer; another takes its place.
        if let Some(before) = self.statistics_chain.replace(chain.id) {
            io.push(STATISTICS, before, 0);
        }
    }

    /// The pages of the next chain, which are then on their way. Ends with
    /// [`reclaimed`](Self::reclaimed).
    pub(super) fn next_pages(&mut self) -> Option<Vec<Run>> {
        let Returned { queue, id, pages } = self.waiting.pop_front()?;
        self.current = Some((queue, id));
        Some(pages)
    }

    /// The host has the pages.
    pub(super) fn reclaimed(&mut self, io: &mut Io<'_, BalloonEffect>) {
        if let Some((queue, id)) = self.current.take() {
            io.push(queue, id, 0);
            io.signal(queue);
        }
    }
}

impl VirtioChip for Balloon {
    type Effect = BalloonEffect;
    type Form = Form;
    const NAME: &'static str = "virtio-balloon";
    const DEVICE_TYPE: u16 = device_type::BALLOON;
    const FORM_VERSION: u32 = 1;

    fn features(&self) -> u64 {
        feature::STATS_VQ | feature::DEFLATE_ON_OOM | feature::REPORTING
    }

    fn queue_sizes(&self) -> Vec<u16> {
        alloc::vec![QUEUE_SIZE; QUEUES]
    }

    fn config(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(config::LEN);
        bytes.extend(self.wanted.to_le_bytes());
        bytes.extend(self.actual.to_le_bytes());
        bytes.resize(config::LEN, 0);
        bytes
    }

    /// The driver says how much it has given (§5.5.6.1).
    fn config_write(&mut self, offset: u32, data: &[u8], _io: &mut Io<'_, BalloonEffect>) {
        let mut bytes = self.actual.to_le_bytes();
        if let Some(at) = (offset as usize).checked_sub(config::ACTUAL) {
            for (to, from) in bytes.iter_mut().skip(at).zip(data) {
                *to = *from;
            }
        }
        self.actual = u32::from_le_bytes(bytes);
    }

    fn reset(&mut self, effects: &mut Vec<BalloonEffect>) {
        *self = Self { wanted: self.wanted, ..Self::default() };
        effects.push(BalloonEffect::Settle);
    }

    fn notified(&mut self, queue: u16, io: &mut Io<'_, BalloonEffect>) {
        let kind = Self::use_of(queue, io);
        while let Some(chain) = io.pop(queue) {
            match kind {
                Use::Statistics => self.take_statistics(&chain, io),
                // The pages come back by themselves when they are touched.
                Use::Deflate => io.push(queue, chain.id, 0),
                Use::Inflate | Use::Reporting => match Self::pages(kind, &chain, io) {
                    Ok(Some(pages)) => {
                        self.waiting.push_back(Returned { queue, id: chain.id, pages });
                    }
                    Ok(None) => return io.fail(QueueError::BadRequest),
                    Err(error) => return io.fail(error),
                },
            }
        }
        io.signal(queue);
        if !self.waiting.is_empty() {
            io.effect(BalloonEffect::Reclaim);
        }
    }

    fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.current.is_none()
    }

    fn save(&self) -> Form {
        Form::of(self)
    }

    fn restore(&mut self, form: Form) -> Result<(), ChipDoesNotFit> {
        form.put(self);
        self.waiting.clear();
        self.current = None;
        Ok(())
    }
}
