//! The switch's tables, row by row and as JSON.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::Failure;
use super::output::{Output, dash, list, pairs, rows, text, texts};
use crate::client::Client;
use crate::model::{
    Bandwidth, BridgeName, BridgeReport, EndpointReport, Guard, MacReport, PortCounters, PortReport, PortState,
    RateLimit, Route, RouteReport, Via, VtepReport,
};

/// All ports.
pub(super) async fn ports(client: &Client, output: &mut Output<'_>) -> Result<(), Failure> {
    rows(output, &PORT_HEADER, &client.ports().await?, port_json, port_row)
}

/// All bridges.
pub(super) async fn bridges(client: &Client, output: &mut Output<'_>) -> Result<(), Failure> {
    rows(output, &BRIDGE_HEADER, &client.bridges().await?, bridge_json, bridge_row)
}

/// The MACs of one bridge or of all.
pub(super) async fn macs(client: &Client, bridge: Option<&BridgeName>, output: &mut Output<'_>) -> Result<(), Failure> {
    rows(output, &MAC_HEADER, &client.macs(bridge).await?, mac_json, mac_row)
}

/// All routes, those that another owner's shadows included.
pub(super) async fn routes(client: &Client, output: &mut Output<'_>) -> Result<(), Failure> {
    rows(output, &ROUTE_HEADER, &client.routes().await?, route_json, route_row)
}

/// The route that an address takes.
pub(super) async fn route(client: &Client, address: IpAddr, output: &mut Output<'_>) -> Result<(), Failure> {
    let found = client.route(address).await?;
    let json = json!({
        "address": address.to_string(),
        "prefix": found.route.prefix.to_string(),
        "via": via_json(&found.route.via),
        "owner": found.owner.name(),
    });
    output.answer(&json, || format!("{address}: {} owner {}\n", route_text(&found.route), found.owner))
}

/// All VTEPs.
pub(super) async fn vteps(client: &Client, output: &mut Output<'_>) -> Result<(), Failure> {
    rows(output, &VTEP_HEADER, &client.vteps().await?, vtep_json, vtep_row)
}

/// One port with all that is known of it.
pub(super) async fn port(client: &Client, name: &str, output: &mut Output<'_>) -> Result<(), Failure> {
    let ports = client.ports().await?;
    let missing = || Failure::Said(format!("port {name}: there is none; see 'podwire port list'"));
    let port = ports.iter().find(|port| port.name == name).ok_or_else(missing)?;
    output.answer(&port_json(port), || port_text(port))
}

fn state_text(state: &PortState) -> String {
    match state {
        PortState::Up => "up".into(),
        PortState::Closed { reason } => format!("closed: {reason}"),
    }
}

fn guard_text(guard: Option<&Guard>) -> String {
    match guard {
        None => "-".into(),
        Some(Guard::Off) => "off".into(),
        Some(Guard::On { allowed }) if allowed.is_empty() => "on".into(),
        Some(Guard::On { allowed }) => format!("on, allows {}", list(allowed)),
    }
}

fn guard_json(guard: &Guard) -> Value {
    match guard {
        Guard::Off => json!({"on": false, "allowed": []}),
        Guard::On { allowed } => json!({"on": true, "allowed": texts(allowed)}),
    }
}

/// A port's limits.
pub(super) fn bandwidth_json(bandwidth: Bandwidth) -> Value {
    let limit = |limit: RateLimit| json!({"bits_per_s": limit.bits_per_s, "burst_bits": limit.burst_bits});
    json!({"ingress": bandwidth.ingress.map(limit), "egress": bandwidth.egress.map(limit)})
}

/// A port's or VTEP's counters.
pub(super) fn counters_json(counters: &PortCounters) -> Value {
    json!({
        "rx_frames": counters.rx_frames, "rx_segments": counters.rx_segments,
        "rx_bytes": counters.rx_bytes, "rx_drops": counters.rx_drops,
        "tx_frames": counters.tx_frames, "tx_segments": counters.tx_segments,
        "tx_bytes": counters.tx_bytes, "tx_drops": counters.tx_drops,
    })
}

const PORT_HEADER: [&str; 12] =
    ["ID", "NAME", "ROLE", "STATE", "OWNER", "MTU", "MAC", "ADDRESSES", "NETNS", "RX_FRAMES", "TX_FRAMES", "DROPS"];

/// The port's slot; one whose device is closed has none.
fn slot(port: &PortReport) -> Option<u32> {
    (port.state == PortState::Up).then_some(port.id)
}

fn port_row(port: &PortReport) -> Vec<String> {
    let counters = &port.counters;
    vec![
        dash(slot(port).as_ref()),
        port.name.clone(),
        port.role.name().into(),
        state_text(&port.state),
        port.owner.to_string(),
        port.mtu.to_string(),
        dash(port.mac.as_ref()),
        list(&port.addresses),
        port.netns.as_ref().map_or_else(|| "-".into(), |netns| netns.display().to_string()),
        counters.rx_frames.to_string(),
        counters.tx_frames.to_string(),
        (counters.rx_drops + counters.tx_drops).to_string(),
    ]
}

fn port_json(port: &PortReport) -> Value {
    let (state, reason) = match &port.state {
        PortState::Up => ("up", None),
        PortState::Closed { reason } => ("closed", Some(reason)),
    };
    json!({
        "id": slot(port),
        "name": port.name,
        "owner": port.owner.name(),
        "role": port.role.name(),
        "device": port.device,
        "netns": port.netns.as_ref().map(|netns| netns.display().to_string()),
        "ifname": port.ifname,
        "addresses": texts(&port.addresses),
        "mac": text(port.mac.as_ref()),
        "mtu": port.mtu,
        "bridge": port.bridge,
        "guard": port.guard.as_ref().map(guard_json),
        "bandwidth": bandwidth_json(port.bandwidth),
        "state": state,
        "reason": reason,
        "counters": counters_json(&port.counters),
    })
}

fn port_text(port: &PortReport) -> String {
    let count = &port.counters;
    let direction = |frames: u64, segments: u64, bytes: u64, drops: u64| {
        format!("{frames} frames, {segments} segments, {bytes} bytes, {drops} drops")
    };
    pairs(&[
        ("name", port.name.clone()),
        ("id", dash(slot(port).as_ref())),
        ("role", port.role.name().into()),
        ("state", state_text(&port.state)),
        ("owner", port.owner.to_string()),
        ("device", port.device.clone()),
        ("netns", port.netns.as_ref().map_or_else(|| "-".into(), |netns| netns.display().to_string())),
        ("ifname", dash(port.ifname.as_ref())),
        ("addresses", list(&port.addresses)),
        ("mac", dash(port.mac.as_ref())),
        ("mtu", port.mtu.to_string()),
        ("bridge", dash(port.bridge.as_ref())),
        ("guard", guard_text(port.guard.as_ref())),
        ("ingress_rate", dash(port.bandwidth.ingress.as_ref())),
        ("egress_rate", dash(port.bandwidth.egress.as_ref())),
        ("rx", direction(count.rx_frames, count.rx_segments, count.rx_bytes, count.rx_drops)),
        ("tx", direction(count.tx_frames, count.tx_segments, count.tx_bytes, count.tx_drops)),
    ])
}

const BRIDGE_HEADER: [&str; 7] = ["NAME", "OWNER", "VNI", "FLOOD", "VLAN_TRANSPARENT", "PORTS", "MACS"];

fn bridge_row(bridge: &BridgeReport) -> Vec<String> {
    vec![
        bridge.name.clone(),
        bridge.owner.to_string(),
        dash(bridge.vni.as_ref()),
        list(&bridge.flood),
        if bridge.vlan_transparent { "yes".into() } else { "no".into() },
        list(&bridge.ports),
        bridge.macs.to_string(),
    ]
}

fn bridge_json(bridge: &BridgeReport) -> Value {
    json!({
        "name": bridge.name,
        "owner": bridge.owner.name(),
        "vni": bridge.vni.map(crate::model::Vni::get),
        "flood": bridge.flood,
        "vlan_transparent": bridge.vlan_transparent,
        "ports": bridge.ports,
        "macs": bridge.macs,
    })
}

const MAC_HEADER: [&str; 6] = ["MAC", "PORT", "BRIDGE", "KIND", "OWNER", "AGE_S"];

fn mac_kind(mac: &MacReport) -> &'static str {
    if mac.pinned_by.is_some() { "static" } else { "learned" }
}

fn mac_row(mac: &MacReport) -> Vec<String> {
    let owner = dash(mac.pinned_by.as_ref());
    vec![mac.mac.to_string(), mac.port.clone(), mac.bridge.clone(), mac_kind(mac).into(), owner, mac.age_s.to_string()]
}

fn mac_json(mac: &MacReport) -> Value {
    json!({
        "mac": mac.mac.to_string(),
        "port": mac.port,
        "bridge": mac.bridge,
        "kind": mac_kind(mac),
        "owner": mac.pinned_by.map(crate::model::Owner::name),
        "age_s": mac.age_s,
    })
}

const ROUTE_HEADER: [&str; 4] = ["PREFIX", "VIA", "OWNER", "SHADOWED"];

fn route_row(row: &RouteReport) -> Vec<String> {
    let shadowed = if row.shadowed { "yes" } else { "no" };
    vec![row.route.prefix.to_string(), row.route.via.to_string(), row.owner.to_string(), shadowed.into()]
}

fn route_json(row: &RouteReport) -> Value {
    json!({
        "prefix": row.route.prefix.to_string(),
        "via": via_json(&row.route.via),
        "owner": row.owner.name(),
        "shadowed": row.shadowed,
    })
}

/// The next hop: `kind` is `vtep`, `port`, `host` or `blackhole`, and `name` is there for the first two.
fn via_json(via: &Via) -> Value {
    match via {
        Via::Vtep(name) => json!({"kind": "vtep", "name": name.as_str()}),
        Via::Port(name) => json!({"kind": "port", "name": name.as_str()}),
        Via::Host => json!({"kind": "host"}),
        Via::Blackhole => json!({"kind": "blackhole"}),
    }
}

fn route_text(route: &Route) -> String {
    format!("{} via {}", route.prefix, route.via)
}

const VTEP_HEADER: [&str; 10] =
    ["NAME", "OWNER", "VNI", "REMOTE", "MAC", "PATH_MTU", "RX_FRAMES", "TX_FRAMES", "DROPS", "SENT_BY"];

fn vtep_row(vtep: &VtepReport) -> Vec<String> {
    let each = |text: fn(&EndpointReport) -> String| list(&vtep.endpoints.iter().map(text).collect::<Vec<_>>());
    let counters = &vtep.counters;
    vec![
        vtep.name.clone(),
        vtep.owner.to_string(),
        vtep.vni.to_string(),
        each(|end| end.remote.to_string()),
        each(|end| end.mac.to_string()),
        each(|end| end.path_mtu.to_string()),
        counters.rx_frames.to_string(),
        counters.tx_frames.to_string(),
        (counters.rx_drops + counters.tx_drops).to_string(),
        each(sent_by),
    ]
}

fn sent_by(end: &EndpointReport) -> String {
    if end.sent_by_why.is_empty() { end.sent_by.clone() } else { format!("{} ({})", end.sent_by, end.sent_by_why) }
}

fn vtep_json(vtep: &VtepReport) -> Value {
    let end = |end: &EndpointReport| {
        json!({
            "remote": end.remote.to_string(),
            "mac": end.mac.to_string(),
            "path_mtu": end.path_mtu,
            "sent_by": end.sent_by,
            "sent_by_why": end.sent_by_why,
        })
    };
    json!({
        "name": vtep.name,
        "owner": vtep.owner.name(),
        "vni": vtep.vni.get(),
        "endpoints": vtep.endpoints.iter().map(end).collect::<Vec<_>>(),
        "counters": counters_json(&vtep.counters),
    })
}
