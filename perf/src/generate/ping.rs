//! One ping after silence: whether a switch that has gone to sleep wakes up in time.

use std::io::{Read, Write};
use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use podwire_vswitch::sys::clock::mono_now;
use podwire_vswitch::wire::checksum;

use crate::lab::stop;
use crate::metric::{Metric, Sample};
use crate::pace::nanos;
use crate::side::Path;

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Pings that may be lost before the path is up.
const TRIES: u16 = 5;
/// Type of an ICMP echo request and of its answer (RFC 792), and bytes of the smallest IPv4 header before it.
const REQUEST: u8 = 8;
const REPLY: u8 = 0;
const IPV4_BYTES: usize = 20;

/// Milliseconds of the round trip.
#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
pub(super) fn measure(path: &Path<'_>, silence: Duration) -> Result<Sample> {
    // One beforehand, so that it is the switch that sleeps and not a neighbour entry that is missing.
    let mut socket = reach(path)?;
    stop::sleep(silence)?;
    let took_ns = ping(&mut socket, TRIES).context("the first ping after silence was lost")?;
    Ok(Sample::of(&[(Metric::FirstMs, took_ns as f64 / 1e6)]))
}

/// Pings until it is answered, after which neighbours and switches know both pods; the socket it was done with.
pub(super) fn reach(path: &Path<'_>) -> Result<std::fs::File> {
    let mut socket = open(path).context("cannot open a socket for ICMP")?;
    if !(0..TRIES).any(|number| ping(&mut socket, number).is_ok()) {
        bail!("no ping from {} to {} is answered", path.from.name(), path.target);
    }
    Ok(socket)
}

fn open(path: &Path<'_>) -> Result<std::fs::File> {
    let made =
        path.from.enter(|| socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp))?;
    let socket = made?;
    connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrIn::from(SocketAddrV4::new(path.target, 0)))?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(1, 0))?;
    Ok(socket.into())
}

/// Nanoseconds until the answer to this one came.
fn ping(socket: &mut std::fs::File, number: u16) -> Result<u64> {
    let mut request = [0; 64];
    request[0] = REQUEST;
    request[6..8].copy_from_slice(&number.to_be_bytes());
    let check = checksum::finish(checksum::sum(&request));
    request[2..4].copy_from_slice(&check.to_be_bytes());
    let begin = mono_now();
    socket.write_all(&request)?;
    let mut answer = [0; 256];
    while mono_now().since(begin) < nanos(ANSWER_MAX) {
        let bytes = socket.read(&mut answer)?;
        let took = mono_now().since(begin);
        let icmp = answer[..bytes].get(IPV4_BYTES..).unwrap_or_default();
        if icmp.first() == Some(&REPLY) && icmp.get(6..8) == Some(&number.to_be_bytes()) {
            return Ok(took);
        }
    }
    bail!("no answer within {ANSWER_MAX:?}")
}
