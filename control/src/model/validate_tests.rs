//! Each rule refuses what it should, and says on which object, in which field, and what to do.

use super::super::{Bandwidth, Endpoint, PortKind, Via};
use super::*;

fn port() -> Port {
    Port {
        name: "pod-a".parse().unwrap(),
        kind: PortKind::Tap,
        netns: "/run/netns/a".into(),
        ifname: "eth0".into(),
        addresses: vec!["10.244.1.10/24".parse().unwrap(), "fd00:244:1::a/64".parse().unwrap()],
        mac: Some("02:00:00:00:00:0a".parse().unwrap()),
        mtu: Some(1450),
        bridge: None,
        guard: Guard::On { allowed: vec!["10.9.0.0/16".parse().unwrap()] },
        bandwidth: Bandwidth { ingress: Some(RateLimit { bits_per_s: 1_000, burst_bits: 8 * 1_464 }), egress: None },
    }
}

fn vtep() -> Vtep {
    let mac = "02:00:00:00:00:02".parse().unwrap();
    Vtep {
        name: "node2".parse().unwrap(),
        v4: Some(Endpoint { remote: "172.31.0.2".parse().unwrap(), mac }),
        v6: Some(Endpoint { remote: "fd00::2".parse().unwrap(), mac }),
        vni: None,
    }
}

fn bridge() -> Bridge {
    Bridge { name: "blue".parse().unwrap(), vni: None, flood: Vec::new(), vlan_transparent: false }
}

/// The text of the refusal of `object`.
fn refusal(object: Object) -> String {
    object.validate().expect_err("it has to be refused").to_string()
}

fn port_with(alter: impl FnOnce(&mut Port)) -> String {
    let mut port = port();
    alter(&mut port);
    refusal(Object::Port(port))
}

#[test]
fn plain_objects_are_accepted() {
    let route = Route { prefix: "0.0.0.0/0".parse().unwrap(), via: Via::Host };
    let mac = StaticMac { bridge: None, mac: "02:00:00:00:00:0b".parse().unwrap(), port: "pod-a".parse().unwrap() };
    let objects = [
        Object::Port(port()),
        Object::Port(Port { name: "b".parse().unwrap(), mtu: Some(576), addresses: Vec::new(), ..port() }),
        Object::Bridge(bridge()),
        Object::Vtep(vtep()),
        Object::Vtep(Vtep { name: "node3".parse().unwrap(), v4: None, ..vtep() }),
        Object::Route(route),
        Object::Mac(mac),
    ];
    assert_eq!(check_objects(&objects), []);
}

#[test]
fn a_port_names_its_wrong_field_and_the_remedy() {
    for (netns, part) in [("a", "\"a\""), ("/", "\"/\""), ("/run/../etc", "absolute"), ("", "absolute")] {
        let said = port_with(|port| port.netns = netns.into());
        assert!(said.starts_with("port pod-a: netns ") && said.contains(part), "{said}");
        assert!(said.ends_with("write an absolute path such as /run/netns/pod-a"), "{said}");
    }
    for ifname in ["", "sixteen-bytes-xx", "a/b", "a b", "a:b", "eth%d", ".", "..", "lo", "a\n"] {
        let said = port_with(|port| port.ifname = ifname.into());
        assert!(
            said.starts_with(&format!("port pod-a: ifname {ifname:?}")) && said.ends_with("such as eth0"),
            "{said}"
        );
    }
    for (address, kind) in [
        ("224.0.0.1/24", "a multicast address"),
        ("127.0.0.1/8", "a loopback address"),
        ("0.0.0.0/0", "the unspecified address"),
        ("255.255.255.255/32", "the broadcast address"),
        ("ff02::1/64", "a multicast address"),
        ("::1/128", "a loopback address"),
        ("::/0", "the unspecified address"),
        ("::ffff:10.0.0.1/128", "an IPv4-mapped address"),
    ] {
        let said = port_with(|port| port.addresses = vec![address.parse().unwrap()]);
        assert!(said.contains(kind) && said.ends_with("; use a unicast address"), "{said}");
    }
    let twice = port_with(|port| port.addresses.push("10.244.1.10/16".parse().unwrap()));
    assert_eq!(twice, "port pod-a: address 10.244.1.10 is given twice; give it once");
    let group = port_with(|port| port.mac = Some(Mac::BROADCAST));
    assert!(group.starts_with("port pod-a: mac ff:ff:ff:ff:ff:ff is a group address; use a station's"), "{group}");
    let zero = port_with(|port| port.mac = Some(Mac::ZERO));
    assert!(zero.contains("no address at all"), "{zero}");
    let allowed = port_with(|port| port.guard = Guard::On { allowed: vec!["10.9.0.1/16".parse().unwrap()] });
    assert_eq!(allowed, "port pod-a: allowed 10.9.0.1/16 has bits set beyond its length; write 10.9.0.0/16");
}

#[test]
fn a_ports_mtu_has_a_least_value_and_ipv6_raises_it() {
    let v6 = port_with(|port| port.mtu = Some(1279));
    assert!(v6.starts_with("port pod-a: mtu 1279 is too small; use 1280 to 65535"), "{v6}");
    let v4 = port_with(|port| (port.mtu, port.addresses) = (Some(575), Vec::new()));
    assert!(v4.starts_with("port pod-a: mtu 575 is too small; use 576 to 65535"), "{v4}");
}

#[test]
fn a_limit_has_a_least_rate_and_a_burst_of_one_frame() {
    let limit = |bits_per_s, burst_bits| Some(RateLimit { bits_per_s, burst_bits });
    for (rate, shown) in [(0, "0"), (999, "999")] {
        let said = port_with(|port| port.bandwidth.egress = limit(rate, 20_000));
        let expected = format!(
            "port pod-a: egress_rate {shown} is less than 1000 bits a second; use at least 1k, or leave the limit out"
        );
        assert_eq!(said, expected);
    }
    let said = port_with(|port| port.bandwidth.ingress = limit(1_000_000, 8 * 1_464 - 1));
    let expected = "port pod-a: ingress_burst 11711 is less than one frame of the port's MTU; use at least 11712, or \
                    leave it out";
    assert_eq!(said, expected);
    let said = port_with(|port| (port.mtu, port.bandwidth.ingress) = (None, limit(1_000_000, 12_111)));
    assert!(said.contains("use at least 12112"), "{said}");
}

#[test]
fn a_routes_host_bits_are_refused_with_the_corrected_text() {
    for (prefix, said) in [
        (
            "10.244.2.7/24",
            "route 10.244.2.7/24: prefix 10.244.2.7/24 has bits set beyond its length; write 10.244.2.0/24",
        ),
        ("fd00::1/64", "route fd00::1/64: prefix fd00::1/64 has bits set beyond its length; write fd00::/64"),
        (
            "224.0.0.0/4",
            "route 224.0.0.0/4: prefix 224.0.0.0/4 is multicast or loopback, which is never routed; use a unicast prefix",
        ),
    ] {
        assert_eq!(refusal(Object::Route(Route { prefix: prefix.parse().unwrap(), via: Via::Host })), said);
    }
}

#[test]
fn a_vtep_needs_a_unicast_endpoint_and_a_name_that_is_no_word() {
    let none = refusal(Object::Vtep(Vtep { v4: None, v6: None, ..vtep() }));
    assert!(none.starts_with("vtep node2: endpoint is missing; give a remote"), "{none}");
    let mac = "02:00:00:00:00:02".parse().unwrap();
    let local = Some(Endpoint { remote: "fe80::2".parse().unwrap(), mac });
    assert!(refusal(Object::Vtep(Vtep { v6: local, ..vtep() })).contains("remote fe80::2 is link-local"));
    let group = Some(Endpoint { remote: "239.0.0.1".parse().unwrap(), mac });
    assert!(refusal(Object::Vtep(Vtep { v4: group, ..vtep() })).contains("remote 239.0.0.1 is a multicast address"));
    let zero = Some(Endpoint { remote: "172.31.0.2".parse().unwrap(), mac: Mac::ZERO });
    assert!(refusal(Object::Vtep(Vtep { v4: zero, ..vtep() })).contains("vtep node2: mac 00:00:00:00:00:00"));
    let word = refusal(Object::Vtep(Vtep { name: "host".parse().unwrap(), ..vtep() }));
    assert!(word.contains("name host means something else after 'via'; use another name"), "{word}");
}

#[test]
fn a_flood_list_needs_a_vni_and_names_each_vtep_once() {
    let flood = vec!["node2".parse().unwrap(); 2];
    let plain = refusal(Object::Bridge(Bridge { flood: flood.clone(), ..bridge() }));
    assert!(plain.starts_with("bridge blue: flood names VTEPs") && plain.contains("give the bridge a VNI"), "{plain}");
    let twice = refusal(Object::Bridge(Bridge { flood, vni: Some(7.try_into().unwrap()), ..bridge() }));
    assert_eq!(twice, "bridge blue: flood names node2 twice; name it once");
}

#[test]
fn all_refusals_of_a_statement_are_found_at_once() {
    let bad = Object::Route(Route { prefix: "10.0.0.1/8".parse().unwrap(), via: Via::Host });
    let found = check_objects(&[bad, Object::Vtep(vtep()), Object::Vtep(vtep())]);
    let said: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "route 10.0.0.1/8: prefix 10.0.0.1/8 has bits set beyond its length; write 10.0.0.0/8",
            "vtep node2: it is stated twice; state it once",
        ]
    );
}
