//! Every dependency's licence is on the list of `deny.toml`, and its source is crates.io.
//!
//! `cargo deny` checks more, but has to be compiled first; this reads the same list and takes no time.

use std::process::{Command, Stdio};

use podwire_tests::binary::workspace;
use serde_json::Value;

use crate::none;

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[test]
fn every_dependency_has_an_allowed_licence_and_source() {
    let deny = std::fs::read_to_string(workspace().join("deny.toml")).expect("deny.toml is at the root");
    let allowed = quoted_list(&deny, "\nallow = [");
    let excepted = exceptions(&deny);
    assert!(allowed.len() > 2, "the list of deny.toml was read: {allowed:?}");
    let mut findings = Vec::new();
    for package in metadata() {
        let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
        let (name, licence, source) = (text("name"), text("license"), text("source"));
        let accept =
            |id: &str| allowed.iter().any(|good| good == id) || excepted.contains(&(name.clone(), id.to_owned()));
        if !source.is_empty() && source != CRATES_IO {
            findings.push(format!("{name} comes from {source}"));
        }
        if !source.is_empty() && !satisfied(&licence, &accept) {
            findings.push(format!("{name}: {licence}"));
        }
    }
    none("licences or sources that deny.toml does not allow:", &findings);
}

/// The packages that this platform builds, which are the ones that are surely downloaded.
fn metadata() -> Vec<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let run = |arguments: &[&str]| {
        let output = Command::new(&cargo).args(arguments).current_dir(workspace()).stdin(Stdio::null()).output();
        let output = output.expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("cargo prints UTF-8")
    };
    let version = run(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo names its host");
    let text = run(&["metadata", "--format-version", "1", "--locked", "--filter-platform", host]);
    let all: Value = serde_json::from_str(&text).expect("cargo metadata is JSON");
    all["packages"].as_array().expect("metadata lists packages").clone()
}

/// Texts of the TOML list that starts with these characters.
fn quoted_list(text: &str, start: &str) -> Vec<String> {
    let list = text.split(start).nth(1).and_then(|rest| rest.split(']').next()).unwrap_or_default();
    let lines = list.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines.flat_map(|line| line.split('"').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// `{ crate = "tun", allow = ["WTFPL"] }` as pairs.
fn exceptions(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("{ crate = \""));
    lines
        .filter_map(|line| {
            let name = line.split('"').next()?;
            let licence = line.split("allow = [\"").nth(1)?.split('"').next()?;
            Some((name.to_owned(), licence.to_owned()))
        })
        .collect()
}

/// Evaluates an SPDX expression, the old `A/B` included; `WITH` exceptions are part of the name.
fn satisfied(expression: &str, accept: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ").replace(" WITH ", "~");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    any_of(&words, &mut at, accept) && at == words.len()
}

fn any_of(words: &[&str], at: &mut usize, accept: &dyn Fn(&str) -> bool) -> bool {
    let mut good = all_of(words, at, accept);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        good |= all_of(words, at, accept);
    }
    good
}

fn all_of(words: &[&str], at: &mut usize, accept: &dyn Fn(&str) -> bool) -> bool {
    let mut good = one(words, at, accept);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        good &= one(words, at, accept);
    }
    good
}

fn one(words: &[&str], at: &mut usize, accept: &dyn Fn(&str) -> bool) -> bool {
    let word = words.get(*at).copied().unwrap_or_default();
    *at += 1;
    if word != "(" {
        return accept(&word.replace('~', " WITH "));
    }
    let good = any_of(words, at, accept);
    *at += 1;
    good
}

#[test]
fn licence_expressions_are_evaluated() {
    let accept = |id: &str| ["MIT", "Unicode-3.0"].contains(&id);
    for (expression, good) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("(GPL-2.0 OR Apache-2.0) AND Unicode-3.0", false),
        ("Apache-2.0 WITH LLVM-exception OR MIT", true),
    ] {
        assert_eq!(satisfied(expression, &accept), good, "{expression}");
    }
}
