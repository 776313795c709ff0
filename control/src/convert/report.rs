//! Rows of the tables: ports, bridges, MACs, routes and VTEPs.

use std::path::PathBuf;

use super::object::{bandwidth, guard, vni};
use super::{
    ConvertError, Number, Result, each, enumeration, needed, numbers, optional, rows, same, shown, text, texts,
};
use crate::model::{
    self, BridgeReport, EndpointReport, MacReport, PortReport, PortState, RouteMatch, RouteReport, Vni, VtepReport,
};
use crate::proto as pb;

const VERSION_REMEDY: &str = "use podwire and podwired of one version";

same! {
    model::PortCounters, pb::PortCounters {
        rx_frames, rx_segments, rx_bytes, rx_drops, tx_frames, tx_segments, tx_bytes, tx_drops
    };
}

numbers! {
    PortRole, PortRole { Pod, Host, Uplink, Tunnel };
}

fn owner_number(owner: model::Owner) -> i32 {
    pb::Owner::from(owner).into()
}

impl From<PortReport> for pb::PortRow {
    fn from(port: PortReport) -> Self {
        let (up, reason) = match port.state {
            PortState::Up => (true, None),
            PortState::Closed { reason } => (false, Some(reason)),
        };
        Self {
            id: port.id,
            name: port.name,
            owner: owner_number(port.owner),
            role: pb::PortRole::from(port.role).into(),
            device: port.device,
            netns: port.netns.map(|path| path.to_string_lossy().into_owned()),
            ifname: port.ifname,
            addresses: shown(&port.addresses),
            mac: port.mac.map(|mac| mac.to_string()),
            mtu: port.mtu,
            bridge: port.bridge,
            guard: port.guard.as_ref().map(Into::into),
            bandwidth: Some(port.bandwidth.into()),
            up,
            reason,
            counters: Some(port.counters.into()),
        }
    }
}

impl TryFrom<pb::PortRow> for PortReport {
    type Error = ConvertError;

    fn try_from(port: pb::PortRow) -> Result<Self> {
        let object = &format!("port {}", port.name);
        let closed = || PortState::Closed { reason: port.reason.clone().unwrap_or_default() };
        Ok(Self {
            id: port.id,
            owner: enumeration(object, "owner", port.owner)?,
            role: enumeration(object, "role", port.role)?,
            netns: port.netns.map(PathBuf::from),
            ifname: port.ifname,
            addresses: texts(object, "addresses", &port.addresses)?,
            mac: optional(object, "mac", port.mac.as_ref())?,
            mtu: port.mtu,
            bridge: port.bridge,
            guard: port.guard.as_ref().map(|given| guard(object, Some(given))).transpose()?,
            bandwidth: bandwidth(port.bandwidth),
            state: if port.up { PortState::Up } else { closed() },
            counters: port.counters.map(Into::into).unwrap_or_default(),
            name: port.name,
            device: port.device,
        })
    }
}

impl From<BridgeReport> for pb::BridgeRow {
    fn from(bridge: BridgeReport) -> Self {
        Self {
            name: bridge.name,
            owner: owner_number(bridge.owner),
            vni: bridge.vni.map(Vni::get),
            flood: bridge.flood,
            vlan_transparent: bridge.vlan_transparent,
            ports: bridge.ports,
            macs: bridge.macs,
        }
    }
}

impl TryFrom<pb::BridgeRow> for BridgeReport {
    type Error = ConvertError;

    fn try_from(bridge: pb::BridgeRow) -> Result<Self> {
        let object = &format!("bridge {}", bridge.name);
        Ok(Self {
            owner: enumeration(object, "owner", bridge.owner)?,
            vni: vni(object, bridge.vni)?,
            name: bridge.name,
            flood: bridge.flood,
            vlan_transparent: bridge.vlan_transparent,
            ports: bridge.ports,
            macs: bridge.macs,
        })
    }
}

impl From<MacReport> for pb::MacRow {
    fn from(mac: MacReport) -> Self {
        let owner = mac.pinned_by.map(owner_number);
        Self { bridge: mac.bridge, mac: mac.mac.to_string(), port: mac.port, owner, age_s: mac.age_s }
    }
}

impl TryFrom<pb::MacRow> for MacReport {
    type Error = ConvertError;

    fn try_from(row: pb::MacRow) -> Result<Self> {
        let object = &format!("mac {}", row.mac);
        let pinned_by = row.owner.map(|owner| enumeration(object, "owner", owner)).transpose()?;
        let mac = text(object, "mac", &row.mac)?;
        Ok(Self { bridge: row.bridge, mac, port: row.port, pinned_by, age_s: row.age_s })
    }
}

impl From<RouteReport> for pb::RouteRow {
    fn from(row: RouteReport) -> Self {
        Self { route: Some((&row.route).into()), owner: owner_number(row.owner), shadowed: row.shadowed }
    }
}

impl TryFrom<pb::RouteRow> for RouteReport {
    type Error = ConvertError;

    fn try_from(row: pb::RouteRow) -> Result<Self> {
        let route: model::Route = (&needed("route", "route", row.route, VERSION_REMEDY)?).try_into()?;
        let owner = enumeration(&format!("route {}", route.prefix), "owner", row.owner)?;
        Ok(Self { route, owner, shadowed: row.shadowed })
    }
}

impl From<RouteMatch> for pb::GetRouteResponse {
    fn from(found: RouteMatch) -> Self {
        Self { route: Some((&found.route).into()), owner: owner_number(found.owner) }
    }
}

impl TryFrom<pb::GetRouteResponse> for RouteMatch {
    type Error = ConvertError;

    fn try_from(found: pb::GetRouteResponse) -> Result<Self> {
        let route: model::Route = (&needed("route", "route", found.route, VERSION_REMEDY)?).try_into()?;
        let owner = enumeration(&format!("route {}", route.prefix), "owner", found.owner)?;
        Ok(Self { route, owner })
    }
}

impl From<EndpointReport> for pb::EndpointRow {
    fn from(end: EndpointReport) -> Self {
        let endpoint = pb::Endpoint { remote: end.remote.to_string(), mac: end.mac.to_string() };
        Self { endpoint: Some(endpoint), path_mtu: end.path_mtu, sent_by: end.sent_by, sent_by_why: end.sent_by_why }
    }
}

impl TryFrom<pb::EndpointRow> for EndpointReport {
    type Error = ConvertError;

    fn try_from(row: pb::EndpointRow) -> Result<Self> {
        let end = needed("vtep", "endpoint", row.endpoint, VERSION_REMEDY)?;
        let object = &format!("vtep endpoint {}", end.remote);
        let remote = text(object, "remote", &end.remote)?;
        let mac = text(object, "mac", &end.mac)?;
        Ok(Self { remote, mac, path_mtu: row.path_mtu, sent_by: row.sent_by, sent_by_why: row.sent_by_why })
    }
}

impl From<VtepReport> for pb::VtepRow {
    fn from(vtep: VtepReport) -> Self {
        Self {
            name: vtep.name,
            owner: owner_number(vtep.owner),
            vni: vtep.vni.get(),
            endpoints: each(vtep.endpoints),
            counters: Some(vtep.counters.into()),
        }
    }
}

impl TryFrom<pb::VtepRow> for VtepReport {
    type Error = ConvertError;

    fn try_from(vtep: pb::VtepRow) -> Result<Self> {
        let object = &format!("vtep {}", vtep.name);
        Ok(Self {
            owner: enumeration(object, "owner", vtep.owner)?,
            vni: needed(object, "vni", vni(object, Some(vtep.vni))?, VERSION_REMEDY)?,
            endpoints: rows(vtep.endpoints)?,
            counters: vtep.counters.map(Into::into).unwrap_or_default(),
            name: vtep.name,
        })
    }
}
