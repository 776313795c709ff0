//! `podwire-perf run`, `compare` and `wire` as a user has them: figures come out, and nothing stays behind, however it ends.
//!
//! The figures themselves are those of a debug build on a busy machine; only that they are figures is looked at. Needs
//! root.

mod packets;
mod run;
mod wire;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use podwire_tests::binary::binary;
use podwire_tests::netns::require_root;
use serde_json::Value;
use tempfile::TempDir;

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

/// What a run wrote as JSON.
fn written(bench: &Bench) -> Value {
    let text = fs::read_to_string(bench.path("a.json")).expect("JSON was written");
    serde_json::from_str(&text).expect("it is JSON")
}

/// One side of one scenario.
fn side<'a>(report: &'a Value, scenario: &str, side: &str) -> &'a Value {
    named(&named(&report["scenarios"], "/scenario/name", scenario)["sides"], "/side", side)
}

fn figure<'a>(report: &'a Value, scenario: &str, of: &str, metric: &str) -> &'a Value {
    named(&side(report, scenario, of)["figures"], "/metric", metric)
}

/// The one of a list that has this name there.
fn named<'a>(list: &'a Value, key: &str, name: &str) -> &'a Value {
    let mut all = list.as_array().into_iter().flatten();
    let found = all.find(|one| one.pointer(key).is_some_and(|value| value == name));
    found.unwrap_or_else(|| panic!("no {name} in {list:#}"))
}
