//! From costs a packet to cores at a rate.

use serde::{Deserialize, Serialize};

use super::cost::{Cost, Stage, SuperFrame, cost, float};

/// Between nodes, in bits a second of the NIC's line: the framing of Ethernet counts.
pub(super) const WIRE_BITS: f64 = 40e9;
/// Inside a node, in bits a second of the pods' IP packets: there is no line.
pub(super) const NODE_BITS: f64 = 200e9;
/// Bytes a packet takes of an Ethernet line beside itself: header 14, FCS 4, preamble 8, gap 12 (IEEE 802.3).
pub(super) const LINE_BYTES: f64 = 38.0;
/// Bytes the tunnel takes of the underlay's MTU.
const TUNNEL_BYTES: f64 = podwire_vswitch::wire::vxlan::OVERHEAD_V4 as f64;

/// A rate and a way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    /// Pod to the wire.
    NodesSend,
    /// Wire to a pod.
    NodesReceive,
    /// Pod to pod.
    Node,
}

impl Way {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::NodesSend => "40 Gb/s between nodes, the sender",
            Self::NodesReceive => "40 Gb/s between nodes, the receiver",
            Self::Node => "200 Gb/s inside one node",
        }
    }
}

/// Cores of the user part for one rate, one way, at one MTU.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Need {
    pub(crate) way: Way,
    pub(crate) mtu: u16,
    /// Packets of the full MTU.
    pub(crate) packets_per_second: f64,
    /// When pods send super-frames, and what is received can be joined.
    pub(crate) cores_super_frames: f64,
    /// When every packet comes and goes by itself.
    pub(crate) cores_single: f64,
}

/// What each rate needs, of costs that are complete; what is missing counts as nothing.
pub(super) fn needs(costs: &[Cost], super_frames: &[SuperFrame]) -> Vec<Need> {
    let ways = [Way::NodesSend, Way::NodesReceive, Way::Node];
    let of_mtu = |frame: &SuperFrame| ways.map(|way| need(way, costs, frame));
    super_frames.iter().flat_map(of_mtu).collect()
}

fn need(way: Way, costs: &[Cost], frame: &SuperFrame) -> Need {
    let mtu = f64::from(frame.mtu);
    let ns = |stage| cost(costs, stage, frame.mtu).map_or(0.0, |cost| cost.ns_packet);
    let lookup = match way {
        Way::NodesSend => Stage::Tunnel,
        Way::NodesReceive => Stage::Detunnel,
        Way::Node => Stage::L2,
    };
    let frame_ns = ns(Stage::Parse) + ns(lookup) + ns(Stage::Send);
    let (cut_ns, single_ns) = match way {
        Way::NodesSend => (
            ns(Stage::Segment) + ns(Stage::Checksum) + ns(Stage::Encap),
            // One packet is not cut, but its checksum is completed.
            ns(Stage::Checksum) + ns(Stage::Encap),
        ),
        Way::NodesReceive => (ns(Stage::Coalesce), ns(Stage::Coalesce)),
        Way::Node => (0.0, 0.0),
    };
    let packets_per_second = match way {
        Way::Node => NODE_BITS / 8.0 / (mtu - TUNNEL_BYTES),
        _ => WIRE_BITS / 8.0 / (mtu + LINE_BYTES),
    };
    let cores = |ns: f64| packets_per_second * ns / 1e9;
    Need {
        way,
        mtu: frame.mtu,
        packets_per_second,
        cores_super_frames: cores(cut_ns + frame_ns / float(frame.packets.max(1) as u64)),
        cores_single: cores(single_ns + frame_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_packets_a_second_by_their_cost() {
        let costs: Vec<Cost> = Stage::ALL.iter().map(|&stage| Cost::new(stage, 1_500, 10.0, 1_000)).collect();
        let needs = needs(&costs, &[SuperFrame { mtu: 1_500, bytes: 60_000, packets: 10 }]);
        let [send, receive, node] = needs.as_slice() else { panic!("{needs:?}") };
        // 40 Gb/s are 3.25 million packets of 1500 bytes a second.
        assert!((send.packets_per_second - 3_250_975.0).abs() < 1.0, "{send:?}");
        // A packet: segment, checksum, encap, and a tenth of parse, lookup and send.
        assert!((send.cores_super_frames - 3_250_975.0 * 33e-9).abs() < 1e-5, "{send:?}");
        assert!((send.cores_single - 3_250_975.0 * 50e-9).abs() < 1e-5, "{send:?}");
        assert!((receive.cores_super_frames - 3_250_975.0 * 13e-9).abs() < 1e-5, "{receive:?}");
        // Inside a node a super-frame passes whole.
        assert!((node.packets_per_second - 17_241_379.0).abs() < 1.0, "{node:?}");
        assert!((node.cores_super_frames - 17_241_379.0 * 3e-9).abs() < 1e-5, "{node:?}");
    }
}
