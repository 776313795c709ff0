//! Into the tunnel, and the list of ways out: which ports a decided frame is sent to, and with what tunnel headers.
//!
//! The headers themselves are written by the uplink port.

use podwire_control::model::Vni;

use crate::frame::{Delivery, Egress, Encap, Item};
use crate::id::{PortId, VtepId};
use crate::snapshot::{BridgeEntry, Node, Role, Snapshot, VtepEntry};
use crate::wire::{Headers, L3, Plain};

/// What a tunnel's outer headers take from the packet inside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inner {
    /// TOS or traffic class; 0 for what is not IP.
    pub(super) tos: u8,
    pub(super) is_v6: bool,
    pub(super) flow_hash: u32,
}

impl From<&Headers> for Inner {
    fn from(headers: &Headers) -> Self {
        let tos = match headers.l3 {
            L3::V4(ip) => ip.tos,
            L3::V6(ip) => ip.traffic_class,
            L3::Arp(_) | L3::Other => 0,
        };
        Self { tos, is_v6: headers.is_v6(), flow_hash: headers.flow_hash() }
    }
}

impl From<&Plain> for Inner {
    #[inline]
    fn from(plain: &Plain) -> Self {
        Self { tos: plain.tos, is_v6: plain.is_v6, flow_hash: plain.flow_hash }
    }
}

/// The ways out of a decided frame: one, or for a flood all members but the one it came from.
/// What came in by a tunnel is never flooded into tunnels (split horizon).
pub fn deliveries<'a>(snapshot: &'a Snapshot, item: &Item) -> impl Iterator<Item = Delivery> + use<'a> {
    let (single, bridge) = match item.egress {
        Egress::None => (None, None),
        Egress::Port(way) => (Some(way), None),
        Egress::Bridge(bridge) => (None, snapshot.bridge(bridge)),
    };
    let ingress = item.frame.ingress;
    let from_tunnel = snapshot.port(ingress).is_some_and(|entry| matches!(entry.role, Role::Tunnel(_)));
    let inner = Inner::from(&item.headers);

    let members = bridge.into_iter().flat_map(|bridge| bridge.members.iter()).filter_map(move |&port| {
        let mtu = snapshot.port(port)?.mtu;
        (port != ingress).then_some(Delivery::plain(port, mtu))
    });
    let tunnels = bridge.filter(|_| !from_tunnel).into_iter().flat_map(move |bridge| {
        bridge.flood_tunnels.iter().filter_map(move |&port| bridged(snapshot, bridge, port, inner))
    });
    single.into_iter().chain(members).chain(tunnels)
}

/// Whether a flood has anywhere to go.
pub(super) fn flood_has_target(snapshot: &Snapshot, bridge: &BridgeEntry, ingress: PortId) -> bool {
    let from_tunnel = snapshot.port(ingress).is_some_and(|entry| matches!(entry.role, Role::Tunnel(_)));
    bridge.members.iter().any(|&port| port != ingress) || (!from_tunnel && !bridge.flood_tunnels.is_empty())
}

/// A bridged frame's way through the tunnel behind `port`, with the bridge's VNI.
pub(super) fn bridged(snapshot: &Snapshot, bridge: &BridgeEntry, port: PortId, inner: Inner) -> Option<Delivery> {
    let Role::Tunnel(id) = snapshot.port(port)?.role else { return None };
    let vtep = snapshot.vteps.get(id)?;
    let (encap, mtu) = encap(&snapshot.node, (id, vtep), bridge.vni?, inner)?;
    Some(Delivery { port, encap: Some(encap), mtu })
}

/// The tunnel headers towards a VTEP, and the largest inner packet they leave room for.
#[inline]
pub(super) fn encap(node: &Node, (id, vtep): (VtepId, &VtepEntry), vni: Vni, inner: Inner) -> Option<(Encap, u16)> {
    let endpoint = vtep.endpoint(inner.is_v6)?;
    // RFC 6040, normal mode: the ECN field is copied as it is.
    let tos = if node.copy_dscp { inner.tos } else { inner.tos & 0b11 };
    let mtu = vtep.mtu(node, endpoint.remote);
    Some((Encap { vtep: id, remote: endpoint.remote, vni, tos, entropy: inner.flow_hash }, mtu))
}
