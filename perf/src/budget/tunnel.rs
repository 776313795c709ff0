//! The stages that look at payload: a TCP super-frame of a pod is cut towards the tunnel, and the datagrams it makes are
//! joined again on the other side.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use podwire_control::model::{Mac, Vni};
use podwire_vswitch::frame::{Batch, Checksum, Frame, FramePool, Gso, GsoKind, Offload, Outer};
use podwire_vswitch::limits::BATCH_FRAMES;
use podwire_vswitch::outcome::DropReason;
use podwire_vswitch::port::interface::TUNNEL_GSO_BYTES_MAX;
use podwire_vswitch::port::{Coalescer, Outgoing, PortCaps, TURN_BYTES};
use podwire_vswitch::segment::{Arena, Prepared, prepare};
use podwire_vswitch::sys::clock::mono_now;
use podwire_vswitch::wire::{Headers, checksum, ethernet, ipv4, parse, tcp, vxlan};

use super::cost::{Cost, Stage, SuperFrame};
use super::stages::rounds;

/// TCP with timestamps, as kernels send it.
const TCP_HEADER_BYTES: usize = 32;
const HEADER_BYTES: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN_MIN + TCP_HEADER_BYTES;
/// Where a TCP header has its checksum (RFC 9293, 3.1).
const TCP_CHECKSUM_AT: u16 = 16;
const SRC: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 2);
const DST: Ipv4Addr = Ipv4Addr::new(10, 244, 2, 2);
const REMOTE: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 31, 0, 2));
/// Times a part that takes a moment is repeated between two readings of the clock.
const REPEATS: u64 = 16;

/// A turn's super-frames, and the datagrams that one of them makes.
#[derive(Debug)]
pub(super) struct Tunnel {
    mtu: u16,
    /// TCP payload bytes of a packet.
    segment: u16,
    vni: Vni,
    frames: Vec<Frame>,
    headers: Headers,
    /// From the VXLAN header on.
    datagrams: Vec<Vec<u8>>,
}

impl Tunnel {
    /// Frames of the longest super-frames a pod sends, for an underlay with this MTU in bytes.
    pub(super) fn new(mtu: u16) -> Result<Self> {
        let pod_mtu = usize::from(mtu) - vxlan::OVERHEAD_V4;
        let segment = u16::try_from(pod_mtu - (HEADER_BYTES - ethernet::HEADER_LEN))?;
        let payload_max = usize::try_from(TUNNEL_GSO_BYTES_MAX)? - HEADER_BYTES;
        let payload = payload_max / usize::from(segment) * usize::from(segment);
        let count = TURN_BYTES.div_ceil(HEADER_BYTES + payload);
        let frames: Vec<Frame> = (0..count).map(|_| super_frame(segment, payload)).collect();
        let headers = parse(frames[0].bytes(), &frames[0].offload).map_err(refused)?;
        let vni = Vni::try_from(1).map_err(|_| anyhow!("1 is a VNI"))?;
        let mut tunnel = Self { mtu, segment, vni, frames, headers, datagrams: Vec::new() };
        tunnel.datagrams = tunnel.cut_into_datagrams()?;
        Ok(tunnel)
    }

    /// What one super-frame is.
    pub(super) fn super_frame(&self) -> SuperFrame {
        SuperFrame { mtu: self.mtu, bytes: self.frames[0].len(), packets: self.datagrams.len() }
    }

    /// Largest inner packet in bytes.
    fn pod_mtu(&self) -> u16 {
        self.mtu - u16::try_from(vxlan::OVERHEAD_V4).unwrap_or(u16::MAX)
    }

    /// Every stage's cost a packet of this MTU.
    pub(super) fn costs(&mut self, length: Duration) -> Result<Vec<Cost>> {
        let cut = self.cut(length)?;
        let sums = self.sums(length);
        let encap = self.encap(length)?;
        let coalesce = self.coalesce(length)?;
        let cost = |stage, ns| Cost::new(stage, self.mtu, ns, self.segment.into());
        Ok(vec![
            cost(Stage::Encap, encap),
            cost(Stage::Segment, (cut - sums).max(0.0)),
            cost(Stage::Checksum, sums),
            cost(Stage::Coalesce, coalesce),
        ])
    }

    /// Cutting, with the sums of the payload.
    fn cut(&mut self, length: Duration) -> Result<f64> {
        let (mut arena, mut fault) = (Arena::new(), None);
        let (headers, mtu) = (self.headers, self.pod_mtu());
        let [ns] = rounds(length, || {
            let start = mono_now();
            let mut packets = 0;
            for frame in &mut self.frames {
                match prepare(frame, &headers, PortCaps::NONE, mtu, &mut arena) {
                    Ok(Prepared::Cut) => packets += black_box(arena.pieces()).list.len() as u64,
                    other => fault = Some(other),
                }
            }
            (packets.max(1), [mono_now().since(start)])
        });
        ensure!(fault.is_none(), "a super-frame was not cut: {fault:?}");
        Ok(ns)
    }

    /// The same sums alone.
    fn sums(&self, length: Duration) -> f64 {
        let [ns] = rounds(length, || {
            let start = mono_now();
            let mut packets = 0;
            for frame in &self.frames {
                for payload in frame.bytes()[HEADER_BYTES..].chunks(self.segment.into()) {
                    black_box(checksum::sum(payload));
                    packets += 1;
                }
            }
            (packets, [mono_now().since(start)])
        });
        ns
    }

    /// A VXLAN header a packet, and the spans of one gathering send.
    fn encap(&mut self, length: Duration) -> Result<f64> {
        let mut arena = Arena::new();
        let (headers, mtu, vni) = (self.headers, self.pod_mtu(), self.vni);
        prepare(&mut self.frames[0], &headers, PortCaps::NONE, mtu, &mut arena).map_err(refused)?;
        let out = Outgoing { frame: &self.frames[0], pieces: Some(arena.pieces()), encap: None };
        let [ns] = rounds(length, || {
            let start = mono_now();
            let mut packets = 0;
            for _ in 0..REPEATS {
                for (header, payload) in black_box(&out).packets() {
                    let mut tunnel = [0; vxlan::HEADER_LEN];
                    vxlan::write_header(&mut tunnel, black_box(vni));
                    black_box([&tunnel[..], header, payload]);
                    packets += 1;
                }
            }
            (packets, [mono_now().since(start)])
        });
        Ok(ns)
    }

    /// Joining the datagrams of one super-frame, with the copy into it and the verification of each checksum.
    fn coalesce(&self, length: Duration) -> Result<f64> {
        let outer = Outer { remote: REMOTE, tos: 0 };
        let (mut pool, mut batch, mut coalescer) = (FramePool::new(BATCH_FRAMES), Batch::new(), Coalescer::of_tunnel());
        let mut joined = usize::MAX;
        let [ns] = rounds(length, || {
            let start = mono_now();
            for datagram in &self.datagrams {
                black_box(coalescer.add(&mut pool, &mut batch, datagram, outer));
            }
            coalescer.finish(&mut batch);
            let took = mono_now().since(start);
            joined = joined.min(batch.items().first().map_or(0, |item| item.frame.segments()));
            batch.recycle(&mut pool);
            (self.datagrams.len() as u64, [took])
        });
        ensure!(joined == self.datagrams.len(), "{joined} of {} segments were joined", self.datagrams.len());
        Ok(ns)
    }

    fn cut_into_datagrams(&mut self) -> Result<Vec<Vec<u8>>> {
        let (mut arena, mtu) = (Arena::new(), self.pod_mtu());
        prepare(&mut self.frames[0], &self.headers, PortCaps::NONE, mtu, &mut arena).map_err(refused)?;
        let out = Outgoing { frame: &self.frames[0], pieces: Some(arena.pieces()), encap: None };
        let mut tunnel = [0; vxlan::HEADER_LEN];
        vxlan::write_header(&mut tunnel, self.vni);
        let datagrams: Vec<Vec<u8>> = out.packets().map(|(head, payload)| [&tunnel, head, payload].concat()).collect();
        ensure!(datagrams.len() > 1, "a super-frame makes more than one packet at an MTU of {}", self.mtu);
        Ok(datagrams)
    }
}

fn refused(reason: DropReason) -> anyhow::Error {
    anyhow!("a super-frame was refused: {}", reason.name())
}

/// A super-frame as a TAP hands it over: one flow, payload that is not zero, the checksum left to a device.
fn super_frame(segment: u16, payload: usize) -> Frame {
    let mut bytes = vec![0; HEADER_BYTES];
    ethernet::write_header(&mut bytes, Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]), ethernet::ETHERTYPE_IPV4);
    let l4_len = TCP_HEADER_BYTES + payload;
    let total_len = u16::try_from(ipv4::HEADER_LEN_MIN + l4_len).unwrap_or(u16::MAX);
    let fields =
        ipv4::Ipv4Fields { tos: 0, total_len, id: 1, df: true, ttl: 64, protocol: tcp::PROTOCOL, src: SRC, dst: DST };
    ipv4::write_header(&mut bytes[ethernet::HEADER_LEN..], &fields);
    let l4_at = ethernet::HEADER_LEN + ipv4::HEADER_LEN_MIN;
    write_tcp(&mut bytes[l4_at..], l4_len);
    bytes.extend((0..payload).map(|at| u8::try_from(at % 251).unwrap_or(0)));

    let mut frame = Frame::new();
    frame.fill(&bytes);
    let start = u16::try_from(l4_at).unwrap_or(u16::MAX);
    let header_len = u16::try_from(HEADER_BYTES).unwrap_or(u16::MAX);
    frame.offload = Offload {
        checksum: Checksum::Partial { start, offset: TCP_CHECKSUM_AT },
        gso: Some(Gso { kind: GsoKind::Tcp4, size: segment, header_len }),
    };
    frame
}

/// A header with ACK and timestamps (RFC 9293, 3.1; RFC 7323, 3.2), and the pseudo-header's sum for a checksum.
fn write_tcp(header: &mut [u8], l4_len: usize) {
    let pseudo = checksum::pseudo_v4(SRC, DST, tcp::PROTOCOL, u32::try_from(l4_len).unwrap_or(u32::MAX));
    header[..4].copy_from_slice(&[0xc0, 0, 0, 80]);
    header[4..12].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
    header[12..16].copy_from_slice(&[0x80, 0x10, 0xff, 0xff]);
    header[16..18].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
    header[20..32].copy_from_slice(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1]);
}

#[cfg(test)]
mod tests {
    use podwire_vswitch::segment::verify_l4;

    use super::*;

    #[test]
    fn a_super_frame_is_as_long_as_a_pods_and_its_packets_fill_the_underlay() {
        for mtu in super::super::MTUS {
            let tunnel = Tunnel::new(mtu).unwrap();
            let outer = 20 + 8;
            assert!(tunnel.frames[0].len() > 50_000 && tunnel.frames[0].len() <= 62_000);
            assert!(tunnel.datagrams.iter().all(|datagram| datagram.len() + outer == usize::from(mtu)));
            let inner = &tunnel.datagrams[1][vxlan::HEADER_LEN..];
            let headers = parse(inner, &Offload::default()).unwrap();
            assert!(verify_l4(inner, &headers));
        }
    }
}
