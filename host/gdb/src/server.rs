//! The socket: one debugger after the other.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::address::ListenAddress;
use crate::link::{Event, Inbox, receive};
use crate::session::{Over, serve};
use crate::target::{DebugTarget, Run, Stop};

/// Listens for debuggers as long as the process lives or until the machine's end.
pub struct Server {
    address: ListenAddress,
    /// A socket file of ours.
    file: Option<PathBuf>,
    connected: Arc<Connected>,
}

/// How long a debugger is given to hear of the machine's end.
const GOODBYE: Duration = Duration::from_secs(1);

/// The debugger that is connected now.
#[derive(Default)]
struct Connected {
    events: Mutex<Option<Sender<Event>>>,
    changed: Condvar,
}

impl Connected {
    fn set(&self, events: Option<Sender<Event>>) {
        *self.events.lock() = events;
        self.changed.notify_all();
    }
}

impl Server {
    /// Begins to listen. The machine is left alone until a debugger connects.
    ///
    /// # Errors
    /// When the address can't be had, or the host gives no thread.
    pub fn start(address: &ListenAddress, target: Arc<dyn DebugTarget>) -> io::Result<Self> {
        let connected = Arc::new(Connected::default());
        let server = |address, file| Self { address, file, connected: Arc::clone(&connected) };
        let (listener, server) = match address {
            ListenAddress::Tcp(address) => {
                let listener = TcpListener::bind(address)?;
                let address = ListenAddress::Tcp(listener.local_addr()?);
                (Listener::Tcp(listener), server(address, None))
            }
            ListenAddress::Unix(path) => {
                (Listener::unix(path)?, server(address.clone(), Some(path.clone())))
            }
        };
        let told = Arc::clone(&connected);
        let asked = Arc::clone(&target);
        let name = |name: &str| thread::Builder::new().name(name.to_owned());
        name("gdb stops").spawn(move || hand_on_stops(&*asked, &told))?;
        name("gdb").spawn(move || accept(&listener, &target, &connected))?;
        Ok(server)
    }

    /// Where it listens; with port 0 asked for, the port that the host gave.
    #[must_use]
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// The machine has ended: waits, but not long, until the connected debugger has heard of it.
    pub fn finish(self) {
        let mut events = self.connected.events.lock();
        while events.is_some() {
            if self.connected.changed.wait_for(&mut events, GOODBYE).timed_out() {
                return;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            let _gone_already = std::fs::remove_file(file);
        }
    }
}

/// Tells the connected debugger what happens to the machine; the thread's body.
fn hand_on_stops(target: &dyn DebugTarget, connected: &Connected) {
    loop {
        let stop = target.next_stop();
        let events = connected.events.lock();
        let heard = events.as_ref().is_some_and(|to| to.send(Event::Stop(stop)).is_ok());
        drop(events);
        match stop {
            Stop::Ended(_) => return,
            // Nobody is there to let it go on.
            Stop::Restarted | Stop::Vcpu(_) if !heard => target.resume(&Run::All),
            Stop::Restarted | Stop::Vcpu(_) => {}
        }
    }
}

/// Serves one debugger after the other; the thread's body.
fn accept(listener: &Listener, target: &Arc<dyn DebugTarget>, connected: &Connected) {
    loop {
        let Ok(stream) = listener.accept() else {
            // Out of file descriptors or so: not at full speed.
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        let over = converse(stream, target, connected).unwrap_or(Over::Lost);
        if matches!(over, Over::MachineEnded | Over::Killed) {
            return;
        }
    }
}

fn converse(
    stream: Stream,
    target: &Arc<dyn DebugTarget>,
    connected: &Connected,
) -> io::Result<Over> {
    let (events, inbox) = mpsc::channel();
    let reader = stream.try_clone()?;
    let closer = stream.try_clone()?;
    connected.set(Some(events.clone()));
    let receiving = thread::Builder::new()
        .name("gdb input".to_owned())
        .spawn(move || receive(reader, &events))?;
    let over = serve(target, Inbox::new(inbox), stream);
    closer.shutdown();
    let _panicked = receiving.join();
    connected.set(None);
    Ok(over)
}

enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Listener {
    #[cfg(unix)]
    fn unix(path: &std::path::Path) -> io::Result<Self> {
        UnixListener::bind(path).map(Self::Unix)
    }

    #[cfg(not(unix))]
    fn unix(_: &std::path::Path) -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this host has no Unix sockets"))
    }

    fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            #[cfg(unix)]
            Self::Unix(listener) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

impl Stream {
    fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
            #[cfg(unix)]
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
        }
    }

    fn shutdown(&self) {
        let _gone_already = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            #[cfg(unix)]
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl io::Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buf),
            #[cfg(unix)]
            Self::Unix(stream) => stream.read(buf),
        }
    }
}

impl io::Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buf),
            #[cfg(unix)]
            Self::Unix(stream) => stream.write(buf),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            #[cfg(unix)]
            Self::Unix(stream) => stream.flush(),
        }
    }
}
