//! Containers' interfaces over the API: attached whole, told of truly, taken away whole, whatever happens in between.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use podwire_control::client::ClientError;
use podwire_control::model::{
    AddressSource, AttachRequest, Attachment, AttachmentKey, Bandwidth, HostPort, Object, Owner, PodName, PortKind,
    Readiness, Transport, Via,
};
use podwire_control::spool;
use podwire_tests::probe::Path;
use podwire_tests::probe::ping::{Ping, ping};
use podwire_tests::{Netns, Node, Pod, command};

use crate::api::{Api, eventually, node, port, refused, route};
use crate::restart::while_connected;

const NETWORK: &str = "pods";
const SEEN_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

fn key(container: &str) -> AttachmentKey {
    AttachmentKey { container: container.parse().unwrap(), ifname: "eth0".into() }
}

pub(crate) fn request(container: &str, netns: &Netns) -> AttachRequest {
    AttachRequest {
        key: key(container),
        network: NETWORK.parse().unwrap(),
        netns: netns.path(),
        pod: Some(PodName { namespace: "default".into(), name: container.into() }),
        kind: PortKind::Tap,
        addresses: AddressSource::Lease { wanted: Vec::new() },
        mac: None,
        mtu: None,
        host_ports: Vec::new(),
        bandwidth: Bandwidth::default(),
    }
}

impl Api {
    pub(crate) fn attach(&self, request: &AttachRequest) -> Result<Attachment, ClientError> {
        self.ask(self.client.attach(request))
    }

    pub(crate) fn attachments(&self) -> Vec<Attachment> {
        self.ask(self.client.attachments()).unwrap()
    }

    pub(crate) fn detach(&self, container: &str) -> bool {
        self.ask(self.client.detach(&key(container))).unwrap()
    }

    pub(crate) fn drifts(&self, attachment: &Attachment) -> Vec<String> {
        let Attachment { key, netns, addresses, .. } = attachment;
        self.ask(self.client.check_attachment(key, netns, addresses)).unwrap()
    }
}

/// A container with its interface.
pub(crate) fn container(api: &Api, name: &str) -> (Pod, Attachment) {
    let netns = Netns::new(name);
    let attachment = api.attach(&request(name, &netns)).unwrap();
    let (name, addresses) = (attachment.port.to_string(), attachment.addresses.clone());
    (Pod { netns, name, addresses }, attachment)
}

fn spool_of(node: &Node) -> PathBuf {
    node.state_dir().join("spool")
}

#[test]
fn a_container_is_attached_the_same_again_and_taken_away_whole() {
    let node = node();
    let api = Api::of(&node);
    let (a, attached) = container(&api, "a");
    let (b, _) = container(&api, "b");
    assert_eq!(attached.addresses, ["10.244.1.2/24".parse().unwrap(), "fd00:244:1::2/64".parse().unwrap()]);
    assert_eq!(attached.gateways, ["10.244.1.1", "fd00:244:1::1"].map(|text| text.parse::<IpAddr>().unwrap()));
    assert_eq!((attached.port.as_str(), attached.mtu, attached.leased), ("a.eth0", 1430, true));
    assert_eq!(a.netns.mac("eth0"), attached.mac.to_string());
    for path in [Path::v4(&a, &b), Path::v6(&b, &a)] {
        assert!(ping(path, Ping::default()).all());
    }
    let generation = api.generation();
    assert_eq!(api.attach(&request("a", &a.netns)).unwrap(), attached);
    assert_eq!(api.drifts(&attached), Vec::<String>::new());
    assert_eq!(api.attachments().len(), 2);
    assert!(api.detach("a") && !api.detach("a"));
    assert!(!a.netns.has_interface("eth0"));
    assert!(api.generation() > generation);
    assert_eq!(api.attachments().iter().map(|one| one.key.clone()).collect::<Vec<_>>(), [key("b")]);
    let (_c, third) = container(&api, "c");
    assert_eq!(
        third.addresses[0],
        "10.244.1.4/24".parse().unwrap(),
        "what was freed is given again as late as possible"
    );
}

#[test]
fn a_refused_attachment_names_what_is_wrong_and_takes_nothing() {
    let node = node();
    let api = Api::of(&node);
    let netns = Netns::new("a");
    let plain = || request("a", &netns);
    let given = |text: &str| AddressSource::Given(vec![text.parse().unwrap()]);
    let udp = |host_port| HostPort { host_ip: None, host_port, container_port: 53, transport: Transport::Udp };
    let wanted = |text: &str| AddressSource::Lease { wanted: vec![text.parse().unwrap()] };
    let taken = Object::Port(port("taken", &Netns::new("taken"), 9));
    for (request, words) in [
        (
            AttachRequest { netns: "/run/netns/gone".into(), ..plain() },
            ["eth0 of container a", "check that the path exists"],
        ),
        (AttachRequest { netns: "/etc/hostname".into(), ..plain() }, ["/etc/hostname", "node.netns_dirs"]),
        (AttachRequest { addresses: given("10.9.0.7/24"), ..plain() }, ["10.9.0.7 is in none of", "10.244.1.0/24"]),
        (AttachRequest { addresses: given("10.244.1.1/24"), ..plain() }, ["10.244.1.1 is the gateway's", "another"]),
        (AttachRequest { host_ports: vec![udp(4789)], ..plain() }, ["tunnels (vxlan.port)", "use another host port"]),
        (AttachRequest { addresses: wanted("10.244.1.1"), ..plain() }, ["10.244.1.1", "ask for another"]),
        (AttachRequest { mtu: Some(100), ..plain() }, ["mtu 100 is too small", "use 1280"]),
        (AttachRequest { key: AttachmentKey { ifname: "a/b".into(), ..key("a") }, ..plain() }, ["ifname", "a/b"]),
    ] {
        let said = refused(api.attach(&request));
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    drop(taken);
    netns.ip("link add eth0 type veth peer name other");
    let said = refused(api.attach(&plain()));
    assert!(said.contains("eth0 exists and is a veth device"), "{said}");
    assert_eq!(api.attachments(), []);
    netns.ip("link del eth0");
    let attached = api.attach(&plain()).unwrap();
    assert_eq!(attached.addresses[0], "10.244.1.2/24".parse().unwrap(), "no refusal has taken an address");
}

#[test]
fn attachments_survive_restart_and_crash_and_those_whose_namespace_went_are_freed() {
    let mut node = node();
    let api = Api::of(&node);
    let ((a, first), (b, second), (gone, third)) =
        (container(&api, "a"), container(&api, "b"), container(&api, "gone"));
    while_connected(&a, &b, || {
        assert!(node.stop());
        node.start();
    });
    assert_eq!(Api::of(&node).attachments(), [first.clone(), second.clone(), third.clone()]);
    node.kill();
    drop(gone);
    node.start();
    let api = Api::of(&node);
    assert_eq!(api.attachments(), [first.clone(), second]);
    assert_eq!(api.drifts(&first), Vec::<String>::new());
    assert!(ping(Path::v4(&a, &b), Ping::default()).all());
    let wanted = AddressSource::Lease { wanted: vec![third.addresses[0].addr()] };
    let netns = Netns::new("new");
    let again = api.attach(&AttachRequest { addresses: wanted, ..request("new", &netns) }).unwrap();
    assert_eq!(again.addresses[0], third.addresses[0]);
    assert!(api.warnings().is_empty(), "{:?}", api.warnings());
}

#[test]
fn what_was_to_be_taken_away_meanwhile_is() {
    let mut node = node();
    let api = Api::of(&node);
    let ((a, _), (_b, second)) = (container(&api, "a"), container(&api, "b"));
    node.kill();
    spool::add(&spool_of(&node), &key("a")).unwrap();
    spool::add(&spool_of(&node), &key("never-heard-of")).unwrap();
    node.start();
    let api = Api::of(&node);
    assert_eq!(api.attachments(), [second]);
    assert!(!a.netns.has_interface("eth0"));
    spool::add(&spool_of(&node), &key("b")).unwrap();
    eventually(SEEN_WITHIN, "it is taken away", || api.attachments().is_empty());
    eventually(SEEN_WITHIN, "the note is gone", || spool::pending(&spool_of(&node)).unwrap().is_empty());
    spool::add(&spool_of(&node), &key("a")).unwrap();
    let again = api.attach(&request("a", &a.netns)).unwrap();
    std::thread::sleep(SEEN_WITHIN);
    assert_eq!(api.attachments(), [again], "a note from before does not hit who came after it");
}

#[test]
fn addresses_of_containers_that_nobody_took_away_are_found_again() {
    let mut node = node();
    assert!(node.stop());
    node.spec = node.spec.clone().line("ipam", "ranges = [\"10.244.1.7\"]");
    node.start();
    let api = Api::of(&node);
    let (first, _) = container(&api, "a");
    let path = first.netns.name().to_owned();
    command::must(&format!("ip netns del {path}"));
    let (second, attached) = container(&api, "b");
    assert_eq!(attached.addresses[0].addr().to_string(), "10.244.1.7");
    assert_eq!(api.attachments(), [attached]);
    // Another container where one was that nobody took away.
    command::must(&format!("ip netns del {}", second.netns.name()));
    command::must(&format!("ip netns add {}", second.netns.name()));
    let third = api.attach(&request("c", &second.netns)).unwrap();
    assert_eq!(api.attachments(), [third]);
    command::must(&format!("ip netns add {path}"));
}

#[test]
fn a_note_that_can_not_be_carried_out_holds_up_no_other() {
    let node = node();
    let api = Api::of(&node);
    let _a = container(&api, "a");
    let stuck = spool_of(&node).join("stuck@eth0");
    fs::create_dir_all(&stuck).unwrap();
    spool::add(&spool_of(&node), &key("a")).unwrap();
    eventually(SEEN_WITHIN, "the other is taken away", || api.attachments().is_empty());
    let warned = || api.warnings().iter().any(|warning| warning.contains("stuck") && warning.contains("spool"));
    eventually(SEEN_WITHIN, "people are told", warned);
    let netns = Netns::new("stuck");
    let said = api.attach(&request("stuck", &netns)).unwrap_err();
    assert!(matches!(&said, ClientError::Unavailable(why) if why.contains("is to be taken away first")), "{said}");
    fs::remove_dir(&stuck).unwrap();
    api.attach(&request("stuck", &netns)).unwrap();
    eventually(SEEN_WITHIN, "nothing is wrong any more", || api.warnings().is_empty());
}

#[test]
fn where_nft_fails_only_host_ports_are_refused() {
    let mut node = node();
    assert!(node.stop());
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("nft"), "#!/bin/sh\necho out of order >&2\nexit 1\n").unwrap();
    fs::set_permissions(folder.path().join("nft"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    node.spec.environment.push(("PATH".into(), path));
    node.start();
    let api = Api::of(&node);
    let (netns, second) = (Netns::new("a"), Netns::new("b"));
    let attached = api.attach(&request("a", &netns)).unwrap();
    let web = HostPort { host_ip: None, host_port: 8080, container_port: 80, transport: Transport::Tcp };
    let said = refused(api.attach(&AttachRequest { host_ports: vec![web], ..request("b", &second) }));
    assert!(said.contains("eth0 of container b") && said.contains("out of order"), "{said}");
    assert_eq!(api.attachments(), [attached]);
    assert!(!second.has_interface("eth0"));
    assert!(api.detach("a"));
}

#[test]
fn what_leads_to_a_container_goes_with_it() {
    let node = node();
    let api = Api::of(&node);
    let (_a, attached) = container(&api, "a");
    let to = route("10.9.0.0/16", Via::Port(attached.port));
    api.ask(api.client.change(Owner::Cli, &[to], &[])).unwrap();
    assert!(api.detach("a"));
    assert!(api.ask(api.client.routes()).unwrap().iter().all(|route| route.route.prefix.to_string() != "10.9.0.0/16"));
}

#[test]
fn a_check_tells_each_drift() {
    let node = node();
    let api = Api::of(&node);
    let (a, attached) = container(&api, "a");
    let netns = &a.netns;
    netns.ip("link set eth0 mtu 1400");
    netns.ip("addr del 10.244.1.2/24 dev eth0");
    netns.ip("-6 route del default");
    let other = Attachment { addresses: vec!["10.244.1.9/24".parse().unwrap()], ..attached.clone() };
    let said = api.drifts(&other).join("\n");
    for words in [
        "the runtime was told 10.244.1.9/24",
        "the MTU of eth0 is 1400, not 1430",
        "eth0 has lost its address 10.244.1.2/24",
        "the route to 0.0.0.0/0 via 10.244.1.1 through eth0 is gone",
        "the route to ::/0 via fd00:244:1::1 through eth0 is gone",
    ] {
        assert!(said.contains(words), "{words} in\n{said}");
    }
    assert_eq!((api.attach(&request("a", netns)).unwrap(), api.drifts(&attached)), (attached.clone(), Vec::new()));
    netns.ip("link set eth0 down");
    assert!(api.drifts(&attached).contains(&"interface eth0 is down".to_owned()));
    netns.ip("link del eth0");
    eventually(SEEN_WITHIN, "the port closes", || api.closed("a.eth0").is_some());
    let said = api.drifts(&attached).join("\n");
    assert!(said.contains("port a.eth0 is closed: its device is gone"), "{said}");
    let elsewhere = Netns::new("elsewhere");
    let said = api.drifts(&Attachment { netns: elsewhere.path(), ..attached.clone() }).join("\n");
    assert!(said.contains("is not the namespace it was made in"), "{said}");
    let unknown = api.ask(api.client.check_attachment(&key("b"), netns.path().as_path(), &[]));
    assert!(matches!(unknown, Err(ClientError::NotFound(_))), "{unknown:?}");
    let again = api.attach(&request("a", netns)).unwrap();
    assert_eq!((again, api.drifts(&attached)), (attached, Vec::new()), "attached again, all is mended");
}

#[test]
fn collecting_touches_one_network_only() {
    let node = node();
    let api = Api::of(&node);
    let (a, _) = container(&api, "a");
    let (_b, second) = container(&api, "b");
    let netns = Netns::new("other");
    let other = api.attach(&AttachRequest { network: "other".parse().unwrap(), ..request("c", &netns) }).unwrap();
    let removed = api.ask(api.client.collect_attachments(&NETWORK.parse().unwrap(), &[key("b")])).unwrap();
    assert_eq!((removed, api.attachments()), (vec![key("a")], vec![second, other]));
    assert!(!a.netns.has_interface("eth0"));
}

#[test]
fn an_address_is_released_when_its_container_is_gone_or_by_force() {
    let node = node();
    let api = Api::of(&node);
    let ((a, first), (_b, second)) = (container(&api, "a"), container(&api, "b"));
    let address = first.addresses[0].addr();
    let said = refused(api.ask(api.client.release_address(address, false)));
    assert!(said.contains("namespace") && said.contains("is there") && said.contains("--force"), "{said}");
    command::must(&format!("ip netns del {}", a.netns.name()));
    assert_eq!(api.ask(api.client.release_address(address, false)).unwrap(), key("a"));
    command::must(&format!("ip netns add {}", a.netns.name()));
    assert!(matches!(api.ask(api.client.release_address(address, false)), Err(ClientError::NotFound(_))));
    assert_eq!(api.ask(api.client.release_address(second.addresses[1].addr(), true)).unwrap(), key("b"));
    assert_eq!(api.attachments(), []);
}

#[test]
fn readiness_says_what_is_in_the_way() {
    let mut node = node();
    let api = Api::of(&node);
    let readiness = || api.ask(api.client.readiness()).unwrap();
    assert_eq!(readiness(), Readiness::default());
    assert!(node.stop());
    node.spec = node.spec.clone().line("ipam", "ranges = [\"10.244.1.7\"]");
    node.start();
    let api = Api::of(&node);
    let (_a, attached) = container(&api, "a");
    assert_eq!(attached.addresses[0].addr().to_string(), "10.244.1.7");
    let netns = Netns::new("b");
    let full = api.attach(&request("b", &netns)).unwrap_err();
    assert!(matches!(&full, ClientError::Exhausted(refusal) if refusal.reason.contains("10.244.1.7")), "{full}");
    // Said to people; a node that is not ready would have its pods evicted.
    assert!(api.warnings().iter().any(|warning| warning.contains("no IPv4 address is free")), "{:?}", api.warnings());
    assert_eq!(api.ask(api.client.readiness()).unwrap(), Readiness::default());
}

#[test]
fn without_a_store_and_its_copy_nobody_is_attached_and_the_others_go_on() {
    let mut node = node();
    let api = Api::of(&node);
    let ((a, _), (b, _)) = (container(&api, "a"), container(&api, "b"));
    assert!(node.stop());
    let whole = node.damage_store();
    node.start();
    let api = Api::of(&node);
    let netns = Netns::new("c");
    let said = refused(api.attach(&request("c", &netns)));
    assert!(said.contains("damaged") && said.contains("move it away"), "{said}");
    let Readiness { cannot_attach, pods_suffer } = api.ask(api.client.readiness()).unwrap();
    assert!(cannot_attach.unwrap().contains("damaged") && pods_suffer.unwrap().contains("damaged"));
    assert!(node.stop());
    fs::write(node.store().main, &whole).unwrap();
    node.start();
    assert_eq!(Api::of(&node).attachments().len(), 2);
    assert!(ping(Path::v4(&a, &b), Ping::default()).all());
}
