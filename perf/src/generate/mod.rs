//! What flows between the two pods of a side, and what is counted of it: one file a generator.
//!
//! They use real kernel sockets, as pods do; only packets may be `wire`'s frames instead. A socket belongs to the namespace
//! it is made in, so it is made by a thread that has entered that, and may be used by any.

mod connections;
mod idle;
mod packets;
mod pages;
mod ping;
mod request;
mod stream;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use podwire_vswitch::sys::clock::mono_now;

use crate::lab::stop;
use crate::metric::Sample;
use crate::pace::nanos;
use crate::scenario::{Measure, Scenario};
use crate::side::Path;

/// How long the first connection of a measurement may take: a switch that was just made or woken needs a moment.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long nothing may arrive before a measurement is given up.
const STALL: Duration = Duration::from_secs(5);

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) warm_up: Duration,
    pub(crate) time: Duration,
}

/// Measures once what the scenario asks for.
pub(crate) fn measure(scenario: &Scenario, path: &Path<'_>) -> Result<Sample> {
    let span = Span { warm_up: scenario.warm_up(), time: scenario.time() };
    match &scenario.measure {
        Measure::Stream { streams, congestion } => stream::measure(path, *streams, congestion.as_deref(), span),
        Measure::Request { rate } => request::measure(path, *rate, span),
        &Measure::Packets { size, search, by } => packets::measure(path, packets::Load { size, by, search }, span),
        Measure::FirstPing { silence } => ping::measure(path, Duration::from_secs_f64(*silence)),
        Measure::Idle {} => idle::measure(path, span),
        Measure::Connections {} => connections::measure(path, span),
    }
}

impl Path<'_> {
    /// A listening socket of the receiving pod, and its address as the sending one sees it.
    fn listen(&self) -> Result<(TcpListener, SocketAddr)> {
        let listener = self.to.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
        let listener = listener.context("cannot listen in the receiving pod")?;
        let port = listener.local_addr().context("a listening socket has no address")?.port();
        Ok((listener, SocketAddr::new(self.target.into(), port)))
    }

    /// A connection of the sending pod, tried until the path is up.
    fn connect(&self, address: SocketAddr) -> Result<TcpStream> {
        let begin = mono_now();
        loop {
            stop::check()?;
            match self.from.enter(|| TcpStream::connect_timeout(&address, CONNECT_MAX))? {
                Ok(stream) => return Ok(stream),
                Err(error) if mono_now().since(begin) > nanos(CONNECT_MAX) => {
                    return Err(error).with_context(|| format!("{} does not answer at {address}", self.to.name()));
                }
                Err(_) => stop::sleep(Duration::from_millis(20))?,
            }
        }
    }

    /// Both ends of one connection.
    fn connection(&self, listener: &TcpListener, address: SocketAddr) -> Result<(TcpStream, TcpStream)> {
        let near = self.connect(address)?;
        let (far, _) = listener.accept().context("cannot accept the connection in the receiving pod")?;
        Ok((near, far))
    }
}
