//! The outer headers of a frame to the NIC: Ethernet, IP, UDP and VXLAN, as the kernel's UDP sockets write them.

use std::net::{IpAddr, SocketAddr};

use super::Way;
use crate::frame::Encap;
use crate::wire::{UdpHeader, checksum, ethernet, ipv4, ipv6, udp, vxlan};

/// Bytes of the longest.
pub(super) const HEADERS_BYTES_MAX: usize =
    ethernet::HEADER_LEN + ipv6::HEADER_LEN + udp::HEADER_LEN + vxlan::HEADER_LEN;

/// What the packets of one frame share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outer<'a> {
    /// Where it leaves.
    pub(super) way: &'a Way,
    /// What the pipeline decided.
    pub(super) encap: &'a Encap,
    /// Our address of the remote's family, and the port that stands for the inner flow.
    pub(super) source: SocketAddr,
    /// The remote's VXLAN port.
    pub(super) port: u16,
    /// Whether the UDP header bears a checksum.
    pub(super) checksum: bool,
}

impl Outer<'_> {
    /// Bytes of the outer IP packet around an inner frame.
    pub(super) fn packet_len(&self, inner_len: usize) -> usize {
        let ip = if self.encap.remote.is_ipv4() { ipv4::HEADER_LEN_MIN } else { ipv6::HEADER_LEN };
        ip + udp::HEADER_LEN + vxlan::HEADER_LEN + inner_len
    }

    /// Writes the headers for one inner frame, given as two spans, and returns their length; none when the frame is longer
    /// than IP can say, or our address of another family than the remote.
    pub(super) fn write(&self, buf: &mut [u8; HEADERS_BYTES_MAX], inner: [&[u8]; 2]) -> Option<usize> {
        let datagram_len = u16::try_from(udp::HEADER_LEN + vxlan::HEADER_LEN + inner[0].len() + inner[1].len()).ok()?;
        let (ip_len, pseudo) = self.write_ip(buf.get_mut(ethernet::HEADER_LEN..)?, datagram_len)?;
        let kind = if self.encap.remote.is_ipv4() { ethernet::ETHERTYPE_IPV4 } else { ethernet::ETHERTYPE_IPV6 };
        ethernet::write_header(buf, self.way.next_hop, self.way.source, kind)?;
        let at = ethernet::HEADER_LEN + ip_len;
        let datagram = buf.get_mut(at..at + udp::HEADER_LEN + vxlan::HEADER_LEN)?;
        vxlan::write_header(datagram.last_chunk_mut()?, self.encap.vni);
        let header = UdpHeader { src_port: self.source.port(), dst_port: self.port, len: datagram_len };
        udp::write_header(datagram, &header, 0)?;
        if self.checksum {
            let field = udp_checksum(pseudo + checksum::sum(datagram), inner);
            udp::write_header(datagram, &header, field)?;
        }
        Some(at + datagram.len())
    }

    /// Writes the IP header; gives its length, and the pseudo-header's sum.
    fn write_ip(&self, buf: &mut [u8], datagram_len: u16) -> Option<(usize, u32)> {
        let (tos, hop_limit) = (self.encap.tos, self.way.hop_limit);
        match (self.source.ip(), self.encap.remote) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let total_len = datagram_len.checked_add(u16::try_from(ipv4::HEADER_LEN_MIN).ok()?)?;
                // An identification says nothing where nothing may be fragmented (RFC 6864, section 4.1).
                let (id, df, protocol) = (0, true, udp::PROTOCOL);
                let fields = ipv4::Ipv4Fields { tos, total_len, id, df, ttl: hop_limit, protocol, src, dst };
                let len = ipv4::write_header(buf, &fields)?;
                Some((len, checksum::pseudo_v4(src, dst, protocol, datagram_len.into())))
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let fields = ipv6::Ipv6Fields {
                    traffic_class: tos,
                    // One label an inner flow, for routers that spread by it (RFC 6438, section 3).
                    flow_label: self.encap.entropy >> 12,
                    payload_len: datagram_len,
                    next_header: udp::PROTOCOL,
                    hop_limit,
                    src,
                    dst,
                };
                let len = ipv6::write_header(buf, &fields)?;
                Some((len, checksum::pseudo_v6(src, dst, udp::PROTOCOL, datagram_len.into())))
            }
            _ => None,
        }
    }
}

/// The field's value for what comes before the inner frame, and the frame. Of two spans the second counts byte-swapped when
/// the first is odd (RFC 1071, section 2B). A computed 0 is written as all ones (RFC 768).
fn udp_checksum(before: u32, [first, second]: [&[u8]; 2]) -> u16 {
    let rest = checksum::fold(checksum::sum(second));
    let rest = if first.len().is_multiple_of(2) { rest } else { rest.swap_bytes() };
    match checksum::finish(before + checksum::sum(first) + u32::from(rest)) {
        0 => 0xffff,
        field => field,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use podwire_control::model::{Mac, Vni};

    use super::*;
    use crate::id::VtepId;

    const WAY: Way =
        Way { next_hop: Mac([2, 0, 0, 0, 0, 2]), source: Mac([2, 0, 0, 0, 0, 1]), mtu: 1_500, hop_limit: 61 };

    fn encap(remote: &str) -> Encap {
        let vni = Vni::try_from(0x0a_bb_cc).unwrap();
        Encap { vtep: VtepId(0), remote: remote.parse().unwrap(), vni, tos: 0xb9, entropy: 0xabcd_e123 }
    }

    fn frame(source: &str, remote: &str, checksum: bool, inner: [&[u8]; 2]) -> Vec<u8> {
        let (encap, source) = (encap(remote), source.parse().unwrap());
        let outer = Outer { way: &WAY, encap: &encap, source, port: 4_789, checksum };
        let mut buf = [0xee; HEADERS_BYTES_MAX];
        let len = outer.write(&mut buf, inner).unwrap();
        let frame = [&buf[..len], inner[0], inner[1]].concat();
        assert_eq!(frame.len(), ethernet::HEADER_LEN + outer.packet_len(inner[0].len() + inner[1].len()));
        frame
    }

    #[test]
    fn etherparse_reads_what_was_written_and_finds_its_checksums_right() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1_400).map(|byte: u8| byte.wrapping_mul(37)).collect();
        for (source, remote) in [("10.9.0.1:40001", "10.9.0.2"), ("[fd00:9::1]:40001", "fd00:9::2")] {
            for (cut, len) in [(0, 60), (54, 1_400), (55, 1_400), (55, 1_399), (60, 60)] {
                for wanted in [false, true] {
                    let frame = frame(source, remote, wanted, [&bytes[..cut], &bytes[cut..len]]);
                    let parsed = SlicedPacket::from_ethernet(&frame).unwrap();
                    let Some(TransportSlice::Udp(udp)) = &parsed.transport else { panic!("{parsed:?}") };
                    let header = udp.to_header();
                    assert_eq!((header.source_port, header.destination_port), (40_001, 4_789));
                    let right = match &parsed.net {
                        Some(NetSlice::Ipv4(ip)) => {
                            let ip = ip.header().to_header();
                            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                            assert!(ip.dont_fragment && !ip.more_fragments && ip.identification == 0);
                            assert_eq!((ip.time_to_live, ip.dscp.value(), ip.ecn.value()), (61, 0xb9 >> 2, 1));
                            header.calc_checksum_ipv4(&ip, udp.payload()).unwrap()
                        }
                        Some(NetSlice::Ipv6(ip)) => {
                            let ip = ip.header().to_header();
                            assert_eq!((ip.hop_limit, ip.traffic_class, ip.flow_label.value()), (61, 0xb9, 0xa_bcde));
                            header.calc_checksum_ipv6(&ip, udp.payload()).unwrap()
                        }
                        other => panic!("{other:?}"),
                    };
                    assert_eq!(header.checksum, if wanted { right } else { 0 }, "{source} {cut} {len}");
                    assert_eq!(udp.payload()[..8], [8, 0, 0, 0, 0x0a, 0xbb, 0xcc, 0]);
                    assert_eq!(udp.payload()[8..], bytes[..len]);
                }
            }
        }
    }

    #[test]
    fn a_sum_of_zero_is_sent_as_all_ones() {
        assert_eq!(udp_checksum(0xffff, [&[], &[]]), 0xffff);
        assert_eq!(udp_checksum(0, [&[1], &[2, 3]]), checksum::finish(checksum::sum(&[1, 2, 3])));
    }

    #[test]
    fn what_ip_can_not_say_is_not_written() {
        let (v4, v6) = (encap("10.9.0.2"), encap("fd00:9::2"));
        let source = "10.9.0.1:40001".parse().unwrap();
        let mut buf = [0; HEADERS_BYTES_MAX];
        let long = vec![0; 65_535];
        for (encap, inner) in [(&v6, &long[..60]), (&v4, &long[..]), (&v4, &long[..65_510])] {
            let outer = Outer { way: &WAY, encap, source, port: 4_789, checksum: true };
            assert_eq!(outer.write(&mut buf, [inner, &[]]), None);
        }
    }
}
