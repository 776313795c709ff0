//! What was injected survives the process, however it ends, and connections go on.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use podwire_control::model::{Object, Owner};
use podwire_tests::probe::Path;
use podwire_tests::probe::gap::gap;
use podwire_tests::probe::ping::{Ping, ping};
use podwire_tests::{Node, NodePlan, Pod};
use serde_json::Value;

use crate::api::{Api, node, pod, port};

/// Longest time without a byte that a restart may cost an established connection: the daemon's start, and what TCP
/// waits between two tries.
pub(crate) const GAP_MAX: Duration = Duration::from_secs(3);

/// All that is stated, without counters, slots and ages.
pub(crate) fn stated(node: &Node) -> Vec<Value> {
    let drop_moving = |mut value: Value| {
        for row in value.as_array_mut().into_iter().flatten() {
            for key in ["counters", "id", "age_s"] {
                row.as_object_mut().map(|row| row.remove(key));
            }
        }
        value
    };
    let lists = [["port", "list"], ["route", "list"], ["vtep", "list"], ["bridge", "list"]];
    let mut all: Vec<Value> = lists.iter().map(|list| drop_moving(node.podwire_json(list))).collect();
    let macs = node.podwire_json(&["mac", "list"]);
    let pinned = macs.as_array().unwrap().iter().filter(|mac| !mac["pinned_by"].is_null()).cloned().collect();
    all.push(drop_moving(Value::Array(pinned)));
    for list in &mut all {
        list.as_array_mut().unwrap().sort_by_key(ToString::to_string);
    }
    all
}

/// One connection that carries a count without end, and the longest time it stood still.
pub(crate) fn while_connected(from: &Pod, to: &Pod, body: impl FnOnce()) -> Duration {
    let listener = to.netns.enter(|| TcpListener::bind(SocketAddr::new(to.v4(), 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let mut sender = from.netns.enter(|| TcpStream::connect(address).unwrap());
    let (mut receiver, _) = listener.accept().unwrap();
    for stream in [&sender, &receiver] {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0_u32.. {
                sender.write_all(&number.to_le_bytes()).expect("the connection goes on");
                if done.load(Ordering::Relaxed) {
                    return sender.shutdown(Shutdown::Write).unwrap();
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        let reader = scope.spawn(|| {
            let (mut longest, mut last, mut expected) = (Duration::ZERO, Instant::now(), 0_u32);
            loop {
                let mut number = [0; 4];
                match receiver.read_exact(&mut number) {
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => return longest,
                    read => read.expect("the connection goes on"),
                }
                assert_eq!(u32::from_le_bytes(number), expected);
                expected += 1;
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
        });
        thread::sleep(Duration::from_millis(100));
        body();
        thread::sleep(Duration::from_millis(300));
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    })
}

#[test]
fn what_the_cli_stated_survives_restart_and_crash_and_connections_go_on() {
    let mut node = node();
    let pods = [pod(&node, 10), pod(&node, 11)];
    let [a, b] = &pods;
    node.podwire(&["vtep", "add", "node2", "--remote", "172.31.0.2", "--mac", "02:00:00:00:00:02"]);
    node.podwire(&["route", "add", "10.244.2.0/24", "via", "node2"]);
    node.podwire(&["route", "add", "10.9.0.0/16", "via", "blackhole"]);
    node.podwire(&["bridge", "add", "blue"]);
    node.podwire(&["mac", "add", "02:00:00:00:aa:01", "--port", "pod-10"]);
    let before = stated(&node);
    let mac = a.netns.mac("eth0");
    for crash in [false, true] {
        let mut took = Duration::ZERO;
        let gap = while_connected(a, b, || {
            if crash {
                node.kill();
            } else {
                assert!(node.stop(), "it ends by itself with 0");
                assert!(!node.socket().exists(), "its socket is gone");
            }
            let start = Instant::now();
            node.start();
            took = start.elapsed();
        });
        eprintln!("crash {crash}: ready after {took:?}, the connection stood still for {gap:?}");
        assert!(gap < GAP_MAX, "{gap:?}");
        assert_eq!(stated(&node), before, "crash {crash}");
        assert_eq!(a.netns.mac("eth0"), mac);
        for path in [Path::v4(a, b), Path::v6(b, a)] {
            assert!(ping(path, Ping::default()).all());
        }
        assert!(Api::of(&node).warnings().is_empty());
    }
}

#[test]
fn what_was_deleted_stays_deleted_and_a_pod_that_went_meanwhile_is_said_to_be_closed() {
    let mut node = node();
    let (stays, goes, deleted) = (pod(&node, 10), pod(&node, 11), pod(&node, 12));
    node.podwire(&["port", "del", "pod-12"]);
    node.kill();
    podwire_tests::command::must(&format!("ip netns del {}", goes.netns.name()));
    node.start();
    podwire_tests::command::must(&format!("ip netns add {}", goes.netns.name()));
    let api = Api::of(&node);
    let names: Vec<String> = api.ports().into_iter().map(|port| port.name).collect();
    assert!(!names.contains(&deleted.name), "{names:?}");
    assert_eq!(api.closed(&stays.name), None);
    assert!(api.closed(&goes.name).unwrap().contains("check that the path exists"));
    let started = fs_log(&node);
    assert!(started.contains("pod-11"), "the log says so: {started}");
}

fn fs_log(node: &Node) -> String {
    std::fs::read_to_string(node.log_path()).unwrap()
}

/// Ports of a node that is full: twice and more what a kubelet allows by default.
const PORTS: u8 = 250;

/// Longest time without a datagram over SIGTERM and an immediate start, and over a crash and a start.
const GAPS_MAX: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

#[test]
fn pods_hear_nothing_from_one_another_for_a_moment_only() {
    let mut node = node();
    let (a, b) = (pod(&node, 10), pod(&node, 11));
    gaps_are_within(&mut node, &a, &b);
}

#[test]
fn two_hundred_and_fifty_pods_hear_nothing_for_a_moment_only() {
    let mut node = node();
    let pods: Vec<Pod> =
        (2..).take(PORTS.into()).map(|host| Pod::unattached(&format!("pod-{host}"), &NodePlan(1).pod(host))).collect();
    let objects: Vec<Object> =
        pods.iter().zip(2..).map(|(pod, host)| Object::Port(port(&pod.name, &pod.netns, host))).collect();
    {
        let api = Api::of(&node);
        api.ask(api.client.change(Owner::Cli, &objects, &[])).unwrap();
    }
    let (first, last) = (&pods[0], &pods[pods.len() - 1]);
    gaps_are_within(&mut node, first, last);
}

#[test]
fn what_was_changed_in_a_pod_meanwhile_is_put_right_at_the_start() {
    let mut node = node();
    let a = pod(&node, 10);
    let shown = || {
        let all = a.netns.ip("-o addr show dev eth0 scope global") + &a.netns.ip("-o link show dev eth0");
        // Unknown it is until the carrier has come back for the first time.
        all.replace("state UNKNOWN", "state UP")
    };
    let before = shown();
    node.kill();
    a.netns.ip(&format!("addr del {} dev eth0", a.addresses[0]));
    a.netns.ip("link set eth0 mtu 1300 address 02:00:00:00:00:99");
    node.start();
    assert_eq!(shown(), before);
    let gateways = NodePlan(1).gateways();
    assert!(ping(Path::from_node(&node.netns, &gateways, &a, false), Ping::default()).all());
}

/// Over restarts and crashes.
fn gaps_are_within(node: &mut Node, a: &Pod, b: &Pod) {
    assert!(ping(Path::v4(a, b), Ping::default()).all());
    for (crash, longest) in [false, true].into_iter().zip(GAPS_MAX) {
        let mut gaps: Vec<Duration> = (0..3)
            .map(|_| {
                let probe = gap(Path::v4(a, b), || {
                    if crash {
                        node.kill();
                    } else {
                        assert!(node.stop());
                    }
                    node.start();
                });
                probe.unwrap().longest
            })
            .collect();
        gaps.sort();
        eprintln!("crash {crash}: {gaps:?}");
        // What others take of the machine is in the longer ones.
        assert!(gaps[0] <= longest, "crash {crash}: {gaps:?}");
    }
}

#[test]
fn connections_survive_an_upgrade() {
    let mut node = node();
    let (a, b) = (pod(&node, 10), pod(&node, 11));
    let before = stated(&node);
    let folder = tempfile::tempdir().unwrap();
    let upgrade = folder.path().join("podwired");
    std::fs::copy(&node.program, &upgrade).unwrap();
    let silent = while_connected(&a, &b, || {
        assert!(node.stop());
        node.program = upgrade;
        node.start();
    });
    assert!(silent < GAP_MAX, "{silent:?}");
    let running = std::fs::read_link(format!("/proc/{}/exe", node.pid().unwrap())).unwrap();
    assert_eq!(running, node.program);
    assert_eq!(stated(&node), before);
}
