//! The few calls to the operating system that no safe crate has. The only module of this crate
//! with `unsafe` code.
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
pub(crate) use linux::*;

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io;
    use std::os::fd::{AsFd, AsRawFd};

    /// Asks for the ICMP errors that datagrams of this socket meet (ip(7), `IP_RECVERR`), of the
    /// socket's version of IP.
    pub(crate) fn report_icmp_errors(socket: impl AsFd, ipv6: Ipv6) -> io::Result<()> {
        let (level, option) = match ipv6 {
            Ipv6::Yes => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
            Ipv6::No => (libc::IPPROTO_IP, libc::IP_RECVERR),
        };
        let on: libc::c_int = 1;
        // SAFETY: the descriptor is open, as it is borrowed; the pointer is to an int that lives
        // through the call, and the length is an int's.
        let result = unsafe {
            libc::setsockopt(
                socket.as_fd().as_raw_fd(),
                level,
                option,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Which version of IP a socket has.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Ipv6 {
        Yes,
        No,
    }

    /// Makes an open `/dev/net/tun` the TAP interface `name`, with a `struct virtio_net_hdr` of 10
    /// bytes before each frame (Documentation/networking/tuntap.rst). `name` has less than
    /// `IFNAMSIZ` bytes.
    pub(crate) fn attach_tap(tun: &File, name: &str) -> io::Result<()> {
        // SAFETY: all zeroes is a value of this structure of integers, bytes and a null pointer.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.len() >= request.ifr_name.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags =
            (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
        // SAFETY: the descriptor is open; TUNSETIFF reads and writes one `ifreq`, which lives
        // through the call.
        let result = unsafe {
            libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as libc::Ioctl, &raw mut request)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Says which offloads a TAP's reader takes: a mask of `TUN_F_*`.
    pub(crate) fn set_tap_offloads(tun: &File, mask: libc::c_uint) -> io::Result<()> {
        // SAFETY: the descriptor is open; TUNSETOFFLOAD takes its argument by value.
        let result = unsafe {
            libc::ioctl(
                tun.as_raw_fd(),
                libc::TUNSETOFFLOAD as libc::Ioctl,
                libc::c_ulong::from(mask),
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
