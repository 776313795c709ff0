//! How long a path is dead: numbered UDP datagrams, one each millisecond, and the longest time without one.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Path;
use super::udp::{TellAtEnd, with_receiver};

/// Time between two datagrams.
const INTERVAL: Duration = Duration::from_millis(1);
/// How long it sends before.
const BEFORE: Duration = Duration::from_millis(100);
/// How long it sends after: longer than a stack waits that has to ask for a neighbour again.
const AFTER: Duration = Duration::from_millis(1_500);
/// How long the receiver waits for the last ones.
const LAST: Duration = Duration::from_millis(200);

/// What came of the datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gap {
    /// Datagrams sent.
    pub sent: usize,
    /// Those that never came.
    pub lost: usize,
    /// Longest time without one.
    pub longest: Duration,
}

/// Sends while `body` runs, and a little before and after.
///
/// # Errors
/// When a socket cannot be made.
pub fn gap(path: Path<'_>, body: impl FnOnce() + Send) -> io::Result<Gap> {
    let done = AtomicBool::new(false);
    let send = |address: SocketAddr| {
        let socket = UdpSocket::bind(SocketAddr::new(path.source, 0))?;
        let (mut sent, mut due) = (0_u32, Instant::now());
        while !done.load(Ordering::Acquire) {
            // A refusal is a loss.
            let _ = socket.send_to(&sent.to_be_bytes(), address);
            sent += 1;
            due += INTERVAL;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(sent as usize)
    };
    let receive = |socket: &UdpSocket| {
        socket.set_read_timeout(Some(LAST))?;
        let (mut numbers, mut buffer, mut last) = (BTreeSet::new(), [0; 4], None);
        let mut longest = Duration::ZERO;
        loop {
            match socket.recv(&mut buffer) {
                Ok(_) => {
                    let now = Instant::now();
                    longest = longest.max(last.map_or(Duration::ZERO, |last| now - last));
                    last = Some(now);
                    numbers.insert(buffer);
                }
                Err(_) if done.load(Ordering::Acquire) => return Ok((numbers.len(), longest)),
                Err(_) => {}
            }
        }
    };
    let (sent, (received, longest)) = thread::scope(|scope| {
        let probe = scope.spawn(|| with_receiver(path, receive, send));
        {
            let _tell = TellAtEnd(&done);
            thread::sleep(BEFORE);
            body();
            thread::sleep(AFTER);
        }
        probe.join().expect("the probe does not panic")
    })?;
    Ok(Gap { sent, lost: sent.saturating_sub(received), longest })
}
