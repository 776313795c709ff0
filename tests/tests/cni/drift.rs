//! CHECK tells whatever is not as it was made.

use podwire_control::model::{Attachment, AttachmentKey};
use podwire_tests::Netns;
use podwire_vswitch::daemon::store::{Batch, Store, StoredAttachment};

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
        ("link set eth0 address 02:00:00:00:00:99", "MAC of eth0 is 02:00:00:00:00:99"),
        ("route replace default via 10.244.1.99", "the route to 0.0.0.0/0 via 10.244.1.1 through eth0 is gone"),
        ("link set eth0 name eth9", "interface eth0 is gone"),
    ] as [Disturb; 9]
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
fn a_lease_alone_and_a_port_alone_are_told() {
    let mut node = node();
    let (_pod, call, result) = container(&node, "a");
    assert!(node.stop());
    // podwired itself makes an attachment, its leases and its port as one, and never two of one address.
    let (mut store, mut remembered) = Store::open(node.store()).unwrap();
    let own = remembered.attachments.remove(0);
    let key = AttachmentKey { ifname: "eth1".into(), ..own.attachment.key.clone() };
    let attachment = Attachment { key, port: "b.eth1".parse().unwrap(), ..own.attachment.clone() };
    let other = StoredAttachment { attachment, ..own };
    store.commit(&Batch { attached: &[other], ..Batch::default() }).unwrap();
    drop(store);
    node.start();
    let leases = "the lease of 10.244.1.2 is missing; the lease of fd00:244:1::2 is missing";
    assert_eq!(call.check(&result).said["details"], leases);
    let mut told = result.clone();
    told["interfaces"][0]["name"] = "eth1".into();
    let other = call.clone().named("eth1");
    assert_eq!(other.check(&told).said["details"], "port b.eth1 is missing");
    other.run("DEL").done();
    call.run("DEL").done();
    let anew = call.run("ADD").done();
    call.check(&anew).done();
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
