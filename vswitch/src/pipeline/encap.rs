//! Into the tunnel, and the list of ways out: which ports a decided frame is sent to, and with what tunnel headers.
//!
//! The headers themselves are written by the uplink port.

use podwire_control::model::Vni;

use crate::frame::{Egress, Encap, Item};
use crate::id::PortId;
use crate::snapshot::{BridgeEntry, Node, Role, Snapshot, VtepEntry};
use crate::wire::L3;

/// One way out of the switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// Logical port: a member, or a tunnel.
    pub port: PortId,
    /// Tunnel headers, when the port is a tunnel.
    pub encap: Option<Encap>,
    /// Largest L3 packet in bytes that may leave this way.
    pub mtu: u16,
}

/// The ways out of a decided frame: one, or for a flood all members but the one it came from.
/// What came in by a tunnel is never flooded into tunnels (split horizon).
pub fn deliveries<'a>(snapshot: &'a Snapshot, item: &Item) -> impl Iterator<Item = Delivery> + use<'a> {
    let (single, bridge) = match item.egress {
        Egress::None => (None, None),
        Egress::Port { port, encap, mtu } => (Some(Delivery { port, encap, mtu }), None),
        Egress::Bridge(bridge) => (None, snapshot.bridge(bridge)),
    };
    let ingress = item.frame.ingress;
    let from_tunnel = snapshot.port(ingress).is_some_and(|entry| matches!(entry.role, Role::Tunnel(_)));
    let entropy = item.headers.flow_hash();
    let (tos, v6) = (inner_tos(&item.headers.l3), matches!(item.headers.l3, L3::V6(_)));

    let members = bridge.into_iter().flat_map(|bridge| bridge.members.iter()).filter_map(move |&port| {
        let mtu = snapshot.port(port)?.mtu;
        (port != ingress).then_some(Delivery { port, encap: None, mtu })
    });
    let tunnels = bridge.filter(|_| !from_tunnel).into_iter().flat_map(move |bridge| {
        bridge.flood_tunnels.iter().filter_map(move |&port| bridged(snapshot, bridge, port, tos, v6, entropy))
    });
    single.into_iter().chain(members).chain(tunnels)
}

/// Whether a flood has anywhere to go.
pub(super) fn flood_has_target(snapshot: &Snapshot, bridge: &BridgeEntry, ingress: PortId) -> bool {
    let from_tunnel = snapshot.port(ingress).is_some_and(|entry| matches!(entry.role, Role::Tunnel(_)));
    bridge.members.iter().any(|&port| port != ingress) || (!from_tunnel && !bridge.flood_tunnels.is_empty())
}

/// A bridged frame's way through the tunnel behind `port`, with the bridge's VNI.
pub(super) fn bridged(
    snapshot: &Snapshot,
    bridge: &BridgeEntry,
    port: PortId,
    tos: u8,
    inner_is_v6: bool,
    entropy: u32,
) -> Option<Delivery> {
    let Role::Tunnel(id) = snapshot.port(port)?.role else { return None };
    let vtep = snapshot.vteps.get(id)?;
    let (encap, mtu) = encap(&snapshot.node, id, vtep, bridge.vni?, tos, inner_is_v6, entropy)?;
    Some(Delivery { port, encap: Some(encap), mtu })
}

/// The tunnel headers towards a VTEP, and the largest inner packet they leave room for.
pub(super) fn encap(
    node: &Node,
    id: crate::id::VtepId,
    vtep: &VtepEntry,
    vni: Vni,
    inner_tos: u8,
    inner_is_v6: bool,
    entropy: u32,
) -> Option<(Encap, u16)> {
    let endpoint = vtep.endpoint(inner_is_v6)?;
    // RFC 6040, normal mode: the ECN field is copied as it is.
    let tos = if node.copy_dscp { inner_tos } else { inner_tos & 0b11 };
    let mtu = vtep.mtu(node, endpoint.remote);
    Some((Encap { vtep: id, remote: endpoint.remote, vni, tos, entropy }, mtu))
}

/// TOS or traffic class; 0 for what is not IP.
pub(super) fn inner_tos(l3: &L3) -> u8 {
    match l3 {
        L3::V4(ip) => ip.tos,
        L3::V6(ip) => ip.traffic_class,
        _ => 0,
    }
}
