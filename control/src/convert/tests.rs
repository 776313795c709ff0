//! Whatever the model can say comes back from the protocol as it was, and what it can not say is refused with the
//! object, the field and the remedy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use crate::model::{
    AddressSource, AttachRequest, Attachment, AttachmentKey, Bandwidth, Bridge, Endpoint, EventKind, ExplainQuery,
    Guard, HostPort, IpRange, IpamReport, Key, Mac, Object, Owner, PodName, Port, PortKind, Protocol, RangeReport,
    RangeSource, RangesChanged, RateLimit, Route, StaticMac, Transport, Via, Vni, Vtep,
};
use crate::proto as pb;

fn name<T: std::str::FromStr<Err: std::fmt::Debug> + std::fmt::Debug>() -> impl Strategy<Value = T> {
    "n[a-z0-9]{1,8}".prop_map(|text| text.parse().unwrap())
}

fn station() -> impl Strategy<Value = Mac> {
    any::<[u8; 6]>().prop_map(|[a, b, c, d, e, f]| Mac([a & 0xfe | 2, b, c, d, e, f]))
}

fn v4() -> impl Strategy<Value = Ipv4Addr> {
    (1_u8..127, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| Ipv4Addr::new(a, b, c, d))
}

fn v6() -> impl Strategy<Value = Ipv6Addr> {
    any::<[u16; 7]>().prop_map(|[b, c, d, e, f, g, h]| Ipv6Addr::new(0xfd00, b, c, d, e, f, g, h))
}

fn host_prefix() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (v4(), 0_u8..=32).prop_map(|(addr, len)| IpNet::new(addr.into(), len).unwrap()),
        (v6(), 0_u8..=128).prop_map(|(addr, len)| IpNet::new(addr.into(), len).unwrap()),
    ]
}

fn prefix() -> impl Strategy<Value = IpNet> {
    host_prefix().prop_map(|prefix| prefix.trunc())
}

fn vni() -> impl Strategy<Value = Option<Vni>> {
    of((0..=Vni::MAX).prop_map(|vni| vni.try_into().unwrap()))
}

fn guard() -> impl Strategy<Value = Guard> {
    prop_oneof![Just(Guard::Off), vec(prefix(), 0..3).prop_map(|allowed| Guard::On { allowed })]
}

prop_compose! {
    fn port()(
        name in name(),
        kind in select(&PortKind::ALL[..]),
        netns in "/[a-z]{1,8}/[a-z]{1,8}",
        ifname in "e[a-z0-9]{1,14}",
        addresses in vec(host_prefix(), 0..4),
        mac in of(station()),
        mtu in of(1280_u16..),
        bridge in of(name()),
        guard in guard(),
        bandwidth in bandwidth(),
    ) -> Object {
        let mut addresses = addresses;
        addresses.sort_by_key(IpNet::addr);
        addresses.dedup_by_key(|address| address.addr());
        Object::Port(Port { name, kind, netns: netns.into(), ifname, addresses, mac, mtu, bridge, guard, bandwidth })
    }
}

fn bandwidth() -> impl Strategy<Value = Bandwidth> {
    let limit =
        || of((1_000_u64.., 1_000_000_u64..).prop_map(|(bits_per_s, burst_bits)| RateLimit { bits_per_s, burst_bits }));
    (limit(), limit()).prop_map(|(ingress, egress)| Bandwidth { ingress, egress })
}

fn bridge() -> impl Strategy<Value = Object> {
    (name(), vni(), any::<bool>(), of(name())).prop_map(|(name, vni, vlan_transparent, flood)| {
        let flood = flood.into_iter().filter(|_| vni.is_some()).collect();
        Object::Bridge(Bridge { name, vni, flood, vlan_transparent })
    })
}

fn vtep() -> impl Strategy<Value = Object> {
    (name(), of(v4()), v6(), of(v6()), station(), vni()).prop_map(|(name, v4, other, v6, mac, vni)| {
        let v6 = if v4.is_none() { Some(v6.unwrap_or(other)) } else { v6 };
        let v4 = v4.map(|remote| Endpoint { remote, mac });
        Object::Vtep(Vtep { name, v4, v6: v6.map(|remote| Endpoint { remote, mac }), vni })
    })
}

fn object() -> impl Strategy<Value = Object> {
    let via =
        prop_oneof![name().prop_map(Via::Vtep), name().prop_map(Via::Port), Just(Via::Host), Just(Via::Blackhole)];
    prop_oneof![
        port(),
        bridge(),
        vtep(),
        (prefix(), via).prop_map(|(prefix, via)| Object::Route(Route { prefix, via })),
        (of(name()), station(), name()).prop_map(|(bridge, mac, port)| Object::Mac(StaticMac { bridge, mac, port })),
    ]
}

proptest! {
    #[test]
    fn an_object_comes_back_as_it_was(object in object()) {
        prop_assert_eq!(Object::try_from(pb::Object::from(&object)), Ok(object.clone()));
        prop_assert_eq!(Key::try_from(pb::Key::from(&object.key())), Ok(object.key()));
    }

    #[test]
    fn a_question_comes_back_as_it_was(
        in_port in name(), dst in v6(), src in of(v6()), sport in any::<Option<u16>>(), size in any::<Option<u32>>(),
        mac in of(station()),
    ) {
        let (dst, src) = (IpAddr::V6(dst), src.map(IpAddr::V6));
        let query = ExplainQuery {
            in_port, src, dst, proto: Protocol::Udp, sport, dport: None, size, src_mac: mac, dst_mac: None,
        };
        prop_assert_eq!(ExplainQuery::try_from(pb::ExplainRequest::from(&query)), Ok(query));
    }

    #[test]
    fn ranges_come_back_as_they_were(
        nets in vec(prefix(), 0..4), (size, held, reserved, free) in any::<(u64, u64, u64, u64)>(),
        source in select(vec![RangeSource::PodCidr, RangeSource::File, RangeSource::Cli]),
    ) {
        let all: Vec<IpRange> = nets.into_iter().map(IpRange::from).collect();
        let ranges = all.iter().map(|&range| RangeReport { range, source, size, held, reserved, free }).collect();
        let report = IpamReport { ranges, reserved: all.clone() };
        prop_assert_eq!(IpamReport::try_from(pb::GetIpamResponse::from(report.clone())), Ok(report));
        let changed = RangesChanged { added: all.clone(), removed: all };
        prop_assert_eq!(RangesChanged::try_from(pb::ChangeRangesResponse::from(changed.clone())), Ok(changed));
    }
}

fn key() -> impl Strategy<Value = AttachmentKey> {
    ("[a-z0-9]{1,64}", "e[a-z0-9]{1,14}")
        .prop_map(|(container, ifname)| AttachmentKey { container: container.parse().unwrap(), ifname })
}

fn host_port() -> impl Strategy<Value = HostPort> {
    (of(v4()), 1_u16.., 1_u16.., select(&Transport::ALL[..])).prop_map(
        |(host_ip, host_port, container_port, transport)| HostPort {
            host_ip: host_ip.map(IpAddr::V4),
            host_port,
            container_port,
            transport,
        },
    )
}

prop_compose! {
    fn attachment()(
        key in key(),
        (network, netns) in (name(), "/[a-z]{1,8}"),
        pod in of(("[a-z]{1,8}", "[a-z]{1,8}")),
        port in name(),
        kind in select(&PortKind::ALL[..]),
        addresses in vec(host_prefix(), 0..3),
        leased in any::<bool>(),
        gateways in vec(v6().prop_map(IpAddr::V6), 0..2),
        (mac, mtu) in (station(), any::<u16>()),
        host_ports in vec(host_port(), 0..3),
        bandwidth in bandwidth(),
    ) -> Attachment {
        let pod = pod.map(|(namespace, name)| PodName { namespace, name });
        Attachment {
            key, network, netns: netns.into(), pod, port, kind, addresses, leased, gateways, mac, mtu, host_ports, bandwidth,
        }
    }
}

proptest! {
    #[test]
    fn an_attachment_comes_back_as_it_was(attachment in attachment(), wanted in vec(v6().prop_map(IpAddr::V6), 0..2)) {
        prop_assert_eq!(Attachment::try_from(pb::Attachment::from(&attachment)), Ok(attachment.clone()));
        let Attachment { key, network, netns, pod, kind, addresses, leased, mac, mtu, host_ports, bandwidth, .. } = attachment;
        let addresses = if leased { AddressSource::Lease { wanted } } else { AddressSource::Given(addresses) };
        let (mac, mtu) = (Some(mac).filter(|_| leased), Some(mtu));
        let request = AttachRequest { key, network, netns, pod, kind, addresses, mac, mtu, host_ports, bandwidth };
        prop_assert_eq!(AttachRequest::try_from(pb::AttachRequest::from(&request)), Ok(request));
    }
}

#[test]
fn an_attachment_that_can_not_be_read_names_itself_the_field_and_the_remedy() {
    use pb::attach_request::Addresses;
    let plain = || pb::AttachRequest {
        key: Some(pb::AttachmentKey { container: "c1".into(), ifname: "eth0".into() }),
        kind: pb::PortKind::Tap.into(),
        addresses: Some(Addresses::Lease(pb::Lease::default())),
        network: "pods".into(),
        ..pb::AttachRequest::default()
    };
    let host_port = |host_port, transport: pb::Transport| {
        let transport = transport.into();
        pb::AttachRequest {
            host_ports: vec![pb::HostPort { host_ip: None, host_port, container_port: 80, transport }],
            ..plain()
        }
    };
    assert!(AttachRequest::try_from(plain()).is_ok());
    let container = |container: &str| Some(pb::AttachmentKey { container: container.into(), ifname: "eth0".into() });
    for (request, words) in [
        (pb::AttachRequest { key: None, ..plain() }, ["attachment: key is missing", "name the container"]),
        (
            pb::AttachRequest { key: container("a/b"), ..plain() },
            ["container \"a/b\" is not a container id", "use 1 to"],
        ),
        (
            pb::AttachRequest { network: "a b".into(), ..plain() },
            ["eth0 of container c1: network \"a b\" is not a network's name", "use 1 to 255"],
        ),
        (pb::AttachRequest { addresses: None, ..plain() }, ["eth0 of container c1: addresses is missing", "a lease"]),
        (host_port(0, pb::Transport::Tcp), ["eth0 of container c1: host_port 0 is out of range", "use 1 to 65535"]),
        (host_port(65_536, pb::Transport::Tcp), ["host_port 65536 is out of range", "use 1 to 65535"]),
        (host_port(80, pb::Transport::Unspecified), ["transport is missing", "give one of: Tcp Udp Sctp"]),
    ] {
        let said = AttachRequest::try_from(request).unwrap_err().to_string();
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
}

fn refused(object: pb::object::Object) -> String {
    Object::try_from(pb::Object { object: Some(object) }).expect_err("it has to be refused").to_string()
}

fn plain_port() -> pb::Port {
    pb::Port {
        name: "pod-a".into(),
        kind: pb::PortKind::Tap.into(),
        netns: "/run/netns/a".into(),
        ifname: "eth0".into(),
        ..pb::Port::default()
    }
}

fn refused_port(alter: impl FnOnce(&mut pb::Port)) -> String {
    let mut port = plain_port();
    alter(&mut port);
    refused(pb::object::Object::Port(port))
}

#[test]
fn a_message_that_can_not_be_read_names_object_field_and_remedy() {
    let end = |remote: &str| pb::Endpoint { remote: remote.into(), mac: "02:00:00:00:00:02".into() };
    let vtep = |endpoints| pb::object::Object::Vtep(pb::Vtep { name: "node2".into(), endpoints, vni: None });
    let route = |prefix: &str, next_hop| {
        let via = Some(pb::Via { next_hop });
        pb::object::Object::Route(pb::Route { prefix: prefix.into(), via })
    };
    use pb::via::NextHop;
    for (said, object, field, remedy) in [
        (refused_port(|port| port.name = "-a".into()), "port -a: ", "name \"-a\" is not a port's name", "use 1 to 63"),
        (refused_port(|port| port.kind = 0), "port pod-a: ", "kind is missing", "give one of: Tap"),
        (refused_port(|port| port.kind = 99), "port pod-a: ", "kind has the unknown value 99", "of one version"),
        (refused_port(|port| port.netns = "a".into()), "port pod-a: ", "netns \"a\"", "write an absolute path"),
        (refused_port(|port| port.mtu = Some(65_536)), "port pod-a: ", "mtu 65536 is out of range", "use 576 to 65535"),
        (refused_port(|port| port.mtu = Some(500)), "port pod-a: ", "mtu 500 is too small", "use 576 to 65535"),
        (refused_port(|port| port.mac = Some("x".into())), "port pod-a: ", "mac \"x\" is not", "write six bytes"),
        (
            refused_port(|port| port.addresses = vec!["1".into()]),
            "port pod-a: ",
            "address \"1\" is not",
            "10.244.2.0/24",
        ),
        (
            refused_port(|port| port.guard = Some(pb::Guard { off: true, allowed: vec!["10.0.0.0/8".into()] })),
            "port pod-a: ",
            "guard is off",
            "switch it on",
        ),
        (refused(vtep(vec![])), "vtep node2: ", "endpoint is missing", "give a remote address"),
        (refused(vtep(vec![end("::1")])), "vtep node2: ", "remote ::1 is a loopback address", "use a unicast address"),
        (
            refused(vtep(vec![end("10.0.0.1"), end("10.0.0.2")])),
            "vtep node2: ",
            "remote 10.0.0.2 is the second",
            "at most one IPv4",
        ),
        (refused(route("10.0.0.0/8", None)), "route 10.0.0.0/8: ", "via is missing", "give a VTEP"),
        (
            refused(route("10.0.0.1/8", Some(NextHop::Host(pb::Host {})))),
            "route 10.0.0.1/8: ",
            "prefix 10.0.0.1/8 has bits set",
            "write 10.0.0.0/8",
        ),
        (
            refused(pb::object::Object::Bridge(pb::Bridge {
                name: "b".into(),
                vni: Some(1 << 24),
                ..Default::default()
            })),
            "bridge b: ",
            "vni 16777216 is out of range",
            "0 to 16777215",
        ),
        (
            refused(pb::object::Object::Mac(pb::StaticMac {
                mac: "ff:ff:ff:ff:ff:ff".into(),
                port: "p".into(),
                bridge: None,
            })),
            "mac ff:ff:ff:ff:ff:ff: ",
            "mac ff:ff:ff:ff:ff:ff is a group address",
            "use a station's address",
        ),
    ] {
        assert!(said.starts_with(object) && said.contains(field) && said.contains(remedy), "{said}");
    }
    let backwards = super::ipam::ranges(&[], &["10.0.0.2-10.0.0.1".to_owned()]).unwrap_err().to_string();
    assert!(backwards.starts_with("ipam: range \"10.0.0.2-10.0.0.1\" is not a range"), "{backwards}");
    let nothing = Object::try_from(pb::Object { object: None }).unwrap_err().to_string();
    assert!(nothing.contains("give a port, bridge, mac, route or vtep"), "{nothing}");
}

#[test]
fn every_event_kind_and_owner_has_a_number_of_its_own() {
    for kind in EventKind::ALL {
        let event = pb::Event { kind: pb::EventKind::from(*kind).into(), ..pb::Event::default() };
        assert_eq!(crate::model::Event::from(event).kind, *kind);
    }
    let newer = pb::Event { kind: 1000, text: "news".into(), ..pb::Event::default() };
    assert_eq!(crate::model::Event::from(newer).kind, EventKind::Unknown);
    for owner in Owner::ALL {
        assert_eq!(super::enumeration("o", "owner", pb::Owner::from(owner).into()), Ok(owner));
    }
}
