//! A guest that sends anything to the server of a shared folder.
#![no_main]

use kasane_host_shares::{Server, ShareAccess};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, Vec<(u8, u8, u16, Vec<u8>)>)| {
    let (read_only, messages) = input;
    let all = tempfile::tempdir().expect("a place for files");
    let folder = all.path().join("shared");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::create_dir(folder.join("a")).expect("a folder in it");
    let access = if read_only { ShareAccess::ReadOnly } else { ShareAccess::ReadWrite };
    let server = Server::open(&folder, access, 0).expect("the folder");
    for (operation, node, room, body) in messages {
        let mut message = vec![0; 4];
        message.extend(u32::from(operation).to_le_bytes());
        message.extend(7u64.to_le_bytes());
        message.extend(u64::from(node).to_le_bytes());
        message.extend([0; 16]);
        // A long size makes a large file; holes cost nothing, data is as long as the message.
        message.extend(&body);
        if let Some(answer) = server.answer(&message, room.into()) {
            assert!(answer.len() <= room.into());
        }
    }
    assert_eq!(std::fs::read_dir(all.path()).expect("the place").count(), 1);
    assert!(!read_only || std::fs::read_dir(&folder).expect("the folder").count() == 1);
});
