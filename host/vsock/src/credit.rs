//! Flow control (virtio 1.2 §5.10.6.3): how much the other side still takes.

/// Credit that the guest has given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Credit {
    /// The guest's buffer, in bytes.
    buffer_len: u32,
    /// Bytes that it has taken out of it, wrapping.
    forwarded: u32,
    /// Bytes that were sent to it, wrapping.
    sent: u32,
}

impl Credit {
    /// The guest tells of its buffer.
    pub(crate) fn told(&mut self, buffer_len: u32, forwarded: u32) {
        (self.buffer_len, self.forwarded) = (buffer_len, forwarded);
    }
    /// Bytes were sent.
    pub(crate) fn sent(&mut self, len: usize) {
        self.sent = self.sent.wrapping_add(len as u32);
    }
    /// How many bytes may be sent. A guest that has taken more than it was sent gets nothing.
    pub(crate) fn left(self) -> usize {
        let under_way = self.sent.wrapping_sub(self.forwarded);
        self.buffer_len.saturating_sub(under_way) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_more_is_sent_than_the_guest_has_room_for(
            start in any::<u32>(),
            buffer in 1u32..100_000,
            steps in prop::collection::vec((1usize..50_000, 0u32..50_000), 1..50),
        ) {
            let mut credit = Credit { buffer_len: buffer, forwarded: start, sent: start };
            let (mut held, mut forwarded) = (0u32, start);
            for (want, take) in steps {
                let now = want.min(credit.left());
                credit.sent(now);
                held += now as u32;
                prop_assert!(held <= buffer);
                prop_assert_eq!(credit.left(), (buffer - held) as usize);
                let take = take.min(held);
                held -= take;
                forwarded = forwarded.wrapping_add(take);
                credit.told(buffer, forwarded);
            }
        }
    }

    #[test]
    fn a_guest_that_took_what_it_never_got_gets_nothing() {
        let mut credit = Credit::default();
        credit.told(1000, 5);
        assert_eq!(credit.left(), 0);
    }
}
