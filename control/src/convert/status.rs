//! The status answer.

use super::object::vni;
use super::{ConvertError, Result, each, needed, number, optional, same, shown, text, texts};
use crate::model::{self, Status};
use crate::proto as pb;

const OBJECT: &str = "status";
const VERSION_REMEDY: &str = "use podwire and podwired of one version";

same! {
    model::WorkerReport, pb::Worker { id, cpu, poll, frames, passes, frames_per_pass };
    model::OffloadReport, pb::Offload { name, on, why };
    model::XdpReport, pb::XdpUplink { mode, passed_over, queues, tx, tx_why, busy_poll };
    model::ObjectCounts, pb::ObjectCounts { ports, bridges, routes, vteps, macs };
}

impl From<model::Uplink> for pb::Uplink {
    fn from(uplink: model::Uplink) -> Self {
        Self {
            kind: uplink.kind,
            addresses: shown(&uplink.addresses),
            device: uplink.device,
            mtu: uplink.mtu,
            xdp: uplink.xdp.map(Into::into),
        }
    }
}

impl TryFrom<pb::Uplink> for model::Uplink {
    type Error = ConvertError;

    fn try_from(uplink: pb::Uplink) -> Result<Self> {
        let addresses = texts(OBJECT, "uplink", &uplink.addresses)?;
        let xdp = uplink.xdp.map(Into::into);
        Ok(Self { kind: uplink.kind, addresses, device: uplink.device, mtu: uplink.mtu, xdp })
    }
}

impl From<Status> for pb::GetStatusResponse {
    fn from(status: Status) -> Self {
        Self {
            node: status.node,
            version: status.version,
            generation: status.generation,
            uptime_s: status.uptime_s,
            vtep_mac: status.vtep_mac.to_string(),
            vtep_mac6: status.vtep_mac6.map(|mac| mac.to_string()),
            gateway_mac: status.gateway_mac.to_string(),
            pod_cidrs: shown(&status.pod_cidrs),
            cluster_cidrs: shown(&status.cluster_cidrs),
            uplink: status.uplink.map(Into::into),
            tunnel_mtu: status.tunnel_mtu,
            vni: status.vni.get(),
            vxlan_port: status.vxlan_port.into(),
            host_interface: status.host_interface,
            workers: each(status.workers),
            offloads: each(status.offloads),
            counts: Some(status.counts.into()),
            warnings: status.warnings,
        }
    }
}

impl TryFrom<pb::GetStatusResponse> for Status {
    type Error = ConvertError;

    fn try_from(status: pb::GetStatusResponse) -> Result<Self> {
        Ok(Self {
            node: status.node,
            version: status.version,
            generation: status.generation,
            uptime_s: status.uptime_s,
            vtep_mac: text(OBJECT, "vtep_mac", &status.vtep_mac)?,
            vtep_mac6: optional(OBJECT, "vtep_mac6", status.vtep_mac6.as_ref())?,
            gateway_mac: text(OBJECT, "gateway_mac", &status.gateway_mac)?,
            pod_cidrs: texts(OBJECT, "pod_cidrs", &status.pod_cidrs)?,
            cluster_cidrs: texts(OBJECT, "cluster_cidrs", &status.cluster_cidrs)?,
            uplink: status.uplink.map(TryInto::try_into).transpose()?,
            tunnel_mtu: status.tunnel_mtu,
            vni: needed(OBJECT, "vni", vni(OBJECT, Some(status.vni))?, VERSION_REMEDY)?,
            vxlan_port: number(OBJECT, "vxlan_port", status.vxlan_port, VERSION_REMEDY)?,
            host_interface: status.host_interface,
            workers: each(status.workers),
            offloads: each(status.offloads),
            counts: status.counts.map(Into::into).unwrap_or_default(),
            warnings: status.warnings,
        })
    }
}
