//! What is typed becomes the object it says.

use clap::Parser;

use super::super::args::Format;
use super::*;
use crate::model::Bits;

fn parse(line: &str) -> Args {
    Args::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn stated(line: &str) -> Statement {
    parse(line).verb.statement().unwrap().expect("the verb states something")
}

fn refused(line: &str) -> String {
    match Args::try_parse_from(line.split_whitespace()) {
        Err(error) => error.to_string(),
        Ok(args) => args.verb.statement().expect_err("it has to be refused").to_string(),
    }
}

fn text_of(line: &str) -> String {
    format!("{:?}", stated(line))
}

#[test]
fn the_examples_state_what_they_say() {
    let line = "podwire port add pod-a --kind tap --netns a --ifname eth0 --ip 10.244.1.10/24 --ip fd00:244:1::a/64";
    let port = Port {
        name: "pod-a".parse().unwrap(),
        kind: PortKind::Tap,
        netns: "/run/netns/a".into(),
        ifname: "eth0".into(),
        addresses: vec!["10.244.1.10/24".parse().unwrap(), "fd00:244:1::a/64".parse().unwrap()],
        mac: None,
        mtu: None,
        bridge: None,
        guard: Guard::On { allowed: Vec::new() },
        bandwidth: Bandwidth::default(),
    };
    assert_eq!(stated(line), Statement::Upsert(Object::Port(port.clone())));
    let veth = Port { kind: PortKind::VethXdp, ..port.clone() };
    assert_eq!(stated(&line.replace("--kind tap", "--kind veth-xdp")), Statement::Upsert(Object::Port(veth)));
    let ingress = Some(RateLimit::new(Bits(100_000_000), None));
    let egress = Some(RateLimit { bits_per_s: 500_000, burst_bits: 1_000_000 });
    let limited = Port { bandwidth: Bandwidth { ingress, egress }, ..port };
    let limits = format!("{line} --ingress-rate 100M --egress-rate 500k --egress-burst 1M");
    assert_eq!(stated(&limits), Statement::Upsert(Object::Port(limited)));

    let line =
        "podwire vtep add node2 --remote 172.31.0.2 --mac 02:00:00:00:00:02 --remote fd00::2 --mac 02:00:00:00:00:03";
    let Statement::Upsert(Object::Vtep(vtep)) = stated(line) else { panic!("{line}") };
    assert_eq!(vtep.v4.map(|end| end.mac.to_string()), Some("02:00:00:00:00:02".into()));
    assert_eq!(vtep.v6.map(|end| end.mac.to_string()), Some("02:00:00:00:00:03".into()));
    assert_eq!(vtep.vni, None);
    let one_mac = "podwire vtep add node2 --remote fd00::2 --remote 172.31.0.2 --mac 02:00:00:00:00:02 --vni 7";
    let Statement::Upsert(Object::Vtep(vtep)) = stated(one_mac) else { panic!("{one_mac}") };
    assert_eq!(vtep.v4.map(|end| end.mac), vtep.v6.map(|end| end.mac));
    assert_eq!(vtep.vni.map(|vni| vni.get()), Some(7));

    for (via, expected) in [
        ("node2", Via::Vtep("node2".parse().unwrap())),
        ("host", Via::Host),
        ("blackhole", Via::Blackhole),
        ("port pod-a", Via::Port("pod-a".parse().unwrap())),
    ] {
        let route = Route { prefix: "10.244.2.0/24".parse().unwrap(), via: expected };
        let line = format!("podwire route add 10.244.2.0/24 via {via}");
        assert_eq!(stated(&line), Statement::Upsert(Object::Route(route)), "{line}");
    }

    let Verb::Trace(trace) = parse("podwire trace --in pod-a --dst 10.244.2.10 --proto tcp --dport 80").verb else {
        panic!("trace")
    };
    assert_eq!(
        (trace.in_port.as_str(), trace.dst.to_string().as_str(), trace.dport),
        ("pod-a", "10.244.2.10", Some(80))
    );
}

#[test]
fn deletes_name_their_key() {
    for (line, key) in [
        ("podwire port del pod-a", "port pod-a"),
        ("podwire bridge del blue", "bridge blue"),
        ("podwire mac del 02:00:00:00:00:0b", "mac 02:00:00:00:00:0b"),
        ("podwire mac del 02:00:00:00:00:0b --bridge blue", "mac 02:00:00:00:00:0b on bridge blue"),
        ("podwire route del fd00:244:2::/64", "route fd00:244:2::/64"),
        ("podwire vtep del node2", "vtep node2"),
    ] {
        let Statement::Delete(found) = stated(line) else { panic!("{line}") };
        assert_eq!(found.to_string(), key);
    }
}

#[test]
fn every_other_option_reaches_its_field() {
    let port = text_of(
        "podwire port add p --netns /var/run/ns/p --mac 02:00:00:00:00:0a --mtu 1400 --bridge blue --allow 10.9.0.0/16",
    );
    for part in ["/var/run/ns/p", "eth0", "02:00:00:00:00:0a", "1400", "blue", "10.9.0.0/16"] {
        assert!(port.contains(part), "{part}: {port}");
    }
    assert!(text_of("podwire port add p --netns a --no-guard").contains("guard: Off"));
    let bridge = text_of("podwire bridge add blue --vni 7 --flood node2 --flood node3 --vlan-transparent");
    for part in ["Vni(7)", "node2", "node3", "vlan_transparent: true"] {
        assert!(bridge.contains(part), "{part}: {bridge}");
    }
    assert!(text_of("podwire mac add 02:00:00:00:00:0b --port pod-a --bridge blue").contains("blue"));
}

#[test]
fn socket_and_output_stand_before_or_after_the_verb() {
    for line in [
        "podwire --socket /s -o json port list",
        "podwire port list -o json --socket /s",
        "podwire port -o json list --socket=/s",
        "podwire --socket /s route add 10.0.0.0/8 via port p -o json",
        "podwire stats --watch -o json --socket /s",
        "podwire show limits --output json --socket /s",
        "podwire events -o json --socket /s",
        "podwire drops -o json --socket /s",
        "podwire completions bash -o json --socket /s",
        "podwire route get 10.0.0.1 -o json --socket /s",
        "podwire apply -f x.toml -o json --socket /s",
    ] {
        let args = parse(line);
        assert_eq!((args.socket.to_str(), args.output), (Some("/s"), Format::Json), "{line}");
    }
    let plain = parse("podwire status");
    assert_eq!(plain.output, Format::Table);
}

#[test]
fn what_is_not_understood_is_named_with_the_remedy() {
    for (line, parts) in [
        ("podwire route add 10.0.0.0 via host", ["\"10.0.0.0\" is not a prefix", "10.244.2.0/24"]),
        ("podwire route add 10.0.0.0/8 to host", ["\"to host\" is not understood", "PREFIX via NEXT_HOP"]),
        ("podwire route add 10.0.0.0/8 via port", ["\"port\" is not a next hop", "'port NAME'"]),
        ("podwire port add p --netns a --ip 10.0.0.1", ["\"10.0.0.1\" is not a prefix", "10.244.2.0/24"]),
        ("podwire vtep add n --remote 1.2.3.4 --mac 02:", ["\"02:\" is not a MAC", "02:00:5e:00:00:01"]),
        (
            "podwire vtep add n --remote 1.2.3.4 --mac 02:00:00:00:00:01 --mac 02:00:00:00:00:02",
            ["vtep n: 1 --remote but 2 --mac", "one --mac for each --remote"],
        ),
        (
            "podwire vtep add n --remote 1.2.3.4 --remote 1.2.3.5 --mac 02:00:00:00:00:01",
            ["vtep n: remote 1.2.3.5 is the second", "at most one IPv4"],
        ),
        ("podwire vtep add n --remote 1.2.3.4 --mac 02:00:00:00:00:01 --vni 16777216", ["16777216", "0 to 16777215"]),
        ("podwire port add p --netns a --mtu 65536", ["65536", "65535"]),
        ("podwire port add p --netns a --no-guard --allow 10.0.0.0/8", ["--no-guard", "cannot be used with"]),
        ("podwire apply -f /nowhere/at.all", ["file /nowhere/at.all: cannot read it", "give a TOML or JSON file"]),
    ] {
        let said = refused(line);
        assert!(parts.iter().all(|part| said.contains(part)), "{line}: {said}");
    }
}
