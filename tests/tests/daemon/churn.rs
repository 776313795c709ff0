//! A thousand ports come and go, and nothing of them stays.

use std::fs;
use std::time::{Duration, Instant};

use podwire_control::model::{Key, Object, Owner, Port};
use podwire_tests::{Netns, Node, Wire};

use crate::api::{Api, eventually, node, port};

/// Namespaces, each with one port at a time.
const NAMESPACES: u8 = 25;
/// Rounds in which all of them get a port and lose it again, each way in one request.
const BATCHES: usize = 36;
/// Ports added and deleted one by one.
const SINGLES: usize = 100;

/// What the daemon's process holds.
#[derive(PartialEq, Eq, Debug)]
struct Holdings {
    descriptors: Vec<String>,
    threads: usize,
}

fn holdings(node: &Node) -> Holdings {
    let process = format!("/proc/{}", node.pid().unwrap());
    let links = fs::read_dir(format!("{process}/fd")).unwrap();
    let kind = |link: std::path::PathBuf| link.display().to_string().split(':').next().unwrap().to_owned();
    let mut descriptors: Vec<String> =
        links.filter_map(|link| Some(kind(fs::read_link(link.ok()?.path()).ok()?))).collect();
    descriptors.sort();
    // Threads of the runtime that wait for blocking work end by themselves after ten idle seconds.
    let tasks = fs::read_dir(format!("{process}/task")).unwrap();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
    let threads = tasks.filter_map(|task| name(task.ok()?)).filter(|name| !name.starts_with("tokio"));
    Holdings { descriptors, threads: threads.count() }
}

/// What it holds once threads that were joined are gone from the kernel's list too: main and one worker stay.
fn settled(node: &Node) -> Holdings {
    eventually(Duration::from_secs(5), "threads that ended are gone", || holdings(node).threads == 2);
    holdings(node)
}

fn rss_kib(node: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid().unwrap())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn add(api: &Api, ports: &[Port]) {
    let objects: Vec<Object> = ports.iter().cloned().map(Object::Port).collect();
    api.ask(api.client.change(Owner::Cni, &objects, &[])).unwrap();
}

fn delete(api: &Api, ports: &[Port]) {
    let keys: Vec<Key> = ports.iter().map(|port| Key::Port(port.name.clone())).collect();
    api.ask(api.client.change(Owner::Cni, &[], &keys)).unwrap();
}

#[test]
fn a_thousand_ports_come_and_go_and_leave_nothing_behind() {
    let node = node();
    let api = Api::of(&node);
    let witness = Netns::new("witness");
    let namespaces: Vec<Netns> = (0..NAMESPACES).map(|_| Netns::new("churn")).collect();
    for (number, netns) in namespaces.iter().enumerate() {
        // A cable's end goes with its namespace, and takes the other end with it: that is seen from here.
        Netns::veth((netns, "cable"), (&witness, &format!("cable{number}")), Wire::default());
    }
    let named = |round: usize| -> Vec<Port> {
        let hosts = namespaces.iter().zip(10..);
        hosts.map(|(netns, host)| port(&format!("p{round}-{host}"), netns, host)).collect()
    };
    // Once before the count, since caches and pools fill with the first.
    add(&api, &named(0));
    delete(&api, &named(0));
    let (before, rss_before) = (settled(&node), rss_kib(&node));

    let start = Instant::now();
    let mut adding = Duration::ZERO;
    for round in 1..=BATCHES {
        let start = Instant::now();
        add(&api, &named(round));
        adding += start.elapsed();
        delete(&api, &named(round));
    }
    let batches = start.elapsed();
    for single in 0..SINGLES {
        let ports = named(BATCHES + 1 + single);
        let one = &ports[single % ports.len()..][..1];
        add(&api, one);
        delete(&api, one);
    }
    eprintln!(
        "{} ports in batches: {batches:?} (adding {adding:?}), {SINGLES} one by one: {:?}",
        BATCHES * usize::from(NAMESPACES),
        start.elapsed() - batches
    );

    assert!(namespaces.iter().all(|netns| !netns.has_interface("eth0")), "every interface is gone");
    assert_eq!(settled(&node), before, "no descriptor and no thread stays");
    let grown = rss_kib(&node).saturating_sub(rss_before);
    assert!(grown < 4_096, "a thousand ports left {grown} KiB");
    let left: Vec<String> = api.ports().into_iter().map(|port| port.name).collect();
    assert_eq!(left, ["host", "uplink"]);
    drop(namespaces);
    eventually(Duration::from_secs(5), "every namespace dies", || {
        (0..NAMESPACES).all(|number| !witness.has_interface(&format!("cable{number}")))
    });
    assert!(
        node.podwire_json(&["mac", "list"]).as_array().is_some_and(|macs| macs.len() <= 1),
        "only the gateway's MAC"
    );
}
