//! Containers' interfaces, as the CNI plugin asks for them.

use std::path::PathBuf;

use super::object::bandwidth;
use super::{ConvertError, Number, Result, enumeration, needed, number, numbers, optional, same, shown, text, texts};
use crate::model::{self, AddressSource, AttachmentKey, HostPort, Invalid};
use crate::proto as pb;

const MTU_REMEDY: &str = "use 576 to 65535";
const VERSIONS_REMEDY: &str = "use podwire-cni and podwired of one version";

numbers! {
    Transport, Transport { Tcp, Udp, Sctp };
}

same! {
    model::PodName, pb::PodName { namespace, name };
    model::Readiness, pb::GetReadinessResponse { cannot_attach, pods_suffer };
}

impl From<&AttachmentKey> for pb::AttachmentKey {
    fn from(key: &AttachmentKey) -> Self {
        Self { container: key.container.to_string(), ifname: key.ifname.clone() }
    }
}

impl TryFrom<pb::AttachmentKey> for AttachmentKey {
    type Error = ConvertError;

    fn try_from(key: pb::AttachmentKey) -> Result<Self> {
        let object = format!("attachment {}", key.container);
        Ok(Self { container: text(&object, "container", &key.container)?, ifname: key.ifname })
    }
}

/// The key that every message about one attachment has.
pub(crate) fn key(given: Option<pb::AttachmentKey>) -> Result<AttachmentKey> {
    needed("attachment", "key", given, "name the container and its interface")?.try_into()
}

impl From<&HostPort> for pb::HostPort {
    fn from(port: &HostPort) -> Self {
        Self {
            host_ip: port.host_ip.map(|ip| ip.to_string()),
            host_port: port.host_port.into(),
            container_port: port.container_port.into(),
            transport: pb::Transport::from(port.transport).into(),
        }
    }
}

fn l4_port(object: &str, field: &'static str, given: u32) -> Result<u16> {
    match u16::try_from(given) {
        Ok(port) if port > 0 => Ok(port),
        _ => {
            let problem = format!("{given} is out of range");
            Err(Invalid { object: object.to_owned(), field, problem, remedy: "use 1 to 65535".into() }.into())
        }
    }
}

fn host_port(object: &str, given: &pb::HostPort) -> Result<HostPort> {
    Ok(HostPort {
        host_ip: optional(object, "host_ip", given.host_ip.as_ref())?,
        host_port: l4_port(object, "host_port", given.host_port)?,
        container_port: l4_port(object, "container_port", given.container_port)?,
        transport: enumeration(object, "transport", given.transport)?,
    })
}

fn host_ports(object: &str, given: &[pb::HostPort]) -> Result<Vec<HostPort>> {
    given.iter().map(|given| host_port(object, given)).collect()
}

impl From<&model::AttachRequest> for pb::AttachRequest {
    fn from(request: &model::AttachRequest) -> Self {
        use pb::attach_request::Addresses;
        let addresses = match &request.addresses {
            AddressSource::Lease { wanted } => Addresses::Lease(pb::Lease { wanted: shown(wanted) }),
            AddressSource::Given(addresses) => Addresses::Given(pb::Given { addresses: shown(addresses) }),
        };
        Self {
            key: Some((&request.key).into()),
            network: request.network.to_string(),
            netns: request.netns.to_string_lossy().into_owned(),
            pod: request.pod.clone().map(Into::into),
            kind: pb::PortKind::from(request.kind).into(),
            addresses: Some(addresses),
            mac: request.mac.map(|mac| mac.to_string()),
            mtu: request.mtu.map(u32::from),
            host_ports: request.host_ports.iter().map(Into::into).collect(),
            bandwidth: Some(request.bandwidth.into()),
        }
    }
}

impl TryFrom<pb::AttachRequest> for model::AttachRequest {
    type Error = ConvertError;

    fn try_from(request: pb::AttachRequest) -> Result<Self> {
        use pb::attach_request::Addresses;
        let key = key(request.key)?;
        let object = &key.to_string();
        let source = needed(object, "addresses", request.addresses, "ask for a lease, or give them")?;
        let addresses = match source {
            Addresses::Lease(lease) => AddressSource::Lease { wanted: texts(object, "wanted", &lease.wanted)? },
            Addresses::Given(given) => AddressSource::Given(texts(object, "address", &given.addresses)?),
        };
        Ok(Self {
            network: text(object, "network", &request.network)?,
            netns: PathBuf::from(request.netns),
            pod: request.pod.map(Into::into),
            kind: enumeration(object, "kind", request.kind)?,
            addresses,
            mac: optional(object, "mac", request.mac.as_ref())?,
            mtu: request.mtu.map(|mtu| number(object, "mtu", mtu, MTU_REMEDY)).transpose()?,
            host_ports: host_ports(object, &request.host_ports)?,
            bandwidth: bandwidth(request.bandwidth),
            key,
        })
    }
}

impl From<&model::Attachment> for pb::Attachment {
    fn from(attachment: &model::Attachment) -> Self {
        Self {
            key: Some((&attachment.key).into()),
            network: attachment.network.to_string(),
            netns: attachment.netns.to_string_lossy().into_owned(),
            pod: attachment.pod.clone().map(Into::into),
            port: attachment.port.to_string(),
            kind: pb::PortKind::from(attachment.kind).into(),
            addresses: shown(&attachment.addresses),
            leased: attachment.leased,
            gateways: shown(&attachment.gateways),
            mac: attachment.mac.to_string(),
            mtu: attachment.mtu.into(),
            host_ports: attachment.host_ports.iter().map(Into::into).collect(),
            bandwidth: Some(attachment.bandwidth.into()),
        }
    }
}

impl TryFrom<pb::Attachment> for model::Attachment {
    type Error = ConvertError;

    fn try_from(attachment: pb::Attachment) -> Result<Self> {
        let key = key(attachment.key)?;
        let object = &key.to_string();
        Ok(Self {
            network: text(object, "network", &attachment.network)?,
            netns: PathBuf::from(attachment.netns),
            pod: attachment.pod.map(Into::into),
            port: text(object, "port", &attachment.port)?,
            kind: enumeration(object, "kind", attachment.kind)?,
            addresses: texts(object, "address", &attachment.addresses)?,
            leased: attachment.leased,
            gateways: texts(object, "gateway", &attachment.gateways)?,
            mac: text(object, "mac", &attachment.mac)?,
            mtu: number(object, "mtu", attachment.mtu, MTU_REMEDY)?,
            host_ports: host_ports(object, &attachment.host_ports)?,
            bandwidth: bandwidth(attachment.bandwidth),
            key,
        })
    }
}

impl TryFrom<pb::AttachResponse> for model::Attachment {
    type Error = ConvertError;

    fn try_from(answer: pb::AttachResponse) -> Result<Self> {
        needed("answer", "attachment", answer.attachment, VERSIONS_REMEDY)?.try_into()
    }
}
