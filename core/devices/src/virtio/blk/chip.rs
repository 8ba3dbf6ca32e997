//! The chip: requests that are under way, and what the driver sees of the disk.

use alloc::vec::Vec;

use kasane_ports::{BlockCompletion, BlockError, BlockInfo, BlockOperation, BlockRequest};
use kasane_spec_virtio::blk::{SECTOR_LEN, config, feature, request, status};
use kasane_spec_virtio::device_type;

use super::request::{Asked, ERASE_SECTORS_MAX, Frame};
use super::saved::Form;
use crate::virtio::queue::{len, scatter};
use crate::virtio::{Chain, ChainId, ChipDoesNotFit, Io, VirtioChip};

/// Bytes of a serial number.
pub const SERIAL_LEN: usize = request::ID_LEN;
/// Entries of each queue.
const QUEUE_SIZE: u16 = 256;
/// Segments of a request: a queue's entries without header and status.
const SEGMENTS_MAX: u32 = QUEUE_SIZE as u32 - 2;

/// What a disk is to its driver, besides what its backend says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskShape {
    /// What GET_ID tells: ASCII, filled up with zeros.
    pub serial: [u8; SERIAL_LEN],
    /// Queues, 1 to 64; as many as processors, as a rule.
    pub queues: u16,
}

/// What the device asks of its backend.
#[derive(Debug, PartialEq, Eq)]
pub enum BlkEffect {
    /// These requests, in order.
    Submit(Vec<BlockRequest>),
    /// Wait until nothing is under way.
    Drain,
}

/// A request that is under way.
#[derive(Clone, Debug)]
struct Pending {
    token: u64,
    queue: u16,
    chain: Chain,
    status_gpa: u64,
    operation: BlockOperation,
}

/// A disk.
#[derive(Clone, Debug)]
pub struct Blk {
    info: BlockInfo,
    shape: DiskShape,
    /// The write cache is on: a write is done before it is durable. Off by the driver only.
    pub(super) writeback: bool,
    /// Requests that are under way, at the place that their token's low half names.
    pending: Vec<Option<Pending>>,
    /// Free places.
    free: Vec<usize>,
    /// Requests that there were: the token's high half, so that late completions find nothing.
    count: u32,
}

impl Blk {
    /// The disk that a backend's `info` tells of.
    #[must_use]
    pub fn new(info: BlockInfo, shape: DiskShape) -> Self {
        let queues = shape.queues.clamp(1, 64);
        let shape = DiskShape { queues, ..shape };
        Self { info, shape, writeback: true, pending: Vec::new(), free: Vec::new(), count: 0 }
    }

    /// Requests that are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.pending.len().saturating_sub(self.free.len())
    }

    /// The disk has become another: a new capacity, as a rule.
    pub fn set_info(&mut self, info: BlockInfo, io: &mut Io<'_, BlkEffect>) {
        self.info = info;
        io.config_changed();
    }

    /// Takes a request in: its token.
    fn begin(&mut self, mut pending: Pending) -> u64 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.pending.push(None);
            self.pending.len().saturating_sub(1)
        });
        self.count = self.count.wrapping_add(1);
        let token = u64::from(self.count) << 32 | place as u64;
        pending.token = token;
        if let Some(to) = self.pending.get_mut(place) {
            *to = Some(pending);
        }
        token
    }

    /// The request of a completion, unless it was forgotten by a reset.
    fn end(&mut self, token: u64) -> Option<Pending> {
        let place = (token & 0xFFFF_FFFF) as usize;
        let pending = self.pending.get_mut(place)?.take_if(|pending| pending.token == token)?;
        self.free.push(place);
        Some(pending)
    }

    /// Takes a chain: a request for the backend, or nothing when it was answered.
    fn take(
        &mut self,
        queue: u16,
        chain: Chain,
        io: &mut Io<'_, BlkEffect>,
    ) -> Option<BlockRequest> {
        let read = Frame::read(io.memory(), &chain)
            .and_then(|frame| frame.asks(io.memory(), &self.info).map(|asked| (frame, asked)));
        let (frame, asked) = match read {
            Ok(read) => read,
            Err(error) => {
                io.fail(error);
                return None;
            }
        };
        match asked {
            Asked::Backend { operation, offset, ranges } => {
                let status_gpa = frame.status_gpa;
                let token = self.begin(Pending { token: 0, queue, chain, status_gpa, operation });
                Some(BlockRequest { token, queue, operation, offset, ranges })
            }
            Asked::Id => {
                let written = scatter(io.memory(), &frame.data_out, 0, &self.shape.serial);
                let code = if written.is_ok() { status::OK } else { status::IOERR };
                let whole = len(&frame.data_out) <= request::ID_LEN as u64;
                let used = written.unwrap_or(0) as u32 + u32::from(whole);
                give_back(io, (queue, chain.id), frame.status_gpa, (code, used));
                None
            }
            Asked::Answer(code) => {
                answer(io, queue, &chain, (frame.status_gpa, code));
                None
            }
        }
    }

    /// Requests have ended.
    pub fn completed(&mut self, done: &[BlockCompletion], io: &mut Io<'_, BlkEffect>) {
        let mut flushes = Vec::new();
        let mut queues = 0u64;
        for BlockCompletion { token, result } in done {
            let Some(pending) = self.end(*token) else { continue };
            let durable = self.writeback && io.has(feature::FLUSH);
            let changed = matches!(
                pending.operation,
                BlockOperation::Write | BlockOperation::WriteZeroes { .. }
            );
            if changed && !durable && result.is_ok() {
                let operation = BlockOperation::Flush;
                let queue = pending.queue;
                let token = self.begin(Pending { operation, ..pending });
                let ranges = Vec::new();
                flushes.push(BlockRequest { token, queue, operation, offset: 0, ranges });
                continue;
            }
            let code = match result {
                Ok(()) => status::OK,
                Err(BlockError::Unsupported) => status::UNSUPP,
                Err(
                    BlockError::OutOfRange
                    | BlockError::ReadOnly
                    | BlockError::Memory
                    | BlockError::NoSpace
                    | BlockError::Io,
                ) => status::IOERR,
            };
            answer(io, pending.queue, &pending.chain, (pending.status_gpa, code));
            queues |= 1u64.wrapping_shl(pending.queue.into());
        }
        for queue in (0..self.shape.queues).filter(|queue| queues >> queue & 1 != 0) {
            io.signal(queue);
        }
        if !flushes.is_empty() {
            io.effect(BlkEffect::Submit(flushes));
        }
    }
}

/// Writes the status and gives the chain back: as wholly written, or, for a request that failed, as
/// far as can be said (§2.7.8.2).
fn answer(io: &mut Io<'_, BlkEffect>, queue: u16, chain: &Chain, end: (u64, u8)) {
    let (status_gpa, code) = end;
    let whole = len(&chain.writable);
    let written = if code == status::OK || whole == 1 { whole } else { 0 };
    let written = u32::try_from(written).unwrap_or(u32::MAX);
    give_back(io, (queue, chain.id), status_gpa, (code, written));
}

fn give_back(io: &mut Io<'_, BlkEffect>, chain: (u16, ChainId), status_gpa: u64, end: (u8, u32)) {
    let (code, written) = end;
    if !io.is_running() {
        return;
    }
    match io.memory().write(status_gpa, &[code]) {
        Ok(()) => io.push(chain.0, chain.1, written),
        Err(error) => io.fail(error.into()),
    }
}

impl VirtioChip for Blk {
    type Effect = BlkEffect;
    type Form = Form;
    const NAME: &'static str = "virtio-blk";
    const DEVICE_TYPE: u16 = device_type::BLOCK;
    const FORM_VERSION: u32 = 1;

    fn features(&self) -> u64 {
        let mut features = feature::SEG_MAX
            | feature::BLK_SIZE
            | feature::FLUSH
            | feature::TOPOLOGY
            | feature::CONFIG_WCE
            | feature::WRITE_ZEROES;
        for (offered, bit) in [
            (self.info.read_only, feature::RO),
            (self.shape.queues > 1, feature::MQ),
            (self.info.discard, feature::DISCARD),
        ] {
            if offered {
                features |= bit;
            }
        }
        features
    }

    fn queue_sizes(&self) -> Vec<u16> {
        alloc::vec![QUEUE_SIZE; usize::from(self.shape.queues)]
    }

    fn config(&self) -> Vec<u8> {
        let sectors_in_block = (self.info.block_size / SECTOR_LEN as u32).max(1);
        let exponent = sectors_in_block.trailing_zeros() as u8;
        let min_io = u16::try_from(sectors_in_block).unwrap_or(u16::MAX);
        let mut bytes = alloc::vec![0; config::LEN];
        let mut put = |at: usize, value: &[u8]| {
            for (to, from) in bytes.iter_mut().skip(at).zip(value) {
                *to = *from;
            }
        };
        put(config::CAPACITY, &(self.info.capacity / SECTOR_LEN).to_le_bytes());
        put(config::SEG_MAX, &SEGMENTS_MAX.to_le_bytes());
        put(config::BLK_SIZE, &(SECTOR_LEN as u32).to_le_bytes());
        put(config::PHYSICAL_BLOCK_EXP, &[exponent]);
        put(config::MIN_IO_SIZE, &min_io.to_le_bytes());
        put(config::WRITEBACK, &[self.writeback.into()]);
        put(config::NUM_QUEUES, &self.shape.queues.to_le_bytes());
        put(config::DISCARD_SECTOR_ALIGNMENT, &sectors_in_block.to_le_bytes());
        put(config::WRITE_ZEROES_MAY_UNMAP, &[self.info.discard.into()]);
        for at in [config::MAX_DISCARD_SECTORS, config::MAX_WRITE_ZEROES_SECTORS] {
            put(at, &ERASE_SECTORS_MAX.to_le_bytes());
        }
        for at in [config::MAX_DISCARD_SEG, config::MAX_WRITE_ZEROES_SEG] {
            put(at, &1u32.to_le_bytes());
        }
        bytes
    }

    fn config_write(&mut self, offset: u32, data: &[u8], io: &mut Io<'_, BlkEffect>) {
        if let (config::WRITEBACK, [value]) = (offset as usize, data)
            && io.has(feature::CONFIG_WCE)
        {
            self.writeback = value & 1 != 0;
        }
    }

    fn reset(&mut self, effects: &mut Vec<BlkEffect>) {
        if self.under_way() != 0 {
            effects.push(BlkEffect::Drain);
        }
        self.pending.clear();
        self.free.clear();
        self.writeback = true;
    }

    fn notified(&mut self, queue: u16, io: &mut Io<'_, BlkEffect>) {
        let mut requests = Vec::new();
        while let Some(chain) = io.pop(queue) {
            requests.extend(self.take(queue, chain, io));
        }
        // What was answered at once.
        io.signal(queue);
        if !requests.is_empty() {
            io.effect(BlkEffect::Submit(requests));
        }
    }

    fn is_settled(&self) -> bool {
        self.under_way() == 0
    }

    fn save(&self) -> Form {
        Form::of(self)
    }

    fn restore(&mut self, form: Form) -> Result<(), ChipDoesNotFit> {
        form.put(self);
        Ok(())
    }
}
