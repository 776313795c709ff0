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

use super::encap::{encap, inner_tos};
use super::{Arrival, Decision, Door, Pass, Probe, Stage, largest_packet};
use crate::frame::{Egress, Item};
use crate::id::{BridgeId, PortId, VtepId};
use crate::outcome::Verdict;
use crate::snapshot::{PortEntry, Table, Tables};
use crate::stats::Event;
use crate::table::flow::{FlowKey, Kept};
use crate::table::mac::Learned;
use crate::wire::{Headers, Ipv4, Ipv6, L3, L4, ethernet, ipv4, ipv6};

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
    pub(crate) verdict: Verdict,
    pub(crate) port: PortId,
    /// Longest packet in bytes that may go this way, and from what length it is fragmented; a tunnel's are its own.
    pub(crate) limit: u16,
    pub(crate) fragment_at: u16,
    pub(crate) tunnel: Option<Tunnel>,
    pub(crate) rewrite: Rewrite,
}

/// An action as the flow table keeps it, with what it rests on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CachedAction {
    action: Action,
    ground: Ground,
    /// Generation of the snapshot that was read.
    generation: u64,
}

/// What the stages have consulted for a frame, beside its ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ground {
    tables: Tables,
    /// The bridge whose MAC table was asked, and that table's epoch then.
    macs: Option<(BridgeId, u64)>,
    /// Second from which on what they said does not hold.
    until_s: u64,
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
    pub(crate) const EMPTY: Self =
        Self { ground: Ground { tables: Tables::NODE, macs: None, until_s: u64::MAX }, unsettled: false, action: None };

    /// A table of the snapshot was read.
    pub(crate) fn consulted(&mut self, table: Table) {
        self.ground.tables = self.ground.tables.and(table);
    }

    /// A MAC table was read that had this epoch, and what it said holds until then.
    pub(crate) fn consulted_macs(&mut self, bridge: BridgeId, epoch: u64, until_s: u64) {
        // What was learned came first, and so did its epoch.
        self.ground.macs = self.ground.macs.or(Some((bridge, epoch)));
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
    /// Looks at what the table has for the flow's hash: whether it is the flow, and holds as far as a batch does not
    /// change it.
    #[inline]
    pub(crate) fn confirm(&self, item: &Item, arrival: &mut Arrival) {
        let Some(candidate) = arrival.found else { return };
        let flows = &self.state.flows;
        arrival.found = flows.confirm(candidate, arrival.hash, &key(item, arrival));
        let Some(found) = arrival.found else { return };
        let CachedAction { action, ground, generation } = flows.value(found);
        let port_is = |port| self.snapshot.port(port).is_some_and(|entry| entry.epoch <= *generation);
        arrival.holds = self.snapshot.epochs.latest(ground.tables) <= *generation
            && port_is(item.frame.ingress)
            && port_is(action.port);
    }

    /// Decides a frame of a flow that may be kept: as it was decided before, or by the stages.
    #[inline]
    pub(crate) fn decide_flow(&mut self, item: &mut Item, arrival: &Arrival, entry: &PortEntry) {
        let replayed = if self.state.flows.insertions() == self.insertions {
            self.replay(item, arrival)
        } else {
            // A frame before this one has left what it learned, perhaps of the very flow.
            let mut again = *arrival;
            again.found = self.state.flows.candidate(arrival.hash);
            self.confirm(item, &mut again);
            self.replay(item, &again)
        };
        if replayed {
            self.hits += 1;
            return;
        }
        let key = key(item, arrival);
        self.trail = Trail::EMPTY;
        self.stages(item, arrival, entry);
        self.keep(arrival.hash, &key);
    }

    /// Does to a frame what was concluded for its flow before; false when the stages have to look at it.
    #[inline]
    fn replay(&mut self, item: &mut Item, arrival: &Arrival) -> bool {
        let Some(found) = arrival.found else { return false };
        let CachedAction { action, ground, .. } = self.state.flows.value(found);
        if !(arrival.holds && self.macs_are_as_they_were(ground)) {
            self.outdated += 1;
            return false;
        }
        let lives = !matches!(action.rewrite, Rewrite::Hop { .. }) || hops_left(&item.headers) > 1;
        if self.now_s >= ground.until_s || !lives {
            return false;
        }
        let action = *action;
        let Some(limit) = self.lead_out(item, &action, arrival.hash) else { return false };
        if largest_packet(item) > usize::from(limit) {
            return false;
        }
        item.verdict = action.verdict;
        rewrite(item, action.rewrite);
        self.state.flows.touch(found, self.now_s);
        true
    }

    /// Whether the MAC table an action rests on has not changed; a frame before this one may have done that.
    #[inline]
    fn macs_are_as_they_were(&self, ground: &Ground) -> bool {
        let Some((bridge, epoch)) = ground.macs else { return true };
        self.snapshot.bridge(bridge).is_some_and(|bridge| bridge.macs.epoch() == epoch)
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
            let cached = CachedAction { action, ground, generation: self.snapshot.generation };
            if self.state.flows.insert(hash, key, cached, self.now_s) == Kept::Evicted {
                self.count(Event::FlowEvictions);
            }
        }
    }

    /// Writes the way out that an action leads to into the frame's item, and tells the longest packet in bytes that may
    /// go; none where its tunnel has no endpoint. Written where it stays: what is put together on the stack and copied
    /// costs more than all the rest.
    #[inline]
    pub(crate) fn lead_out(&self, item: &mut Item, action: &Action, entropy: u32) -> Option<u16> {
        let Some(Tunnel { vtep, vni }) = action.tunnel else {
            item.egress = Egress::Port { port: action.port, encap: None, mtu: action.fragment_at };
            return Some(action.limit);
        };
        let snapshot = self.snapshot;
        let (tos, v6) = (inner_tos(&item.headers.l3), item.headers.is_v6());
        let (encap, mtu) = encap(&snapshot.node, vtep, snapshot.vteps.get(vtep)?, vni, tos, v6, entropy)?;
        item.egress = Egress::Port { port: action.port, encap: Some(encap), mtu };
        Some(mtu)
    }

    /// Does to a frame that was led out what the stages have concluded, and leaves it to be kept.
    pub(crate) fn finish(&mut self, item: &mut Item, action: Action) -> Decision {
        rewrite(item, action.rewrite);
        self.trail.action = Some(action);
        Decision { verdict: action.verdict, egress: None }
    }
}

/// Whether a frame is of a flow that may be kept.
#[inline]
pub(super) fn is_flow(headers: &Headers) -> bool {
    let plain = match headers.l3 {
        L3::V4(Ipv4 { header_len, fragment, .. }) => header_len == 20 && fragment.is_none(),
        L3::V6(Ipv6 { extensions_len, fragment, .. }) => extensions_len == 0 && fragment.is_none(),
        L3::Arp(_) | L3::Other => false,
    };
    plain && matches!(headers.l4, L4::Tcp(_) | L4::Udp(_)) && headers.vlan.is_none() && !headers.dst.is_group()
}

/// Everything an action follows from, and that no epoch speaks for.
#[inline]
fn key(item: &Item, arrival: &Arrival) -> FlowKey {
    let headers = &item.headers;
    let door = match arrival.door {
        Door::Bridge | Door::TunnelledBridge => arrival.bridge.0,
        Door::Router => u16::MAX,
    };
    let (src_port, dst_port) = headers.ports().unwrap_or_default();
    let ports = u64::from(src_port) << 48 | u64::from(dst_port) << 32;
    let dst = headers.dst.to_u64() << 16 | u64::from(item.frame.ingress.0);
    let src = headers.src.to_u64() << 16 | u64::from(door);
    match headers.l3 {
        L3::V4(ip) => {
            let addresses = u64::from(ip.src.to_bits()) << 32 | u64::from(ip.dst.to_bits());
            [dst, src, ports | u64::from(ip.protocol) << 8 | 4, addresses, 0, 0, 0]
        }
        L3::V6(ip) => {
            let ([a, b], [c, d]) = (halves(ip.src.to_bits()), halves(ip.dst.to_bits()));
            [dst, src, ports | u64::from(ip.protocol) << 8 | 6, a, b, c, d]
        }
        // Is no flow; see `is_flow`.
        L3::Arp(_) | L3::Other => [dst, src, 0, 0, 0, 0, 0],
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
fn halves(bits: u128) -> [u64; 2] {
    [(bits >> 64) as u64, bits as u64]
}

#[inline]
pub(super) fn hops_left(headers: &Headers) -> u8 {
    match headers.l3 {
        L3::V4(ip) => ip.ttl,
        L3::V6(ip) => ip.hop_limit,
        L3::Arp(_) | L3::Other => u8::MAX,
    }
}

#[inline]
fn rewrite(item: &mut Item, rewrite: Rewrite) {
    match rewrite {
        Rewrite::Nothing => {}
        Rewrite::Macs { dst, src } => set_addresses(item, dst, src),
        Rewrite::Hop { dst, src } => {
            set_addresses(item, dst, src);
            count_hop(item);
        }
    }
}

fn set_addresses(item: &mut Item, dst: Mac, src: Mac) {
    ethernet::set_addresses(item.frame.bytes_mut(), dst, src);
    item.headers.dst = dst;
    item.headers.src = src;
}

/// One hop less to live.
fn count_hop(item: &mut Item) {
    let l3_offset = usize::from(item.headers.l3_offset);
    let bytes = item.frame.bytes_mut().get_mut(l3_offset..).unwrap_or_default();
    match &mut item.headers.l3 {
        L3::V4(ip) => {
            ipv4::decrement_ttl(bytes);
            ip.ttl = ip.ttl.saturating_sub(1);
        }
        L3::V6(ip) => {
            ipv6::decrement_hop_limit(bytes);
            ip.hop_limit = ip.hop_limit.saturating_sub(1);
        }
        _ => {}
    }
}
