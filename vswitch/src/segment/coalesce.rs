//! Joins consecutive TCP segments into one super-frame, as the kernel's GRO does (`tcp_gro_receive`,
//! `inet_gro_receive`, `ipv6_gro_receive`): the opposite of `gso`, which cuts it into the same packets again.
//!
//! A [`Run`] decides and writes headers; whoever holds the bytes puts the payloads behind each other. It knows one flow
//! only: which runs are open, and where, is the caller's affair. Left out: UDP, tags, IP options, extension headers.

use super::{field, put_word, word};
use crate::frame::{Checksum, Gso, GsoKind, Offload};
use crate::limits::IP_BYTES_MAX;
use crate::wire::checksum::{fold, sum, update};
use crate::wire::{ethernet, ipv4, ipv6, tcp};

/// Flags that a segment may have and be joined; CWR on the first only (RFC 3168, 6.1.2), PSH on the last only.
const FLAGS_JOINED: u8 = tcp::FLAG_ACK | tcp::FLAG_PSH | tcp::FLAG_ECE | tcp::FLAG_CWR;
/// Behind an Ethernet header without tags.
const L3: usize = ethernet::HEADER_LEN;
/// Tells the families apart.
const ETHERTYPE: usize = L3 - 2;
/// Two addresses and two ports, which lie side by side.
const FLOW_V4: usize = 2 * 4 + 4;
const FLOW_V6: usize = 2 * 16 + 4;

/// A TCP segment over plain IP, as far as joining looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// From the Ethernet header on.
    bytes: &'a [u8],
    over_v4: bool,
    l4: usize,
    header_len: usize,
    sequence: u32,
    flags: u8,
    /// Whether it is of the kind that is joined: it has payload, no padding, and no flag that a receiver must see by
    /// itself.
    joinable: bool,
}

impl<'a> Segment<'a> {
    /// Looks at a frame that starts at its Ethernet header; none when it is anything else than a whole TCP segment.
    #[inline]
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let packet = bytes.get(L3..)?;
        let (over_v4, ip_len, packet_len) = match ethernet::View::new(bytes)?.ethertype() {
            ethernet::ETHERTYPE_IPV4 => {
                let view = ipv4::View::new(packet)?;
                let plain = view.header_len() == ipv4::HEADER_LEN_MIN && view.fragment().is_none();
                let total_len = usize::from(view.total_len());
                (plain && view.protocol() == tcp::PROTOCOL).then_some((true, ipv4::HEADER_LEN_MIN, total_len))?
            }
            ethernet::ETHERTYPE_IPV6 => {
                let view = ipv6::View::new(packet)?;
                let packet_len = ipv6::HEADER_LEN + usize::from(view.payload_len());
                (view.next_header() == tcp::PROTOCOL).then_some((false, ipv6::HEADER_LEN, packet_len))?
            }
            _ => return None,
        };
        let tcp = tcp::View::new(packet.get(ip_len..)?)?;
        let l4 = L3 + ip_len;
        let header_len = l4 + usize::from(tcp.header_len());
        let flags = tcp.flags();
        let plain = flags & !FLAGS_JOINED == 0 && flags & tcp::FLAG_ACK != 0;
        let joinable = plain && packet_len == packet.len() && header_len < bytes.len();
        Some(Self { bytes, over_v4, l4, header_len, sequence: tcp.sequence(), flags, joinable })
    }

    /// What follows its headers.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header_len..]
    }

    /// Addresses and ports, which lie side by side.
    #[inline]
    fn flow(&self) -> &'a [u8] {
        let flow_len = if self.over_v4 { FLOW_V4 } else { FLOW_V6 };
        &self.bytes[self.l4 + 4 - flow_len..self.l4 + 4]
    }

    /// Whether a frame that was read as a segment before is of the same flow and direction.
    #[inline]
    #[must_use]
    pub fn is_flow_of(&self, frame: &[u8]) -> bool {
        let same_flow = if self.over_v4 {
            self.same::<FLOW_V4>(frame, self.l4 + 4 - FLOW_V4)
        } else {
            self.same::<FLOW_V6>(frame, self.l4 + 4 - FLOW_V6)
        };
        same_flow && self.same::<2>(frame, ETHERTYPE)
    }

    /// Whether `N` bytes are those of another frame. Of a length that is known, so that it is a comparison of registers.
    #[inline(always)]
    fn same<const N: usize>(&self, other: &[u8], at: usize) -> bool {
        let here = self.bytes.get(at..).and_then(<[u8]>::first_chunk::<N>);
        here.is_some() && here == other.get(at..).and_then(<[u8]>::first_chunk::<N>)
    }

    /// Whether the headers are those of the first but for what may differ: lengths, identification (see [`Ids`]),
    /// sequence number, checksums, PSH, and CWR, which only the first may have.
    #[inline]
    fn has_headers_of(&self, first: &Segment<'_>) -> bool {
        let (l4, others) = (self.l4, first.bytes);
        // Ethernet and the first fields of IP up to the length; what follows it up to a checksum; addresses.
        let same_ip = if self.over_v4 {
            self.same::<{ L3 + 2 }>(others, 0) && self.same::<4>(others, L3 + field::IPV4_FRAGMENT)
        } else {
            self.same::<{ L3 + 4 }>(others, 0) && self.same::<2>(others, L3 + field::IPV6_PAYLOAD_LEN + 2)
        };
        let at = l4 + field::TCP_OFFSET_AND_FLAGS;
        let differing = word(self.bytes, at) ^ word(others, at);
        let options = l4 + field::TCP_LEN_MIN..self.header_len;
        let acknowledgement = field::TCP_SEQUENCE + 4;
        same_ip
            && self.is_flow_of(others)
            && differing & !u16::from(tcp::FLAG_PSH | tcp::FLAG_CWR) == 0
            && self.same::<4>(others, l4 + acknowledgement)
            && self.same::<2>(others, at + 2)
            && self.same::<2>(others, l4 + field::TCP_CHECKSUM + 2)
            && match options.len() {
                0 => true,
                // Timestamps.
                12 => self.same::<12>(others, options.start),
                _ => self.bytes[options.clone()] == others[options],
            }
    }

    /// Whether its checksums are right, or the L4 one left open as it may be from a wire (see `pipeline::decap`).
    fn is_undamaged(&self) -> bool {
        if self.over_v4 && fold(sum(&self.bytes[L3..self.l4])) != 0xffff {
            return false;
        }
        let segment = &self.bytes[self.l4..];
        let pseudo = self.pseudo(segment.len());
        word(segment, field::TCP_CHECKSUM) == fold(pseudo) || fold(pseudo + sum(segment)) == 0xffff
    }

    /// Pseudo-header sum of a packet with these addresses and `len` bytes of TCP.
    fn pseudo(&self, len: usize) -> u32 {
        let len = u32::try_from(len).unwrap_or(u32::MAX) & 0xf_ffff;
        let addresses = self.flow();
        sum(&addresses[..addresses.len() - 4]) + u32::from(tcp::PROTOCOL) + len
    }
}

/// What became of a segment that was offered to a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Join {
    /// It is part of the run.
    Joined,
    /// It is part of the run, and the last that can be: shorter than the others, or pushed.
    Last,
    /// It does not continue the run, which has ended with that: order within a flow is kept.
    Refused,
}

/// How the IPv4 identifications of a run go on; its second segment decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ids {
    /// One segment so far.
    Open,
    /// The same in all, which DF must permit (RFC 6864).
    Fixed,
    /// One more each.
    Counting,
}

impl Ids {
    /// With the segment that has `count` in front of it; none when it does not go on like this.
    fn with(self, first: &Segment<'_>, next: &Segment<'_>, count: u16) -> Option<Self> {
        if !first.over_v4 {
            return Some(self);
        }
        let at = L3 + field::IPV4_ID;
        let ahead = word(next.bytes, at).wrapping_sub(word(first.bytes, at));
        let dont_fragment = first.bytes[L3 + field::IPV4_FRAGMENT] & 0x40 != 0;
        match self {
            Self::Open | Self::Counting if ahead == count => Some(Self::Counting),
            Self::Open | Self::Fixed if ahead == 0 && dont_fragment => Some(Self::Fixed),
            _ => None,
        }
    }
}

/// Consecutive segments of one flow and direction that become one super-frame. The first gives its headers.
#[derive(Clone, Debug)]
pub struct Run {
    /// Payload bytes of each segment but the last.
    size: u16,
    count: u16,
    /// Bytes of the L3 packet so far.
    packet_len: usize,
    next_sequence: u32,
    ids: Ids,
    pushed: bool,
}

impl Run {
    /// Begins with a segment; none when nothing can be joined to it.
    #[inline]
    #[must_use]
    pub fn begin(first: &Segment<'_>) -> Option<Self> {
        if !first.joinable || first.flags & tcp::FLAG_PSH != 0 {
            return None;
        }
        let size = u16::try_from(first.payload().len()).ok()?;
        let next_sequence = first.sequence.wrapping_add(size.into());
        let packet_len = first.bytes.len() - L3;
        Some(Self { size, count: 1, packet_len, next_sequence, ids: Ids::Open, pushed: false })
    }

    /// Segments so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.into()
    }

    /// Joins the next segment of the flow if it continues the run. `first` is the frame that began it, with what was
    /// joined behind it. Both must be undamaged: what is damaged is refused, and so goes its way unchanged.
    #[inline]
    pub fn join(&mut self, first: &[u8], next: &Segment<'_>) -> Join {
        let size = usize::from(self.size);
        let len = next.payload().len();
        if !next.joinable
            || next.flags & tcp::FLAG_CWR != 0
            || next.sequence != self.next_sequence
            || len > size
            || self.packet_len + len > IP_BYTES_MAX
        {
            return Join::Refused;
        }
        // Its headers are where those of the next are, or they are not the same.
        let Some(bytes) = first.get(..next.header_len + size) else { return Join::Refused };
        let first = Segment { bytes, ..*next };
        let Some(ids) = self.ids.with(&first, next, self.count).filter(|_| next.has_headers_of(&first)) else {
            return Join::Refused;
        };
        if (self.count == 1 && !first.is_undamaged()) || !next.is_undamaged() {
            return Join::Refused;
        }
        self.ids = ids;
        self.count += 1;
        self.packet_len += len;
        self.next_sequence = self.next_sequence.wrapping_add(u32::from(self.size));
        self.pushed = next.flags & tcp::FLAG_PSH != 0;
        if self.pushed || len < size { Join::Last } else { Join::Joined }
    }

    /// Makes the headers of the first those of the super-frame, and says what it is; none, and nothing changed, when it
    /// stayed alone. `frame` has all payloads behind each other.
    pub fn finish(&self, frame: &mut [u8]) -> Option<Offload> {
        if self.count < 2 {
            return None;
        }
        let packet_len = u16::try_from(self.packet_len).ok()?;
        let segment = Segment::read(frame)?;
        let (over_v4, l4, header_len) = (segment.over_v4, segment.l4, segment.header_len);
        let pseudo = fold(segment.pseudo(frame.len() - l4));
        if over_v4 {
            let (len_at, check_at) = (L3 + field::IPV4_TOTAL_LEN, L3 + field::IPV4_CHECKSUM);
            let check = update(word(frame, check_at), word(frame, len_at), packet_len);
            put_word(frame, check_at, check);
            put_word(frame, len_at, packet_len);
        } else {
            let payload_len = usize::from(packet_len) - field::IPV6_LEN;
            put_word(frame, L3 + field::IPV6_PAYLOAD_LEN, u16::try_from(payload_len).ok()?);
        }
        if self.pushed {
            frame[l4 + field::TCP_OFFSET_AND_FLAGS + 1] |= tcp::FLAG_PSH;
        }
        put_word(frame, l4 + field::TCP_CHECKSUM, pseudo);
        let kind = GsoKind::tcp(!over_v4);
        let [start, header_len, offset] = [l4, header_len, field::TCP_CHECKSUM].map(u16::try_from);
        Some(Offload {
            checksum: Checksum::Partial { start: start.ok()?, offset: offset.ok()? },
            gso: Some(Gso { kind, size: self.size, header_len: header_len.ok()? }),
        })
    }
}
