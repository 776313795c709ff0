//! `struct virtio_net_hdr` (linux/virtio_net.h), ten bytes in host byte order, to and from [`Offload`].

use crate::frame::{Checksum, Gso, GsoKind, Offload};
use crate::sys::tap::VNET_HEADER_BYTES;

const FLAG_NEEDS_CSUM: u8 = 1;
const FLAG_DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// Set beside a TCP kind when CWR is up. Cutting looks at the flags themselves, so it is not carried.
const GSO_ECN: u8 = 0x80;

/// Stands for a header that makes no sense or asks for what the switch does not do (`GSO_UDP`, the old fragmenting
/// UFO). The frame is kept, so that it is counted; the checksum lies beyond any frame, so that parsing refuses it as
/// `offload_invalid`.
pub const INVALID: Offload = Offload { checksum: Checksum::Partial { start: u16::MAX, offset: u16::MAX }, gso: None };

/// What the header says of its frame. `header_len` stays 0: the kernel's `hdr_len` is its linear length, and the
/// pipeline parses the true one.
#[must_use]
pub fn read(header: [u8; VNET_HEADER_BYTES]) -> Offload {
    let [flags, gso_type, _, _, size_low, size_high, start_low, start_high, offset_low, offset_high] = header;
    let size = u16::from_ne_bytes([size_low, size_high]);
    let checksum = if flags & FLAG_NEEDS_CSUM != 0 {
        let start = u16::from_ne_bytes([start_low, start_high]);
        Checksum::Partial { start, offset: u16::from_ne_bytes([offset_low, offset_high]) }
    } else if flags & FLAG_DATA_VALID != 0 {
        Checksum::Good
    } else {
        Checksum::Unknown
    };
    let kind = match gso_type & !GSO_ECN {
        GSO_NONE => return Offload { checksum, gso: None },
        GSO_TCPV4 => GsoKind::Tcp4,
        GSO_TCPV6 => GsoKind::Tcp6,
        GSO_UDP_L4 => GsoKind::Udp,
        _ => return INVALID,
    };
    if size == 0 {
        return INVALID;
    }
    Offload { checksum, gso: Some(Gso { kind, size, header_len: 0 }) }
}

/// The header for a frame that is written whole.
#[must_use]
pub fn write(offload: &Offload) -> [u8; VNET_HEADER_BYTES] {
    let mut header = [0; VNET_HEADER_BYTES];
    match offload.checksum {
        Checksum::Unknown => {}
        Checksum::Good => header[0] = FLAG_DATA_VALID,
        Checksum::Partial { start, offset } => {
            header[0] = FLAG_NEEDS_CSUM;
            header[6..8].copy_from_slice(&start.to_ne_bytes());
            header[8..10].copy_from_slice(&offset.to_ne_bytes());
        }
    }
    if let Some(gso) = offload.gso {
        header[1] = match gso.kind {
            GsoKind::Tcp4 => GSO_TCPV4,
            GsoKind::Tcp6 => GSO_TCPV6,
            GsoKind::Udp => GSO_UDP_L4,
        };
        header[2..4].copy_from_slice(&gso.header_len.to_ne_bytes());
        header[4..6].copy_from_slice(&gso.size.to_ne_bytes());
    }
    header
}

/// The header for a packet that is complete in itself, as cut ones are.
pub const COMPLETE: [u8; VNET_HEADER_BYTES] = [0; VNET_HEADER_BYTES];

#[cfg(test)]
mod tests {
    use super::*;

    fn header(flags: u8, gso_type: u8, hdr_len: u16, size: u16, start: u16, offset: u16) -> [u8; VNET_HEADER_BYTES] {
        let mut header = [flags, gso_type, 0, 0, 0, 0, 0, 0, 0, 0];
        for (at, field) in [(2, hdr_len), (4, size), (6, start), (8, offset)] {
            header[at..at + 2].copy_from_slice(&field.to_ne_bytes());
        }
        header
    }

    fn gso(kind: GsoKind, size: u16, header_len: u16) -> Option<Gso> {
        Some(Gso { kind, size, header_len })
    }

    const PARTIAL: Checksum = Checksum::Partial { start: 34, offset: 16 };

    #[test]
    fn each_header_of_the_kernel_has_its_meaning() {
        for (bytes, checksum, expected) in [
            (header(0, 0, 0, 0, 0, 0), Checksum::Unknown, None),
            (header(2, 0, 0, 0, 0, 0), Checksum::Good, None),
            (header(1, 0, 0, 0, 34, 16), PARTIAL, None),
            (header(1, 1, 9_999, 1_448, 34, 16), PARTIAL, gso(GsoKind::Tcp4, 1_448, 0)),
            (header(1, 0x81, 66, 1_448, 34, 16), PARTIAL, gso(GsoKind::Tcp4, 1_448, 0)),
            (header(1, 4, 86, 1_428, 34, 16), PARTIAL, gso(GsoKind::Tcp6, 1_428, 0)),
            (header(1, 5, 42, 1_200, 34, 16), PARTIAL, gso(GsoKind::Udp, 1_200, 0)),
        ] {
            assert_eq!(read(bytes), Offload { checksum, gso: expected }, "{bytes:?}");
        }
    }

    #[test]
    fn a_header_that_makes_no_sense_is_marked_for_refusal() {
        for (gso_type, size) in [(3, 1_480), (2, 1_000), (6, 1_000), (0x7f, 1_000), (1, 0), (5, 0)] {
            assert_eq!(read(header(1, gso_type, 0, size, 34, 16)), INVALID, "type {gso_type}, size {size}");
        }
    }

    #[test]
    fn what_is_written_reads_the_same_but_for_the_parsed_header_length() {
        for (checksum, kind, expected) in [
            (PARTIAL, Some(GsoKind::Tcp4), header(1, 1, 66, 1_448, 34, 16)),
            (PARTIAL, Some(GsoKind::Tcp6), header(1, 4, 66, 1_448, 34, 16)),
            (PARTIAL, Some(GsoKind::Udp), header(1, 5, 66, 1_448, 34, 16)),
            (PARTIAL, None, header(1, 0, 0, 0, 34, 16)),
            (Checksum::Good, None, header(2, 0, 0, 0, 0, 0)),
            (Checksum::Unknown, None, COMPLETE),
        ] {
            let of = |header_len| Offload { checksum, gso: kind.and_then(|kind| gso(kind, 1_448, header_len)) };
            assert_eq!(write(&of(66)), expected);
            assert_eq!(read(expected), of(0));
        }
    }
}
