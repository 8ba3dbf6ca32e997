//! The folder of a LAN, and the socket files in it.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use kasane_definition::LanName;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

/// What a member's file is called: this and a number of 24 hexadecimal digits.
const MEMBER: &str = "m-";
/// A file that does not listen yet.
const NEW: &str = "new-";

/// A member's name: its file's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name([u8; 26]);

impl Name {
    /// A name that nobody has had: by process, time and a counter.
    fn fresh() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let text = format!(
            "{MEMBER}{:08x}{:08x}{:08x}",
            std::process::id(),
            since.as_nanos() as u32 ^ (since.as_secs() as u32).rotate_left(7),
            NEXT.fetch_add(1, Ordering::Relaxed),
        );
        Self::parse(text.as_bytes()).unwrap_or(Self([b'0'; 26]))
    }

    /// A name as it came from a file's name or a member.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let name: [u8; 26] = bytes.try_into().ok()?;
        let digits = name.strip_prefix(MEMBER.as_bytes())?;
        let hexadecimal = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        digits.iter().all(hexadecimal).then_some(Self(name))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The folder, and this member's file in it.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    name: Name,
}

/// The user's folder for sockets: `XDG_RUNTIME_DIR`, or where systemd has it.
pub(super) fn runtime_dir() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let path = PathBuf::from(format!("/run/user/{}", rustix::process::getuid().as_raw()));
    path.is_dir().then_some(path)
}

/// The folder in it that holds all LANs, made if it isn't there.
pub(crate) fn folder() -> Option<PathBuf> {
    let path = runtime_dir()?.join("kasane");
    make(&path).ok().map(|()| path)
}

impl Directory {
    /// Makes the folder, or takes it if it is the user's alone.
    pub(super) fn open(runtime: &Path, name: &LanName) -> Result<Self, (PathBuf, io::Error)> {
        let mut path = runtime.to_owned();
        for part in ["kasane", "lan", name.as_str()] {
            path.push(part);
            if let Err(error) = make(&path) {
                return Err((path, error));
            }
        }
        Ok(Self { path, name: Name::fresh() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// This member's name.
    pub(super) fn name(&self) -> Name {
        self.name
    }

    fn file(&self, name: Name) -> PathBuf {
        self.path.join(name.as_str())
    }

    /// Makes this member's file, which listens when others see it.
    pub(super) fn listen(&self) -> io::Result<OwnedFd> {
        /// The last member to leave may take the folder away just before we are in it.
        const TRIES: usize = 16;
        for _ in 0..TRIES {
            match self.try_listen() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => make(&self.path)?,
                result => return result,
            }
        }
        self.try_listen()
    }

    fn try_listen(&self) -> io::Result<OwnedFd> {
        let socket = new_socket()?;
        let new = self.path.join(format!("{NEW}{}", self.name.as_str()));
        bind(&socket, &SocketAddrUnix::new(&new)?)?;
        let listening = listen(&socket, 128).map_err(io::Error::from);
        listening.and_then(|()| fs::rename(&new, self.file(self.name))).inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })?;
        Ok(socket)
    }

    /// The others that have a file here.
    pub(super) fn others(&self) -> io::Result<Vec<Name>> {
        let names = fs::read_dir(&self.path)?
            .flatten()
            .map(|entry| entry.file_name())
            .filter_map(|name: OsString| Name::parse(name.as_encoded_bytes()));
        Ok(names.filter(|name| *name != self.name).collect())
    }

    /// Connects to a member; `None` if it is dead, whose file is removed then.
    pub(super) fn connect(&self, name: Name) -> io::Result<Option<OwnedFd>> {
        let file = self.file(name);
        let socket = new_socket()?;
        match connect(&socket, &SocketAddrUnix::new(&file)?) {
            Ok(()) => Ok(Some(socket)),
            Err(rustix::io::Errno::CONNREFUSED) => {
                let _ = fs::remove_file(&file);
                Ok(None)
            }
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.file(self.name));
        // Goes only if nobody else is there.
        let _ = fs::remove_dir(&self.path);
    }
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Makes a folder for the user alone, or takes one that is.
fn make(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => check(path),
    }
}

/// Whether a folder is the user's, and nobody else may enter it.
fn check(path: &Path) -> io::Result<()> {
    let data = fs::symlink_metadata(path)?;
    let ours = data.uid() == rustix::process::getuid().as_raw();
    if !data.is_dir() || !ours {
        return Err(io::Error::other("this is no folder of yours"));
    }
    if data.mode() & 0o077 != 0 {
        return Err(io::Error::other("others may enter this folder: `chmod 700` it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn open(runtime: &Path) -> Directory {
        Directory::open(runtime, &"lab".parse().unwrap()).unwrap()
    }

    #[test]
    fn the_folder_is_the_users_alone_and_goes_with_the_last() {
        let runtime = tempfile::tempdir().unwrap();
        let first = open(runtime.path());
        let path = first.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let _listening = first.listen().unwrap();
        let second = open(runtime.path());
        assert_eq!(second.others().unwrap(), [first.name()]);
        drop(second);
        assert!(path.exists());
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn a_folder_that_others_may_enter_is_refused() {
        let runtime = tempfile::tempdir().unwrap();
        let path = runtime.path().join("kasane");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let (refused, _) = Directory::open(runtime.path(), &"lab".parse().unwrap()).unwrap_err();
        assert_eq!(refused, path);
    }

    #[test]
    fn a_dead_members_file_is_removed_and_a_new_ones_is_not_seen() {
        let runtime = tempfile::tempdir().unwrap();
        let dead = open(runtime.path());
        drop(dead.listen().unwrap());
        let living = open(runtime.path());
        fs::write(living.path().join(format!("{NEW}x")), "").unwrap();
        assert_eq!(living.others().unwrap(), [dead.name()]);
        assert!(living.connect(dead.name()).unwrap().is_none());
        assert!(living.others().unwrap().is_empty());
    }

    #[test]
    fn names_from_others_are_checked() {
        assert_eq!(
            Name::parse(b"m-0123456789abcdef01234567").map(|name| name.bytes().len()),
            Some(26)
        );
        for bad in ["", "m-", "../../../../../etc/passwd0", "m-0123456789abcdef0123456/"] {
            assert_eq!(Name::parse(bad.as_bytes()), None);
        }
    }
}
