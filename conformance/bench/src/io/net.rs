//! Networks by `iperf3`: TCP, one stream, between the guest and a server on the host's loopback,
//! which both systems' NAT has at the gateway's address.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::guest::{Guest, number_at};
use super::results::Work;
use super::{Options, Place};

const IPERF: &str = "iperf3";
/// Of both NATs; behind it is the host's loopback.
const GATEWAY: &str = "10.0.2.2";
const MBIT: f64 = 1e6;

/// Where the data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    ToHost,
    ToGuest,
}

pub(super) const WAYS: [Way; 2] = [Way::ToHost, Way::ToGuest];

impl Work for Way {
    fn name(&self) -> String {
        let way = match self {
            Self::ToHost => "guest to host",
            Self::ToGuest => "host to guest",
        };
        format!("TCP, {way}")
    }

    fn unit(&self) -> &'static str {
        "Mbit/s"
    }

    fn places(&self) -> &'static [Place] {
        &[Place::Qemu, Place::Kasane]
    }
}

impl Way {
    /// The first second is TCP's slow start and does not count.
    fn command(self, port: u16, seconds: u64) -> String {
        let reverse = match self {
            Self::ToHost => "",
            Self::ToGuest => " --reverse",
        };
        format!(
            "iperf3 --client {GATEWAY} --port {port} --time {seconds} --omit 1 --interval 0 \
             --connect-timeout 10000 --json{reverse}"
        )
    }
}

/// How it is measured, for a person.
///
/// # Errors
/// When the host has no iperf3.
pub(super) fn note() -> Result<String> {
    let output = Command::new(IPERF).arg("--version").output().with_context(|| {
        format!("{IPERF} did not start: is it installed? `apt-get install {IPERF}`")
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().next().unwrap_or("iperf3").to_owned();
    Ok(format!(
        "{version} on the host's loopback, iperf3 in the guest; one TCP stream, what arrived"
    ))
}

/// iperf3's server, ended when this is dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Result<Self> {
        let free = TcpListener::bind(("127.0.0.1", 0)).context("no port is free")?;
        let port = free.local_addr().context("the port has no number")?.port();
        drop(free);
        let mut command = Command::new(IPERF);
        command.args(["--server", "--bind", "127.0.0.1", "--port", &port.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().with_context(|| format!("{IPERF} did not start"))?;
        Ok(Self { child, port })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _waited_already = self.child.wait();
    }
}

/// Two guests and the server.
pub(super) struct Bench {
    qemu: Guest,
    kasane: Guest,
    server: Server,
}

impl Bench {
    pub(super) fn start(options: &Options) -> Result<Self> {
        let server = Server::start()?;
        let mut qemu = Guest::start(options, Place::Qemu, &[])?;
        let mut kasane = Guest::start(options, Place::Kasane, &[])?;
        for (guest, place) in [(&mut qemu, Place::Qemu), (&mut kasane, Place::Kasane)] {
            guest.reach_shell().context(place.name())?;
            let online = "/lib/systemd/systemd-networkd-wait-online --any --timeout=120";
            guest.succeed(online).context(place.name())?;
        }
        Ok(Self { qemu, kasane, server })
    }

    pub(super) fn measure(&mut self, way: Way, place: Place, seconds: u64) -> Result<f64> {
        let guest = match place {
            Place::Host => anyhow::bail!("the host is not measured"),
            Place::Qemu => &mut self.qemu,
            Place::Kasane => &mut self.kasane,
        };
        let answer = guest.json(&way.command(self.server.port, seconds))?;
        Ok(number_at(&answer, "/end/sum_received/bits_per_second")? / MBIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_way_to_the_guest_is_reversed() {
        let commands = WAYS.map(|way| way.command(5201, 3));

        assert!(commands.iter().all(|one| one.contains("10.0.2.2 --port 5201 --time 3 ")));
        assert_eq!(commands.map(|one| one.ends_with(" --reverse")), [false, true]);
    }
}
