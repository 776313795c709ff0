//! Two nodes with a hundred pods each: whoever is pinged answers, either podwired restarts under bulk streams of which
//! none is reset, and nothing is left when the pods are gone.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use podwire_tests::node::Left;
use podwire_tests::probe::Path;
use podwire_tests::probe::ping::{Ping, ping};
use podwire_tests::probe::stream::{SILENCE_MAX, stream};
use podwire_tests::probe::tcp::counter;
use podwire_tests::probe::udp::TellAtEnd;
use podwire_tests::wait::eventually;
use podwire_tests::{Node, Pod, Wire};

use crate::plugin::{Call, container};

/// Pods of each node.
const PODS: usize = 100;
/// Connections: half inside a node, half across, each from a pod of its own to another.
const STREAMS: usize = 50;
/// Ways that are pinged of all ordered pairs of pods over both families: before, and after each restart.
const PINGED: usize = 400;
const PINGED_AGAIN: usize = 60;
/// Pings under way at a time.
const AT_ONCE: usize = 4;
/// How long what is under way may take to arrive when a switch is gone, and how long nothing has to come then.
const DRAINED: Duration = Duration::from_millis(300);
/// Bytes that a stream has to move to be going on.
const PROGRESS: u64 = 64 << 10;

/// Decides who is pinged; `PODWIRE_SEED` repeats a run.
fn seed() -> u64 {
    let given = std::env::var("PODWIRE_SEED").map(|text| text.parse().expect("PODWIRE_SEED is a number"));
    given.unwrap_or_else(|_| RandomState::new().hash_one("seed"))
}

/// All ordered pairs of pods, over both families, in an order that the seed decides.
fn shuffled<'a>(pods: &[Vec<&'a Pod>; 2], seed: u64) -> impl Iterator<Item = Path<'a>> {
    let pods = pods.concat();
    let numbers = 0..pods.len();
    let pairs = numbers.clone().flat_map(|from| numbers.clone().map(move |to| (from, to)));
    let mut ways: Vec<_> = pairs.filter(|(from, to)| from != to).flat_map(|way| [(way, false), (way, true)]).collect();
    ways.sort_by_cached_key(|way| {
        let mut hasher = DefaultHasher::new();
        (seed, way).hash(&mut hasher);
        hasher.finish()
    });
    ways.into_iter().map(move |((from, to), v6)| path(pods[from], pods[to], v6))
}

fn path<'a>(from: &'a Pod, to: &'a Pod, v6: bool) -> Path<'a> {
    if v6 { Path::v6(from, to) } else { Path::v4(from, to) }
}

/// Says that each answers.
fn assert_pinged(paths: &[Path<'_>]) {
    thread::scope(|scope| {
        for part in paths.chunks(paths.len().div_ceil(AT_ONCE)) {
            scope.spawn(move || {
                for &path in part {
                    let result = ping(path, Ping { count: 1, ..Ping::default() });
                    assert!(result.all(), "{} got no answer from {}:\n{}", path.source, path.target, result.text);
                }
            });
        }
    });
}

/// A connection that sends all the time.
struct Stream<'a> {
    path: Path<'a>,
    /// Whether it goes through either node's switch.
    through: [bool; 2],
    arrived: AtomicU64,
}

impl<'a> Stream<'a> {
    fn new(pods: &[Vec<&'a Pod>; 2], number: usize) -> Self {
        let (near, far) = (number / 2 % 2, (number / 2 + number) % 2);
        let path = path(pods[near][number], pods[far][PODS - 1 - number], number / 4 % 2 == 1);
        Self { path, through: [0, 1].map(|node| [near, far].contains(&node)), arrived: AtomicU64::new(0) }
    }

    fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }
}

/// Says that each moves on from here.
#[track_caller]
fn assert_progress<'a>(streams: impl Iterator<Item = &'a Stream<'a>>) {
    let enough: Vec<_> = streams.map(|stream| (stream, stream.arrived() + PROGRESS)).collect();
    for (stream, enough) in enough {
        let what = format!("the stream from {} to {} goes on", stream.path.source, stream.path.target);
        eventually(SILENCE_MAX, &what, || stream.arrived() >= enough);
    }
}

/// Says that without a node's switch its streams stand still, and the others go on.
#[track_caller]
fn assert_felt(streams: &[Stream<'_>], node: usize) {
    let arrived = || streams.iter().filter(|one| one.through[node]).map(Stream::arrived).collect::<Vec<_>>();
    thread::sleep(DRAINED);
    let before = arrived();
    thread::sleep(DRAINED);
    assert_eq!(arrived(), before, "streams move without the switch of node {node}");
    assert_progress(streams.iter().filter(|one| !one.through[node]));
}

/// Ends and starts each podwired while all streams send, once asked and once killed.
fn restart_under(streams: &[Stream<'_>], nodes: &mut [Node; 2], mut after_each: impl FnMut()) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for (seed, one) in (0..).zip(streams) {
            let (done, Path { source, target, .. }) = (&done, one.path);
            let run = move || stream(one.path, seed, &one.arrived, done);
            scope.spawn(move || run().unwrap_or_else(|error| panic!("the stream from {source} to {target}: {error}")));
        }
        let _tell = TellAtEnd(&done);
        assert_progress(streams.iter());
        for (number, node) in nodes.iter_mut().enumerate() {
            for asked in [true, false] {
                if asked {
                    assert!(node.stop());
                } else {
                    node.kill();
                }
                assert_felt(streams, number);
                node.start();
                assert_progress(streams.iter());
                after_each();
            }
        }
    });
}

/// Does the same for both nodes at once.
fn on_each<N: Send, T: Send>(nodes: [N; 2], work: impl Fn(N) -> T + Sync) -> [T; 2] {
    let work = &work;
    thread::scope(|scope| nodes.map(|node| scope.spawn(move || work(node))).map(|thread| thread.join().unwrap()))
}

#[test]
fn two_nodes_with_a_hundred_pods_each_restart_under_bulk_streams_and_none_is_reset() {
    let (here, there) = Node::pair(Wire::default());
    let mut nodes = [here, there];
    let before = nodes.each_ref().map(Left::of);
    let containers: [Vec<(Pod, Call, _)>; 2] =
        on_each(nodes.each_ref(), |node| (0..PODS).map(|number| container(node, &format!("pod-{number}"))).collect());
    let pods = containers.each_ref().map(|all| all.iter().map(|(pod, ..)| pod).collect::<Vec<_>>());
    let seed = seed();
    println!("repeat with PODWIRE_SEED={seed}");
    let mut ways = shuffled(&pods, seed);
    let mut ping_next = |count| assert_pinged(&ways.by_ref().take(count).collect::<Vec<_>>());
    ping_next(PINGED);
    let streams: Vec<_> = (0..STREAMS).map(|number| Stream::new(&pods, number)).collect();
    restart_under(&streams, &mut nodes, || ping_next(PINGED_AGAIN));
    println!("{STREAMS} streams carried {} MB", streams.iter().map(Stream::arrived).sum::<u64>() / 1_000_000);
    for pod in pods.iter().flatten() {
        let resets = ["EstabResets", "OutRsts"].map(|name| counter(&pod.netns, name));
        assert_eq!(resets, [0, 0], "{} reset connections", pod.name);
    }
    on_each(containers.each_ref(), |all| {
        for (pod, call, _) in all {
            call.run("DEL").done();
            assert!(!pod.netns.has_interface("eth0"));
        }
    });
    assert_eq!(nodes.each_ref().map(Left::of), before);
}
