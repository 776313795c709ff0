//! Packets by AF_XDP between the pods of every kind of side.

use super::{Bench, bin_dir, figure, said, side, written};

const SCENARIOS: &str = r#"
[[scenario]]
name = "node"
topology = "node"
measure = { kind = "packets", size = 64, by = "af-xdp" }
sides = ["kernel-bridge", "cable", "tap-loop", "podwire", "podwire pods=veth-xdp"]
seconds = 0.2
warm_up = 0.05
rounds = 2

[[scenario]]
name = "nodes"
topology = "nodes"
measure = { kind = "packets", size = "imix", by = "af-xdp" }
sides = ["kernel-vxlan", "cable", "podwire", "podwire pods=veth-xdp"]
seconds = 0.2
warm_up = 0.05
rounds = 1

[[scenario]]
name = "packet"
topology = "node"
measure = { kind = "packets", size = 512, by = "af-xdp-to-af-packet" }
sides = ["kernel-bridge", "podwire"]
seconds = 0.1
warm_up = 0
rounds = 1

[[scenario]]
name = "search"
topology = "node"
measure = { kind = "packets", size = 64, by = "af-xdp", search = true }
sides = ["podwire pods=veth-xdp"]
seconds = 0.05
warm_up = 0
rounds = 1
"#;

const SENT: &str = "sent by AF_XDP in copy mode, queues: 1; counted by ";
const XDP: &str = "AF_XDP in copy mode (generic, queues: 1)";

#[test]
fn every_side_is_measured_by_the_same_frames_and_what_is_lost_is_told_apart() {
    let bench = Bench::new(SCENARIOS);
    let child = bench.start(&bin_dir(), &[]);
    let pid = child.id();
    let output = child.wait_with_output().expect("podwire-perf ends");
    assert!(output.status.success(), "{}", said(&output));
    bench.assert_nothing_is_left(pid);

    let report = written(&bench);
    let value = |scenario, side, metric| figure(&report, scenario, side, metric)["median"].as_f64().expect("a number");
    for (scenario, sides, sink) in [
        ("node", &["kernel-bridge", "cable", "tap-loop", "podwire", "podwire pods=veth-xdp"][..], XDP),
        ("nodes", &["kernel-vxlan", "cable", "podwire", "podwire pods=veth-xdp"], XDP),
        ("packet", &["kernel-bridge", "podwire"], "AF_PACKET"),
        ("search", &["podwire pods=veth-xdp"], XDP),
    ] {
        for name in sides {
            let kpps = value(scenario, name, "flood_kpps");
            assert!((0.1..10_000.0).contains(&kpps), "{scenario} {name}: {kpps}");
            let lost = ["refused_percent", "switch_loss_percent", "sink_loss_percent"];
            let lost = lost.map(|metric| value(scenario, name, metric));
            assert!(lost.iter().all(|part| *part >= 0.0), "{scenario} {name}: {lost:?}");
            // Each is a median of its own, so they need not be of the same round.
            assert!(lost.iter().sum::<f64>() < 100.0, "{scenario} {name}: {lost:?}");
            let made_by = side(&report, scenario, name)["made_by"].as_str().expect("it is said");
            assert!(made_by.starts_with(&format!("{SENT}{sink}")), "{scenario} {name}: {made_by}");
        }
    }
    let found = side(&report, "search", "podwire pods=veth-xdp");
    assert!(found["loss_curve"].as_array().is_some_and(|curve| curve.len() > 3), "{found:#}");
    assert!(value("search", "podwire pods=veth-xdp", "pdr_kpps") > 0.0, "{found:#}");
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("% refused") && table.contains(&format!("  packets: {SENT}{XDP}")), "{table}");
}
