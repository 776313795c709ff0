//! `podwire-perf run`, `compare` and `wire` as a user has them: figures come out, and nothing stays behind, however it ends.
//!
//! The figures themselves are those of a debug build on a busy machine; only that they are figures is looked at. Needs
//! root.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use podwire_tests::binary::binary;
use podwire_tests::netns::{Netns, Wire, require_root};
use serde_json::Value;
use tempfile::TempDir;

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

/// A folder for one run: scenarios, results, and all temporary files of podwire-perf.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new(scenarios: &str) -> Self {
        require_root();
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("tmp")).expect("a folder in a folder");
        fs::write(folder.path().join("scenarios.toml"), scenarios).expect("a file in a folder");
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Starts `podwire-perf run` with the scenarios.
    fn start(&self, bin_dir: &Path, more: &[&str]) -> Child {
        let mut command = Command::new(binary("podwire-perf"));
        command.args([
            "run",
            &self.path("scenarios.toml"),
            "--json",
            &self.path("a.json"),
            "--html",
            &self.path("a.html"),
        ]);
        command.args(more).arg("--bin-dir").arg(bin_dir).env("TMPDIR", self.path("tmp"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("podwire-perf starts")
    }

    /// Says that neither namespaces nor files nor processes of a run are left.
    #[track_caller]
    fn assert_nothing_is_left(&self, pid: u32) {
        assert_eq!(namespaces(pid), Vec::<String>::new());
        let files: Vec<_> = fs::read_dir(self.path("tmp")).expect("the folder is there").flatten().collect();
        assert!(files.is_empty(), "{files:?}");
        assert_eq!(self.processes(), Vec::<String>::new());
    }

    /// Command lines with a path below the run's folder in them: those of its daemons.
    fn processes(&self) -> Vec<String> {
        let tmp = self.path("tmp");
        let all = fs::read_dir("/proc").expect("procfs is mounted").flatten();
        let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
        lines.filter(|line| line.contains(&tmp)).collect()
    }
}

/// Namespaces that a podwire-perf made.
fn namespaces(pid: u32) -> Vec<String> {
    let own = format!("pwf{pid}-");
    let all = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let own = all.filter(|entry| entry.file_name().as_bytes().starts_with(own.as_bytes()));
    own.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn bin_dir() -> std::path::PathBuf {
    binary("podwired").parent().expect("a program lies in a folder").to_owned()
}

fn figure<'a>(report: &'a Value, scenario: &str, side: &str, metric: &str) -> &'a Value {
    let named = |list: &'a Value, key: &str, name: &str| {
        let list = list.as_array().into_iter().flatten();
        let mut found = list.filter(|one| one.pointer(key).is_some_and(|value| value == name));
        found.next().unwrap_or_else(|| panic!("no {name} in {report:#}"))
    };
    let scenario = named(&report["scenarios"], "/scenario/name", scenario);
    named(&named(&scenario["sides"], "/side", side)["figures"], "/metric", metric)
}

#[test]
fn a_run_measures_every_side_and_leaves_nothing_behind() {
    let bench = Bench::new(SCENARIOS);
    let child = bench.start(&bin_dir(), &["--budget"]);
    let pid = child.id();
    let output = child.wait_with_output().expect("podwire-perf ends");
    assert!(output.status.success(), "{}", said(&output));
    bench.assert_nothing_is_left(pid);

    let report: Value =
        serde_json::from_str(&fs::read_to_string(bench.path("a.json")).expect("JSON was written")).expect("it is JSON");
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
    let report: Value =
        serde_json::from_str(&fs::read_to_string(bench.path("a.json")).expect("JSON was written")).expect("it is JSON");
    assert!(report["scenarios"][0]["failed"].as_str().is_some_and(|why| why.contains("cannot build podwire")));
    assert!(figure(&report, "good", "cable", "gbps")["median"].as_f64().is_some_and(|gbps| gbps > 0.0));
}

/// Two namespaces on one cable, `nic0` to `nic1`.
fn cable() -> (Netns, Netns) {
    let (near, far) = (Netns::new("wire-tx"), Netns::new("wire-rx"));
    Netns::veth((&near, "nic0"), (&far, "nic1"), Wire::default());
    (near, far)
}

/// What `podwire-perf wire` reports as JSON.
fn wired(output: &Output) -> Value {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

/// Both interfaces from where we are.
fn wire(near: &Netns, far: &Netns, options: &[&str]) -> Output {
    let mut command = Command::new(binary("podwire-perf"));
    command.args(["wire", "-o", "json", "--tx-if", "nic0", "--rx-if", "nic1"]).args(options);
    command.arg("--tx-netns").arg(near.path()).arg("--rx-netns").arg(far.path());
    command.stdin(Stdio::null()).output().expect("podwire-perf starts")
}

#[test]
fn every_frame_over_a_cable_is_counted_once_and_timed() {
    let (near, far) = cable();
    for (options, kind) in [
        (&["--size", "64"][..], "AF_PACKET"),
        (&["--size", "imix", "--flows", "20", "--sinks", "2"], "AF_PACKET"),
        (&["--size", "1518", "--sink", "packet"], "AF_PACKET"),
        (&["--size", "64", "--flows", "5", "--sink", "xdp"], "AF_XDP in copy mode (native, queues: 1)"),
        (&["--size", "imix", "--sink", "xdp"], "AF_XDP in copy mode (native, queues: 1)"),
    ] {
        let report = wired(&wire(&near, &far, &[&["--rate", "3000", "--seconds", "0.5"], options].concat()));
        let trial = &report["trials"][0];
        assert_eq!(report["receiving"]["kind"], kind);
        assert_eq!(report["sending"]["mode"], "copy", "a veth has no zero-copy");
        assert!(report["sending"]["fallback"].as_str().is_some_and(|why| why.contains("zero-copy")), "{report}");
        assert!(trial["sent"].as_u64().is_some_and(|sent| sent > 100 && sent <= 1_500), "{trial}");
        assert_eq!(trial["received"], trial["sent"], "{trial}");
        for none in ["lost", "duplicates", "reordered", "sink_drops"] {
            assert_eq!(trial[none], 0, "{none}: {trial}");
        }
        assert!(trial["latency"]["p50_us"].as_f64().is_some_and(|us| us > 0.0 && us < 1e6), "{trial}");
    }
    let link = far.ip("-d link show dev nic1");
    assert!(!link.contains("xdp") && !link.contains("PROMISC"), "the interface is as it was: {link}");
}

#[test]
fn the_highest_rates_over_a_cable_are_found() {
    let (near, far) = cable();
    let report = wired(&wire(&near, &far, &["--search", "--rate", "4000", "--seconds", "0.1"]));
    let rate = |name: &str| report["search"][name].as_f64().expect("a rate");
    assert!(rate("pdr_pps") > 0.0 && rate("pdr_pps") <= 4_000.0 && rate("ndr_pps") <= rate("pdr_pps"), "{report:#}");
    assert!(report["search"]["loss_curve"].as_array().is_some_and(|curve| curve.len() > 3), "{report:#}");
}

#[test]
fn a_sender_and_a_sink_that_know_nothing_of_each_other_agree() {
    let (near, far) = cable();
    let mac = far.mac("nic1");
    let start = |netns: &Netns, options: &[&str]| {
        let mut command = netns.command(&binary("podwire-perf"));
        command.args(["wire", "-o", "json", "--dst-mac", &mac]).args(options);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("podwire-perf starts")
    };
    let sink = start(&far, &["--rx-if", "nic1", "--seconds", "4"]);
    std::thread::sleep(Duration::from_millis(1_500));
    let sender = start(&near, &["--tx-if", "nic0", "--rate", "2000", "--seconds", "0.5", "--size", "512"]);
    let sent = wired(&sender.wait_with_output().expect("podwire-perf ends"));
    let seen = wired(&sink.wait_with_output().expect("podwire-perf ends"));
    let (sent, seen) = (&sent["trials"][0], &seen["trials"][0]);
    assert!(sent["sent"].as_u64().is_some_and(|sent| sent > 100), "{sent}");
    assert_eq!((&seen["received"], &seen["lost"]), (&sent["sent"], &Value::from(0)), "{seen}");
    assert_eq!((&seen["sent"], &seen["latency"]), (&Value::Null, &Value::Null), "two machines have two clocks");
}

#[test]
fn what_can_not_be_sent_over_a_cable_is_refused_with_a_remedy() {
    let (near, far) = cable();
    for (options, says) in [
        (&["--size", "1519"][..], "--size has to be from 64 to 1518 on nic0, or imix"),
        (&["--queues", "2", "--flows", "1"], "raise --flows"),
        (&["--queues", "60", "--flows", "60"], "`ethtool -L` may give it more"),
        (&["--mode", "zero-copy"], "cannot bind an AF_XDP socket to queue 0 of nic0 in zero-copy mode"),
    ] {
        let output = wire(&near, &far, options);
        assert!(!output.status.success() && said(&output).contains(says), "{options:?}: {}", said(&output));
    }
    near.ip("link set nic0 down");
    assert!(said(&wire(&near, &far, &[])).contains("nic0 is down: `ip link set nic0 up`"));
}
