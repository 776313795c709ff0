//! The sending half: packets are written straight into the packet memory of one queue, each behind its outer headers.
//!
//! A remote without a [`Way`] is sent to through the UDP sockets, which are also whose source ports the packets bear: so
//! what the underlay answers, such as "too big", reaches a socket of ours, and the kernel learns the path's MTU from it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::headers::{HEADERS_BYTES_MAX, Outer};
use super::{Way, Ways, XdpStatus};
use crate::frame::Encap;
use crate::port::udp::UdpTx;
use crate::port::{Flushed, Outgoing, PortTx, TxError};
use crate::sys::xsk::{Unsent, XskSender};

/// Sends for one worker: to one queue, or by UDP.
#[derive(Debug)]
pub struct XdpTx {
    sender: XskSender,
    udp: UdpTx,
    ways: Arc<Ways>,
    /// VXLAN port of the remotes.
    port: u16,
    /// Whether outer datagrams bear a checksum.
    checksum: bool,
    status: Arc<XdpStatus>,
}

/// What sending halves have in common.
#[derive(Clone, Debug)]
pub struct XdpTxSpec {
    /// Which remotes are sent to over the NIC, and how.
    pub ways: Arc<Ways>,
    /// VXLAN port of the remotes.
    pub port: u16,
    /// Whether outer datagrams bear a checksum.
    pub checksum: bool,
}

impl XdpTx {
    pub(super) fn new(sender: XskSender, udp: UdpTx, spec: &XdpTxSpec, status: Arc<XdpStatus>) -> Self {
        let XdpTxSpec { ways, port, checksum } = spec.clone();
        Self { sender, udp, ways, port, checksum, status }
    }

    fn send(&mut self, out: &Outgoing<'_>, encap: &Encap, way: &Way) -> Result<(), TxError> {
        let source = self.udp.socket(encap.remote, encap.entropy).ok_or(TxError::Down)?.address();
        let outer = Outer { way, encap, source, port: self.port, checksum: self.checksum };
        let too_big =
            |(header, payload): (&[u8], &[u8])| outer.packet_len(header.len() + payload.len()) > way.mtu.into();
        // Looked at first, so that a frame goes whole or not at all.
        if out.packets().any(too_big) {
            return Err(TxError::TooBig { path_mtu: Some(way.mtu) });
        }
        let (mut headers, mut sent) = ([0; HEADERS_BYTES_MAX], 0);
        let result = out.packets().try_for_each(|(header, payload)| {
            let len = outer.write(&mut headers, [header, payload]).ok_or(TxError::Refused)?;
            self.sender.send_packet(&[&headers[..len], header, payload]).map_err(|unsent| match unsent {
                Unsent::Full => TxError::Full,
                Unsent::TooLong => TxError::Refused,
            })?;
            sent += 1;
            Ok(())
        });
        self.status.sent.fetch_add(sent, Ordering::Relaxed);
        result
    }
}

impl PortTx for XdpTx {
    /// A super-frame must have been cut: one that was not is refused.
    fn tx(&mut self, out: &Outgoing<'_>) -> Result<(), TxError> {
        let (Some(encap), false) = (out.encap, out.pieces.is_none() && out.frame.offload.gso.is_some()) else {
            return Err(TxError::Refused);
        };
        match self.ways.get(encap.remote) {
            Some(way) => self.send(out, encap, &way),
            None => self.udp.tx(out),
        }
    }

    fn flush(&mut self) -> Flushed {
        self.sender.kick_all();
        Flushed { has_unsent: self.sender.wants_kick(), ..self.udp.flush() }
    }
}

#[cfg(test)]
mod tests;
