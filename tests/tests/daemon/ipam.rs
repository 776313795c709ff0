//! Ranges of addresses for pods: the file's go first, what the CLI adds survives, and a range with leases stays.

use std::fs;
use std::path::Path;

use podwire_control::model::{Attachment, AttachmentKey, Bandwidth, IpRange, Mac, PortKind};
use podwire_tests::{Netns, Node, NodePlan, NodeSpec};
use podwire_vswitch::daemon::store::{Batch, Place, Store, StoredAttachment};
use podwire_vswitch::sys::netns::identity_of;

use crate::api::{Api, node, refused, underlay};
use crate::reload::reload;

/// Range, source, held and free of each row.
fn shown(node: &Node) -> Vec<String> {
    let report = node.podwire_json(&["ipam", "show"]);
    let rows = report["ranges"].as_array().unwrap().iter();
    let word = |value: &serde_json::Value| value.to_string().trim_matches('"').to_owned();
    rows.map(|row| ["range", "source", "held", "free"].map(|key| word(&row[key])).join(" ")).collect()
}

fn state(node: &Node) -> std::path::PathBuf {
    node.state_dir()
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned()
}

/// Puts a lease of a boot into the store of a node that does not run.
fn lease(state: &Path, container: &str, address: &str, netns: &Netns, boot_id: String) {
    let attachment = Attachment {
        key: AttachmentKey { container: container.parse().unwrap(), ifname: "eth0".into() },
        network: "podwire".parse().unwrap(),
        netns: netns.path(),
        pod: None,
        port: container.parse().unwrap(),
        kind: PortKind::Tap,
        addresses: vec![address.parse().unwrap()],
        leased: true,
        gateways: Vec::new(),
        mac: Mac([2, 0, 0, 0, 0, 7]),
        mtu: 1450,
        host_ports: Vec::new(),
        bandwidth: Bandwidth::default(),
    };
    let netns_id = identity_of(&netns.path()).unwrap();
    let stored = StoredAttachment { attachment, netns_id, boot_id };
    let (main, copy) = (state.join("podwired.redb"), state.join("copy.redb"));
    let (mut store, _) = Store::open(Place { main, copy, node: "node1".to_owned() }).unwrap();
    store.commit(&Batch { attached: &[stored], ..Batch::default() }).unwrap();
}

fn range(text: &str) -> IpRange {
    text.parse().unwrap()
}

const V6_WHOLE: &str = "fd00:244:1::-fd00:244:1:0:ffff:ffff:ffff:ffff pod-cidr 0 18446744073709551614";

#[test]
fn ranges_of_the_cli_come_after_the_files_and_survive_a_restart() {
    let mut node = node();
    assert_eq!(shown(&node), ["10.244.1.0-10.244.1.255 pod-cidr 0 253", V6_WHOLE]);
    let section = |lines: &str| format!("[ipam]\n{lines}\n[vxlan]");
    let file = section("ranges = [\"10.244.1.100-10.244.1.109\"]\nreserved = [\"10.244.1.105\", \"10.244.1.20\"]");
    assert!(reload(&node, &[("[vxlan]", &file)]).contains("ipam.ranges, ipam.reserved"));
    assert_eq!(shown(&node), ["10.244.1.100-10.244.1.109 file 0 9", V6_WHOLE]);
    assert!(node.podwire(&["ipam", "range", "add", "10.244.1.16-10.244.1.20"]).contains("added"));
    let both = ["10.244.1.100-10.244.1.109 file 0 9", "10.244.1.16-10.244.1.20 cli 0 4", V6_WHOLE];
    assert_eq!(shown(&node), both);

    node.spec = node.spec.clone().line("ipam", "ranges = [\"10.244.1.100-10.244.1.109\"]");
    node.spec = node.spec.clone().line("ipam", "reserved = [\"10.244.1.105\", \"10.244.1.20\"]");
    node.kill();
    node.start();
    assert_eq!(shown(&node), both);

    let wider = [("10.244.1.100-10.244.1.109", "10.244.1.20-10.244.1.30")];
    assert!(reload(&node, &wider).contains("ipam.ranges"));
    assert_eq!(shown(&node), ["10.244.1.20-10.244.1.30 file 0 10", V6_WHOLE]);
    let warnings = Api::of(&node).warnings();
    let expected =
        "10.244.1.16-10.244.1.20 of the CLI is not used: it overlaps the file's 10.244.1.20-10.244.1.30; name";
    assert!(warnings.iter().any(|warning| warning.contains(expected)), "{warnings:?}");
    assert!(reload(&node, &[]).contains("ipam.ranges"));
    assert_eq!(shown(&node), both, "the file makes room again");
    assert!(node.podwire(&["ipam", "range", "del", "10.244.1.16-10.244.1.20"]).contains("removed"));
    node.stop();
    node.start();
    assert_eq!(shown(&node), [both[0], both[2]]);
}

#[test]
fn a_range_that_can_not_be_is_refused_and_one_with_leases_stays() {
    let spec = NodeSpec::planned(NodePlan(1)).line("ipam", "ranges = [\"10.244.1.100-10.244.1.109\"]");
    let mut node = Node::new(spec);
    underlay(&node);
    node.start();
    let stated = range("10.244.1.16-10.244.1.20");
    let api = Api::of(&node);
    api.ask(api.client.change_ranges(&[stated], &[])).unwrap();
    node.stop();
    let netns = ["c1", "c2"].map(Netns::new);
    lease(&state(&node), "c1", "10.244.1.17/24", &netns[0], boot_id());
    lease(&state(&node), "c2", "10.244.1.100/24", &netns[1], boot_id());
    node.start();
    let held = ["10.244.1.100-10.244.1.109 file 1 9", "10.244.1.16-10.244.1.20 cli 1 4", V6_WHOLE];
    assert_eq!(shown(&node), held);

    let api = Api::of(&node);
    let added = range("10.244.1.40");
    for (add, remove, expected) in [
        (
            vec![],
            vec![stated],
            "range 10.244.1.16-10.244.1.20: 1 of its addresses are held, 10.244.1.17 by eth0 of container c1; delete",
        ),
        (
            vec![],
            vec![range("10.244.1.100-10.244.1.109")],
            "10.244.1.109: the CLI stated no such range; see 'podwire ipam show'",
        ),
        (
            vec![added, range("10.244.1.20-10.244.1.30")],
            vec![],
            "range 10.244.1.20-10.244.1.30: it overlaps the cli's 10.244.1.16-10.244.1.20; name",
        ),
        (vec![added, range("10.244.2.1")], vec![], "range 10.244.2.1: it is not inside one of the node's pod CIDRs"),
        (vec![added], vec![range("10.244.1.50")], "range 10.244.1.50: the CLI stated no such range"),
    ] {
        let sentence = refused(api.ask(api.client.change_ranges(&add, &remove)));
        assert!(sentence.contains(expected), "{sentence}");
        assert_eq!(shown(&node), held, "nothing of it was done");
    }
    let again = api.ask(api.client.change_ranges(&[stated], &[])).unwrap();
    assert_eq!((again.added, again.removed), (Vec::new(), Vec::new()));
}

#[test]
fn leases_of_another_boot_are_free_though_their_namespaces_seem_to_be_there() {
    let mut node = node();
    assert!(node.stop());
    let netns = ["before", "now"].map(Netns::new);
    lease(&state(&node), "before", "10.244.1.17/24", &netns[0], "another".into());
    lease(&state(&node), "now", "10.244.1.18/24", &netns[1], boot_id());
    node.start();
    assert_eq!(shown(&node)[0], "10.244.1.0-10.244.1.255 pod-cidr 1 252");
    let api = Api::of(&node);
    let left = api.ask(api.client.attachments()).unwrap();
    assert_eq!(left.iter().map(|one| one.key.container.as_str()).collect::<Vec<_>>(), ["now"]);
}
