//! What a person should hear of a machine's devices while it runs. A thread of its own says it:
//! who has something to tell may be a vCPU's thread, and doesn't wait for the terminal.

use std::collections::HashSet;
use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use kasane_ports::BlockError;
use serde_json::{Value, json};

use crate::report::{Form, Screen};
use crate::vm::Notice;

/// How long the end of the program waits for what is still to be said.
const PATIENCE: Duration = Duration::from_secs(2);

enum Message {
    Say(Notice),
    /// Everything before this was said.
    Said(SyncSender<()>),
}

/// Where notices go.
#[derive(Clone)]
pub(crate) struct Notices(Sender<Message>);

impl Notices {
    pub(crate) fn start(form: Form, screen: Screen) -> io::Result<Self> {
        let (sender, messages) = channel();
        let thread = std::thread::Builder::new().name("notices".to_owned());
        thread.spawn(move || say_all(&messages, form, screen))?;
        Ok(Self(sender))
    }

    /// Will be said soon.
    pub(crate) fn notice(&self, notice: Notice) {
        let _ended = self.0.send(Message::Say(notice));
    }

    /// Waits until all is said.
    pub(crate) fn finish(&self) {
        let (said, wait) = sync_channel(1);
        if self.0.send(Message::Said(said)).is_ok() {
            let _slow = wait.recv_timeout(PATIENCE);
        }
    }
}

fn say_all(messages: &Receiver<Message>, form: Form, screen: Screen) {
    // A machine that is built anew for a reset meets the same trouble again.
    let mut told = HashSet::new();
    for message in messages {
        match message {
            Message::Said(said) => {
                let _nobody_waits = said.send(());
            }
            Message::Say(notice) => {
                let known = trouble(&notice).is_some_and(|trouble| !told.insert(trouble));
                if !known {
                    let (sentence, name, details) = words(&notice);
                    form.event_on(screen, &sentence, name, &details);
                }
            }
        }
    }
}

/// The disk and the kind of its trouble, if it is one.
fn trouble(notice: &Notice) -> Option<(String, &'static str)> {
    match notice {
        Notice::Forward { .. } => None,
        Notice::DiskTrouble { disk, trouble } => Some((disk.clone(), kind(trouble.error))),
    }
}

const fn kind(error: BlockError) -> &'static str {
    match error {
        BlockError::NoSpace => "no-space",
        BlockError::Io => "io",
        BlockError::ReadOnly => "read-only",
        BlockError::OutOfRange => "out-of-range",
        BlockError::Unsupported => "unsupported",
        BlockError::Memory => "memory",
    }
}

/// The sentence, the event's name and its details.
fn words(notice: &Notice) -> (String, &'static str, Value) {
    match notice {
        Notice::Forward { net, forward } => {
            let (host, guest) = (forward.host, forward.guest_port);
            let sentence = format!("{host} is port {guest} of the guest ({})", forward.transport);
            let details = json!({
                "net": net,
                "protocol": forward.transport.to_string(),
                "host": host.to_string(),
                "guest_port": guest,
            });
            (sentence, "forward", details)
        }
        Notice::DiskTrouble { disk, trouble } => {
            let error = trouble.error;
            let sentence = format!(
                "disk `{disk}`: {error}: {}; the guest was told of an I/O error",
                trouble.why
            );
            let details = json!({ "disk": disk, "kind": kind(error), "why": trouble.why });
            (sentence, "disk-trouble", details)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kasane_host_disks::Trouble;

    fn full(disk: &str) -> Notice {
        let trouble = Trouble { error: BlockError::NoSpace, why: "no room".to_owned() };
        Notice::DiskTrouble { disk: disk.to_owned(), trouble }
    }

    #[test]
    fn a_forward_is_told_with_its_port() {
        let forward = "tcp:127.0.0.1:40123:22".parse().unwrap();

        let (sentence, name, details) = words(&Notice::Forward { net: "net0".to_owned(), forward });

        assert_eq!(sentence, "127.0.0.1:40123 is port 22 of the guest (tcp)");
        assert_eq!(name, "forward");
        assert_eq!(details["host"], "127.0.0.1:40123");
        assert_eq!(details["guest_port"], 22);
    }

    #[test]
    fn a_disks_trouble_is_told_in_words_and_known_again() {
        let (sentence, name, details) = words(&full("vda"));

        assert_eq!(
            sentence,
            "disk `vda`: no space is left where the disk is stored: no room; \
             the guest was told of an I/O error"
        );
        assert_eq!((name, &details["kind"]), ("disk-trouble", &json!("no-space")));
        assert_eq!(trouble(&full("vda")), trouble(&full("vda")));
        assert_ne!(trouble(&full("vda")), trouble(&full("vdb")));
    }
}
