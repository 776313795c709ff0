//! Throughput by `iperf3`, for figures and for traffic of its own kind; correctness is `tcp`'s and `udp`'s.

use std::fs;
use std::net::IpAddr;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Path;

/// How to measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Iperf {
    /// Seconds to send.
    pub seconds: u32,
    /// Streams at once.
    pub streams: u32,
    /// Whether the far end sends.
    pub reverse: bool,
    /// UDP at this rate in Mb/s (0: as fast as it goes) instead of TCP.
    pub udp_mbps: Option<u32>,
}

impl Default for Iperf {
    fn default() -> Self {
        Self { seconds: 2, streams: 1, reverse: false, udp_mbps: None }
    }
}

/// What iperf3 measured.
#[derive(Clone, PartialEq, Debug)]
pub struct Figure {
    /// Received payload in Gb/s.
    pub gbps: f64,
    /// Segments sent again (TCP).
    pub retransmits: u64,
    /// Share of datagrams that were lost, in percent (UDP).
    pub lost_percent: f64,
}

/// Runs a server at the end of the path and a client at its start.
///
/// # Errors
/// With iperf3's own sentence, or what it printed.
///
/// # Panics
/// When the server does not come up.
pub fn iperf(path: Path<'_>, how: Iperf) -> Result<Figure, String> {
    static PORT: AtomicU16 = AtomicU16::new(5201);
    let port = PORT.fetch_add(1, Ordering::Relaxed);
    let server = Server::start(path, port);
    server.wait_until_listening(path, port);
    let (port, seconds, streams) = (port.to_string(), how.seconds.to_string(), how.streams.to_string());
    let (source, target) = (path.source.to_string(), path.target.to_string());
    let mut arguments = vec!["-J", "-c", &target, "-B", &source, "-p", &port, "-t", &seconds, "-P", &streams];
    arguments.extend(["--connect-timeout", "5000"]);
    if how.reverse {
        arguments.push("-R");
    }
    let rate = how.udp_mbps.map(|mbps| format!("{mbps}M"));
    if let Some(rate) = &rate {
        arguments.extend(["-u", "-b", rate]);
    }
    let outcome = path.from.exec("iperf3", &arguments);
    parse(&outcome.stdout).map_err(|error| format!("{}: {error} {}", outcome.line, outcome.stderr))
}

fn parse(text: &str) -> Result<Figure, String> {
    let answer: Value = serde_json::from_str(text).map_err(|error| format!("no JSON ({error}): {text}"))?;
    if let Some(error) = answer["error"].as_str() {
        return Err(error.to_owned());
    }
    let end = &answer["end"];
    // UDP has one sum, of what arrived; TCP has one a side.
    let received = if end["sum_received"].is_object() { &end["sum_received"] } else { &end["sum"] };
    let bits = received["bits_per_second"].as_f64().ok_or_else(|| format!("no figure in {text}"))?;
    Ok(Figure {
        gbps: bits / 1e9,
        retransmits: end["sum_sent"]["retransmits"].as_u64().unwrap_or(0),
        lost_percent: end["sum"]["lost_percent"].as_f64().unwrap_or(0.0),
    })
}

/// A server for one client; killed when dropped.
#[derive(Debug)]
struct Server(Child);

impl Server {
    fn start(path: Path<'_>, port: u16) -> Self {
        let mut command = path.to.command(std::path::Path::new("iperf3"));
        command.args(["-s", "-1", "-B", &path.target.to_string(), "-p", &port.to_string()]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("nsenter starts"))
    }

    /// Waits for the socket to show in the namespace: asking by a connection would use the server up.
    fn wait_until_listening(&self, path: Path<'_>, port: u16) {
        let table = match path.target {
            IpAddr::V4(_) => "/proc/thread-self/net/tcp",
            IpAddr::V6(_) => "/proc/thread-self/net/tcp6",
        };
        let wanted = format!(":{port:04X} ");
        let deadline = Instant::now() + super::STALL;
        let listening = path.to.enter(|| {
            loop {
                let text = fs::read_to_string(table).unwrap_or_default();
                if text.lines().any(|line| line.contains(&wanted) && line.contains(" 0A ")) {
                    return true;
                }
                if Instant::now() > deadline {
                    return false;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        assert!(listening, "iperf3 (pid {}) does not listen on port {port}", self.0.id());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_iperf3_is_its_own_sentence() {
        assert_eq!(parse(r#"{"error": "unable to connect"}"#), Err("unable to connect".into()));
        let udp = parse(r#"{"end": {"sum": {"bits_per_second": 2e9, "lost_percent": 1.5}}}"#);
        assert_eq!(udp, Ok(Figure { gbps: 2.0, retransmits: 0, lost_percent: 1.5 }));
    }
}
