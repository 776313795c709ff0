//! What single stages cost.

use serde::{Deserialize, Serialize};

/// A part of a frame's way through the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    Parse,
    L2,
    L3,
    L3Uncached,
    Tunnel,
    Detunnel,
    Send,
    Encap,
    Segment,
    Checksum,
    Coalesce,
}

impl Stage {
    pub(crate) const ALL: [Self; 11] = [
        Self::Parse,
        Self::L2,
        Self::L3,
        Self::L3Uncached,
        Self::Tunnel,
        Self::Detunnel,
        Self::Send,
        Self::Encap,
        Self::Segment,
        Self::Checksum,
        Self::Coalesce,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::L2 => "lookup L2, cached",
            Self::L3 => "lookup L3, cached",
            Self::L3Uncached => "lookup L3, cache off",
            Self::Tunnel => "lookup into the tunnel, cached",
            Self::Detunnel => "lookup out of the tunnel, cached",
            Self::Send => "send and count",
            Self::Encap => "encap",
            Self::Segment => "segment",
            Self::Checksum => "checksum",
            Self::Coalesce => "coalesce",
        }
    }

    /// Whether a super-frame costs it once, and not once a packet.
    pub(super) fn is_once_a_frame(self) -> bool {
        !matches!(self, Self::Encap | Self::Segment | Self::Checksum | Self::Coalesce)
    }
}

/// What one stage costs at one MTU of the underlay.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub(crate) stage: Stage,
    pub(crate) mtu: u16,
    /// Nanoseconds a packet; of a stage that a super-frame costs once, a frame.
    pub(crate) ns_packet: f64,
    /// The same divided by the bytes: the payload's, or the packet's where payload is not looked at.
    pub(crate) ns_byte: f64,
}

impl Cost {
    pub(super) fn new(stage: Stage, mtu: u16, ns_packet: f64, bytes: u32) -> Self {
        Self { stage, mtu, ns_packet, ns_byte: ns_packet / f64::from(bytes.max(1)) }
    }
}

/// The super-frame that is cut and joined.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SuperFrame {
    /// Of the underlay.
    pub(crate) mtu: u16,
    /// With its headers.
    pub(crate) bytes: usize,
    /// It makes on the wire.
    pub(crate) packets: usize,
}

pub(super) fn cost(costs: &[Cost], stage: Stage, mtu: u16) -> Option<&Cost> {
    costs.iter().find(|cost| cost.stage == stage && cost.mtu == mtu)
}

#[allow(clippy::cast_precision_loss, reason = "counts and nanoseconds of one run are far below 2^52")]
pub(super) fn float(number: u64) -> f64 {
    number as f64
}
