//! What is stated, in the text form of `podwire apply -f`, and the slots, routes, guards and pins that follow.

use super::*;
use crate::table::policer::Policer;

/// What is stated, in the text form of `podwire apply -f`.
fn objects(text: &str) -> Vec<Object> {
    let mut objects = podwire_control::intent::parse(text).unwrap();
    objects.sort_by_key(Object::key);
    objects
}

fn node() -> NodeSpec {
    NodeSpec {
        name: "node1".into(),
        pod_cidrs: vec!["10.244.1.0/24".parse().unwrap(), "fd00:244:1::/64".parse().unwrap()],
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap(), "fd00:244::/32".parse().unwrap()],
        vni: "1".parse().unwrap(),
        underlay_mtu: 1500,
        copy_dscp: false,
    }
}

/// The switch after each of several statements, all stated ports' devices open but those named in `closed`.
struct Fixture {
    node: NodeSpec,
    snapshot: Snapshot,
    pinned: Vec<PinnedMac>,
    left_out: Vec<Key>,
}

impl Fixture {
    fn new() -> Self {
        let node = node();
        Self { snapshot: empty(&node), node, pinned: Vec::new(), left_out: Vec::new() }
    }

    fn state(&mut self, stated: &[Object], closed: &[&str]) {
        let device = |mac| Device { mac, mtu: 1430, caps: PortCaps::NONE };
        let own =
            [(HOST_PORT.to_owned(), device(self.node.gateway_mac())), (UPLINK_PORT.to_owned(), device(Mac::ZERO))];
        let pods = stated.iter().filter_map(|object| match object {
            Object::Port(port) => Some((port.name.to_string(), device(port.mac_in_force()))),
            _ => None,
        });
        let devices = own.into_iter().chain(pods).filter(|(name, _)| !closed.contains(&name.as_str())).collect();
        let objects: Vec<&Object> = stated.iter().collect();
        let inputs = Inputs { node: &self.node, objects: &objects, devices: &devices, previous: &self.snapshot };
        let Compiled { snapshot, pinned, left_out } = compile(&inputs);
        (self.snapshot, self.pinned, self.left_out) = (snapshot, pinned, left_out);
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.state(&objects(text), &[]);
        self
    }

    fn slots(&self) -> Vec<(usize, &str)> {
        occupied(&self.snapshot.ports).map(|(slot, port)| (slot, port.name.as_str())).collect()
    }

    fn slot(&self, name: &str) -> PortId {
        let found = self.slots().into_iter().find(|(_, other)| *other == name);
        PortId(slot_u16(found.unwrap_or_else(|| panic!("no port {name} in {:?}", self.slots())).0))
    }

    fn hop(&self, address: &str) -> Option<NextHop> {
        self.snapshot.fib.lookup(address.parse().unwrap())
    }
}

fn port(name: &str, host: u8) -> String {
    let address = format!("addresses = [\"10.244.1.{host}/24\", \"fd00:244:1::{host:x}/64\"]");
    format!("[[port]]\nname = \"{name}\"\nnetns = \"{name}\"\n{address}\n")
}

const NODE2: &str =
    "[[vtep]]\nname = \"node2\"\nendpoints = [{ remote = \"172.31.0.2\", mac = \"02:00:00:00:00:02\" }]\n";

#[test]
fn a_limit_that_did_not_change_keeps_what_is_spent_of_it() {
    let mut fixture = Fixture::new();
    let limits = |fixture: &Fixture| fixture.snapshot.port(fixture.slot("a")).unwrap().limits.clone();
    let limited = |lines: &str| format!("{}{lines}\n", port("a", 10));
    let both = "ingress_rate = '1M'\negress_rate = '1M'";
    fixture.text(&limited(both));
    let first = limits(&fixture);
    fixture.text(&(limited(both) + &port("b", 11)));
    let same = |old: &PortLimits, new: &PortLimits| {
        let same = |old: &Option<Arc<Policer>>, new: &Option<Arc<Policer>>| match (old, new) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            _ => false,
        };
        [same(&old.ingress, &new.ingress), same(&old.egress, &new.egress)]
    };
    assert_eq!(same(&first, &limits(&fixture)), [true, true]);
    fixture.text(&limited("ingress_rate = '1M'\negress_rate = '2M'"));
    assert_eq!(same(&first, &limits(&fixture)), [true, false]);
    fixture.text(&limited("ingress_rate = '1M'"));
    assert_eq!(limits(&fixture).egress, None);
}

#[test]
fn what_stays_keeps_its_slot_and_what_comes_takes_the_lowest_free_one() {
    let mut switch = Fixture::new();
    switch.text(&(port("a", 10) + &port("c", 12) + NODE2));
    assert_eq!(switch.slots().len(), 5);
    assert_eq!((switch.slot(HOST_PORT), switch.slot(UPLINK_PORT)), (PortId(0), PortId(1)));
    let (a, c, tunnel) = (switch.slot("a"), switch.slot("c"), switch.slot("node2"));

    switch.text(&(port("b", 11) + &port("c", 12) + NODE2));
    assert_eq!((switch.slot("c"), switch.slot("node2")), (c, tunnel), "they stay");
    assert_ne!(switch.slot("b"), a, "a slot that was in use until now rests for one generation");
    switch.text(&(port("b", 11) + &port("c", 12) + &port("d", 13) + NODE2));
    assert_eq!(switch.slot("d"), a, "then it is the lowest free one");
    assert_eq!(switch.snapshot.generation, 3);
}

#[test]
fn a_changed_port_keeps_its_slot_and_a_closed_one_loses_it() {
    let mut switch = Fixture::new();
    switch.text(&(port("a", 10) + &port("b", 11)));
    let (a, b) = (switch.slot("a"), switch.slot("b"));
    let changed = objects(&(port("a", 20) + &port("b", 11)));
    switch.state(&changed, &[]);
    assert_eq!((switch.slot("a"), switch.slot("b")), (a, b));
    switch.state(&changed, &["a"]);
    assert_eq!(switch.slots().iter().filter(|(_, name)| *name == "a").count(), 0);
    assert_eq!(switch.hop("10.244.1.20"), Some(NextHop::NoSuchPod), "a closed port's address is nobody's");
    assert!(switch.left_out.is_empty(), "it was not forgotten, it is closed");
    assert!(switch.pinned.iter().all(|pinned| pinned.port != a), "and its MAC is not pinned");
}

#[test]
fn a_tunnel_and_a_port_of_one_name_are_two() {
    let mut switch = Fixture::new();
    switch.text(&(port("node2", 10) + NODE2 + "[[route]]\nprefix = \"10.244.2.0/24\"\nvia = \"node2\"\n"));
    assert_eq!(switch.slots().iter().filter(|(_, name)| *name == "node2").count(), 2);
    assert!(matches!(switch.hop("10.244.2.1"), Some(NextHop::Vtep(_))));
    assert!(matches!(switch.hop("10.244.1.10"), Some(NextHop::Local { .. })));
}

#[test]
fn addresses_lead_where_the_most_specific_statement_says() {
    let mut switch = Fixture::new();
    let routes = "[[route]]\nprefix = \"10.244.2.0/24\"\nvia = \"node2\"\n\
                  [[route]]\nprefix = \"10.244.1.128/25\"\nvia = \"blackhole\"\n\
                  [[route]]\nprefix = \"10.9.0.0/16\"\nvia = \"port a\"\n\
                  [[route]]\nprefix = \"10.244.3.0/24\"\nvia = \"host\"\n";
    switch.text(&(port("a", 10) + &port("z", 200) + NODE2 + routes));
    let local = |name: &str, host: u8| {
        let mac = Mac::of_ip(format!("10.244.1.{host}").parse().unwrap());
        Some(NextHop::Local { port: switch.slot(name), mac })
    };
    for (address, expected) in [
        ("10.244.1.10", local("a", 10)),
        ("fd00:244:1::a", local("a", 10)),
        ("10.9.1.1", local("a", 10)),
        ("10.244.1.200", local("z", 200)),
        ("10.244.1.201", Some(NextHop::Blackhole)),
        ("10.244.1.11", Some(NextHop::NoSuchPod)),
        ("fd00:244:1::b", Some(NextHop::NoSuchPod)),
        ("10.244.2.77", Some(NextHop::Vtep(VtepId(0)))),
        ("10.244.3.1", Some(NextHop::Host)),
        ("10.244.4.1", Some(NextHop::NoRoute)),
        ("fd00:244:9::1", Some(NextHop::NoRoute)),
        ("192.0.2.1", None),
    ] {
        assert_eq!(switch.hop(address), expected, "{address}");
    }
}

#[test]
fn a_stated_route_wins_over_what_follows_by_itself_and_a_default_route_is_one() {
    let mut switch = Fixture::new();
    let routes = "[[route]]\nprefix = \"10.244.0.0/16\"\nvia = \"node2\"\n\
                  [[route]]\nprefix = \"0.0.0.0/0\"\nvia = \"node2\"\n\
                  [[route]]\nprefix = \"::/0\"\nvia = \"blackhole\"\n\
                  [[route]]\nprefix = \"10.244.1.10/32\"\nvia = \"host\"\n";
    switch.text(&(port("a", 10) + NODE2 + routes));
    let vtep = Some(NextHop::Vtep(VtepId(0)));
    assert_eq!((switch.hop("10.244.9.9"), switch.hop("192.0.2.1")), (vtep, vtep));
    assert_eq!(switch.hop("2001:db8::1"), Some(NextHop::Blackhole));
    assert_eq!(switch.hop("10.244.1.10"), Some(NextHop::Host), "the same prefix as the pod's own address");
}

#[test]
fn a_route_through_a_closed_port_leads_nowhere_rather_than_elsewhere() {
    let mut switch = Fixture::new();
    let text = port("a", 10)
        + NODE2
        + "[[route]]\nprefix = \"10.9.0.0/16\"\nvia = \"port a\"\n\
               [[route]]\nprefix = \"0.0.0.0/0\"\nvia = \"node2\"\n";
    switch.state(&objects(&text), &["a"]);
    assert_eq!(switch.hop("10.9.1.1"), Some(NextHop::NoRoute));
}

#[test]
fn a_guard_permits_own_link_local_and_allowed_addresses_only() {
    let mut switch = Fixture::new();
    switch.text(&(port("a", 10) + "allowed = [\"10.9.0.0/16\"]\n" + &port("b", 11) + "guard = false\n"));
    let entry = |name: &str| switch.snapshot.port(switch.slot(name)).unwrap();
    let guard = entry("a").guard.as_ref().unwrap();
    let own_link_local = link_local(entry("a").mac).to_string();
    for (address, permitted) in [
        ("10.244.1.10", true),
        ("fd00:244:1::a", true),
        (own_link_local.as_str(), true),
        ("10.9.255.1", true),
        ("10.244.1.11", false),
        ("10.10.0.1", false),
        ("fe80::1", false),
        ("::", false),
    ] {
        assert_eq!(guard.permits(address.parse().unwrap()), permitted, "{address}");
    }
    assert!(entry("b").guard.is_none());
    assert_eq!(link_local("02:00:0a:f4:01:0a".parse().unwrap()).to_string(), "fe80::aff:fef4:10a");
}

#[test]
fn the_gateway_guarded_pods_and_stated_macs_are_pinned() {
    let mut switch = Fixture::new();
    let more = "guard = false\n[[bridge]]\nname = \"blue\"\n[[mac]]\nmac = \"02:00:00:00:00:0b\"\nport = \"b\"\n";
    let blue = "[[port]]\nname = \"c\"\nnetns = \"c\"\nbridge = \"blue\"\nmac = \"02:00:00:00:00:0c\"\n";
    switch.text(&(port("a", 10) + &port("b", 11) + more + blue));
    let bridge = |name: &str| switch.snapshot.bridges.iter().flatten().position(|bridge| bridge.name == name).unwrap();
    let pin = |bridge: usize, mac: Mac, port: &str| PinnedMac {
        bridge: BridgeId(slot_u16(bridge)),
        mac,
        port: switch.slot(port),
    };
    assert_eq!(bridge(POD_SEGMENT_NAME), POD_SEGMENT.index());
    let mut expected = vec![
        pin(0, switch.node.gateway_mac(), HOST_PORT),
        pin(0, Mac::of_ip("10.244.1.10".parse().unwrap()), "a"),
        pin(0, "02:00:00:00:00:0b".parse().unwrap(), "b"),
        pin(bridge("blue"), "02:00:00:00:00:0c".parse().unwrap(), "c"),
    ];
    expected.sort_unstable();
    assert_eq!(switch.pinned, expected);
}

#[test]
fn tables_that_did_not_change_are_shared_and_learned_state_survives() {
    let mut switch = Fixture::new();
    switch.text(&(port("a", 10) + NODE2));
    let first = switch.snapshot.clone();
    let path_mtu = Arc::clone(&first.vteps.get(VtepId(0)).unwrap().path_mtu);
    switch.text(&(port("a", 10) + NODE2 + "[[route]]\nprefix = \"10.244.2.0/24\"\nvia = \"node2\"\n"));
    assert!(Arc::ptr_eq(&first.ports, &switch.snapshot.ports) && Arc::ptr_eq(&first.node, &switch.snapshot.node));
    let macs = |snapshot: &Snapshot| Arc::clone(&snapshot.bridge(POD_SEGMENT).unwrap().macs);
    assert!(Arc::ptr_eq(&macs(&first), &macs(&switch.snapshot)));
    assert!(Arc::ptr_eq(&path_mtu, &switch.snapshot.vteps.get(VtepId(0)).unwrap().path_mtu));
    switch.text(&(port("a", 10) + &NODE2.replace("172.31.0.2", "172.31.0.3")));
    assert!(!Arc::ptr_eq(&path_mtu, &switch.snapshot.vteps.get(VtepId(0)).unwrap().path_mtu), "another path");
}

#[test]
fn objects_beyond_the_last_slot_are_named_and_the_rest_stands() {
    let vteps = |name: char| {
        let vtep = |n: usize| {
            let endpoint = format!(
                "{{ remote = \"172.{}.{}.{}\", mac = \"02:00:00:00:00:02\" }}",
                16 + n / 65_536,
                n / 256,
                n % 256
            );
            format!("[[vtep]]\nname = \"{name}{n}\"\nendpoints = [{endpoint}]\n")
        };
        objects(&(1..=VTEPS_MAX - 10).map(vtep).collect::<String>())
    };
    let mut switch = Fixture::new();
    switch.state(&vteps('a'), &[]);
    assert!(switch.left_out.is_empty());
    switch.state(&vteps('b'), &[]);
    assert_eq!(switch.left_out.len(), VTEPS_MAX - 20, "ten slots were free");
    switch.state(&vteps('b'), &[]);
    assert!(switch.left_out.is_empty(), "those of before have made room");
}
