//! A store that is damaged, or whose disk fails, while podwired is away: the pods of before go on, from the store's copy.

use std::fs;
use std::path::Path as FilePath;
use std::time::Duration;

use podwire_control::client::ClientError;
use podwire_control::model::{Owner, Readiness, Via};
use podwire_tests::Netns;
use podwire_tests::probe::Path;
use podwire_tests::probe::ping::{Ping, ping};

use crate::api::{Api, eventually, node, on_tmpfs, pod, refused, route};
use crate::attach::{container, request};
use crate::restart::{GAP_MAX, stated, while_connected};

/// How soon a disk that works again is noticed.
const SEEN_WITHIN: Duration = Duration::from_secs(15);

type Damage = fn(&FilePath);

/// Ways to damage a file.
const DAMAGES: [(&str, Damage); 4] = [
    ("cut", |file| fs::write(file, &fs::read(file).unwrap()[..20_000]).unwrap()),
    ("empty", |file| fs::write(file, "").unwrap()),
    ("garbage", |file| fs::write(file, vec![0xa5; 100_000]).unwrap()),
    ("flipped", |file| {
        let mut bytes = fs::read(file).unwrap();
        bytes[4_096..].iter_mut().step_by(512).for_each(|byte| *byte ^= 0xff);
        fs::write(file, bytes).unwrap();
    }),
];

#[test]
fn a_store_that_is_damaged_meanwhile_is_made_anew_and_no_pod_notices() {
    let mut node = node();
    let api = Api::of(&node);
    let ((a, _), (b, _), of_cli) = (container(&api, "a"), container(&api, "b"), pod(&node, 77));
    node.podwire(&["route", "add", "10.9.0.0/16", "via", "blackhole"]);
    node.podwire(&["ipam", "range", "add", "10.244.1.128-10.244.1.191"]);
    let told = |verbs: [&'static str; 2]| move |node: &podwire_tests::Node| node.podwire_json(&verbs);
    let (ranges, list) = (told(["ipam", "show"]), told(["attachment", "list"]));
    let mut others = Vec::new();
    for (name, damage) in DAMAGES {
        let before = (stated(&node), ranges(&node), list(&node));
        let store = node.store().main;
        let mut damaged = Vec::new();
        let gap = while_connected(&a, &b, || {
            assert!(node.stop());
            damage(&store);
            damaged = fs::read(&store).unwrap();
            node.start();
        });
        assert!(gap < GAP_MAX, "{name}: {gap:?}");
        assert_eq!((stated(&node), ranges(&node), list(&node)), before, "{name}");
        let api = Api::of(&node);
        let (other, attached) = container(&api, name);
        for path in [Path::v4(&a, &b), Path::v6(&b, &of_cli), Path::v4(&other, &a)] {
            assert!(ping(path, Ping::default()).all(), "{name}");
        }
        let held: Vec<_> = api.attachments().into_iter().filter(|one| one.key != attached.key).collect();
        assert!(held.iter().all(|one| one.addresses[0] != attached.addresses[0]), "{name}: {attached:?}");

        let aside = store.with_extension("redb.damaged");
        assert!(fs::read(&aside).unwrap() == damaged, "{name}: kept byte for byte");
        let warnings = api.warnings();
        let names = [&store, &aside].map(|path| path.display().to_string());
        assert!(warnings.len() == 1 && names.iter().all(|path| warnings[0].contains(path)), "{name}: {warnings:?}");
        assert_eq!(api.ask(api.client.readiness()).unwrap(), Readiness::default(), "{name}");
        others.push(other);
    }
    assert!(node.stop());
    node.start();
    assert_eq!(Api::of(&node).warnings(), Vec::<String>::new(), "the next start is clean");
    assert!(node.stop());
    let said = node.cleanup().expect("cleanup failed");
    assert!(said.contains("podwired.redb.damaged") && said.contains("podwired.copy.redb"), "{said}");
}

#[test]
fn while_the_disk_fails_the_pods_of_before_go_on_and_nothing_changes_until_it_works() {
    let (mut node, disk) = on_tmpfs("size=6m");
    let api = Api::of(&node);
    let ((a, _), (b, second)) = (container(&api, "a"), container(&api, "b"));
    assert!(node.stop());
    disk.remount("ro");
    node.start();
    let api = Api::of(&node);
    assert!(ping(Path::v4(&a, &b), Ping::default()).all());
    let Readiness { cannot_attach, pods_suffer } = api.ask(api.client.readiness()).unwrap();
    assert!(cannot_attach.as_ref().unwrap().contains("can be written") && pods_suffer.is_none(), "{cannot_attach:?}");
    assert!(api.warnings().iter().any(|warning| warning.contains("what was stored holds")), "{:?}", api.warnings());
    let netns = Netns::new("c");
    let said = api.attach(&request("c", &netns)).unwrap_err();
    assert!(matches!(&said, ClientError::Unavailable(why) if why.contains("podwired.redb")), "{said}");
    assert!(!netns.has_interface("eth0"));
    let said = api.ask(api.client.detach(&second.key)).unwrap_err();
    assert!(matches!(&said, ClientError::Unavailable(why) if why.contains("podwired.redb")), "{said}");
    assert_eq!(api.drifts(&second), Vec::<String>::new());
    let said = refused(api.ask(api.client.change(Owner::Cli, &[route("10.9.0.0/16", Via::Blackhole)], &[])));
    assert!(said.contains("podwired.redb"), "{said}");

    disk.remount("rw");
    eventually(SEEN_WITHIN, "containers can be attached", || {
        api.ask(api.client.readiness()).unwrap() == Readiness::default()
    });
    let (c, _) = container(&api, "d");
    assert!(ping(Path::v4(&a, &c), Ping::default()).all());
    assert!(api.detach("b") && api.warnings().is_empty(), "{:?}", api.warnings());
}
