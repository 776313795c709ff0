//! What a frame carries besides its bytes: the state of its L4 checksum and, for a super-frame, how to cut it.
//!
//! The meanings are those of `virtio_net_hdr` (linux/virtio_net.h), made explicit. See ARCHITECTURE.md,
//! "Checksums", for the rules of who may complete or trust what.

/// State of the L4 checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Checksum {
    /// Nothing is known; the field is carried as it is and the receiver judges it.
    #[default]
    Unknown,
    /// The device or the switch has verified or computed it.
    Good,
    /// The field holds the uncomplemented pseudo-header sum; whoever leaves the world of super-frames
    /// completes it: sum from `start` to the end, complement, store at `start + offset`.
    Partial {
        /// First byte to sum, counted from the frame's first byte.
        start: u16,
        /// Where the 16-bit field lies, counted from `start`.
        offset: u16,
    },
}

/// What protocol a super-frame is cut by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GsoKind {
    /// TCP over IPv4 (`VIRTIO_NET_HDR_GSO_TCPV4`).
    Tcp4,
    /// TCP over IPv6 (`VIRTIO_NET_HDR_GSO_TCPV6`).
    Tcp6,
    /// UDP over either family, each piece a datagram of its own (`VIRTIO_NET_HDR_GSO_UDP_L4`).
    Udp,
}

impl GsoKind {
    /// Of TCP over either family.
    #[inline]
    #[must_use]
    pub fn tcp(is_v6: bool) -> Self {
        if is_v6 { Self::Tcp6 } else { Self::Tcp4 }
    }
}

/// How a super-frame is cut into packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gso {
    /// Protocol.
    pub kind: GsoKind,
    /// L4 payload bytes of each packet but the last; never 0.
    pub size: u16,
    /// Ethernet, IP and L4 header bytes in front of the payload. Parsed by us, never taken from
    /// `virtio_net_hdr.hdr_len`: the kernel puts its linear length there.
    pub header_len: u16,
}

/// The side information of one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offload {
    /// State of the L4 checksum.
    pub checksum: Checksum,
    /// Present when the frame is a super-frame.
    pub gso: Option<Gso>,
}

impl Offload {
    /// Whether it says something of the headers, with which these have to agree.
    #[inline]
    #[must_use]
    pub fn describes(&self) -> bool {
        self.gso.is_some() || matches!(self.checksum, Checksum::Partial { .. })
    }

    /// Packets this frame stands for on a wire, given its whole length in bytes.
    #[inline]
    #[must_use]
    pub fn segments(&self, frame_len: usize) -> usize {
        match self.gso {
            None => 1,
            Some(gso) => {
                let payload = frame_len.saturating_sub(usize::from(gso.header_len));
                payload.div_ceil(usize::from(gso.size).max(1)).max(1)
            }
        }
    }
}
