//! Up to 64 frames that are decided together, each with its verdict and its way out.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use podwire_control::model::Vni;

use super::{Frame, FramePool};
use crate::id::{BridgeId, PortId, VtepId};
use crate::limits::BATCH_FRAMES;
use crate::outcome::{DropReason, Verdict};
use crate::wire::Headers;

/// The tunnel a frame leaves through. The uplink port writes the VXLAN header and the outer headers from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Encap {
    /// Remote VTEP.
    pub vtep: VtepId,
    /// Its address, of the family chosen for this frame.
    pub remote: IpAddr,
    /// Network identifier.
    pub vni: Vni,
    /// Outer TOS or traffic class: the inner ECN field (RFC 6040), and the DSCP where so configured.
    pub tos: u8,
    /// Hash of the inner flow, from which the outer source port is chosen (RFC 7348, section 5).
    pub entropy: u32,
}

/// Where a decided frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Egress {
    /// Nowhere.
    None,
    /// To one port. For a tunnelled frame `port` is the tunnel, and `encap` says how.
    Port {
        /// Logical port.
        port: PortId,
        /// Tunnel headers, when the port is a tunnel.
        encap: Option<Encap>,
        /// Largest L3 packet (IP header included, bytes) that may leave; a longer one is fragmented.
        mtu: u16,
    },
    /// To every other member of a bridge.
    Bridge(BridgeId),
}

/// One frame under decision.
#[derive(Debug)]
pub struct Item {
    /// The frame.
    pub frame: Frame,
    /// Its parsed headers; what the frame's bytes say now, also after a rewrite.
    pub headers: Headers,
    /// The one outcome it is counted under.
    pub verdict: Verdict,
    /// Where it goes. A dropped original has one when an ICMP error, built in its place, goes back.
    pub egress: Egress,
}

impl Item {
    /// A frame nothing is decided about yet.
    #[inline]
    #[must_use]
    pub fn new(frame: Frame) -> Self {
        Self {
            frame,
            headers: Headers::default(),
            verdict: Verdict::Drop(DropReason::UnknownPort),
            egress: Egress::None,
        }
    }
}

/// Three cache lines: a full batch then leaves room in the first-level cache for the frames' own headers.
const _: () = assert!(size_of::<Item>() <= 192);

/// Frames received together. Inline storage; never allocates.
#[derive(Debug, Default)]
pub struct Batch {
    items: ArrayVec<Item, BATCH_FRAMES>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a received frame; the caller has asked [`Batch::room`].
    #[inline]
    pub fn push(&mut self, frame: Frame) {
        self.items.push(Item::new(frame));
    }

    /// Frames that still fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.items.remaining_capacity()
    }

    /// Frames in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True when it holds no frame.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The frames.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The frames, to decide or to send.
    pub fn items_mut(&mut self) -> &mut [Item] {
        &mut self.items
    }

    /// Gives every frame back to the pool.
    pub fn recycle(&mut self, pool: &mut FramePool) {
        for item in self.items.drain(..) {
            pool.give(item.frame);
        }
    }
}
