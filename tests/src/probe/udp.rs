//! UDP datagrams over real kernel sockets: single ones of any size, and trains sent as one super-frame.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use podwire_vswitch::sys::udp::{Role, SendOptions, UdpSocket as RawSocket};

use super::pattern::Pattern;
use super::{Path, STALL};

/// Longest payload of a UDP datagram over IPv4.
pub const DATAGRAM_MAX: usize = 65_507;
/// Where nobody listens (RFC 863).
const DISCARD_PORT: u16 = 9;
/// Datagrams the sender lets lie unanswered.
const WINDOW: usize = 8;

/// What became of datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Exchange {
    /// Datagrams sent.
    pub sent: usize,
    /// Answers that came back with every byte right.
    pub intact: usize,
    /// Answers with wrong bytes or of a wrong length.
    pub damaged: usize,
}

impl Exchange {
    /// Whether all came back, unharmed.
    #[must_use]
    pub fn all(&self) -> bool {
        self.sent > 0 && self.intact == self.sent && self.damaged == 0
    }
}

/// Sends `count` datagrams of `size` payload bytes, which the receiver sends back; a few are under way at a time.
/// Datagrams longer than the MTU go as fragments (unless path MTU discovery forbids it).
///
/// # Errors
/// When a socket cannot be made or refuses to send.
pub fn exchange(path: Path<'_>, size: usize, count: usize) -> io::Result<Exchange> {
    let done = AtomicBool::new(false);
    let send = |address| {
        let _tell = TellAtEnd(&done);
        let socket = connect(path, address)?;
        let mut result = Exchange::default();
        while result.sent < count {
            let burst = WINDOW.min(count - result.sent);
            for number in result.sent..result.sent + burst {
                socket.send(&Pattern::bytes(number as u64, size))?;
            }
            receive_burst(&socket, result.sent, burst, size, &mut result);
            result.sent += burst;
        }
        Ok(result)
    };
    with_receiver(path, |socket| echo(socket, &done), send).map(|(result, ())| result)
}

/// Ends another thread's work however its holder ends.
#[derive(Debug)]
pub struct TellAtEnd<'a>(pub &'a AtomicBool);

impl Drop for TellAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn receive_burst(socket: &UdpSocket, first: usize, burst: usize, size: usize, result: &mut Exchange) {
    let mut buffer = vec![0; DATAGRAM_MAX + 1];
    let mut missing: Vec<usize> = (first..first + burst).collect();
    while !missing.is_empty() {
        let Ok(length) = socket.recv(&mut buffer) else { return };
        let found = missing.iter().position(|&number| Pattern::bytes(number as u64, size) == buffer[..length]);
        match found {
            Some(at) => {
                missing.swap_remove(at);
                result.intact += 1;
            }
            None => result.damaged += 1,
        }
    }
}

/// Sends `bytes` at once with `UDP_SEGMENT`, so that the kernel hands one super-frame to the device where it can,
/// and gives the sizes of the datagrams that arrived with the right bytes, in order.
///
/// # Errors
/// When a socket refuses, or a datagram arrives with wrong bytes.
pub fn train(path: Path<'_>, bytes: usize, segment: u16) -> io::Result<Vec<usize>> {
    let collected = with_receiver(
        path,
        move |socket| collect(socket, bytes),
        |address| {
            let socket = connect(path, address)?;
            setsockopt(&socket, sockopt::UdpGsoSegment, &i32::from(segment)).map_err(io::Error::from)?;
            socket.send(&Pattern::bytes(bytes as u64, bytes)).map(|_| ())
        },
    );
    collected.map(|((), sizes)| sizes)
}

/// Sends datagrams that may not be fragmented (`IP_PMTUDISC_DO`) until the sender's own kernel refuses them as too
/// long, which it does once it was told the path's MTU. True when that came, false when [`STALL`] passed without.
///
/// # Errors
/// When the socket cannot be made, or is refused anything for another reason.
pub fn is_told_too_big(path: Path<'_>, size: usize) -> io::Result<bool> {
    path.from.enter(|| {
        let from = SocketAddr::new(path.source, 0);
        let socket = RawSocket::open(from, Role::Send, DATAGRAM_MAX).map_err(io::Error::other)?;
        let to = SendOptions { remote: SocketAddr::new(path.target, DISCARD_PORT), tos: 0, segment: None };
        let body = Pattern::bytes(0, size);
        let deadline = Instant::now() + STALL;
        while Instant::now() < deadline {
            match socket.send(&[io::IoSlice::new(&body)], &to) {
                Ok(()) => thread::sleep(Duration::from_millis(5)),
                Err(Errno::EMSGSIZE) => return Ok(true),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(false)
    })
}

fn collect(socket: &UdpSocket, bytes: usize) -> io::Result<Vec<usize>> {
    let (mut expected, mut buffer, mut sizes) = (Pattern::new(bytes as u64), vec![0; DATAGRAM_MAX + 1], Vec::new());
    while sizes.iter().sum::<usize>() < bytes {
        let length = socket.recv(&mut buffer)?;
        if !expected.matches(&buffer[..length]) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("datagram {} is damaged", sizes.len())));
        }
        sizes.push(length);
    }
    Ok(sizes)
}

/// Sends every datagram back to its sender until the sender is done.
fn echo(socket: &UdpSocket, done: &AtomicBool) -> io::Result<()> {
    let mut buffer = vec![0; DATAGRAM_MAX + 1];
    socket.set_read_timeout(Some(Duration::from_millis(10)))?;
    while !done.load(Ordering::Acquire) {
        match socket.recv_from(&mut buffer) {
            // A refused answer shows as a missing one.
            Ok((length, from)) => drop(socket.send_to(&buffer[..length], from)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn connect(path: Path<'_>, address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::new(path.source, 0))?;
    socket.set_read_timeout(Some(STALL / 2))?;
    socket.connect(address)?;
    Ok(socket)
}

/// Runs a receiver at the path's end while `send` runs at its start; gives both results.
pub(super) fn with_receiver<S: Send, R: Send>(
    path: Path<'_>,
    receive: impl FnOnce(&UdpSocket) -> io::Result<R> + Send,
    send: impl FnOnce(SocketAddr) -> io::Result<S> + Send,
) -> io::Result<(S, R)> {
    let (ready, listening) = mpsc::channel();
    thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            path.to.join_thread();
            let socket = UdpSocket::bind(SocketAddr::new(path.target, 0))?;
            socket.set_read_timeout(Some(STALL))?;
            ready.send(socket.local_addr()?).map_err(io::Error::other)?;
            receive(&socket)
        });
        let Ok(address) = listening.recv() else {
            let failed = receiver.join().expect("the receiver does not panic");
            return Err(failed.err().unwrap_or_else(|| io::Error::other("the receiver went away")));
        };
        let sender = scope.spawn(move || {
            path.from.join_thread();
            send(address)
        });
        let sent = sender.join().expect("the sender does not panic");
        let received = receiver.join().expect("the receiver does not panic");
        Ok((sent?, received?))
    })
}
