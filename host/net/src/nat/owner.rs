//! Who has a port of the host's, as far as the system tells: for the error that says it is taken.

use kasane_definition::Transport;

/// The process that listens on `port`: its name and number. `None` if it is another user's, or the
/// system doesn't tell.
#[cfg(target_os = "linux")]
pub(super) fn of(transport: Transport, port: u16) -> Option<String> {
    let tables = match transport {
        Transport::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Transport::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let inode = tables.iter().find_map(|path| {
        let table = std::fs::read_to_string(path).ok()?;
        table.lines().skip(1).find_map(|line| inode_of(line, transport, port))
    })?;
    let wanted = format!("socket:[{inode}]");
    let process = std::fs::read_dir("/proc").ok()?.flatten().find(|entry| {
        // Not `self` and the like.
        if entry.file_name().to_str().is_none_or(|name| name.parse::<u32>().is_err()) {
            return false;
        }
        let Ok(descriptors) = std::fs::read_dir(entry.path().join("fd")) else { return false };
        descriptors
            .flatten()
            .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == &*wanted))
    })?;
    let name = std::fs::read_to_string(process.path().join("comm")).ok()?;
    Some(format!("{} (process {})", name.trim_end(), process.file_name().to_string_lossy()))
}

/// The inode of a line's socket, if it is bound to this port; of TCP's, if it listens
/// (Documentation/networking/proc_net_tcp.rst).
#[cfg(target_os = "linux")]
fn inode_of(line: &str, transport: Transport, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    let mut words = line.split_whitespace().skip(1);
    let (_, local) = words.next()?.rsplit_once(':')?;
    let state = words.nth(1)?;
    let inode = words.nth(5)?.parse().ok()?;
    let ours = u16::from_str_radix(local, 16) == Ok(port)
        && (transport == Transport::Udp || state == LISTEN);
    ours.then_some(inode)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn of(_: Transport, _: u16) -> Option<String> {
    None
}
