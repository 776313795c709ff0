//! Frames of the plainest shape, which nearly all are: whole TCP or UDP packets without tags, options or extension headers.
//!
//! Of these one look tells all that a known flow needs, for less than [`super::parse`] takes, which fills [`Headers`] for
//! the stages. What is plain here is well formed there, and every field agrees; what is not plain may be either.

use super::headers::{flow_hash_v4, flow_hash_v6};
use super::layout::{be32, be64, ne32, ne64};
use super::parse::Described;
use super::{ethernet, ipv4, ipv6, tcp, udp};
use crate::frame::{GsoKind, Offload};

/// Where the L4 header starts over either family.
const L4_V4: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN_MIN;
const L4_V6: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN;
/// Source and destination port.
const PORTS_BYTES: usize = 4;
/// Where the addresses start; the ports follow them.
const ADDRESSES_V4: usize = L4_V4 - 8;
const ADDRESSES_V6: usize = L4_V6 - 32;

/// All that a flow is known by.
type HeadV4 = [u8; L4_V4 + PORTS_BYTES];
type HeadV6 = [u8; L4_V6 + PORTS_BYTES];

/// What one look at a plain frame finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plain {
    /// [`Headers::flow_hash`](super::Headers::flow_hash).
    pub flow_hash: u32,
    /// Bytes of the L3 packet, without the padding Ethernet may add.
    pub packet_len: usize,
    /// Bytes from the frame's first to its L4 payload.
    pub header_len: u16,
    /// Whether it is IPv6.
    pub is_v6: bool,
    /// TCP or UDP.
    pub protocol: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub hops_left: u8,
}

impl Plain {
    /// Of no frame.
    pub const NONE: Self =
        Self { flow_hash: 0, packet_len: 0, header_len: 0, is_v6: false, protocol: 0, tos: 0, hops_left: 0 };

    /// Looks at a frame that starts at its Ethernet header; none when it is not plain, is for a group of stations, or is not
    /// what `offload` says.
    #[inline(always)]
    #[must_use]
    pub fn read(bytes: &[u8], offload: &Offload) -> Option<Self> {
        // All lengths are compared here and with the packet's end; compilers see that.
        let head: &HeadV4 = bytes.first_chunk()?;
        let view = ethernet::View::new(head)?;
        let plain = match view.ethertype() {
            ethernet::ETHERTYPE_IPV4 => Self::read_v4(head),
            ethernet::ETHERTYPE_IPV6 => Self::read_v6(bytes.first_chunk()?),
            _ => None,
        }?;
        let [group, ..] = view.dst().0;
        (group & 1 == 0).then_some(plain)?.with_l4(bytes, offload)
    }

    /// The bytes that make it its flow, MACs included, and 32 bits of the caller's, as numbers of the machine's own order:
    /// what two frames of one flow have in common, and no two of different flows.
    #[inline]
    #[must_use]
    pub fn flow_words(&self, bytes: &[u8], own: u32) -> [u64; 7] {
        let mut words = [0; 7];
        if self.is_v6 {
            words = bytes.first_chunk().map_or(words, |head| self.words_v6(head, own));
        } else if let Some(head) = bytes.first_chunk() {
            let [a, b, c, d] = self.words_v4(head, own);
            words = [a, b, c, d, 0, 0, 0];
        }
        words
    }

    /// Whether these are its flow's words.
    #[inline]
    #[must_use]
    pub fn is_of_flow(&self, bytes: &[u8], own: u32, words: &[u64; 7]) -> bool {
        if self.is_v6 {
            return bytes.first_chunk().is_some_and(|head| differing(&self.words_v6(head, own), words) == 0);
        }
        // The third word says that it is IPv4, and so that there are no more.
        bytes.first_chunk().is_some_and(|head| differing(&self.words_v4(head, own), words) == 0)
    }

    #[inline(always)]
    fn words_v4(&self, head: &HeadV4, own: u32) -> [u64; 4] {
        let addresses = ne64::<ADDRESSES_V4, _>(head);
        [ne64::<0, _>(head), ne32::<8, _>(head) | u64::from(own) << 32, ne32::<L4_V4, _>(head) | self.kind(), addresses]
    }

    #[inline(always)]
    fn words_v6(&self, head: &HeadV6, own: u32) -> [u64; 7] {
        let [a, b, c, d] = [
            ne64::<ADDRESSES_V6, _>(head),
            ne64::<{ ADDRESSES_V6 + 8 }, _>(head),
            ne64::<{ ADDRESSES_V6 + 16 }, _>(head),
            ne64::<{ ADDRESSES_V6 + 24 }, _>(head),
        ];
        let (macs_end, ports) = (ne32::<8, _>(head) | u64::from(own) << 32, ne32::<L4_V6, _>(head) | self.kind());
        [ne64::<0, _>(head), macs_end, ports, a, b, c, d]
    }

    /// Protocol and IP version, beside the ports.
    #[inline(always)]
    fn kind(&self) -> u64 {
        u64::from(self.protocol) << 32 | u64::from(self.is_v6) << 40
    }

    #[inline(always)]
    fn read_v4(head: &HeadV4) -> Option<Self> {
        // With options it would not fit.
        let view = ipv4::View::new(&head[ethernet::HEADER_LEN..L4_V4])?;
        if view.is_fragment() || !view.checksum_is_right() {
            return None;
        }
        let addresses = be64::<ADDRESSES_V4, _>(head);
        let (protocol, ports) = (view.protocol(), be32::<L4_V4, _>(head));
        Some(Self {
            flow_hash: flow_hash_v4(addresses, protocol, ports),
            packet_len: view.total_len().into(),
            header_len: 0,
            is_v6: false,
            protocol,
            tos: view.tos(),
            hops_left: view.ttl(),
        })
    }

    #[inline(always)]
    fn read_v6(head: &HeadV6) -> Option<Self> {
        let view = ipv6::View::new(&head[ethernet::HEADER_LEN..])?;
        let addresses = [
            be64::<ADDRESSES_V6, _>(head),
            be64::<{ ADDRESSES_V6 + 8 }, _>(head),
            be64::<{ ADDRESSES_V6 + 16 }, _>(head),
            be64::<{ ADDRESSES_V6 + 24 }, _>(head),
        ];
        let (protocol, ports) = (view.next_header(), be32::<L4_V6, _>(head));
        Some(Self {
            flow_hash: flow_hash_v6(addresses, protocol, ports),
            packet_len: ipv6::HEADER_LEN + usize::from(view.payload_len()),
            header_len: 0,
            is_v6: true,
            protocol,
            tos: view.traffic_class(),
            hops_left: view.hop_limit(),
        })
    }

    /// With what the L4 header says, if that and all lengths hold.
    #[inline(always)]
    fn with_l4(self, bytes: &[u8], offload: &Offload) -> Option<Self> {
        let l4_offset = if self.is_v6 { L4_V6 } else { L4_V4 };
        let packet_end = ethernet::HEADER_LEN + self.packet_len;
        let payload = bytes.get(l4_offset..packet_end)?;
        let l4_len = match self.protocol {
            tcp::PROTOCOL => usize::from(tcp::View::new(payload)?.header_len()),
            udp::PROTOCOL => {
                let len = usize::from(udp::View::new(payload)?.header().len);
                let fits = (udp::HEADER_LEN..=payload.len()).contains(&len);
                (fits || offload.gso.is_some()).then_some(udp::HEADER_LEN)?
            }
            _ => return None,
        };
        let header_len = l4_offset + l4_len;
        if offload.describes() {
            let (kind, checksum_offset) = if self.protocol == tcp::PROTOCOL {
                (GsoKind::tcp(self.is_v6), tcp::CHECKSUM_OFFSET)
            } else {
                (GsoKind::Udp, udp::CHECKSUM_OFFSET)
            };
            let (kind, checksum_offset, frame_len) = (Some(kind), Some(checksum_offset), bytes.len());
            let described = Described { kind, checksum_offset, l4_offset, header_len, packet_end, frame_len };
            described.agrees(offload).then_some(())?;
        }
        Some(Self { header_len: u16::try_from(header_len).unwrap_or(u16::MAX), ..self })
    }
}

/// The bits in which words differ.
#[inline(always)]
fn differing(own: &[u64], words: &[u64; 7]) -> u64 {
    own.iter().zip(words).fold(0, |differing, (own, other)| differing | (own ^ other))
}
