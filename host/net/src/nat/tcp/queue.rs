//! Bytes that wait, in chunks of a pool that all flows share.
//!
//! A flow that is idle has no chunk, so a thousand of them cost nothing. Half of the pool is for
//! first chunks only, so that however many flows are stuck, every other one goes on. Of the other
//! half a flow may take a chunk while it has fewer than a share of what is free (the "dynamic
//! threshold" of switches: Choudhury and Hahne, 1998): one flow alone gets a lot, many get less
//! each.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};

/// Bytes of a chunk.
pub(crate) const CHUNK: usize = 16 << 10;

/// Chunks that one read or write uses, at most.
const VECTOR: usize = 16;

/// A flow may have one chunk in so many of those that are free for all.
const SHARE: usize = 8;

type Chunk = Box<[u8]>;

/// The memory of all flows.
#[derive(Debug)]
pub(crate) struct Pool {
    spare: Vec<Chunk>,
    /// Chunks that may still be taken, those in `spare` among them.
    free: usize,
    limit: usize,
    /// Something was given back since the last look.
    returned: bool,
}

/// Chunks that are kept for the next, instead of being given back to the system.
const SPARE_MAX: usize = 256;

impl Pool {
    /// A pool of so many bytes at most.
    pub(crate) fn new(bytes: usize) -> Self {
        let limit = bytes / CHUNK;
        Self { spare: Vec::new(), free: limit, limit, returned: false }
    }

    /// A chunk for who has `own`; `None` if that is its share.
    fn take(&mut self, own: usize) -> Option<Chunk> {
        let shared = self.free.saturating_sub(self.limit / 2);
        if self.free == 0 || (own > 0 && own >= shared / SHARE) {
            return None;
        }
        self.free -= 1;
        Some(self.spare.pop().unwrap_or_else(|| vec![0; CHUNK].into()))
    }

    fn give_back(&mut self, chunk: Chunk) {
        self.free = (self.free + 1).min(self.limit);
        self.returned = true;
        if self.spare.len() < SPARE_MAX {
            self.spare.push(chunk);
        }
    }

    /// Whether something was given back since the last call, so that who was refused may try again.
    pub(crate) fn has_returned(&mut self) -> bool {
        std::mem::take(&mut self.returned)
    }

    /// Bytes in use.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        (self.limit - self.free) * CHUNK
    }
}

/// Bytes in order. It has to be [cleared](Self::clear) before it is dropped, or its chunks are
/// lost for the pool.
#[derive(Debug, Default)]
pub(crate) struct ByteQueue {
    chunks: VecDeque<Chunk>,
    /// Offset of the first byte in the first chunk, less than [`CHUNK`].
    start: usize,
    len: usize,
}

impl ByteQueue {
    /// How many bytes wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes room behind the bytes for `wanted` more, as far as the pool gives it; returns the room.
    fn reserve(&mut self, wanted: usize, pool: &mut Pool) -> usize {
        while self.room() < wanted {
            match pool.take(self.chunks.len()) {
                Some(chunk) => self.chunks.push_back(chunk),
                None => break,
            }
        }
        self.room()
    }

    fn room(&self) -> usize {
        self.chunks.len() * CHUNK - self.start - self.len
    }

    /// Takes bytes in; returns how many there was room for.
    pub(crate) fn push(&mut self, bytes: &[u8], pool: &mut Pool) -> usize {
        let count = self.reserve(bytes.len(), pool).min(bytes.len());
        let mut rest = bytes.get(..count).unwrap_or_default();
        let end = self.start + self.len;
        let mut offset = end % CHUNK;
        for chunk in self.chunks.iter_mut().skip(end / CHUNK) {
            let Some(space) = chunk.get_mut(offset..) else { break };
            let (now, later) = rest.split_at(rest.len().min(space.len()));
            if let Some(space) = space.get_mut(..now.len()) {
                space.copy_from_slice(now);
            }
            rest = later;
            offset = 0;
            if rest.is_empty() {
                break;
            }
        }
        self.len += count;
        count
    }

    /// Reads up to `limit` bytes from a host's socket to the end of the queue. `None` if the pool
    /// gives no room.
    pub(crate) fn fill(
        &mut self,
        mut from: impl Read,
        limit: usize,
        pool: &mut Pool,
    ) -> Option<io::Result<usize>> {
        let room = self.reserve(limit.min(VECTOR * CHUNK), pool).min(limit);
        if room == 0 {
            return None;
        }
        let end = self.start + self.len;
        let mut left = room;
        let mut offset = end % CHUNK;
        let mut spaces = self.chunks.iter_mut().skip(end / CHUNK);
        let mut count = 0;
        let mut slices: [IoSliceMut<'_>; VECTOR] = std::array::from_fn(|_| {
            let space = if left > 0 { spaces.next() } else { None };
            let space = space.and_then(|chunk| {
                let (_, space) = chunk.split_at_mut_checked(offset)?;
                let len = space.len().min(left);
                space.get_mut(..len)
            });
            offset = 0;
            let space = space.unwrap_or_default();
            left -= space.len();
            count += usize::from(!space.is_empty());
            IoSliceMut::new(space)
        });
        let result = from.read_vectored(slices.get_mut(..count)?);
        if let Ok(read) = result {
            self.len += read.min(room);
        }
        self.trim(pool);
        Some(result)
    }

    /// Writes from the front of the queue to a host's socket and drops what was written.
    pub(crate) fn drain(&mut self, mut to: impl Write, pool: &mut Pool) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); VECTOR];
        let count = self.slices(0, self.len, &mut slices);
        let written = to.write_vectored(slices.get(..count).unwrap_or_default())?;
        self.consume(written, pool);
        Ok(written)
    }

    /// The bytes from `from` on, at most `len`, as slices; returns how many slices it took. What
    /// finds no slice is left out.
    pub(crate) fn slices<'a>(
        &'a self,
        from: usize,
        len: usize,
        slices: &mut [IoSlice<'a>],
    ) -> usize {
        let mut left = len.min(self.len.saturating_sub(from));
        let begin = self.start + from;
        let mut offset = begin % CHUNK;
        let mut count = 0;
        for (chunk, slice) in self.chunks.iter().skip(begin / CHUNK).zip(slices) {
            if left == 0 {
                break;
            }
            let Some(bytes) = chunk.get(offset..CHUNK.min(offset + left)) else { break };
            *slice = IoSlice::new(bytes);
            left -= bytes.len();
            offset = 0;
            count += 1;
        }
        count
    }

    /// Drops bytes from the front.
    pub(crate) fn consume(&mut self, count: usize, pool: &mut Pool) {
        let count = count.min(self.len);
        self.len -= count;
        self.start += count;
        while self.start >= CHUNK {
            self.start -= CHUNK;
            if let Some(chunk) = self.chunks.pop_front() {
                pool.give_back(chunk);
            }
        }
        self.trim(pool);
    }

    /// Gives back the chunks that no byte is in.
    fn trim(&mut self, pool: &mut Pool) {
        if self.len == 0 {
            self.start = 0;
        }
        let needed = (self.start + self.len).div_ceil(CHUNK);
        while self.chunks.len() > needed {
            if let Some(chunk) = self.chunks.pop_back() {
                pool.give_back(chunk);
            }
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        self.consume(self.len, pool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Fill(usize),
        Drain(usize),
        Consume(usize),
        Look(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..50_000_usize).prop_map(Step::Push),
            (0..50_000_usize).prop_map(Step::Fill),
            (0..50_000_usize).prop_map(Step::Drain),
            (0..50_000_usize).prop_map(Step::Consume),
            ((0..50_000_usize), (0..70_000_usize)).prop_map(|(a, b)| Step::Look(a, b)),
        ]
    }

    /// A socket that takes so many bytes.
    struct Taker(Vec<u8>, usize);

    impl Write for Taker {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.1);
            self.0.extend_from_slice(&bytes[..count]);
            self.1 -= count;
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn it_is_a_queue(steps in proptest::collection::vec(step(), 0..40)) {
            let mut pool = Pool::new(64 * CHUNK);
            let mut queue = ByteQueue::default();
            let mut model: VecDeque<u8> = VecDeque::new();
            let mut next = 0_u8;
            let mut fresh = |count: usize| -> Vec<u8> {
                (0..count).map(|_| { next = next.wrapping_mul(5).wrapping_add(17); next }).collect()
            };
            for step in steps {
                match step {
                    Step::Push(count) => {
                        let bytes = fresh(count);
                        let taken = queue.push(&bytes, &mut pool);
                        prop_assert!(taken <= count);
                        model.extend(&bytes[..taken]);
                    }
                    Step::Fill(count) => {
                        let bytes = fresh(count);
                        if let Some(read) = queue.fill(&bytes[..], count, &mut pool) {
                            model.extend(&bytes[..read.unwrap()]);
                        }
                    }
                    Step::Drain(count) => {
                        let mut taker = Taker(Vec::new(), count);
                        let written = queue.drain(&mut taker, &mut pool).unwrap();
                        prop_assert_eq!(taker.0, model.drain(..written).collect::<Vec<_>>());
                    }
                    Step::Consume(count) => {
                        queue.consume(count, &mut pool);
                        model.drain(..count.min(model.len()));
                    }
                    Step::Look(from, len) => {
                        let mut slices = [IoSlice::new(&[]); 8];
                        let count = queue.slices(from, len, &mut slices);
                        let seen: Vec<u8> =
                            slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
                        prop_assert_eq!(
                            seen,
                            model.iter().skip(from).take(len).copied().collect::<Vec<_>>()
                        );
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert!(pool.used() <= 64 * CHUNK);
            }
            queue.clear(&mut pool);
            prop_assert_eq!(pool.used(), 0);
        }
    }

    #[test]
    fn stuck_flows_leave_something_for_others() {
        let mut pool = Pool::new(1024 * CHUNK);
        let bytes = vec![1; 1024 * CHUNK];
        let mut stuck: Vec<ByteQueue> = (0..100).map(|_| ByteQueue::default()).collect();
        for queue in &mut stuck {
            queue.push(&bytes, &mut pool);
        }
        let mut late = ByteQueue::default();
        assert_eq!(late.push(&bytes[..CHUNK], &mut pool), CHUNK);
    }
}
