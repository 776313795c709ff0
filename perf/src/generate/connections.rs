//! TCP connections, made and closed one after the other: what a new flow costs.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use podwire_vswitch::sys::clock::mono_now;

use super::{STALL, Span};
use crate::lab::stop;
use crate::metric::{Metric, Sample};
use crate::pace::nanos;
use crate::side::Path;

/// Connections a second.
pub(super) fn measure(path: &Path<'_>, span: Span) -> Result<Sample> {
    let (listener, address) = path.listen()?;
    drop(path.connection(&listener, address)?);
    let over = AtomicBool::new(false);
    let made = thread::scope(|scope| {
        scope.spawn(|| accept(&listener, &over));
        let made = path.from.enter(|| {
            make(address, span.warm_up)?;
            make(address, span.time)
        });
        over.store(true, Ordering::Relaxed);
        // Wakes the one who accepts, whatever became of the path.
        let own = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port());
        let woken = path.to.enter(|| TcpStream::connect_timeout(&own, STALL).map(drop));
        made.and_then(|made| made).and_then(|made| woken?.map(|()| made).context("cannot wake the server"))
    });
    let per_second = made.with_context(|| format!("from {} to {}", path.from.name(), path.to.name()))?;
    ensure!(per_second > 0.0, "no connection was made in the time of the measurement");
    Ok(Sample::of(&[(Metric::PerSecond, per_second)]))
}

#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
fn make(address: SocketAddr, time: Duration) -> Result<f64> {
    let begin = mono_now();
    let (mut made, mut took) = (0_u64, 0);
    while took < nanos(time) {
        let mut stream = TcpStream::connect_timeout(&address, STALL).context("a connection was not made")?;
        // Until the server has taken it and closed it: else a slow one's queue runs full, and a lost SYN costs a second.
        stream.set_read_timeout(Some(STALL)).context("cannot set up a socket")?;
        let ended = stream.read(&mut [0]).context("a connection was not closed by the server")?;
        ensure!(ended == 0, "a connection carried data that nobody sent");
        // Reset at the end, so that no port rests for a minute and there are enough of them.
        let reset = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&stream, sockopt::Linger, &reset).context("cannot have a connection end with a reset")?;
        drop(stream);
        stop::check()?;
        made += 1;
        took = mono_now().since(begin);
    }
    Ok(made as f64 * 1e9 / took.max(1) as f64)
}

fn accept(listener: &TcpListener, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        // An error is of one connection, and no reason to stop.
        drop(listener.accept());
    }
}
