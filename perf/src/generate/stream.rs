//! TCP connections that send as fast as they can; counted is what the receivers read.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use podwire_vswitch::sys::clock::mono_now;

use super::Span;
use super::pages::Pages;
use crate::lab::{CpuTime, stop};
use crate::metric::{Metric, Sample};
use crate::side::Path;

/// Pages of one write and of one read: 128 KB, as iperf3 has it.
const PAGES: usize = 32;

/// Received bytes, time and CPU time up to a moment.
struct Moment {
    bytes: u64,
    at: podwire_vswitch::id::MonoNs,
    cpu: CpuTime,
}

/// Throughput over `streams` connections, and the CPU time it cost. `congestion` names the senders' congestion control.
pub(super) fn measure(path: &Path<'_>, streams: usize, congestion: Option<&str>, span: Span) -> Result<Sample> {
    let (listener, address) = path.listen()?;
    let connections: Result<Vec<_>> = (0..streams).map(|_| path.connection(&listener, address)).collect();
    let connections = connections?;
    if let Some(name) = congestion {
        for (near, _) in &connections {
            setsockopt(near, sockopt::TcpCongestion, &OsString::from(name)).with_context(|| {
                format!("cannot have a sender use {name}: load its module (modprobe tcp_{name}), or name another")
            })?;
        }
    }
    let (received, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let moment =
        || Moment { bytes: received.load(Ordering::Relaxed), at: mono_now(), cpu: CpuTime::now(&path.spenders) };
    let window = thread::scope(|scope| {
        for (near, far) in &connections {
            scope.spawn(|| send(near, &over));
            scope.spawn(|| receive(far, &received));
        }
        let window = stop::sleep(span.warm_up).and_then(|()| {
            let begin = moment();
            stop::sleep(span.time).map(|()| (begin, moment()))
        });
        over.store(true, Ordering::Relaxed);
        for stream in connections.iter().flat_map(|(near, far)| [near, far]) {
            // One that has ended already needs no end.
            let _ = stream.shutdown(Shutdown::Both);
        }
        window
    });
    let (begin, end) = window?;
    figures(&begin, &end).with_context(|| format!("from {} to {}", path.from.name(), path.to.name()))
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn figures(begin: &Moment, end: &Moment) -> Result<Sample> {
    let bytes = end.bytes - begin.bytes;
    ensure!(bytes > 0, "nothing arrived: the path is down, or far slower than the measurement is long");
    let (gigabytes, cpu) = (bytes as f64 / 1e9, end.cpu.since(begin.cpu));
    let seconds = end.at.since(begin.at) as f64 / 1e9;
    Ok(Sample::of(&[
        (Metric::Gbps, gigabytes * 8.0 / seconds),
        (Metric::SystemCpuSPerGb, cpu.system_s / gigabytes),
        (Metric::SwitchCpuSPerGb, cpu.switch_s / gigabytes),
    ]))
}

/// A short count leaves no rest to send: the bytes mean nothing, and the next write shall begin with a page again.
fn send(mut stream: &TcpStream, over: &AtomicBool) {
    let pages = Pages::new(PAGES);
    while !over.load(Ordering::Relaxed) {
        match stream.write(pages.bytes()) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn receive(mut stream: &TcpStream, received: &AtomicU64) {
    let mut pages = Pages::new(PAGES);
    loop {
        match stream.read(pages.bytes_mut()) {
            Ok(0) => return,
            Ok(bytes) => {
                received.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
