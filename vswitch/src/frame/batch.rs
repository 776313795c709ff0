//! Up to 64 frames that are decided together, each with its verdict and its way out.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use podwire_control::model::Vni;

use super::{Frame, FramePool};
use crate::id::{BridgeId, PortId, VtepId};
use crate::limits::BATCH_FRAMES;
use crate::outcome::{DropReason, Verdict};
use crate::wire::{Headers, parse_into};

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

/// One way out of the switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// Logical port; of a tunnelled frame the tunnel.
    pub port: PortId,
    /// Tunnel headers, when the port is a tunnel.
    pub encap: Option<Encap>,
    /// Largest L3 packet (IP header included, bytes) that may leave this way; a longer one is fragmented.
    pub mtu: u16,
}

impl Delivery {
    /// Out of a port that is no tunnel.
    #[inline]
    #[must_use]
    pub fn plain(port: PortId, mtu: u16) -> Self {
        Self { port, encap: None, mtu }
    }
}

/// Where a decided frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Egress {
    /// Nowhere.
    None,
    /// To one port.
    Port(Delivery),
    /// To every other member of a bridge.
    Bridge(BridgeId),
}

impl Egress {
    /// The tunnel it leads into.
    #[inline]
    #[must_use]
    pub fn encap(&self) -> Option<&Encap> {
        match self {
            Self::Port(way) => way.encap.as_ref(),
            Self::None | Self::Bridge(_) => None,
        }
    }
}

/// One frame under decision.
#[derive(Debug)]
pub struct Item {
    /// The frame.
    pub frame: Frame,
    /// Its parsed headers, once [`Item::read_headers`] has read them.
    pub headers: Headers,
    /// Whether the headers are those of the frame's bytes as they are now. Whoever changes the bytes changes both, or says
    /// so here. A frame that the flow cache decides may never need them.
    pub headers_read: bool,
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
            headers_read: false,
            verdict: Verdict::Drop(DropReason::UnknownPort),
            egress: Egress::None,
        }
    }

    /// Parses the frame's headers if they are not known, and puts its offload right by them.
    ///
    /// # Errors
    /// The reason to drop a frame for that is malformed.
    #[inline]
    pub fn read_headers(&mut self) -> Result<(), DropReason> {
        if self.headers_read {
            return Ok(());
        }
        parse_into(self.frame.bytes(), &self.frame.offload, &mut self.headers)?;
        self.headers_read = true;
        if let Some(gso) = &mut self.frame.offload.gso {
            gso.header_len = u16::try_from(self.headers.header_len()).unwrap_or(u16::MAX);
        }
        Ok(())
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
