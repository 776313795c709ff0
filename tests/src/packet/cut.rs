//! Segments and fragments, cut the obvious way, for the engine to be compared with.

use std::net::IpAddr;

use podwire_vswitch::frame::{Gso, GsoKind};
use podwire_vswitch::port::memory::MemoryFrame;

use super::{L4, Packet, Sum, flag};

impl Packet {
    /// As a port gives a super-frame that stands for segments of `size` payload bytes.
    ///
    /// # Panics
    /// When it is neither TCP nor UDP.
    #[must_use]
    pub fn super_frame(&self, size: u16) -> MemoryFrame {
        let kind = match (&self.l4, self.src) {
            (L4::Tcp { .. }, IpAddr::V4(_)) => GsoKind::Tcp4,
            (L4::Tcp { .. }, IpAddr::V6(_)) => GsoKind::Tcp6,
            (L4::Udp { .. }, _) => GsoKind::Udp,
            _ => panic!("no super-frames of {:?}", self.l4),
        };
        let header_len = u16::try_from(self.l4_offset() + self.l4_header_len()).expect("a header");
        let mut frame = self.clone().sum(Sum::Partial).frame();
        frame.offload.gso = Some(Gso { kind, size, header_len });
        frame
    }

    /// The packets a super-frame of this packet stands for.
    #[must_use]
    pub fn segments(&self, size: usize) -> Vec<Self> {
        let chunks: Vec<&[u8]> = self.payload.chunks(size).collect();
        let last = chunks.len() - 1;
        let segment = |(index, chunk): (usize, &&[u8])| {
            let mut segment = Self { payload: chunk.to_vec(), sum: Sum::Complete, ..self.clone() };
            segment.id = self.id.wrapping_add(u32::try_from(index).expect("few segments")) & 0xffff;
            if let L4::Tcp { sequence, flags, .. } = &mut segment.l4 {
                *sequence = sequence.wrapping_add(u32::try_from(index * size).expect("a packet"));
                *flags &= if index < last { !(flag::FIN | flag::PSH) } else { 0xff };
                *flags &= if index > 0 { !flag::CWR } else { 0xff };
            }
            segment
        };
        chunks.iter().enumerate().map(segment).collect()
    }

    /// The fragments of at most `mtu` bytes that a sender, or over IPv4 a router, cuts it into.
    #[must_use]
    pub fn fragments(&self, mtu: usize) -> Vec<Self> {
        let l4 = self.l4_bytes();
        let header_len = if self.src.is_ipv6() { 48 } else { self.ip_header_len() };
        let room = (mtu - header_len) & !7;
        let (base, more_behind) = self.fragment.unwrap_or_default();
        let fragment = |(index, chunk): (usize, &[u8])| {
            let at = index * room;
            let offset = base + u16::try_from(at).expect("a packet");
            let more = more_behind || at + chunk.len() < l4.len();
            let l4 = L4::Raw { protocol: self.protocol() };
            Self { l4, payload: chunk.to_vec(), fragment: Some((offset, more)), ..self.clone() }
        };
        l4.chunks(room).enumerate().map(fragment).collect()
    }
}
