//! ICMP echo by the system's `ping`.

use super::Path;

/// How to ping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ping {
    /// Echo requests to send.
    pub count: u32,
    /// Bytes of ICMP payload; the IP packet is 28 bytes longer (IPv6: 48).
    pub payload: u16,
    /// Whether the packets may not be fragmented.
    pub dont_fragment: bool,
    /// Seconds to wait for the last answer.
    pub wait_seconds: u32,
}

impl Default for Ping {
    fn default() -> Self {
        Self { count: 3, payload: 56, dont_fragment: false, wait_seconds: 2 }
    }
}

impl Ping {
    /// One packet of exactly the given IP length that may not be fragmented.
    ///
    /// # Panics
    /// When the length does not hold the headers.
    #[must_use]
    #[track_caller]
    pub fn of_ip_length(v6: bool, bytes: u16) -> Self {
        let headers = if v6 { 48 } else { 28 };
        let payload = bytes.checked_sub(headers).expect("the packet is longer than its headers");
        Self { count: 1, payload, dont_fragment: true, ..Self::default() }
    }
}

/// What became of a ping.
#[derive(Clone, PartialEq, Debug)]
pub struct PingResult {
    /// Echo requests sent.
    pub sent: u32,
    /// Answers received.
    pub received: u32,
    /// Round-trip time of the first answer in milliseconds.
    pub first_ms: Option<f64>,
    /// All that ping printed, for messages.
    pub text: String,
}

impl PingResult {
    /// Whether every request was answered.
    #[must_use]
    pub fn all(&self) -> bool {
        self.sent > 0 && self.received == self.sent
    }

    /// Whether something on the way, or the sender itself, said that the packet is too big.
    #[must_use]
    pub fn too_big(&self) -> bool {
        ["Frag needed", "Packet too big", "essage too long"].iter().any(|words| self.text.contains(words))
    }
}

/// Pings along the path and waits for the answers.
#[must_use]
#[track_caller]
pub fn ping(path: Path<'_>, how: Ping) -> PingResult {
    let (count, payload, wait) = (how.count.to_string(), how.payload.to_string(), how.wait_seconds.to_string());
    let fragment = if how.dont_fragment { "do" } else { "dont" };
    let (source, target) = (path.source.to_string(), path.target.to_string());
    let mut arguments = vec!["-n", "-c", &count, "-i", "0.05", "-W", &wait, "-s", &payload, "-M", fragment];
    arguments.extend(["-I", &source, &target]);
    let outcome = path.from.exec("ping", &arguments);
    parse(&format!("{}{}", outcome.stdout, outcome.stderr))
}

fn parse(text: &str) -> PingResult {
    // "3 packets transmitted, 2 received, +1 errors, 33% packet loss, time 2ms"
    let summary = text.lines().find(|line| line.contains("packets transmitted")).unwrap_or_default();
    let number = |word: &str| {
        let part = summary.split(", ").find(|part| part.contains(word)).unwrap_or_default();
        part.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    let time = text.split("time=").nth(1).and_then(|rest| rest.split_whitespace().next());
    PingResult {
        sent: number("transmitted"),
        received: number("received"),
        first_ms: time.and_then(|time| time.parse().ok()),
        text: text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_read_with_and_without_errors() {
        let good = parse(
            "64 bytes from 10.0.0.2: icmp_seq=1 ttl=64 time=0.045 ms\n\n--- 10.0.0.2 ping statistics ---\n\
             3 packets transmitted, 3 received, 0% packet loss, time 102ms\n",
        );
        assert!(good.all());
        assert_eq!(good.first_ms, Some(0.045));
        let bad =
            parse("From 10.0.0.1: Packet too big: mtu=1280\n1 packets transmitted, 0 received, +1 errors, 100% loss");
        assert_eq!((bad.sent, bad.received, bad.all(), bad.too_big()), (1, 0, false, true));
        assert!(!parse("").all());
    }
}
