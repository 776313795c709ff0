//! A TCP connection that carries known bytes until it is told to end, every byte compared.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::pattern::Pattern;
use super::tcp::with_receiver;
use super::{Path, STALL};

/// Bytes of one write, and the time between two: 6.5 Mb/s, so that many streams leave the machine time for others.
const CHUNK: usize = 16 << 10;
const PAUSE: Duration = Duration::from_millis(20);

/// Longest that a stream may stand still: what a restart takes, and what TCP waits between two tries.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Sends until `done`, and gives the bytes sent, all of which came; `arrived` counts those that came so far.
///
/// # Errors
/// When the connection is not made, stands still, breaks, or a byte differs or is missing.
pub fn stream(path: Path<'_>, seed: u64, arrived: &AtomicU64, done: &AtomicBool) -> io::Result<u64> {
    let (sent, received) =
        with_receiver(path, |stream| receive(stream, seed, arrived), |address| send(address, seed, done))?;
    if sent != received {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{received} of {sent} bytes came")));
    }
    Ok(sent)
}

fn send(address: SocketAddr, seed: u64, done: &AtomicBool) -> io::Result<u64> {
    let mut stream = TcpStream::connect_timeout(&address, STALL)?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    let (mut pattern, mut sent) = (Pattern::new(seed), 0);
    while !done.load(Ordering::Acquire) {
        stream.write_all(pattern.next(CHUNK))?;
        sent += CHUNK as u64;
        thread::sleep(PAUSE);
    }
    stream.shutdown(Shutdown::Write)?;
    // The receiver closes when it has read all.
    stream.read(&mut [0]).map(|_| sent)
}

fn receive(mut stream: TcpStream, seed: u64, arrived: &AtomicU64) -> io::Result<u64> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    let (mut expected, mut buffer, mut received) = (Pattern::new(seed), vec![0; CHUNK], 0);
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(received);
        }
        if !expected.matches(&buffer[..read]) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("wrong bytes after {received}")));
        }
        received += read as u64;
        arrived.store(received, Ordering::Relaxed);
    }
}
