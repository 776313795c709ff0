//! `podwire-perf run` and `compare` as a user has them: figures come out, and nothing stays behind, however it ends.
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
use podwire_tests::netns::require_root;
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
    fn start(&self, bin_dir: &Path) -> Child {
        let mut command = Command::new(binary("podwire-perf"));
        command.args([
            "run",
            &self.path("scenarios.toml"),
            "--json",
            &self.path("a.json"),
            "--html",
            &self.path("a.html"),
        ]);
        command.arg("--bin-dir").arg(bin_dir).env("TMPDIR", self.path("tmp"));
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
    let child = bench.start(&bin_dir());
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
    assert!(fs::read_to_string(bench.path("a.html")).expect("HTML was written").contains("<svg"));

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
    let child = bench.start(&bin_dir());
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
    let child = bench.start(nowhere.path());
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
