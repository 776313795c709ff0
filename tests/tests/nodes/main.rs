//! Two podwired nodes with real kernels around them: what pods, nodes and the underlay see of the switch.
//!
//! `matrix` sends every kind of traffic every way at every MTU, `path_mtu` narrows the underlay, `shapes` has other
//! nodes than the plan's: an IPv6 underlay, a stretched bridge, several workers; `xdp` is about the NIC that the AF_XDP
//! uplink shares with others, `xdp_tx` about the underlay that it sends into. A kernel as the far node is `interop`;
//! restarts under load are in the ring `cni`.
#![allow(clippy::disallowed_methods, reason = "the ring waits for, and times, real nodes in real time")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod matrix;
mod path_mtu;
mod shapes;
mod xdp;
mod xdp_tx;

use podwire_tests::node::Node;
use podwire_tests::plan::NodePlan;
use podwire_tests::pod::Pod;
use podwire_tests::probe::Path;
use podwire_tests::probe::ping::{Ping, ping};

/// Host numbers of the pods of a node.
const POD: u8 = 10;
const OTHER_POD: u8 = 11;

/// Two nodes with a pod each.
struct Fixture {
    here: Node,
    there: Node,
    pod: Pod,
    remote: Pod,
}

impl Fixture {
    fn new(here: Node, there: Node) -> Self {
        let pod = here.pod("pod", &NodePlan(1).pod(POD));
        let remote = there.pod("remote", &NodePlan(2).pod(POD));
        Self { here, there, pod, remote }
    }

    /// From the one pod to the other, over both families.
    fn paths(&self) -> [Path<'_>; 2] {
        [Path::v4(&self.pod, &self.remote), Path::v6(&self.pod, &self.remote)]
    }
}

/// Says that one small ping came back; a failure shows what ping printed.
#[track_caller]
fn assert_ping(path: Path<'_>) {
    let result = ping(path, Ping { count: 1, ..Ping::default() });
    assert!(result.all(), "no answer from {}:\n{}", path.target, result.text);
}
