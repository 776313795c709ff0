//! Either of two nodes restarts under many connections, and not one of them is reset.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use podwire_tests::probe::Path;
use podwire_tests::probe::udp::TellAtEnd;
use podwire_tests::{Node, NodePlan, Pod, Wire};

use crate::assert_ping;

/// Pods of each node, and connections across.
const PODS: u8 = 100;
const STREAMS: usize = 50;
/// Longest that a connection may stand still: what a restart takes, and what TCP waits between two tries.
const SILENCE_MAX: Duration = Duration::from_secs(10);

fn pods(node: &Node, plan: NodePlan) -> Vec<Pod> {
    (0..PODS).map(|number| node.pod(&format!("pod-{number}"), &plan.pod(number + 10))).collect()
}

/// Counts up over one connection until told to end; every number is answered.
fn count(from: &Pod, to: &Pod, done: &AtomicBool) -> u32 {
    let listener = to.netns.enter(|| TcpListener::bind(SocketAddr::new(to.v4(), 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let mut near = from.netns.enter(|| TcpStream::connect(address).unwrap());
    let (mut far, _) = listener.accept().unwrap();
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(SILENCE_MAX)).unwrap();
    }
    let mut numbers = 0_u32;
    while !done.load(Ordering::Relaxed) {
        let mut heard = [0; 4];
        near.write_all(&numbers.to_be_bytes()).expect("not reset");
        far.read_exact(&mut heard).expect("not reset, and soon");
        assert_eq!(u32::from_be_bytes(heard), numbers);
        far.write_all(&heard).expect("not reset");
        near.read_exact(&mut heard).expect("not reset, and soon");
        numbers += 1;
        thread::sleep(Duration::from_millis(10));
    }
    numbers
}

#[test]
fn either_node_restarts_under_many_connections_and_none_is_reset() {
    let (mut here, mut there) = Node::pair(Wire::default());
    let (near, far) = (pods(&here, NodePlan(1)), pods(&there, NodePlan(2)));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let pairs = near.iter().zip(&far).cycle().take(STREAMS);
        let streams: Vec<_> = pairs.map(|(from, to)| scope.spawn(|| count(from, to, &done))).collect();
        {
            let _tell = TellAtEnd(&done);
            thread::sleep(Duration::from_millis(500));
            for node in [&mut here, &mut there] {
                assert!(node.stop());
                node.start();
                thread::sleep(Duration::from_secs(1));
                node.kill();
                node.start();
                thread::sleep(Duration::from_secs(1));
            }
        }
        for stream in streams {
            assert!(stream.join().expect("no connection failed") > 0);
        }
    });
    // Each pod with one of the other node and with one of its own.
    for number in 0..usize::from(PODS) {
        let next = (number + 7) % usize::from(PODS);
        for path in [Path::v4(&near[number], &far[next]), Path::v6(&far[number], &near[next])] {
            assert_ping(path);
        }
        assert_ping(Path::v4(&near[number], &near[next]));
    }
}
