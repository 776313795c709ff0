//! How an attachment is written in the store, by the rules of `record`.

use std::net::IpAddr;
use std::path::PathBuf;

use podwire_control::model::{Attachment, AttachmentKey, Bandwidth, HostPort, PodName, PortKind, Transport};
use serde::{Deserialize, Serialize};

use super::record::{
    IpNetV1, PortKindV1, RateLimitV2, RecordError, networks, parse, read, read_limit, texts, write_limit,
};
use crate::sys::netns::NetnsId;

/// The version written.
const VERSION: u32 = 1;

/// An attachment, and what tells whether its namespace is still the one it was made in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredAttachment {
    /// The attachment.
    pub attachment: Attachment,
    /// Its namespace when it was made.
    pub netns_id: NetnsId,
    /// The kernel's boot then (`/proc/sys/kernel/random/boot_id`): namespaces of another boot are gone.
    pub boot_id: String,
}

#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    attachment: AttachmentV1,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AttachmentV1 {
    container: String,
    ifname: String,
    network: String,
    netns: PathBuf,
    netns_dev: u64,
    netns_ino: u64,
    boot_id: String,
    pod: Option<PodNameV1>,
    port: String,
    kind: PortKindV1,
    addresses: Vec<IpNetV1>,
    leased: bool,
    gateways: Vec<IpAddr>,
    mac: String,
    mtu: u16,
    host_ports: Vec<HostPortV1>,
    ingress: Option<RateLimitV2>,
    egress: Option<RateLimitV2>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PodNameV1 {
    namespace: String,
    name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostPortV1 {
    host_ip: Option<IpAddr>,
    host_port: u16,
    container_port: u16,
    transport: TransportV1,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TransportV1 {
    Tcp,
    Udp,
    Sctp,
}

/// The bytes of an attachment.
pub(super) fn encode(stored: &StoredAttachment) -> Result<Vec<u8>, RecordError> {
    let StoredAttachment { attachment, netns_id, boot_id } = stored;
    let attachment = AttachmentV1 {
        container: attachment.key.container.to_string(),
        ifname: attachment.key.ifname.clone(),
        network: attachment.network.to_string(),
        netns: attachment.netns.clone(),
        netns_dev: netns_id.dev,
        netns_ino: netns_id.ino,
        boot_id: boot_id.clone(),
        pod: attachment.pod.clone().map(|PodName { namespace, name }| PodNameV1 { namespace, name }),
        port: attachment.port.to_string(),
        kind: attachment.kind.into(),
        addresses: texts(&attachment.addresses),
        leased: attachment.leased,
        gateways: attachment.gateways.clone(),
        mac: attachment.mac.to_string(),
        mtu: attachment.mtu,
        host_ports: attachment.host_ports.iter().map(write_host_port).collect(),
        ingress: attachment.bandwidth.ingress.map(write_limit),
        egress: attachment.bandwidth.egress.map(write_limit),
    };
    serde_json::to_vec(&Record { version: VERSION, attachment }).map_err(|error| error.to_string())
}

/// The attachment of the bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<StoredAttachment, RecordError> {
    let Record { attachment: stored, .. } = read(bytes, VERSION)?;
    let attachment = Attachment {
        key: AttachmentKey { container: parse(&stored.container)?, ifname: stored.ifname },
        network: parse(&stored.network)?,
        netns: stored.netns,
        pod: stored.pod.map(|PodNameV1 { namespace, name }| PodName { namespace, name }),
        port: parse(&stored.port)?,
        kind: PortKind::from(stored.kind),
        addresses: networks(&stored.addresses)?,
        leased: stored.leased,
        gateways: stored.gateways,
        mac: parse(&stored.mac)?,
        mtu: stored.mtu,
        host_ports: stored.host_ports.iter().map(read_host_port).collect(),
        bandwidth: Bandwidth { ingress: stored.ingress.map(read_limit), egress: stored.egress.map(read_limit) },
    };
    let netns_id = NetnsId { dev: stored.netns_dev, ino: stored.netns_ino };
    Ok(StoredAttachment { attachment, netns_id, boot_id: stored.boot_id })
}

fn write_host_port(port: &HostPort) -> HostPortV1 {
    let transport = match port.transport {
        Transport::Tcp => TransportV1::Tcp,
        Transport::Udp => TransportV1::Udp,
        Transport::Sctp => TransportV1::Sctp,
    };
    let HostPort { host_ip, host_port, container_port, .. } = *port;
    HostPortV1 { host_ip, host_port, container_port, transport }
}

fn read_host_port(port: &HostPortV1) -> HostPort {
    let transport = match port.transport {
        TransportV1::Tcp => Transport::Tcp,
        TransportV1::Udp => Transport::Udp,
        TransportV1::Sctp => Transport::Sctp,
    };
    let HostPortV1 { host_ip, host_port, container_port, .. } = *port;
    HostPort { host_ip, host_port, container_port, transport }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use ipnet::IpNet;
    use podwire_control::model::{Mac, RateLimit};
    use proptest::option::of;
    use proptest::prelude::*;
    use proptest::sample::select;

    fn limit() -> impl Strategy<Value = RateLimit> {
        (1u64.., 1u64..).prop_map(|(bits_per_s, burst_bits)| RateLimit { bits_per_s, burst_bits })
    }

    fn host_port() -> impl Strategy<Value = HostPort> {
        (of(any::<IpAddr>()), 1u16.., 1u16.., select(&Transport::ALL[..])).prop_map(
            |(host_ip, host_port, container_port, transport)| HostPort {
                host_ip,
                host_port,
                container_port,
                transport,
            },
        )
    }

    prop_compose! {
        pub(in crate::daemon::store) fn stored()(
            (container, ifname, network) in ("[a-z0-9]{1,5}", "eth[0-2]", "[a-z]{1,5}"),
            pod in of(("[a-z]{1,5}", "[a-z]{1,5}").prop_map(|(namespace, name)| PodName { namespace, name })),
            kind in select(&PortKind::ALL[..]),
            addresses in prop::collection::vec(any::<IpAddr>().prop_map(IpNet::from), 0..3),
            (leased, mtu, mac) in (any::<bool>(), any::<u16>(), any::<[u8; 6]>()),
            gateways in prop::collection::vec(any::<IpAddr>(), 0..3),
            host_ports in prop::collection::vec(host_port(), 0..3),
            (ingress, egress) in (of(limit()), of(limit())),
            (dev, ino, boot_id) in (any::<u64>(), any::<u64>(), "[a-f0-9-]{0,36}"),
        ) -> StoredAttachment {
            let key = AttachmentKey { container: container.parse().unwrap(), ifname };
            let attachment = Attachment {
                port: format!("cni-{container}").parse().unwrap(),
                netns: format!("/run/netns/{container}").into(),
                bandwidth: Bandwidth { ingress, egress },
                mac: Mac(mac),
                network: network.parse().unwrap(),
                key, pod, kind, addresses, leased, gateways, mtu, host_ports,
            };
            StoredAttachment { attachment, netns_id: NetnsId { dev, ino }, boot_id }
        }
    }

    proptest! {
        #[test]
        fn an_attachment_is_read_as_it_was_written(stored in stored()) {
            prop_assert_eq!(decode(&encode(&stored).unwrap()), Ok(stored));
        }
    }

    const RECORD: &str = r#"{"version":1,"attachment":{"container":"c1","ifname":"eth0","network":"podwire",
        "netns":"/run/netns/c1","netns_dev":4,"netns_ino":4026531840,"boot_id":"b","pod":{"namespace":"default","name":"web"},
        "port":"cni-c1","kind":"veth-xdp","addresses":["10.244.1.2/24"],"leased":true,"gateways":["10.244.1.1"],
        "mac":"0a:58:0a:f4:01:02","mtu":1450,
        "host_ports":[{"host_ip":null,"host_port":8080,"container_port":80,"transport":"tcp"}],
        "ingress":{"bits_per_s":1000,"burst_bits":100},"egress":null}}"#;

    #[test]
    fn a_record_of_version_one_stays_readable() {
        let stored = decode(RECORD.as_bytes()).unwrap();
        let Attachment { key, addresses, kind, leased, bandwidth, host_ports, .. } = stored.attachment;
        assert_eq!((key.to_string().as_str(), kind, leased), ("eth0 of container c1", PortKind::VethXdp, true));
        assert_eq!(addresses, ["10.244.1.2/24".parse::<IpNet>().unwrap()]);
        assert_eq!(bandwidth.ingress, Some(RateLimit { bits_per_s: 1000, burst_bits: 100 }));
        assert_eq!((host_ports[0].host_port, host_ports[0].transport), (8080, Transport::Tcp));
        assert_eq!((stored.netns_id, stored.boot_id.as_str()), (NetnsId { dev: 4, ino: 4_026_531_840 }, "b"));
    }

    #[test]
    fn a_record_that_is_not_understood_is_refused_and_says_why() {
        for (from, to, expected) in [
            ("\"version\":1", "\"version\":2", "it is of version 2, and this podwired reads versions 1 to 1"),
            ("\"leased\":true", "\"rented\":true", "rented"),
            ("10.244.1.2/24", "10.244.1.2/33", "10.244.1.2/33"),
            ("\"tcp\"", "\"quic\"", "quic"),
            ("\"c1\",", "\"-c1\",", "is no container id"),
        ] {
            let error = decode(RECORD.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{to}: {error}");
        }
    }
}
