//! Whole runs: every side, a signal amid it, and a side that can not be built.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use podwire_tests::binary::binary;
use serde_json::Value;
use tempfile::TempDir;

use super::{Bench, bin_dir, figure, namespaces, said, written};

const SCENARIOS: &str = r#"
[[scenario]]
name = "stream"
topology = "node"
measure = { kind = "stream", streams = 2 }
sides = ["kernel-bridge", "cable", "podwire", "tap-loop"]
seconds = 0.3
warm_up = 0.1
rounds = 1
targets = [{ at_least = 0.0001 }, { of = "cable", at_least = 1000.0 }]

[[scenario]]
name = "request"
topology = "nodes"
wire = "plain"
measure = { kind = "request" }
sides = ["kernel-vxlan", "podwire"]
seconds = 0.3
warm_up = 0.1
rounds = 1

[[scenario]]
name = "packets"
topology = "node"
measure = { kind = "packets", size = "imix", search = true }
sides = ["podwire idle_pods=2"]
seconds = 0.05
warm_up = 0
rounds = 1

[[scenario]]
name = "connections"
topology = "node"
measure = { kind = "connections" }
sides = ["podwire"]
seconds = 0.2
rounds = 1

[[scenario]]
name = "first-ping"
topology = "node"
measure = { kind = "first_ping", silence = 0.1 }
sides = ["podwire"]
rounds = 1
"#;

#[test]
fn a_run_measures_every_side_and_leaves_nothing_behind() {
    let bench = Bench::new(SCENARIOS);
    let child = bench.start(&bin_dir(), &["--budget"]);
    let pid = child.id();
    let output = child.wait_with_output().expect("podwire-perf ends");
    assert!(output.status.success(), "{}", said(&output));
    bench.assert_nothing_is_left(pid);

    let report = written(&bench);
    for (scenario, side, metric) in [
        ("stream", "kernel-bridge", "gbps"),
        ("stream", "cable", "gbps"),
        ("stream", "podwire", "gbps"),
        ("stream", "tap-loop", "gbps"),
        ("stream", "podwire", "system_cpu_s_per_gb"),
        ("request", "kernel-vxlan", "p50_us"),
        ("request", "podwire", "p99_us"),
        ("packets", "podwire idle_pods=2", "flood_kpps"),
        ("connections", "podwire", "per_second"),
        ("first-ping", "podwire", "first_ms"),
    ] {
        let figure = figure(&report, scenario, side, metric);
        assert_eq!(figure["rounds"].as_array().map(Vec::len), Some(1), "{figure}");
        assert!(figure["median"].as_f64().is_some_and(|value| value > 0.0), "{scenario} {side}: {figure}");
    }
    assert_eq!(figure(&report, "stream", "kernel-bridge", "gbps")["ratio"], 1.0);
    let verdicts: Vec<_> = (0..2).map(|at| report["scenarios"][0]["verdicts"][at]["met"].clone()).collect();
    assert_eq!(verdicts, [true, false]);
    assert_plain_wire_has_no_offloads(&report);
    assert!(report["budget"]["vxlan_ns"].as_f64().is_some_and(|ns| ns > 0.0), "{}", report["budget"]);
    let page = fs::read_to_string(bench.path("a.html")).expect("HTML was written");
    assert!(page.contains("<svg") && page.contains("cost a stage"));

    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("podwire / cable, Gb/s") && table.contains("(missed)"), "{table}");
    assert!(said(&output).contains("stream round 1/1 kernel-bridge: "), "{}", said(&output));

    let compared = Command::new(binary("podwire-perf"))
        .args(["compare", &bench.path("a.json"), &bench.path("a.json"), "--gate", "0"])
        .output()
        .expect("podwire-perf starts");
    assert!(compared.status.success(), "a run is as good as itself: {}", said(&compared));
}

fn assert_plain_wire_has_no_offloads(report: &Value) {
    let podwire = &report["scenarios"][1]["sides"][1];
    assert_eq!(podwire["side"], "podwire");
    let uplinks = podwire["offloads"].as_array().into_iter().flatten().filter(|one| one["interface"] == "uplink");
    let off: Vec<_> = uplinks.map(|one| one["offloads"]["tcp-segmentation-offload"].clone()).collect();
    assert_eq!(off, [false, false]);
}

#[test]
fn a_run_that_is_ended_by_a_signal_leaves_nothing_behind() {
    let long = SCENARIOS.replace("seconds = 0.3", "seconds = 60");
    let bench = Bench::new(&long);
    let child = bench.start(&bin_dir(), &[]);
    let pid = child.id();
    // Amid the first measurement: everything of the scenario is built.
    let began = (0..1_000).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        !bench.processes().is_empty()
    });
    assert!(began, "podwired was not started");
    std::thread::sleep(Duration::from_millis(700));
    assert!(namespaces(pid).len() >= 6, "{:?}", namespaces(pid));
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM).expect("it runs");
    let output = child.wait_with_output().expect("podwire-perf ends");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("stopped by a signal"), "{}", said(&output));
    bench.assert_nothing_is_left(pid);
    assert!(!Path::new(&bench.path("a.json")).exists(), "half a run is no report");
}

#[test]
fn a_side_that_can_not_be_built_fails_its_scenario_and_no_other() {
    let two = r#"
[[scenario]]
name = "broken"
topology = "node"
measure = { kind = "stream", streams = 1 }
sides = ["cable", "podwire"]

[[scenario]]
name = "good"
topology = "node"
measure = { kind = "stream", streams = 1 }
sides = ["cable"]
seconds = 0.1
rounds = 1
"#;
    let bench = Bench::new(two);
    let nowhere = TempDir::new().expect("a temporary folder");
    let child = bench.start(nowhere.path(), &[]);
    let pid = child.id();
    let output = child.wait_with_output().expect("podwire-perf ends");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("podwired is missing: run `make build`"), "{}", said(&output));
    bench.assert_nothing_is_left(pid);
    let report = written(&bench);
    assert!(report["scenarios"][0]["failed"].as_str().is_some_and(|why| why.contains("cannot build podwire")));
    assert!(figure(&report, "good", "cable", "gbps")["median"].as_f64().is_some_and(|gbps| gbps > 0.0));
}
