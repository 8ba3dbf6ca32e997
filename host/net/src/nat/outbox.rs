//! Frames of the gateway itself (answers to ARP, errors, resets, datagrams), until the guest has
//! room for them. What belongs to a TCP flow waits in the flow instead.

use std::collections::VecDeque;

use kasane_ports::{FrameOffload, Given};

use crate::link::Link;

/// Frames that may wait. Beyond that they are lost, as on any link: a guest that takes nothing
/// gets nothing.
const FRAMES_MAX: usize = 256;

/// The frames.
#[derive(Debug, Default)]
pub(crate) struct Outbox(VecDeque<Vec<u8>>);

impl Outbox {
    /// Puts a frame, with whole checksums, behind the others.
    pub(crate) fn push(&mut self, frame: Vec<u8>) {
        if self.0.len() < FRAMES_MAX {
            self.0.push_back(frame);
        }
    }

    /// Whether there is hardly room for more, so that whoever can wait should.
    pub(crate) fn is_filling(&self) -> bool {
        self.0.len() > FRAMES_MAX / 2
    }

    /// Gives the guest what it takes.
    pub(crate) fn flush(&mut self, link: &mut Link<'_>) {
        while let Some(frame) = self.0.front() {
            match link.give(&[frame], FrameOffload::default()) {
                Given::Taken | Given::Refused => {
                    self.0.pop_front();
                }
                Given::NoRoom => return,
            }
        }
    }
}
