//! Under a service manager: what it is told, and what it keeps while podwired is away.

use std::time::Duration;

use podwire_tests::binary::binary;
use podwire_tests::held::Held;
use podwire_tests::probe::Path;
use podwire_tests::probe::gap::{Gap, gap};
use podwire_tests::probe::ping::{Ping, ping};
use podwire_tests::{Netns, Node, NodePlan, NodeSpec, Supervisor, command};

use crate::api::{Api, eventually, pod, underlay};

/// How soon what happens is told.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// A node whose daemon a service manager starts.
fn node(watchdog: Option<Duration>) -> Node {
    let mut node = Node::new(NodeSpec::planned(NodePlan(1)));
    node.supervisor = Some(Supervisor::new(watchdog));
    underlay(&node);
    node.start();
    node
}

fn supervisor(node: &Node) -> &Supervisor {
    node.supervisor.as_ref().unwrap()
}

fn kept(node: &Node) -> Vec<String> {
    supervisor(node).kept()
}

#[test]
fn the_manager_is_told_of_start_reload_and_stop_and_how_it_goes() {
    let mut node = node(None);
    let told = |node: &Node, start| supervisor(node).wait_for(start, TOLD_WITHIN);
    assert!(told(&node, "STATUS=").ends_with(&["READY=1".into(), "STATUS=0 ports, 0 closed, 0 remote VTEPs".into()]));
    let _pod = pod(&node, 10);
    assert!(told(&node, "STATUS=").ends_with(&["STATUS=1 ports, 0 closed, 0 remote VTEPs".into()]));
    node.reload();
    let said = told(&node, "READY=1");
    let usec = said[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse::<u64>().unwrap();
    assert!(said[0] == "RELOADING=1" && usec > 0, "{said:?}");
    assert!(node.stop());
    assert_eq!(told(&node, "STOPPING=1"), ["STOPPING=1"]);
}

#[test]
fn the_manager_is_told_in_one_line_why_podwired_does_not_start() {
    let (netns, manager) = (Netns::new("refused"), Supervisor::new(None));
    let config = tempfile::NamedTempFile::new().unwrap();
    let mut podwired = manager.command(&netns, &binary("podwired"));
    assert!(!podwired.arg("--config").arg(config.path()).output().unwrap().status.success());
    let said = manager.wait_for("STATUS=", TOLD_WITHIN);
    let [line] = said.as_slice() else { panic!("{said:?}") };
    assert!(line.contains("node.name: it is missing") && line.contains("node.pod_cidrs: it is missing"), "{line}");
}

#[test]
fn the_watchdog_is_fed_while_the_workers_turn_and_not_while_one_is_stuck() {
    let node = node(Some(Duration::from_millis(600)));
    let (a, b) = (pod(&node, 10), pod(&node, 11));
    let fed = |within: Duration| {
        let _before = supervisor(&node).said();
        std::thread::sleep(within);
        supervisor(&node).said().iter().filter(|line| *line == "WATCHDOG=1").count()
    };
    assert!(fed(Duration::from_secs(2)) >= 4, "an idle one is alive");
    let mut busy = 0;
    gap(Path::v4(&a, &b), || busy = fed(Duration::from_secs(2))).unwrap();
    assert!(busy >= 4, "a busy one is alive: {busy}");

    let held = Held::new(&node);
    let _one_under_way = fed(Duration::from_millis(700));
    assert_eq!(fed(Duration::from_secs(2)), 0);
    supervisor(&node).wait_for("STATUS=worker 0 does not answer", Duration::from_secs(10));
    drop(held);
    supervisor(&node).wait_for("WATCHDOG=1", TOLD_WITHIN);
}

#[test]
fn packets_wait_while_podwired_is_away() {
    let mut node = node(None);
    let (a, b) = (pod(&node, 10), pod(&node, 11));
    assert_eq!(kept(&node), ["host", "pod-10", "pod-11"]);
    assert!(ping(Path::v4(&a, &b), Ping::default()).all());
    for crash in [false, true] {
        let Gap { sent, lost, longest } = gap(Path::v4(&a, &b), || {
            if crash {
                node.kill();
            } else {
                assert!(node.stop());
            }
            node.start();
        })
        .unwrap();
        eprintln!("crash {crash}: {lost} of {sent} lost, {longest:?} without one");
        // What podwired had read and not yet written when it was killed.
        assert!(lost <= usize::from(crash) * 64, "crash {crash}: {lost} of {sent}");
        assert_eq!(kept(&node), ["host", "pod-10", "pod-11"], "each once");
        assert!(ping(Path::v6(&b, &a), Ping::default()).all());
    }
}

#[test]
fn what_no_port_wants_any_more_is_let_go_of_and_namespaces_end() {
    let mut node = node(None);
    let (stays, _deleted, vanishes) = (pod(&node, 10), pod(&node, 11), pod(&node, 12));
    let away = pod(&node, 13);
    node.podwire(&["port", "del", "pod-11"]);
    command::must(&format!("ip netns del {}", vanishes.netns.name()));
    eventually(Duration::from_secs(3), "only what is there is kept", || kept(&node) == ["host", "pod-10", "pod-13"]);
    node.stop();
    command::must(&format!("ip netns del {}", away.netns.name()));
    // Somebody else's, under a name of ours and under a strange one.
    let stranger = || std::fs::File::open("/dev/null").unwrap().into();
    supervisor(&node).keep("stranger", stranger());
    node.start();
    assert_eq!(kept(&node), ["host", "pod-10"]);
    node.stop();
    supervisor(&node).keep("pod-10", stranger());
    node.start();
    assert!(ping(Path::from_node(&node.netns, &NodePlan(1).gateways(), &stays, false), Ping::default()).all());
    for gone in [&vanishes, &away] {
        command::must(&format!("ip netns add {}", gone.netns.name()));
    }
    assert!(Api::of(&node).closed("pod-13").is_some());
}
