//! The rules to the letter, whom a host port leads to, and what can not be had together. That the kernel takes the rules is
//! part of the daemon ring.

use ipnet::IpNet;
use podwire_control::model::HostPort;

use super::*;
use crate::sys::netlink::has_table;
use crate::sys::netns::testing::TestNetns;
use crate::sys::netns::{ipv4_conf, ipv6_conf};

fn port(host_ip: &str, host_port: u16, transport: Transport) -> HostPort {
    let host_ip = (!host_ip.is_empty()).then(|| host_ip.parse().unwrap());
    HostPort { host_ip, host_port, container_port: 80, transport }
}

fn tcp(host_ip: &str, host_port: u16, pod: &str) -> Mapping {
    Mapping { host_port: port(host_ip, host_port, Transport::Tcp), pod: pod.parse().unwrap() }
}

fn spec(masquerade: bool, mappings: Vec<Mapping>) -> NatSpec {
    NatSpec {
        pod_cidrs: ["10.244.1.0/24", "fd00:244:1::/64"].map(|net| net.parse().unwrap()).to_vec(),
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        host_interface: "podwire0".into(),
        masquerade,
        mappings,
        underlay: Vec::new(),
        tunnel_port: 4789,
    }
}

const MASQUERADE: &str = "\
table inet podwire
delete table inet podwire
table inet podwire {
	chain leaving {
		ip daddr 10.244.0.0/16 return
		ip6 daddr fd00:244:1::/64 return
		ip daddr { 224.0.0.0/4, 255.255.255.255 } return
		ip6 daddr { fe80::/10, ff00::/8 } return
		masquerade fully-random
	}
	chain hairpin {
		ip saddr 127.0.0.0/8 masquerade
		ip saddr 10.244.0.0/16 masquerade
		ip6 saddr fd00:244:1::/64 masquerade
	}
	chain postrouting {
		type nat hook postrouting priority srcnat
		oifname \"podwire0\" ct status dnat goto hairpin
		oifname \"podwire0\" return
		ip saddr 10.244.1.0/24 goto leaving
		ip6 saddr fd00:244:1::/64 goto leaving
	}
}
";

const TUNNELS: &str = "\tchain tunnels_prerouting {
		type filter hook prerouting priority raw
		ip daddr 172.31.0.1 udp dport 4789 notrack
		ip6 daddr fd00:31::1 udp dport 4789 notrack
	}
	chain tunnels_output {
		type filter hook output priority raw
		ip saddr 172.31.0.1 udp dport 4789 notrack
		ip6 saddr fd00:31::1 udp dport 4789 notrack
	}
";

const HOST_PORTS: &str = "\
table inet podwire
delete table inet podwire
table inet podwire {
	map ip_one_address {
		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
		elements = {
			127.0.0.1 . tcp . 8081 : 10.244.1.10 . 80,
		}
	}
	map ip_all_addresses {
		type inet_proto . inet_service : ipv4_addr . inet_service
		elements = {
			tcp . 8080 : 10.244.1.10 . 80,
			udp . 53 : 10.244.1.11 . 80,
		}
	}
	map ip6_all_addresses {
		type inet_proto . inet_service : ipv6_addr . inet_service
		elements = {
			sctp . 8080 : fd00:244:1::a . 80,
		}
	}
	chain host_ports {
		ip6 daddr ::1 return
		dnat ip to ip daddr . meta l4proto . th dport map @ip_one_address
		dnat ip to meta l4proto . th dport map @ip_all_addresses
		dnat ip6 to meta l4proto . th dport map @ip6_all_addresses
	}
	chain prerouting {
		type nat hook prerouting priority dstnat
		fib daddr type local jump host_ports
	}
	chain output {
		type nat hook output priority -100
		fib daddr type local jump host_ports
	}
	chain loopback {
		type filter hook prerouting priority raw
		iifname \"podwire0\" ip daddr 127.0.0.0/8 drop
	}
	chain hairpin {
		ip saddr 127.0.0.0/8 masquerade
		ip saddr 10.244.0.0/16 masquerade
		ip6 saddr fd00:244:1::/64 masquerade
	}
	chain postrouting {
		type nat hook postrouting priority srcnat
		oifname \"podwire0\" ct status dnat goto hairpin
		oifname \"podwire0\" return
	}
}
";

#[test]
fn the_rules_are_these_whatever_the_order_of_the_mappings() {
    assert_eq!(spec(true, Vec::new()).rules(), MASQUERADE);
    let underlay = ["172.31.0.1", "fd00:31::1"].map(|own| own.parse().unwrap()).to_vec();
    let with_tunnels = NatSpec { underlay, ..spec(true, Vec::new()) }.rules();
    assert_eq!(with_tunnels.replace(TUNNELS, ""), MASQUERADE);
    assert_ne!(with_tunnels, MASQUERADE);
    let udp = Mapping { host_port: port("0.0.0.0", 53, Transport::Udp), pod: "10.244.1.11".parse().unwrap() };
    let sctp = Mapping { host_port: port("", 8080, Transport::Sctp), pod: "fd00:244:1::a".parse().unwrap() };
    let mappings = vec![sctp, udp, tcp("127.0.0.1", 8081, "10.244.1.10"), tcp("", 8080, "10.244.1.10")];
    assert_eq!(spec(false, mappings).rules(), HOST_PORTS);
}

#[test]
fn the_kernel_takes_a_thousand_mappings_of_every_kind() {
    let netns = TestNetns::new();
    let ips = ["", "127.0.0.1", "fd00:31::1"];
    let mappings = (0..1000_u16).map(|n| {
        let ip = ips[usize::from(n % 3)];
        let pod = if ip.contains(':') { "fd00:244:1::a" } else { "10.244.1.10" };
        Mapping { host_port: port(ip, 1 + n, Transport::ALL[usize::from(n % 2)]), pod: pod.parse().unwrap() }
    });
    netns.enter(|| {
        let mut nat = Nat::new(spec(true, Vec::new()));
        nat.set_mappings(mappings.collect()).unwrap();
        assert!(nat.warnings().is_empty(), "{:?}", nat.warnings());
    });
}

#[test]
fn a_host_port_leads_to_each_family_of_the_pod_or_to_that_of_its_address() {
    let both = ["10.244.1.10/24", "fd00:244:1::a/64", "10.244.1.99/24"].map(|net| net.parse().unwrap());
    let pods = |host_ip: &str, addresses: &[IpNet]| -> Vec<String> {
        let mappings = Mapping::of_pod(&[port(host_ip, 8080, Transport::Tcp)], addresses);
        mappings.iter().map(|mapping| mapping.target().to_string()).collect()
    };
    assert_eq!(pods("", &both), ["10.244.1.10:80", "[fd00:244:1::a]:80"]);
    assert_eq!(pods("", &both[1..2]), ["[fd00:244:1::a]:80"]);
    for v4 in ["172.31.0.1", "0.0.0.0"] {
        assert_eq!(pods(v4, &both), ["10.244.1.10:80"]);
        assert!(pods(v4, &both[1..2]).is_empty());
    }
    assert_eq!(pods("::", &both), ["[fd00:244:1::a]:80"]);
}

#[test]
fn one_host_port_leads_to_one_pod() {
    let all = tcp("", 8080, "10.244.1.10");
    let one = tcp("172.31.0.1", 8080, "10.244.1.11");
    let cases = [
        (&all, tcp("", 8080, "10.244.1.12"), true),
        (&all, one.clone(), true),
        (&one, all.clone(), true),
        (&one, tcp("0.0.0.0", 8080, "10.244.1.12"), true),
        (&one, one.clone(), true),
        (&one, tcp("172.31.0.2", 8080, "10.244.1.12"), false),
        (&all, tcp("", 8081, "10.244.1.12"), false),
        (&all, tcp("", 8080, "fd00:244:1::c"), false),
        (&all, Mapping { host_port: port("", 8080, Transport::Udp), pod: "10.244.1.12".parse().unwrap() }, false),
    ];
    for (taken, wanted, refused) in cases {
        assert_eq!(conflict(std::slice::from_ref(taken), None, &wanted).is_some(), refused, "{wanted} beside {taken}");
    }
    assert_eq!(
        conflict(std::slice::from_ref(&all), None, &one).unwrap().to_string(),
        "the node's tcp port 8080 on 172.31.0.1 is taken: tcp port 8080 on every IPv4 address leads to pod 10.244.1.10; \
         use another host port, or delete that pod"
    );
    let tunnel = Mapping { host_port: port("", 4789, Transport::Udp), pod: "10.244.1.10".parse().unwrap() };
    assert!(conflict(&[], Some(4789), &tunnel).unwrap().to_string().contains("tunnels (vxlan.port)"));
    assert!(conflict(&[], Some(4789), &tcp("", 4789, "10.244.1.10")).is_none());
    assert!(conflict(&[], None, &tunnel).is_none());
    let loopback = conflict(&[], None, &tcp("::1", 8080, "fd00:244:1::a")).unwrap().to_string();
    assert!(loopback.contains("tcp port 8080 on ::1 can not lead to a pod"), "{loopback}");
}

#[test]
fn forwarding_is_switched_on_where_something_is_to_do_and_the_node_keeps_heeding_its_routers() {
    let netns = TestNetns::new();
    netns.ip("link add nic type veth peer name far");
    netns.ip("link add deaf type veth peer name deafs");
    netns.enter(|| {
        set_conf("ipv4", "all", "forwarding", "0");
        set_conf("ipv6", "nic", "accept_ra", "1");
        set_conf("ipv6", "deaf", "accept_ra", "0");
        let state = || {
            let heeds = |link| ipv6_conf(link, "accept_ra").unwrap();
            let forwards = [ipv4_conf("all", "forwarding").unwrap(), ipv6_conf("all", "forwarding").unwrap()];
            (forwards.concat(), heeds("nic"), heeds("deaf"))
        };
        let mut nat = Nat::new(spec(false, Vec::new()));
        nat.sync_or_warn();
        assert_eq!(state(), ("00".into(), "1".into(), "0".into()));
        let only_v4 = NatSpec { pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()], ..spec(true, Vec::new()) };
        nat.reload(only_v4);
        assert_eq!(state(), ("10".into(), "1".into(), "0".into()));
        nat.reload(spec(true, Vec::new()));
        assert_eq!(state(), ("11".into(), "2".into(), "0".into()));
        assert!(nat.warnings().is_empty() && has_table(TABLE).unwrap());
        // Where forwarding is on already nothing is touched.
        set_conf("ipv6", "nic", "accept_ra", "1");
        nat.sync_or_warn();
        assert_eq!(state(), ("11".into(), "1".into(), "0".into()));
    });
}

fn set_conf(family: &str, ifname: &str, key: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{family}/conf/{ifname}/{key}"), value).unwrap();
}

#[test]
fn what_others_change_is_put_right_and_what_can_not_be_is_a_warning_until_it_can() {
    let second = |n: u64| MonoNs(n * 1_000_000_000);
    let netns = TestNetns::new();
    netns.enter(|| {
        let mut nat = Nat::new(spec(true, Vec::new()));
        nat.tick(second(20));
        assert!(has_table(TABLE).unwrap());
        nft::apply("flush ruleset\n").unwrap();
        nat.tick(second(29));
        assert!(!has_table(TABLE).unwrap(), "not at each tick, or two who disagree would write all day");
        nat.tick(second(30));
        assert!(has_table(TABLE).unwrap());

        // No interface has such a name, and nft takes none.
        let bad = NatSpec { host_interface: "n".repeat(200), ..spec(true, Vec::new()) };
        nat.reload(bad);
        assert!(nat.warnings()[0].contains("nft refuses the rules"), "{:?}", nat.warnings());
        assert!(has_table(TABLE).unwrap(), "the rules of before stay");
        nat.reload(spec(true, Vec::new()));
        assert!(nat.warnings().is_empty(), "{:?}", nat.warnings());

        nat.reload(spec(false, Vec::new()));
        assert!(!has_table(TABLE).unwrap());
        assert!(!remove().unwrap());
    });
}
