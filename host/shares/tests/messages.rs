//! Messages that no kernel sends, and messages by way of guest memory.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // tests may panic

mod guest;

use std::sync::{Arc, Condvar, Mutex};

use guest::{Guest, message, text, u32_at, u64_at};
use kasane_host_shares::wire::{self, ROOT, op};
use kasane_host_shares::{Share, ShareAccess};
use kasane_memory::{GuestMemory, Ram, RamSlot};
use kasane_ports::{GuestRange, ShareBackend, ShareCompletions, ShareRequest};
use proptest::prelude::*;

fn field() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::sample::select(vec![0u32, 1, 2, 3, 7, 40, 4096, u32::MAX])
            .prop_map(|n| n.to_le_bytes().to_vec()),
        prop::sample::select(vec![0u64, 1, 2, 3, 4, 1 << 40, u64::MAX])
            .prop_map(|n| n.to_le_bytes().to_vec()),
        prop::sample::select(vec!["a", "b", "..", "", "a/b", "long name"]).prop_map(text),
        prop::collection::vec(any::<u8>(), 0..50),
    ]
}

proptest! {
    #[test]
    fn any_message_has_an_answer_that_fits(
        messages in prop::collection::vec(
            (0u32..55, 0u64..6, prop::collection::vec(field(), 0..12), 0usize..3000, 0usize..200),
            1..60,
        ),
    ) {
        let guest = Guest::new(ShareAccess::ReadWrite);
        for (operation, node, fields, room, cut) in messages {
            let mut bytes = message(operation, node, &fields.concat());
            bytes.truncate(bytes.len().saturating_sub(cut.saturating_sub(100)));
            if let Some(answer) = guest.server.answer(&bytes, room) {
                prop_assert!(answer.len() <= room);
                prop_assert_eq!(u32_at(&answer, 0) as usize, answer.len());
                prop_assert_eq!(u64_at(&answer, 8), 77);
            }
        }
        let outside = std::fs::read_dir(guest.outside.parent().unwrap()).unwrap().count();
        prop_assert_eq!(outside, 2, "nothing but the folder was changed");
    }
}

#[derive(Default)]
struct Done {
    all: Mutex<Vec<(u64, u32)>>,
    news: Condvar,
}

impl ShareCompletions for Done {
    fn completed(&self, token: u64, written: u32) {
        self.all.lock().unwrap().push((token, written));
        self.news.notify_all();
    }
}

#[test]
fn requests_are_answered_in_guest_memory() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("f"), "x").unwrap();
    let ram = Arc::new(Ram::new(vec![RamSlot::allocated(0, 4 << 20)]));
    let share = Share::start(folder.path(), ShareAccess::ReadWrite, ram.clone()).unwrap();
    let done = Arc::new(Done::default());
    let to: Arc<dyn ShareCompletions> = done.clone();
    share.connect(Arc::downgrade(&to));
    let lookup = message(op::LOOKUP, ROOT, &text("f"));
    ram.write(0x1000, &lookup).unwrap();
    let range = |gpa, len: usize| GuestRange { gpa, len: len as u32 };
    let whole = vec![range(0x1000, 5), range(0x1005, lookup.len() - 5)];
    let requests = [
        (whole.clone(), vec![range(0x2000, 16), range(0x3000, 200)]),
        (whole.clone(), vec![range(0x2800, 20)]),
        (vec![range(0x1000, 39)], vec![range(0x2900, 100)]),
        (vec![range(u64::MAX - 100, 50)], vec![range(0x2a00, 100)]),
        (whole, vec![range(1 << 40, 200)]),
        (vec![range(0x1000, wire::MESSAGE_MAX + 500)], vec![range(0x2b00, 16)]),
    ];
    let requests = requests.into_iter().zip(0..);
    let requests = requests
        .map(|((message, answer), token)| ShareRequest { token, message, answer })
        .collect();
    share.submit(requests);
    share.drain();
    let mut all = done.all.lock().unwrap().clone();
    all.sort_unstable();
    assert_eq!(all, [(0, 144), (1, 16), (2, 0), (3, 0), (4, 0), (5, 16)]);
    let mut attributes = [0; 128];
    ram.read(0x3000, &mut attributes).unwrap();
    assert_eq!(u64_at(&attributes, 48), 1, "its size");
    let mut header = [0; 16];
    ram.read(0x2800, &mut header).unwrap();
    assert_eq!(u32_at(&header, 4) as i32, -75, "no room for the answer");
}
