//! The plugin as a runtime runs it: environment and standard input in, one JSON object and an exit code out.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Whether the plugin exited with 0, and what it wrote.
fn run(command: Option<&str>, request: &str) -> (bool, Value) {
    let mut plugin = Command::new(env!("CARGO_BIN_EXE_podwire-cni"));
    plugin.env_remove("CNI_COMMAND").envs(command.map(|command| ("CNI_COMMAND", command)));
    let mut plugin = plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    plugin.stdin.take().unwrap().write_all(request.as_bytes()).unwrap();
    let output = plugin.wait_with_output().unwrap();
    (output.status.success(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn a_version_request_succeeds_and_others_fail_with_an_error_object() {
    let (ok, answer) = run(Some("VERSION"), "{\"cniVersion\": \"0.4.0\"}");
    assert!(ok && answer["cniVersion"] == "0.4.0", "{answer}");
    assert!(answer["supportedVersions"].as_array().unwrap().contains(&"1.1.0".into()), "{answer}");
    for (command, request, code) in
        [(Some("ADD"), "{\"cniVersion\": \"1.1.0\"}", 100), (None, "{}", 4), (Some("VERSION"), "no JSON", 6)]
    {
        let (ok, answer) = run(command, request);
        assert!(!ok && answer["code"] == code, "{command:?}: {answer}");
        let mut keys: Vec<&String> = answer.as_object().unwrap().keys().collect();
        keys.sort();
        assert_eq!(keys, ["cniVersion", "code", "details", "msg"]);
    }
}
