//! The xdp uplink shares its NIC: other traffic goes on whatever happens to the switch, and a killed one starts again.
#![allow(clippy::disallowed_methods, reason = "a test that waits for, and times, real kernels in real time")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use podwire_tests::netns::Wire;
use podwire_tests::node::{Node, NodeSpec, UplinkKind};
use podwire_tests::plan::{NodePlan, UNDERLAY};
use podwire_tests::probe::Path;
use podwire_tests::probe::tcp::transfer;

use super::{POD, assert_ping};

/// Times a switch is killed under load in each mode: twenty in all.
const KILLS: usize = 10;
/// Longest time one answer of the session may take: a lost segment or two, but no more.
const STALL_MAX: Duration = Duration::from_millis(1_500);
const TRANSFER_BYTES: u64 = 4_000_000;

fn pair(mode: &'static str) -> (Node, Node) {
    let spec = |number| NodeSpec::planned(NodePlan(number)).receiving_by(UplinkKind::Xdp(mode));
    Node::pair_of([spec(1), spec(2)], Wire::default())
}

/// Whether the node's underlay interface runs an XDP program.
fn runs_a_program(node: &Node) -> bool {
    node.netns.ip(&format!("link show {UNDERLAY}")).contains("xdp")
}

/// A session as ssh has one: a line at a time there and back between two nodes' own addresses.
struct Session {
    client: TcpStream,
    server: TcpStream,
}

impl Session {
    fn open(from: &Node, to: &Node) -> Self {
        let address = SocketAddr::new(to.spec.underlay[0].addr(), 22);
        let listener = to.netns.enter(|| TcpListener::bind(address).unwrap());
        let client = from.netns.enter(|| TcpStream::connect(address).unwrap());
        let (server, _) = listener.accept().unwrap();
        for end in [&client, &server] {
            end.set_nodelay(true).unwrap();
            end.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        }
        Self { client, server }
    }

    /// Runs until told to stop, counting answers; gives the longest wait for one.
    fn run(mut self, stop: &AtomicBool, answers: &AtomicU64) -> Duration {
        let (mut longest, mut line) = (Duration::ZERO, *b"line\n");
        while !stop.load(Ordering::Relaxed) {
            let asked = Instant::now();
            self.client.write_all(&line).unwrap();
            self.server.read_exact(&mut line).unwrap();
            self.server.write_all(&line).unwrap();
            self.client.read_exact(&mut line).unwrap();
            longest = longest.max(asked.elapsed());
            answers.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(2));
        }
        longest
    }
}

/// Starts, runs, kills and restarts the switches of both nodes beside a session over their NICs.
fn check_session(mode: &'static str) {
    let (mut here, mut there) = pair(mode);
    assert!(runs_a_program(&here) && runs_a_program(&there));
    for node in [&mut here, &mut there] {
        assert!(node.stop());
        assert!(!runs_a_program(node), "the program goes with the process");
    }
    let session = Session::open(&there, &here);
    let (stop, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    let longest = thread::scope(|scope| {
        let running = scope.spawn(|| session.run(&stop, &answers));
        let still_heard = |when: &str| {
            let before = answers.load(Ordering::Relaxed);
            thread::sleep(Duration::from_millis(300));
            let heard = answers.load(Ordering::Relaxed) > before;
            stop.store(!heard, Ordering::Relaxed);
            assert!(heard, "the session fell silent {when}");
        };
        still_heard("before anything");
        for round in 0..2 {
            for node in [&mut here, &mut there] {
                node.start();
                still_heard("while a switch runs");
            }
            for node in [&mut here, &mut there] {
                node.kill();
                assert!(!runs_a_program(node), "the program goes with a killed process too, round {round}");
                still_heard("after a switch was killed");
            }
        }
        stop.store(true, Ordering::Relaxed);
        running.join().unwrap()
    });
    assert!(longest < STALL_MAX, "an answer took {longest:?}");
}

#[test]
fn a_session_over_the_same_nic_goes_on_while_switches_come_and_go_in_native_mode() {
    check_session("native");
}

#[test]
fn a_session_over_the_same_nic_goes_on_while_switches_come_and_go_in_generic_mode() {
    check_session("generic");
}

#[test]
fn a_switch_killed_under_load_starts_again_at_once_and_connections_go_on() {
    for mode in ["native", "generic"] {
        let (mut here, there) = pair(mode);
        let pod = here.pod("pod", &NodePlan(1).pod(POD));
        let remote = there.pod("remote", &NodePlan(2).pod(POD));
        let paths = [Path::v4(&remote, &pod), Path::v6(&remote, &pod)];
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for path in paths {
                let stop = &stop;
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        // Over a kill it lasts longer; that it ends is what the last transfer shows.
                        let _ = transfer(path, TRANSFER_BYTES);
                    }
                });
            }
            for _ in 0..KILLS {
                thread::sleep(Duration::from_millis(200));
                here.kill();
                here.start();
                // In the mode named, or it would not have started; and without the leftovers of the one before.
                assert_eq!(here.podwire_json(&["status"])["uplink"]["xdp"]["mode"], mode);
            }
            stop.store(true, Ordering::Relaxed);
        });
        for path in paths {
            assert_ping(path);
            let done = transfer(path, TRANSFER_BYTES);
            assert!(done.is_ok(), "{mode} mode, TCP to {}: {done:?}", path.target);
        }
        assert!(here.total("xdp_rx_frames") > 0);
        here.assert_every_frame_is_counted();
    }
}

#[test]
fn cleanup_waits_for_nobody_and_leaves_no_trace() {
    let (mut here, there) = pair("native");
    let pod = here.pod("pod", &NodePlan(1).pod(POD));
    let refused = here.cleanup();
    assert!(!refused.ok(), "a running switch is not pulled away under its pods");
    assert!(refused.stderr.contains("another podwired uses the store"), "{refused:?}");
    here.kill();
    assert!(here.netns.ip("link show podwire0").contains("podwire0"), "a killed one leaves its interfaces");
    let text = here.cleanup().expect("cleanup failed");
    for what in ["interface eth0 of pod pod", "interface podwire0", "podwired.sock", "podwired.redb"] {
        let told = text.lines().any(|line| line.starts_with("removed ") && line.ends_with(what));
        assert!(told, "{what} is missing in:\n{text}");
    }
    for (netns, interface) in [(&here.netns, "podwire0"), (&pod.netns, "eth0")] {
        let links = netns.ip("link show");
        assert!(!links.contains(interface), "{links}");
    }
    assert!(!runs_a_program(&here));
    let again = here.cleanup().expect("cleanup failed");
    assert!(again.contains("nothing of podwired is left"), "{again}");
    drop(there);
}

#[test]
fn without_a_mode_named_the_best_one_is_taken_and_status_says_why() {
    let (here, there) = pair("auto");
    let status = here.podwire_json(&["status"]);
    let xdp = &status["uplink"]["xdp"];
    assert_eq!((&xdp["mode"], &xdp["queues"]), (&"native".into(), &1.into()), "{status}");
    assert!(xdp["passed_over"][0].as_str().unwrap().starts_with("zerocopy: "), "{status}");
    let text = here.podwire(&["status"]);
    assert!(text.contains("uplink_mode") && text.contains("native, receive queues 1, sends through udp"), "{text}");
    drop(there);
}

#[test]
fn nodes_that_busy_poll_carry_everything_and_status_says_whether_they_do() {
    for (mode, poll, said) in
        [("native", "busy", "on"), ("native", "adaptive", "on"), ("generic", "adaptive", "on, but for 1 of 1 queues: ")]
    {
        let spec = |number| {
            let mut spec = NodeSpec::planned(NodePlan(number)).receiving_by(UplinkKind::Xdp(mode));
            spec.poll = poll.into();
            spec.line("uplink", "busy_poll = true")
        };
        let (here, there) = Node::pair_of([spec(1), spec(2)], Wire::default());
        let pod = here.pod("pod", &NodePlan(1).pod(POD));
        let remote = there.pod("remote", &NodePlan(2).pod(POD));
        for path in [Path::v4(&pod, &remote), Path::v6(&remote, &pod)] {
            assert_ping(path);
            let done = transfer(path, TRANSFER_BYTES);
            assert!(done.is_ok(), "{mode} mode, {poll}, TCP to {}: {done:?}", path.target);
        }
        for node in [&here, &there] {
            let status = node.podwire_json(&["status"]);
            let busy_poll = status["uplink"]["xdp"]["busy_poll"].as_str().unwrap();
            assert!(busy_poll.starts_with(said), "{mode}, {poll}: {busy_poll}");
            node.assert_every_frame_is_counted();
        }
    }
}
