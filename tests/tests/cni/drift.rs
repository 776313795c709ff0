//! CHECK tells whatever is not as it was made.

use podwire_tests::Netns;

use crate::plugin::{container, eventually, node, release};

/// Disturbs a container, and the words that CHECK must have for it.
type Disturb = (&'static str, &'static str);

#[test]
fn each_drift_is_told_and_a_container_made_anew_has_none() {
    let node = node();
    for (disturb, words) in [
        ("addr del 10.244.1.2/24 dev eth0", "lost its address 10.244.1.2/24"),
        ("-6 addr del fd00:244:1::2/64 dev eth0", "lost its address fd00:244:1::2/64"),
        ("route del default", "the route to 0.0.0.0/0"),
        ("-6 route del default", "the route to ::/0"),
        ("link set eth0 mtu 1400", "MTU of eth0 is 1400"),
        ("link set eth0 down", "is down"),
    ] as [Disturb; 6]
    {
        let (pod, call, result) = container(&node, "a");
        let ip = format!("{}/", result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap());
        let own = disturb.replace("10.244.1.2/", &ip);
        let ip6 = result["ips"][1]["address"].as_str().unwrap();
        pod.netns.ip(&own.replace("fd00:244:1::2/64", ip6));
        let (code, said) = call.check(&result).failed();
        let wanted = words.replace("10.244.1.2/", &ip).replace("fd00:244:1::2/64", ip6);
        assert!(code == 103 && said.contains(&wanted), "{wanted} in {said}");
        call.run("DEL").done();
        let anew = call.run("ADD").done();
        call.check(&anew).done();
        call.run("DEL").done();
    }
}

#[test]
fn a_lost_port_and_a_foreign_result_are_told() {
    let node = node();
    let (pod, call, result) = container(&node, "a");
    let mut told = result.clone();
    told["ips"][0]["address"] = "10.244.1.99/24".into();
    assert!(call.check(&told).failed().1.contains("10.244.1.99/24"));
    let elsewhere = Netns::new("elsewhere");
    let mut moved = call.clone();
    moved.netns = elsewhere.path().display().to_string();
    assert!(moved.check(&result).failed().1.contains("not the namespace"));
    pod.netns.ip("link del eth0");
    eventually("the port is closed", || {
        let ran = call.check(&result);
        !ran.ok && ran.failed().1.contains("is closed")
    });
}

#[test]
fn a_lease_that_was_freed_by_hand_is_told() {
    let node = node();
    let (_pod, call, result) = container(&node, "a");
    release(&node, "10.244.1.2".parse().unwrap());
    let (code, said) = call.check(&result).failed();
    assert!(code == 103 && said.contains("no such attachment"), "{said}");
    call.run("DEL").done();
}
