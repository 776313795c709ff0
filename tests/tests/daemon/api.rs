//! The fixture: a node that runs, its gRPC client as plain blocking calls, objects in few words.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use podwire_control::client::{Client, ClientError, Events};
use podwire_control::model::{Bandwidth, Event, Guard, Object, Port, PortKind, PortReport, PortState, Route, Via};
pub(crate) use podwire_tests::wait::eventually;
use podwire_tests::{Netns, Node, NodePlan, NodeSpec, Pod, Tmpfs};
use tokio::runtime::{Builder, Runtime};

/// Deadline of each call.
const DEADLINE: Duration = Duration::from_secs(20);

/// A client of one node's daemon.
pub(crate) struct Api {
    runtime: Runtime,
    pub(crate) client: Client,
}

impl Api {
    pub(crate) fn of(node: &Node) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(Client::connect(&node.socket(), DEADLINE)).unwrap();
        Self { runtime, client }
    }

    /// Makes a call and waits for its answer.
    pub(crate) fn ask<T>(&self, call: impl Future<Output = T>) -> T {
        self.runtime.block_on(call)
    }

    pub(crate) fn ports(&self) -> Vec<PortReport> {
        self.ask(self.client.ports()).unwrap()
    }

    /// The port's reason for being closed, or none while it is up.
    pub(crate) fn closed(&self, name: &str) -> Option<String> {
        let report = self.ports().into_iter().find(|port| port.name == name);
        match report.unwrap_or_else(|| panic!("port {name} is listed")).state {
            PortState::Up => None,
            PortState::Closed { reason } => Some(reason),
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.ask(self.client.status()).unwrap().generation
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        self.ask(self.client.status()).unwrap().warnings
    }

    /// Frames counted under an outcome, such as `drop:blackhole`, since the start.
    pub(crate) fn count(&self, outcome: &str) -> u64 {
        let totals = self.ask(self.client.counters()).unwrap().totals;
        let found = totals.iter().find(|counter| counter.name == outcome);
        found.unwrap_or_else(|| panic!("no counter {outcome}")).count
    }

    /// The next event that `wanted` picks, within five seconds.
    pub(crate) fn event(&self, events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Event {
        let next = async {
            loop {
                let event = events.next().await.unwrap().expect("the daemon runs");
                if wanted(&event) {
                    return event;
                }
            }
        };
        self.ask(async { tokio::time::timeout(Duration::from_secs(5), next).await }).expect("the event comes")
    }
}

/// A node of the plan that runs alone: its underlay is a cable that ends in the wall.
pub(crate) fn node() -> Node {
    let mut node = Node::new(NodeSpec::planned(NodePlan(1)));
    underlay(&node);
    node.start();
    node
}

/// The same with its state directory on a file system of its own, see [`Tmpfs::mount`].
pub(crate) fn on_tmpfs(options: &str) -> (Node, Tmpfs) {
    let mut node = Node::new(NodeSpec::planned(NodePlan(1)));
    underlay(&node);
    let disk = Tmpfs::mount(&node.state_dir(), options);
    node.start();
    (node, disk)
}

/// Gives the node's own namespace its underlay addresses.
pub(crate) fn underlay(node: &Node) {
    node.netns.ip("link add eth0 type veth peer name wall");
    node.netns.ip("link set eth0 up");
    node.netns.ip("link set wall up");
    for &address in &node.spec.underlay {
        node.netns.address("eth0", address);
    }
}

/// A pod of the plan by its host number.
pub(crate) fn pod(node: &Node, host: u8) -> Pod {
    node.pod(&format!("pod-{host}"), &NodePlan(1).pod(host))
}

/// A port `eth0` in a namespace, with the plan's addresses of a host number.
pub(crate) fn port(name: &str, netns: &Netns, host: u8) -> Port {
    at(name, &netns.path(), host)
}

/// The same at any path.
pub(crate) fn at(name: &str, netns: &Path, host: u8) -> Port {
    Port {
        name: name.parse().unwrap(),
        kind: PortKind::Tap,
        netns: netns.to_owned(),
        ifname: "eth0".into(),
        addresses: NodePlan(1).pod(host).to_vec(),
        mac: None,
        mtu: None,
        bridge: None,
        guard: Guard::On { allowed: Vec::new() },
        bandwidth: Bandwidth::default(),
    }
}

pub(crate) fn route(prefix: &str, via: Via) -> Object {
    Object::Route(Route { prefix: prefix.parse::<IpNet>().unwrap(), via })
}

/// The sentences of a refusal.
pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> String {
    answer.expect_err("it is refused").sentences().join("\n")
}
