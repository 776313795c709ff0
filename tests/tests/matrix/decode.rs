//! What arrived, as etherparse sees it: every header held to the expectation, and the payload put together again.

use std::collections::BTreeMap;
use std::net::IpAddr;

use etherparse::defrag::IpDefragPool;
use etherparse::{NetSlice, SlicedPacket, TransportSlice, UdpSlice};
use podwire_vswitch::frame::Checksum;
use podwire_vswitch::port::memory::MemoryFrame;

use crate::path::Arrival;

/// Whether every header of the frame is as it should be.
pub(crate) fn check(frame: &MemoryFrame, arrives: &Arrival, mtu: u16) -> Result<(), String> {
    let packet = SlicedPacket::from_ethernet(&frame.bytes).map_err(|error| error.to_string())?;
    let macs = [arrives.macs.0.0, arrives.macs.1.0].concat();
    if frame.bytes[..12] != macs {
        return Err(format!("MACs {:02x?}, not {macs:02x?}", &frame.bytes[..12]));
    }
    let (src, dst, ttl) = addresses(&packet)?;
    if (src, dst, ttl) != (arrives.src, arrives.dst, arrives.ttl) {
        return Err(format!("{src} to {dst} with TTL {ttl}, not as in {arrives:?}"));
    }
    let longest = match frame.offload.gso {
        Some(gso) => usize::from(gso.header_len) - 14 + usize::from(gso.size),
        None => frame.bytes.len() - 14,
    };
    if longest > mtu.into() {
        return Err(format!("a packet of {longest} bytes"));
    }
    match packet.transport.as_ref() {
        Some(transport) => check_sum(frame, &packet, transport),
        None if packet.is_ip_payload_fragmented() => Ok(()),
        None => Err("no transport header".to_owned()),
    }
}

/// Addresses and TTL; the header's own checksum is right.
fn addresses(packet: &SlicedPacket<'_>) -> Result<(IpAddr, IpAddr, u8), String> {
    match packet.net.as_ref() {
        Some(NetSlice::Ipv4(v4)) => {
            let header = v4.header();
            if header.header_checksum() != header.to_header().calc_header_checksum() {
                return Err("the IPv4 header's checksum is wrong".to_owned());
            }
            Ok((header.source_addr().into(), header.destination_addr().into(), header.ttl()))
        }
        Some(NetSlice::Ipv6(v6)) => {
            let header = v6.header();
            Ok((header.source_addr().into(), header.destination_addr().into(), header.hop_limit()))
        }
        other => Err(format!("no IP packet: {other:?}")),
    }
}

/// The transport checksum is right, or it is left open and completing it makes it right.
fn check_sum(frame: &MemoryFrame, packet: &SlicedPacket<'_>, transport: &TransportSlice<'_>) -> Result<(), String> {
    let right = right_sum(packet, transport)?;
    let found = match transport {
        TransportSlice::Tcp(tcp) => tcp.checksum(),
        TransportSlice::Udp(udp) => udp.checksum(),
        TransportSlice::Icmpv4(icmp) => icmp.checksum(),
        TransportSlice::Icmpv6(icmp) => icmp.checksum(),
        TransportSlice::Igmp(_) => return Err("IGMP".to_owned()),
    };
    let found = match frame.offload.checksum {
        Checksum::Partial { start, .. } => completed(&frame.bytes[usize::from(start)..]),
        Checksum::Unknown | Checksum::Good => found,
    };
    // Both zeros mean the same.
    if found % 0xffff == right % 0xffff { Ok(()) } else { Err(format!("checksum {found:04x}, not {right:04x}")) }
}

fn right_sum(packet: &SlicedPacket<'_>, transport: &TransportSlice<'_>) -> Result<u16, String> {
    let too_long = |error: etherparse::err::ValueTooBigError<usize>| error.to_string();
    let (v4, v6) = match packet.net.as_ref() {
        Some(NetSlice::Ipv4(net)) => (Some((net.header().source(), net.header().destination())), None),
        Some(NetSlice::Ipv6(net)) => (None, Some((net.header().source(), net.header().destination()))),
        other => return Err(format!("no IP packet: {other:?}")),
    };
    match (transport, v4, v6) {
        (TransportSlice::Tcp(tcp), Some((src, dst)), _) => tcp.calc_checksum_ipv4(src, dst).map_err(too_long),
        (TransportSlice::Tcp(tcp), _, Some((src, dst))) => tcp.calc_checksum_ipv6(src, dst).map_err(too_long),
        (TransportSlice::Udp(udp), Some((src, dst)), _) => {
            udp.to_header().calc_checksum_ipv4_raw(src, dst, udp.payload()).map_err(too_long)
        }
        (TransportSlice::Udp(udp), _, Some((src, dst))) => {
            udp.to_header().calc_checksum_ipv6_raw(src, dst, udp.payload()).map_err(too_long)
        }
        (TransportSlice::Icmpv4(icmp), ..) => Ok(icmp.icmp_type().calc_checksum(icmp.payload())),
        (TransportSlice::Icmpv6(icmp), _, Some((src, dst))) => {
            icmp.icmp_type().calc_checksum(src, dst, icmp.payload()).map_err(too_long)
        }
        _ => Err("no checksum to compare with".to_owned()),
    }
}

/// What a device makes of the field's pseudo-header sum and the bytes behind it.
fn completed(l4: &[u8]) -> u16 {
    let words = l4.chunks(2).map(|pair| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u64::from(low)));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

/// The payload of all frames together: by sequence number, by order, or reassembled.
pub(crate) fn payload(frames: &[MemoryFrame], arrives: &Arrival) -> Result<Vec<u8>, String> {
    let mut fragments = IpDefragPool::<(), ()>::new();
    let mut stream = BTreeMap::new();
    let mut datagrams = Vec::new();
    let mut first_sequence = None;
    for frame in frames {
        let packet = SlicedPacket::from_ethernet(&frame.bytes).map_err(|error| error.to_string())?;
        match packet.transport.as_ref() {
            Some(TransportSlice::Tcp(tcp)) => {
                let first = *first_sequence.get_or_insert(tcp.sequence_number());
                let at = tcp.sequence_number().wrapping_sub(first);
                if stream.insert(at, tcp.payload().to_vec()).is_some() {
                    return Err(format!("sequence {at} came twice"));
                }
            }
            Some(TransportSlice::Udp(udp)) => datagrams.extend_from_slice(udp.payload()),
            Some(TransportSlice::Icmpv4(icmp)) => datagrams.extend_from_slice(icmp.payload()),
            Some(TransportSlice::Icmpv6(icmp)) => datagrams.extend_from_slice(icmp.payload()),
            _ => {
                let whole = fragments.process_sliced_packet(&packet, (), ()).map_err(|error| error.to_string())?;
                datagrams
                    .extend(whole.map(|whole| reassembled(&whole.payload, arrives)).transpose()?.unwrap_or_default());
            }
        }
    }
    for (at, bytes) in stream {
        if at as usize != datagrams.len() {
            return Err(format!("a gap in the stream: {} bytes, then byte {at}", datagrams.len()));
        }
        datagrams.extend(bytes);
    }
    Ok(datagrams)
}

/// The payload of a datagram that came in fragments; its checksum is right.
fn reassembled(datagram: &[u8], arrives: &Arrival) -> Result<Vec<u8>, String> {
    let udp = UdpSlice::from_slice(datagram).map_err(|error| error.to_string())?;
    let header = udp.to_header();
    let right = match (arrives.src, arrives.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), udp.payload()),
        (IpAddr::V6(src), IpAddr::V6(dst)) => header.calc_checksum_ipv6_raw(src.octets(), dst.octets(), udp.payload()),
        _ => return Err("two families".to_owned()),
    };
    let right = right.map_err(|error| error.to_string())?;
    if right != udp.checksum() {
        return Err(format!("reassembled, the checksum is {:04x}, not {right:04x}", udp.checksum()));
    }
    Ok(udp.payload().to_vec())
}
