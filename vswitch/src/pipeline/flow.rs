//! The flow cache: the stages leave what they concluded for a frame as an [`Action`], and later frames of its flow
//! replay that instead of asking again.
//!
//! A hit must give what the stages would give, byte for byte and counter for counter. So both ends of the work are one
//! code: `finish` does what an action says, whoever found it. An action holds what follows from the flow's key and the
//! tables alone; what depends on the single frame (TTL, length, path MTU, ECN) is looked at for each. A frame that is not
//! as the action wants it, expired or too long, goes through the stages, which know what to say to it.
//!
//! An action holds as long as all it rests on: the tables of the snapshot it was read from and both ports (their
//! epochs), the bridge's MAC table (its epoch, and the age of the entry found), and, where the source MAC is learned,
//! the second in which that was done: the first frame of each second goes through the stages and refreshes its age.
//!
//! Not cached: what is not TCP or UDP, fragments, options and extension headers, tags, group addresses, and whatever
//! ends in a flood, an answer or a drop.

use podwire_control::model::{Mac, Vni};

use super::encap::{Inner, encap};
use super::{Arrival, Decision, Door, Pass, Probe, Stage};
use crate::frame::{Delivery, Egress, Item};
use crate::id::{BridgeId, PortId, VtepId};
use crate::outcome::{PuntReason, Verdict};
use crate::snapshot::{Snapshot, Table, Tables};
use crate::stats::Event;
use crate::table::flow::{FlowKey, Kept};
use crate::table::mac::Learned;
use crate::wire::{Plain, ethernet, ipv4, ipv6};

/// What is done to the Ethernet and IP headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rewrite {
    /// Nothing: the frame is bridged.
    Nothing,
    /// New MACs: the frame is handed to the host, which routes it.
    Macs { dst: Mac, src: Mac },
    /// New MACs, and one hop less to live.
    Hop { dst: Mac, src: Mac },
}

/// The tunnel behind a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tunnel {
    pub(crate) vtep: VtepId,
    pub(crate) vni: Vni,
}

/// What the stages concluded for a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Action {
    /// Set when the port is the host's and this is why; else the frame is forwarded.
    pub(crate) punt: Option<PuntReason>,
    pub(crate) port: PortId,
    /// Longest packet in bytes that may go this way, and from what length it is fragmented; a tunnel's are its own.
    pub(crate) limit: u16,
    pub(crate) fragment_at: u16,
    pub(crate) tunnel: Option<Tunnel>,
    pub(crate) rewrite: Rewrite,
}

impl Action {
    #[inline]
    fn verdict(&self) -> Verdict {
        self.punt.map_or(Verdict::Forward(self.port), Verdict::Punt)
    }
}

/// An action as the flow table keeps it, with what it rests on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CachedAction {
    action: Action,
    ground: Ground,
}

impl CachedAction {
    /// Whether all it rests on is as it was. What holds in this snapshot is not asked again.
    fn holds(&mut self, snapshot: &Snapshot, ingress: PortId) -> bool {
        (self.is_of(snapshot) || self.holds_still(snapshot, ingress)) && self.macs_are_as_they_were(snapshot)
    }

    /// Whether this snapshot's tables are known to say the same.
    #[inline]
    pub(super) fn is_of(&self, snapshot: &Snapshot) -> bool {
        self.ground.generation == snapshot.generation
    }

    /// Whether the MAC table has not changed; a frame before this one may have done that.
    #[inline]
    fn macs_are_as_they_were(&self, snapshot: &Snapshot) -> bool {
        let Some(bridge) = self.ground.bridge else { return true };
        snapshot.bridge(bridge).is_some_and(|bridge| bridge.macs.epoch() == self.ground.macs_epoch)
    }

    /// Whether what was kept under an earlier snapshot holds in this one.
    fn holds_still(&mut self, snapshot: &Snapshot, ingress: PortId) -> bool {
        let Ground { generation, tables, .. } = self.ground;
        let port_is = |port| snapshot.port(port).is_some_and(|entry| entry.epoch <= generation);
        let holds = snapshot.epochs.latest(tables) <= generation && port_is(ingress) && port_is(self.action.port);
        if holds {
            self.ground.generation = snapshot.generation;
        }
        holds
    }

    /// Does to a frame what was concluded for its flow before; false when the stages have to look at it.
    #[inline]
    fn replay(&self, snapshot: &Snapshot, now_s: u64, item: &mut Item, plain: &Plain) -> bool {
        let Self { action, ground } = self;
        let lives = !matches!(action.rewrite, Rewrite::Hop { .. }) || plain.hops_left > 1;
        if now_s >= ground.until_s.into() || !lives {
            return false;
        }
        let Some(limit) = lead_out(snapshot, item, action, Inner::from(plain)) else { return false };
        if largest(item, plain) > usize::from(limit) {
            return false;
        }
        item.verdict = action.verdict();
        rewrite(item, ethernet::HEADER_LEN, action.rewrite);
        true
    }
}

/// One cache line, beside that of the flow's key.
const _: () = assert!(size_of::<CachedAction>() <= 64);

/// What the stages have consulted for a frame, beside its ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ground {
    /// Generation of the latest snapshot in which it held.
    generation: u64,
    tables: Tables,
    /// The bridge whose MAC table was asked, and that table's epoch then.
    bridge: Option<BridgeId>,
    macs_epoch: u64,
    /// Second from which on what they said does not hold.
    until_s: u32,
}

/// What the stages leave behind while they decide a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trail {
    ground: Ground,
    /// Set when the next frame of the flow must go through the stages whatever the end.
    unsettled: bool,
    action: Option<Action>,
}

impl Trail {
    pub(crate) const EMPTY: Self = Self {
        ground: Ground { generation: 0, tables: Tables::NODE, bridge: None, macs_epoch: 0, until_s: u32::MAX },
        unsettled: false,
        action: None,
    };

    /// A table of the snapshot was read.
    pub(crate) fn consulted(&mut self, table: Table) {
        self.ground.tables = self.ground.tables.and(table);
    }

    /// A MAC table was read that had this epoch, and what it said holds until then.
    pub(crate) fn consulted_macs(&mut self, bridge: BridgeId, epoch: u64, until_s: u64) {
        // What was learned came first, and so did its epoch.
        if self.ground.bridge.is_none() {
            (self.ground.bridge, self.ground.macs_epoch) = (Some(bridge), epoch);
        }
        let until_s = u32::try_from(until_s).unwrap_or(u32::MAX);
        self.ground.until_s = self.ground.until_s.min(until_s);
    }

    /// The frame's source was shown to a MAC table. Where it has a place now, the rest of this second needs no more.
    pub(crate) fn learned(&mut self, bridge: BridgeId, epoch: u64, learned: Learned, now_s: u64) {
        use Learned::{Evicted, Full, Known, MoveLimited, Moved, New, Refreshed, StaticElsewhere};
        match learned {
            Known | Refreshed | New | Moved { .. } | Evicted { .. } => self.consulted_macs(bridge, epoch, now_s + 1),
            MoveLimited | StaticElsewhere | Full => self.unsettled = true,
        }
    }
}

impl<P: Probe> Pass<'_, P> {
    /// Decides a frame of a flow that may be kept: as it was decided before, or by the stages.
    #[inline]
    pub(crate) fn decide_flow(&mut self, item: &mut Item, arrival: &Arrival) {
        let (snapshot, now_s) = (self.snapshot, self.now_s);
        let flows = &mut self.state.flows;
        let is_its = |kept: &FlowKey| arrival.plain.is_of_flow(item.frame.bytes(), own_bits(item, arrival), kept);
        if let Some(kept) = arrival.candidate.and_then(|found| flows.confirm(found, now_s, is_its))
            && kept.macs_are_as_they_were(snapshot)
            && kept.replay(snapshot, now_s, item, &arrival.plain)
        {
            self.hits += 1;
        } else {
            self.decide_unconfirmed(item, arrival);
        }
    }

    /// The same for a flow whose candidate was not it, or did not serve. It is looked for once more: a frame before this one
    /// may have left what it learned, perhaps of the very flow.
    #[inline(never)]
    fn decide_unconfirmed(&mut self, item: &mut Item, arrival: &Arrival) {
        let (snapshot, now_s) = (self.snapshot, self.now_s);
        let (hash, key) = (arrival.plain.flow_hash, key(item, arrival));
        if let Some(kept) = self.state.flows.find(hash, &key, now_s) {
            if !kept.holds(snapshot, item.frame.ingress) {
                self.outdated += 1;
            } else if kept.replay(snapshot, now_s, item, &arrival.plain) {
                self.hits += 1;
                return;
            }
        }
        self.trail = Trail::EMPTY;
        self.stages(item, arrival);
        self.keep(hash, &key);
    }

    /// Keeps what the stages have left behind, if they have.
    #[inline(never)]
    fn keep(&mut self, hash: u32, key: &FlowKey) {
        let Trail { ground, unsettled, action } = self.trail;
        let Some(action) = action.filter(|_| !unsettled) else {
            self.probe.note(Stage::Flow, || "not kept in the flow cache: each frame goes through the stages".into());
            return;
        };
        self.probe.note(Stage::Flow, || "kept in the flow cache: later frames of the flow are sent alike".into());
        if P::LIVE {
            let ground = Ground { generation: self.snapshot.generation, ..ground };
            let cached = CachedAction { action, ground };
            if self.state.flows.insert(hash, key, cached, self.now_s) == Kept::Evicted {
                self.count(Event::FlowEvictions);
            }
        }
    }

    /// Does to a frame that was led out what the stages have concluded, and leaves it to be kept.
    pub(crate) fn finish(&mut self, item: &mut Item, action: Action) -> Decision {
        rewrite(item, item.headers.l3_offset.into(), action.rewrite);
        self.trail.action = Some(action);
        Decision { verdict: action.verdict(), egress: None }
    }
}

/// Writes the way out that an action leads to into the frame's item, and tells the longest packet in bytes that may
/// go; none where its tunnel has no endpoint. Written where it stays: what is put together on the stack and copied
/// costs more than all the rest.
#[inline]
pub(crate) fn lead_out(snapshot: &Snapshot, item: &mut Item, action: &Action, inner: Inner) -> Option<u16> {
    if let Some(tunnel) = action.tunnel {
        return lead_into(snapshot, item, tunnel, action.port, inner);
    }
    item.egress = Egress::Port(Delivery::plain(action.port, action.fragment_at));
    Some(action.limit)
}

/// The same, into a tunnel.
#[inline(never)]
fn lead_into(snapshot: &Snapshot, item: &mut Item, tunnel: Tunnel, port: PortId, inner: Inner) -> Option<u16> {
    let Tunnel { vtep, vni } = tunnel;
    let (encap, mtu) = encap(&snapshot.node, (vtep, snapshot.vteps.get(vtep)?), vni, inner)?;
    item.egress = Egress::Port(Delivery { port, encap: Some(encap), mtu });
    Some(mtu)
}

/// Everything an action follows from, and that no epoch speaks for.
fn key(item: &Item, arrival: &Arrival) -> FlowKey {
    arrival.plain.flow_words(item.frame.bytes(), own_bits(item, arrival))
}

/// What it follows from beside the frame's bytes.
#[inline]
fn own_bits(item: &Item, arrival: &Arrival) -> u32 {
    let door = match arrival.door {
        Door::Bridge | Door::TunnelledBridge => arrival.bridge.0,
        Door::Router => u16::MAX,
    };
    u32::from(item.frame.ingress.0) | u32::from(door) << 16
}

/// [`super::largest_packet`] of a plain frame.
#[inline]
fn largest(item: &Item, plain: &Plain) -> usize {
    match item.frame.offload.gso {
        Some(gso) => usize::from(plain.header_len) - ethernet::HEADER_LEN + usize::from(gso.size),
        None => plain.packet_len,
    }
}

/// Rewrites a frame whose L3 header is at `l3_offset`. Its headers, if they were read, are not these any more.
#[inline]
fn rewrite(item: &mut Item, l3_offset: usize, rewrite: Rewrite) {
    let (dst, src) = match rewrite {
        Rewrite::Nothing => return,
        Rewrite::Macs { dst, src } => (dst, src),
        Rewrite::Hop { dst, src } => {
            count_hop(item.frame.bytes_mut().get_mut(l3_offset..).unwrap_or_default());
            (dst, src)
        }
    };
    ethernet::set_addresses(item.frame.bytes_mut(), dst, src);
    item.headers_read = false;
}

/// One hop less to live.
#[inline]
fn count_hop(packet: &mut [u8]) {
    match packet.first().map(|version| version >> 4) {
        Some(4) => ipv4::decrement_ttl(packet),
        _ => ipv6::decrement_hop_limit(packet),
    };
}
