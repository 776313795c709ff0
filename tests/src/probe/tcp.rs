//! A TCP transfer over real kernel sockets, every byte compared.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::pattern::Pattern;
use super::{Path, STALL};
use crate::netns::Netns;

/// Bytes of one write.
const CHUNK: usize = 60_000;

/// What became of a transfer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// Bytes that arrived and were the right ones.
    pub bytes: u64,
    /// From the connect to the last acknowledged byte.
    pub took: Duration,
    /// Time the connect took.
    pub connect: Duration,
}

impl Transfer {
    /// Payload bits a second, in Gb/s.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    pub fn gbps(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.took.as_secs_f64() / 1e9
    }
}

/// Sends `bytes` known bytes through one connection, and has the receiver compare and acknowledge them.
///
/// # Errors
/// When the connection is not made, stalls, breaks, or a byte differs.
pub fn transfer(path: Path<'_>, bytes: u64) -> io::Result<Transfer> {
    let sent = with_receiver(path, |stream| receive(stream, bytes), |address| send(address, bytes));
    sent.map(|(transfer, ())| transfer)
}

/// Runs the receiver of a connection at the path's end while `send` makes one at its start; gives both results.
pub(super) fn with_receiver<S: Send, R: Send>(
    path: Path<'_>,
    receive: impl FnOnce(TcpStream) -> io::Result<R> + Send,
    send: impl FnOnce(SocketAddr) -> io::Result<S> + Send,
) -> io::Result<(S, R)> {
    let (ready, listening) = mpsc::channel();
    thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            path.to.join_thread();
            let listener = TcpListener::bind(SocketAddr::new(path.target, 0))?;
            ready.send(listener.local_addr()?).map_err(|_| stalled())?;
            receive(accept(&listener)?)
        });
        let Ok(address) = listening.recv() else {
            return Err(receiver.join().expect("the receiver does not panic").err().unwrap_or_else(stalled));
        };
        let sender = scope.spawn(move || {
            path.from.join_thread();
            send(address)
        });
        let sent = sender.join().expect("the sender does not panic");
        // What the receiver has to say is why the sender failed.
        let received = receiver.join().expect("the receiver does not panic")?;
        Ok((sent?, received))
    })
}

/// A counter of a namespace's TCP since it was made, by its name in `/proc/net/snmp`, such as `RetransSegs`.
///
/// # Panics
/// When the kernel has none of this name.
#[must_use]
#[track_caller]
pub fn counter(netns: &Netns, wanted: &str) -> u64 {
    let text = netns.enter(|| fs::read_to_string("/proc/thread-self/net/snmp")).expect("/proc is mounted");
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:")).map(str::split_whitespace);
    let (names, mut values) = (lines.next(), lines.next());
    let at = names.and_then(|mut names| names.position(|name| name == wanted));
    let value = at.and_then(|at| values.as_mut()?.nth(at)?.parse().ok());
    value.unwrap_or_else(|| panic!("no {wanted} in {text}"))
}

fn receive(mut stream: TcpStream, bytes: u64) -> io::Result<()> {
    let (mut expected, mut buffer, mut left) = (Pattern::new(bytes), vec![0; CHUNK], bytes);
    while left > 0 {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{left} of {bytes} bytes are missing")));
        }
        if !expected.matches(&buffer[..read]) {
            let at = bytes - left;
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("wrong bytes near {at} of {bytes}")));
        }
        left = left.checked_sub(read as u64).ok_or_else(|| io::Error::other("more bytes than were sent"))?;
    }
    stream.write_all(&bytes.to_le_bytes())
}

/// Accepts one connection, or gives up when nobody comes.
fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + STALL;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(STALL))?;
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
}

fn send(address: SocketAddr, bytes: u64) -> io::Result<Transfer> {
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, STALL)?;
    let connect = start.elapsed();
    stream.set_read_timeout(Some(STALL))?;
    stream.set_write_timeout(Some(STALL))?;
    let (mut pattern, mut left) = (Pattern::new(bytes), bytes);
    while left > 0 {
        let chunk = pattern.next(usize::try_from(left).unwrap_or(CHUNK).min(CHUNK));
        stream.write_all(chunk)?;
        left -= chunk.len() as u64;
    }
    let mut answer = [0; 8];
    stream.read_exact(&mut answer)?;
    if u64::from_le_bytes(answer) != bytes {
        return Err(io::Error::other("the receiver counted other bytes"));
    }
    Ok(Transfer { bytes, took: start.elapsed(), connect })
}

fn stalled() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the other end went away")
}
