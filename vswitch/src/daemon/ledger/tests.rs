//! Statements by owner: atomic, idempotent, refused by name, and no other owner's objects touched.

use super::*;
use crate::limits;
use podwire_control::model::{Bandwidth, Bridge, Endpoint, Guard, Mac, Port, PortKind, Route, StaticMac, Via, Vtep};
use proptest::prelude::*;

/// An object from a short text: `port a 10.244.1.10 [on bridge]`, `bridge b [to node]`, `vtep n 172.31.0.2`,
/// `route 10.244.2.0/24 n`, `route 10.244.1.10/32 port a`, `mac 02:00:00:00:00:01 a [on bridge]`.
fn object(text: &str) -> Object {
    let (text, bridge) = text.split_once(" on ").map_or((text, None), |(text, on)| (text, Some(on.parse().unwrap())));
    let words: Vec<_> = text.split(' ').collect();
    match words.as_slice() {
        ["port", name, address] => Object::Port(Port {
            name: name.parse().unwrap(),
            kind: PortKind::Tap,
            netns: format!("/run/netns/{name}").into(),
            ifname: "eth0".into(),
            addresses: vec![format!("{address}/24").parse().unwrap()],
            mac: None,
            mtu: None,
            bridge,
            guard: Guard::On { allowed: vec![] },
            bandwidth: Bandwidth::default(),
        }),
        ["bridge", name, flood @ ..] => Object::Bridge(Bridge {
            name: name.parse().unwrap(),
            vni: Some(7.try_into().unwrap()),
            flood: flood.iter().filter(|&&word| word != "to").map(|name| name.parse().unwrap()).collect(),
            vlan_transparent: false,
        }),
        ["vtep", name, remote] => Object::Vtep(Vtep {
            name: name.parse().unwrap(),
            v4: Some(Endpoint { remote: remote.parse().unwrap(), mac: Mac::of_name("vtep", name) }),
            v6: None,
            vni: None,
        }),
        ["mac", mac, port] => Object::Mac(StaticMac { bridge, mac: mac.parse().unwrap(), port: port.parse().unwrap() }),
        ["route", prefix, via @ ..] => {
            let via = match via {
                ["host"] => Via::Host,
                ["port", port] => Via::Port(port.parse().unwrap()),
                [vtep] => Via::Vtep(vtep.parse().unwrap()),
                _ => panic!("{text}"),
            };
            Object::Route(Route { prefix: prefix.parse().unwrap(), via })
        }
        _ => panic!("{text}"),
    }
}

fn objects(texts: &[&str]) -> Vec<Object> {
    texts.iter().map(|text| object(text)).collect()
}

fn key(text: &str) -> Key {
    object(text).key()
}

fn ledger(stated: &[(Owner, &[&str])]) -> Ledger {
    stated.iter().fold(Ledger::default(), |ledger, (owner, texts)| ledger.apply(*owner, objects(texts)).unwrap().next)
}

fn shown(refusals: Vec<Refusal>) -> String {
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}

const BASE: &[&str] = &["vtep n2 172.31.0.2", "port a 10.244.1.10", "bridge b to n2", "route 10.244.2.0/24 n2"];

#[test]
fn a_request_that_does_not_fit_is_refused_with_the_object_and_the_reason() {
    let many: Vec<_> = (0..limits::BRIDGES_MAX).map(|n| format!("bridge b{n}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let cases: &[(&[&str], &str)] = &[
        (&["vtep n3 172.31.0.3", "vtep n3 172.31.0.4"], "vtep n3: the request states it more than once"),
        (&["route 10.244.3.0/24 n3"], "route 10.244.3.0/24: it leads to vtep n3, which does not exist"),
        (&["route 10.244.1.9/32 port z"], "route 10.244.1.9/32: it leads to port z, which does not exist"),
        (&["mac 02:00:00:00:00:01 z"], "mac 02:00:00:00:00:01: it is pinned to port z, which does not exist"),
        (&["mac 02:00:00:00:00:01 a on z"], "on bridge z: it is pinned on bridge z, which does not exist"),
        (&["mac 02:00:00:00:00:01 a on b"], "port a is on bridge pods, not on b; pin the MAC on pods"),
        (&["bridge c to n3"], "bridge c: it floods to vtep n3, which does not exist"),
        (&["port c 10.244.1.11 on z"], "port c: it is a member of bridge z, which does not exist"),
        (&["port c 10.244.1.11 on pods"], "port c: it names the node's own segment pods; leave the bridge out"),
        (&["port A 10.244.1.10"], "port A: port a has the address 10.244.1.10 too"),
        (&["port z 10.244.1.10"], "port z: port a has the MAC 0a:58:0a:f4:01:0a too"),
        (&["vtep n1 172.31.0.2"], "vtep n1: vtep n2 has the remote address 172.31.0.2 too"),
        (&["port host 10.244.1.11"], "port host: the name is the switch's own"),
        (&["port uplink 10.244.1.11"], "port uplink: the name is the switch's own"),
        (&["bridge pods"], "bridge pods: the name is the node's own pod segment's"),
        (&many, "that would be 258 bridges, the pod segment included, and one switch may have 256"),
    ];
    let base = ledger(&[(Owner::File, BASE)]);
    for (request, expected) in cases {
        let refused = shown(base.apply(Owner::Cli, objects(request)).unwrap_err());
        assert!(refused.contains(expected), "{request:?}: {refused}");
    }
}

#[test]
fn the_same_address_on_two_bridges_and_a_vtep_of_the_same_request_are_fine() {
    let base = ledger(&[(Owner::File, BASE)]);
    let request = ["port c 10.244.1.10 on b", "route 10.244.3.0/24 n3", "vtep n3 172.31.0.3"];
    let plan = base.apply(Owner::Cli, objects(&request)).unwrap();
    assert_eq!(plan.own.added, [key("vtep n3 172.31.0.3"), key("port c 10.244.1.10"), key("route 10.244.3.0/24 n3")]);
}

#[test]
fn a_pods_interface_and_too_many_addresses_are_refused() {
    let (Object::Port(mut same), Object::Port(mut many)) = (object("port c 10.244.1.11"), object("port d 10.244.1.12"))
    else {
        panic!()
    };
    same.netns = "/run/netns/a".into();
    many.addresses = (100..117).map(|last| format!("10.244.1.{last}/24").parse().unwrap()).collect();
    let request = vec![Object::Port(same), Object::Port(many)];
    let refused = shown(ledger(&[(Owner::File, BASE)]).apply(Owner::Cli, request).unwrap_err());
    assert!(refused.contains("port c: port a has the interface eth0 in /run/netns/a too"), "{refused}");
    assert!(refused.contains("port d: it has 17 addresses, and a port may have 16"), "{refused}");
}

#[test]
fn what_is_still_referred_to_can_not_be_deleted() {
    let base = ledger(&[(Owner::File, BASE), (Owner::Cli, &["route 10.244.9.0/24 n2", "mac 02:00:00:00:00:01 a"])]);
    let delete = |owner, keys: &[&str]| {
        let deletes = keys.iter().map(|text| key(text)).collect();
        base.change(owner, Change { deletes, ..Change::default() }).map(|plan| plan.effective).map_err(shown)
    };
    let refused = delete(Owner::File, &["vtep n2 172.31.0.2", "port a 10.244.1.10"]).unwrap_err();
    for expected in [
        "vtep n2: route 10.244.2.0/24 (file) still leads to it; delete or change route 10.244.2.0/24 first",
        "vtep n2: route 10.244.9.0/24 (cli) still leads to it",
        "vtep n2: bridge b (file) still floods to it",
        "port a: mac 02:00:00:00:00:01 (cli) still is pinned to it",
    ] {
        assert!(refused.contains(expected), "{refused}");
    }
    let removed = delete(Owner::Cli, &["route 10.244.9.0/24 n2"]).unwrap().removed;
    assert_eq!(removed, [key("route 10.244.9.0/24 n2")]);
}

#[test]
fn deleting_what_is_missing_is_refused_unless_told_otherwise() {
    let base = ledger(&[(Owner::File, BASE)]);
    let delete = |text: &str, ignore_missing| {
        let change = Change { deletes: vec![key(text)], ignore_missing, ..Change::default() };
        base.change(Owner::Cli, change).map_err(shown)
    };
    assert!(delete("port z 10.244.1.9", false).unwrap_err().contains("port z: there is none"));
    let others = delete("port a 10.244.1.10", false).unwrap_err();
    assert!(others.contains("port a: it was stated by file, not by cli"), "{others}");
    let plan = delete("port a 10.244.1.10", true).unwrap();
    assert!(plan.own.is_empty() && plan.effective.is_empty() && plan.next == base);
    let both =
        Change { upserts: objects(&["vtep x 172.31.0.9"]), deletes: vec![key("vtep x 1.1.1.1")], ..Change::default() };
    assert!(shown(base.change(Owner::Cli, both).unwrap_err()).contains("vtep x: the request both states and deletes"));
}

#[test]
fn the_owner_that_stands_earlier_wins_and_the_other_comes_back_when_it_goes() {
    let base = ledger(&[(Owner::Cni, &["port a 10.244.1.10"]), (Owner::File, &["port a 10.244.1.99"])]);
    assert_eq!(base.shadowed(), [Shadowed { key: key("port a 1.1.1.1"), owner: Owner::Cni, by: Owner::File }]);
    assert_eq!(base.effective().get(&key("port a 1.1.1.1")), Some((Owner::File, &object("port a 10.244.1.99"))));
    let plan = base.apply(Owner::File, vec![]).unwrap();
    assert_eq!((plan.own.removed.len(), plan.effective.changed.len(), plan.effective.removed.len()), (1, 1, 0));
    assert_eq!(plan.next.effective().get(&key("port a 1.1.1.1")), Some((Owner::Cni, &object("port a 10.244.1.10"))));
    assert!(plan.next.shadowed().is_empty());
}

#[test]
fn what_was_restored_does_not_stand_in_the_way_of_others() {
    let stored = Ledger::restore([(Owner::Cli, object("route 10.244.3.0/24 n3"))]);
    assert!(shown(stored.faults()).contains("route 10.244.3.0/24: it leads to vtep n3, which does not exist"));
    let plan = stored.apply(Owner::Cni, objects(&["port a 10.244.1.10"])).unwrap();
    let plan = plan.next.apply(Owner::Kubernetes, objects(&["vtep n3 172.31.0.3"])).unwrap();
    assert_eq!(plan.next.faults(), []);
}

/// The rule of precedence, as slow and plain as it can be said.
fn slow_effective(ledger: &Ledger) -> Vec<(Key, Owner, Object)> {
    let mut all = Vec::new();
    for owner in Owner::ALL {
        for (key, object) in ledger.objects(owner) {
            if !all.iter().any(|(earlier, _, _)| earlier == key) {
                all.push((key.clone(), owner, object.clone()));
            }
        }
    }
    all.sort_by(|(one, _, _), (other, _, _)| one.cmp(other));
    all
}

/// A ledger that grew by whatever was accepted, one object at a time.
fn grown(requests: Vec<(Owner, Object)>) -> Ledger {
    requests.into_iter().fold(Ledger::default(), |ledger, (owner, object)| {
        let change = Change { upserts: vec![object], ..Change::default() };
        ledger.change(owner, change).map_or(ledger, |plan| plan.next)
    })
}

proptest! {
    #[test]
    fn apply_is_idempotent_touches_nobody_else_and_does_not_mind_the_order(
        requests in prop::collection::vec((any::owner(), any::object()), 0..40),
        owner in any::owner(),
        mut wanted in prop::collection::vec(any::object(), 0..8),
        rotate in 0usize..8,
    ) {
        let base = grown(requests);
        prop_assert_eq!(base.faults(), vec![]);
        let first = base.apply(owner, wanted.clone());
        if !wanted.is_empty() {
            let by = rotate % wanted.len();
            wanted.rotate_left(by);
        }
        let twice = wanted.iter().enumerate().any(|(at, one)| wanted[..at].iter().any(|other| other.key() == one.key()));
        if !twice {
            prop_assert_eq!(&base.apply(owner, wanted.clone()), &first);
        } else {
            prop_assert!(first.is_err());
        }
        let Ok(plan) = first else { return Ok(()) };
        prop_assert_eq!(plan.next.objects(owner).count(), wanted.len());
        for other in Owner::ALL.into_iter().filter(|&other| other != owner) {
            prop_assert!(plan.next.objects(other).eq(base.objects(other)));
        }
        let again = plan.next.apply(owner, wanted).unwrap();
        prop_assert!(again.own.is_empty() && again.effective.is_empty());
        prop_assert_eq!(&again.next, &plan.next);
        prop_assert_eq!(plan.next.faults(), vec![]);
    }

    #[test]
    fn the_effective_view_equals_a_slow_recomputation(
        requests in prop::collection::vec((any::owner(), any::object()), 0..40),
    ) {
        let ledger = Ledger::restore(requests);
        let view: Vec<_> = ledger.effective().iter().map(|(key, owner, object)| (key.clone(), owner, object.clone())).collect();
        prop_assert_eq!(&view, &slow_effective(&ledger));
        let all: usize = Owner::ALL.iter().map(|&owner| ledger.objects(owner).count()).sum();
        prop_assert_eq!(all, view.len() + ledger.shadowed().len());
    }

    #[test]
    fn the_effective_changes_lead_from_the_old_view_to_the_new(
        requests in prop::collection::vec((any::owner(), any::object()), 0..40),
        owner in any::owner(),
    ) {
        let base = grown(requests);
        let Ok(plan) = base.apply(owner, vec![]) else { return Ok(()) };
        let (before, after) = (base.effective(), plan.next.effective());
        for (key, by, object) in before.iter() {
            let changed = after.get(key).is_some_and(|now| now != (by, object));
            prop_assert_eq!(plan.effective.changed.contains(key), changed);
            prop_assert_eq!(plan.effective.removed.contains(key), after.get(key).is_none());
        }
        prop_assert!(plan.effective.added.is_empty());
    }
}
