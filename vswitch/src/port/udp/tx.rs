//! The sending half: packets of one size go out in one send, each behind its own VXLAN header, none of them copied.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrayvec::ArrayVec;
use nix::errno::Errno;

use super::UdpStatus;
use crate::port::{Flushed, Outgoing, PortTx, TxError};
use crate::sys::udp::{SEGMENTS_MAX, SendOptions, UdpSocket, path_mtu};
use crate::wire::vxlan;

/// Longest UDP payload over IPv4: 65,535 less 20 bytes of IP and 8 of UDP header.
const PAYLOAD_BYTES_MAX_V4: usize = 65_507;
/// Longest UDP payload over IPv6, whose length field leaves the IP header out.
const PAYLOAD_BYTES_MAX_V6: usize = 65_527;
/// Spans of one packet: VXLAN header, new headers, payload.
const SPANS_PER_PACKET: usize = 3;
/// Spans of the longest send; less than the kernel's 1,024 (`UIO_MAXIOV`).
const SPANS_MAX: usize = SEGMENTS_MAX * SPANS_PER_PACKET;

/// Sends for one worker.
#[derive(Debug)]
pub struct UdpTx {
    sockets_v4: Vec<UdpSocket>,
    sockets_v6: Vec<UdpSocket>,
    port: u16,
    status: Arc<UdpStatus>,
}

/// What the packets of one send share.
#[derive(Debug)]
struct Group<'a> {
    spans: ArrayVec<IoSlice<'a>, SPANS_MAX>,
    /// Payload bytes of each datagram but the last.
    segment: usize,
    bytes: usize,
    /// A shorter datagram was added, which must be the last.
    closed: bool,
}

impl<'a> Group<'a> {
    fn new() -> Self {
        Self { spans: ArrayVec::new(), segment: 0, bytes: 0, closed: false }
    }

    fn clear(&mut self) {
        self.spans.clear();
        (self.segment, self.bytes, self.closed) = (0, 0, false);
    }

    fn datagrams(&self) -> usize {
        self.spans.len() / SPANS_PER_PACKET
    }

    /// Whether a datagram of this length may go with the others in one send.
    fn takes(&self, len: usize, segments: usize, bytes: usize) -> bool {
        let fits = self.datagrams() < segments.clamp(1, SEGMENTS_MAX) && self.bytes + len <= bytes;
        self.spans.is_empty() || (!self.closed && len <= self.segment && fits)
    }

    /// Adds a datagram that [`Group::takes`].
    fn add(&mut self, spans: [&'a [u8]; SPANS_PER_PACKET]) {
        let len = spans.iter().map(|span| span.len()).sum();
        if self.spans.is_empty() {
            self.segment = len;
        }
        self.closed = len < self.segment;
        self.bytes += len;
        self.spans.extend(spans.map(IoSlice::new));
    }

    /// The segment size to ask for, when there is more than one datagram.
    fn segment(&self) -> Option<u16> {
        if self.datagrams() > 1 { u16::try_from(self.segment).ok() } else { None }
    }
}

impl UdpTx {
    pub(super) fn new(sockets: Vec<UdpSocket>, port: u16, status: Arc<UdpStatus>) -> Self {
        let (sockets_v4, sockets_v6) = sockets.into_iter().partition(|socket| socket.address().is_ipv4());
        Self { sockets_v4, sockets_v6, port, status }
    }

    /// The socket for a remote's family and an inner flow; none when we have no address of that family.
    pub(in crate::port) fn socket(&self, remote: IpAddr, entropy: u32) -> Option<&UdpSocket> {
        let sockets = if remote.is_ipv4() { &self.sockets_v4 } else { &self.sockets_v6 };
        let at = (u64::from(entropy) * sockets.len() as u64) >> 32;
        sockets.get(usize::try_from(at).unwrap_or(0))
    }

    fn send(&self, socket: &UdpSocket, group: &Group<'_>, mut options: SendOptions) -> Result<(), TxError> {
        if group.spans.is_empty() {
            return Ok(());
        }
        options.segment = group.segment();
        match (socket.send(&group.spans, &options), options.segment) {
            (Ok(()), _) => Ok(()),
            // The device can not, or (older kernels) a datagram is longer than the path takes: one by one tells.
            (Err(Errno::EINVAL | Errno::EIO), Some(_)) => {
                options.segment = None;
                for datagram in group.spans.chunks(SPANS_PER_PACKET) {
                    socket.send(datagram, &options).map_err(|errno| tx_error(errno, socket, options.remote))?;
                }
                self.status.refuse_segmentation();
                Ok(())
            }
            (Err(errno), _) => Err(tx_error(errno, socket, options.remote)),
        }
    }
}

impl PortTx for UdpTx {
    /// A super-frame must have been cut: one that was not is refused.
    fn tx(&mut self, out: &Outgoing<'_>) -> Result<(), TxError> {
        let (Some(encap), false) = (out.encap, out.pieces.is_none() && out.frame.offload.gso.is_some()) else {
            return Err(TxError::Refused);
        };
        let socket = self.socket(encap.remote, encap.entropy).ok_or(TxError::Down)?;
        let bytes_max = if encap.remote.is_ipv4() { PAYLOAD_BYTES_MAX_V4 } else { PAYLOAD_BYTES_MAX_V6 };
        let segments_max = self.status.segment_limit();
        let options = SendOptions { remote: SocketAddr::new(encap.remote, self.port), tos: encap.tos, segment: None };
        let mut vxlan = [0; vxlan::HEADER_LEN];
        vxlan::write_header(&mut vxlan, encap.vni);
        let mut group = Group::new();
        for (header, payload) in out.packets() {
            let len = vxlan::HEADER_LEN + header.len() + payload.len();
            if !group.takes(len, segments_max, bytes_max) {
                self.send(socket, &group, options)?;
                group.clear();
            }
            group.add([&vxlan, header, payload]);
        }
        self.send(socket, &group, options)
    }

    fn flush(&mut self) -> Flushed {
        let disabled = &self.status.disabled;
        // Looked at first, since this is asked after every batch and hardly ever so.
        let offloads_disabled =
            if disabled.load(Ordering::Relaxed) == 0 { 0 } else { disabled.swap(0, Ordering::Relaxed) };
        Flushed { offloads_disabled, ..Flushed::default() }
    }
}

fn tx_error(errno: Errno, socket: &UdpSocket, remote: SocketAddr) -> TxError {
    match errno {
        Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM => TxError::Full,
        Errno::EMSGSIZE => TxError::TooBig { path_mtu: path_mtu(socket.address().ip(), remote) },
        Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN | Errno::ENODEV | Errno::EADDRNOTAVAIL => {
            TxError::Down
        }
        _ => TxError::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes of the datagrams of each send.
    fn groups(lens: &[usize], segments: usize, bytes: usize) -> Vec<Vec<usize>> {
        let payload = vec![0; 65_535];
        let (mut group, mut sends) = (Group::new(), vec![vec![]]);
        for &len in lens {
            if !group.takes(len, segments, bytes) {
                group.clear();
                sends.push(vec![]);
            }
            group.add([&payload[..8], &payload[..0], &payload[..len - 8]]);
            sends.last_mut().unwrap().push(len);
        }
        sends
    }

    #[test]
    fn datagrams_of_one_size_go_together_and_a_shorter_one_ends_the_send() {
        assert_eq!(groups(&[100, 100, 60], 64, 65_507), [vec![100, 100, 60]]);
        assert_eq!(groups(&[100, 60, 60, 100], 64, 65_507), [vec![100, 60], vec![60], vec![100]]);
        assert_eq!(groups(&[60, 100], 64, 65_507), [vec![60], vec![100]]);
    }

    #[test]
    fn a_send_keeps_within_the_segments_and_bytes_it_may_have() {
        assert_eq!(groups(&[100; 5], 2, 65_507), [vec![100; 2], vec![100; 2], vec![100]]);
        assert_eq!(groups(&[100; 3], 64, 299), [vec![100; 2], vec![100]]);
        assert_eq!(groups(&[100; 3], 0, 65_507), [[100]; 3], "segmentation is off");
        assert_eq!(groups(&[400], 64, 299), [[400]], "too long for any send: the kernel says so");
        assert_eq!(groups(&[9; 300], 1_000, 65_507)[0].len(), SEGMENTS_MAX);
    }
}
