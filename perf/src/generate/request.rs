//! Requests of 64 bytes and their answers over one TCP connection, in a closed loop or at a fixed rate.
//!
//! At a fixed rate a latency counts from when its request should have left, so that a pause of the switch is charged
//! with all the requests that it held up and not with one (coordinated omission).

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use podwire_vswitch::sys::clock::mono_now;

use super::{STALL, Span};
use crate::lab::stop;
use crate::metric::{Metric, Sample};
use crate::pace::nanos;
use crate::side::Path;

/// Bytes of a request and of its answer.
const BYTES: usize = 64;
/// Longest latency that is told from longer ones, in nanoseconds.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Latency percentiles, and round trips a second.
pub(super) fn measure(path: &Path<'_>, rate: Option<f64>, span: Span) -> Result<Sample> {
    let (listener, address) = path.listen()?;
    let (near, far) = path.connection(&listener, address)?;
    for stream in [&near, &far] {
        stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(STALL)))
            .context("cannot set up a socket")?;
    }
    let latencies = thread::scope(|scope| {
        scope.spawn(|| answer(&far));
        let asked = ask(&near, rate, span.warm_up).and_then(|_| ask(&near, rate, span.time));
        for stream in [&near, &far] {
            let _ = stream.shutdown(Shutdown::Both);
        }
        asked
    });
    figures(&latencies.with_context(|| format!("from {} to {}", path.from.name(), path.to.name()))?)
}

/// What came of asking for a while.
struct Latencies {
    /// In nanoseconds.
    histogram: Histogram<u64>,
    took_ns: u64,
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn figures(latencies: &Latencies) -> Result<Sample> {
    let Latencies { histogram, took_ns } = latencies;
    ensure!(!histogram.is_empty(), "no answer came in the time of the measurement");
    let us = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Sample::of(&[
        (Metric::P50Us, us(0.5)),
        (Metric::P90Us, us(0.9)),
        (Metric::P99Us, us(0.99)),
        (Metric::P999Us, us(0.999)),
        (Metric::MaxUs, histogram.max() as f64 / 1e3),
        (Metric::PerSecond, histogram.len() as f64 * 1e9 / *took_ns as f64),
    ]))
}

fn ask(mut stream: &TcpStream, rate: Option<f64>, time: Duration) -> Result<Latencies> {
    // The kernel may wake a sleeper 50 us late for its own convenience; a sender on time is none of that.
    let _ = nix::sys::prctl::set_timerslack(1);
    let mut histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).context("a histogram of latencies")?;
    let mut bytes = [0; BYTES];
    let (begin, end) = (mono_now().0, mono_now().0 + nanos(time));
    let mut due = begin;
    let pace = Pace { begin, between_ns: rate.map(|rate| 1e9 / rate) };
    for number in 1.. {
        pace.wait(due);
        let sent = if rate.is_some() { due } else { mono_now().0 };
        let asked = stream.write_all(&bytes).and_then(|()| stream.read_exact(&mut bytes));
        asked.context("an answer did not come")?;
        let now = mono_now().0;
        histogram.saturating_record(now.saturating_sub(sent));
        due = pace.due(number);
        if now >= end || (rate.is_some() && due >= end) {
            break;
        }
        stop::check()?;
    }
    Ok(Latencies { histogram, took_ns: (mono_now().0 - begin).max(1) })
}

/// When requests should leave.
struct Pace {
    begin: u64,
    /// Nanoseconds from one to the next; none for a closed loop.
    between_ns: Option<f64>,
}

impl Pace {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive time within hours")]
    #[allow(clippy::cast_precision_loss, reason = "less than a nanosecond in months")]
    fn due(&self, number: u64) -> u64 {
        self.begin + self.between_ns.map_or(0, |between| (between * number as f64) as u64)
    }

    fn wait(&self, due: u64) {
        if self.between_ns.is_some() {
            thread::sleep(Duration::from_nanos(due.saturating_sub(mono_now().0)));
        }
    }
}

fn answer(mut stream: &TcpStream) {
    let mut bytes = [0; BYTES];
    let mut turn = || -> io::Result<()> {
        stream.read_exact(&mut bytes)?;
        stream.write_all(&bytes)
    };
    while turn().is_ok() {}
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    fn against(serve: impl FnOnce(TcpStream) + Send + 'static, rate: Option<f64>) -> Latencies {
        let (near, far) = pair();
        near.set_nodelay(true).unwrap();
        let server = thread::spawn(move || serve(far));
        let asked = ask(&near, rate, Duration::from_millis(200)).unwrap();
        drop(near);
        server.join().unwrap();
        asked
    }

    #[test]
    fn a_closed_loop_asks_as_often_as_answers_come() {
        let asked = against(|far| answer(&far), None);
        assert!(asked.histogram.len() > 100, "{}", asked.histogram.len());
        assert!(asked.histogram.value_at_quantile(0.5) < 10_000_000);
    }

    #[test]
    fn one_pause_is_charged_with_all_requests_that_it_held_up() {
        let pausing = |mut far: TcpStream| {
            let mut bytes = [0; BYTES];
            for number in 0_u64.. {
                if far.read_exact(&mut bytes).is_err() {
                    return;
                }
                if number == 20 {
                    thread::sleep(Duration::from_millis(100));
                }
                if far.write_all(&bytes).is_err() {
                    return;
                }
            }
        };
        let asked = against(pausing, Some(1_000.0));
        let slow = asked.histogram.count_between(30_000_000, 200_000_000);
        assert!(slow >= 50, "the pause of 100 ms held up 100 requests, 70 of them for 30 ms and more: {slow}");
    }
}
