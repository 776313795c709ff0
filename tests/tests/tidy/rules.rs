//! Where `unsafe` may be, how long files may get, and what they may not be called.

use std::fs;

use podwire_tests::binary::workspace;

use crate::none;
use crate::source::{CRATES, Source, files, rust};

/// Lines at which a file is a stop.
const LINES_MAX: usize = 800;
const FORBIDDEN_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "manager", "misc"];
/// The engine's system calls, and the allocator that counts in the perf harness.
const UNSAFE_HOMES: &[&str] = &["vswitch/src/sys", "perf/src/allocator.rs"];

#[test]
fn unsafe_is_only_in_sys() {
    let keyword = |source: &Source| {
        let code = source.code().replace("unsafe_code", "").replace("unsafe_op_in_unsafe_fn", "");
        let mut words = code.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        let own = format!("un{}", "safe");
        words.any(|word| word == own)
    };
    let outside = |source: &Source| {
        !UNSAFE_HOMES.iter().any(|home| source.path.starts_with(home)) && !source.path.starts_with("tests/tests/tidy/")
    };
    let findings: Vec<_> = rust(CRATES)
        .iter()
        .filter(|source| outside(source) && keyword(source))
        .map(|source| source.path.clone())
        .collect();
    none("unsafe outside vswitch/src/sys:", &findings);
}

#[test]
fn every_crate_forbids_unsafe_or_denies_it_where_one_folder_is_excepted() {
    const FORBIDS: &str = "#![forbid(unsafe_code)]";
    const DENIES: &str = "#![deny(unsafe_code)]";
    let roots = [
        ("control/src/lib.rs", FORBIDS),
        ("control/src/bin/podwire.rs", FORBIDS),
        ("cni-adapter/src/main.rs", FORBIDS),
        ("perf/src/main.rs", DENIES),
        ("tests/src/lib.rs", FORBIDS),
        ("vswitch/src/lib.rs", DENIES),
        ("vswitch/src/main.rs", FORBIDS),
    ];
    let lacks = |(root, attribute): &(&str, &str)| {
        let text = fs::read_to_string(workspace().join(root)).expect("each crate has its root");
        // A root may always be stricter than it has to be.
        (!text.contains(attribute) && !text.contains(FORBIDS)).then(|| format!("{root} lacks {attribute}"))
    };
    let findings: Vec<_> = roots.iter().filter_map(lacks).collect();
    none("crate roots state what they think of unsafe:", &findings);
}

#[test]
fn no_file_is_longer_than_a_reader_stands() {
    let mut sources = rust(CRATES);
    sources.extend(files("tests", &["sh"]));
    sources.extend(files("control", &["proto"]));
    let long = |source: &Source| {
        let lines = source.text.lines().count();
        (lines >= LINES_MAX).then(|| format!("{}: {lines} lines", source.path))
    };
    none(
        "files of 800 lines and more hold a second idea; split them:",
        &sources.iter().filter_map(long).collect::<Vec<_>>(),
    );
}

#[test]
fn no_module_has_a_name_that_says_nothing() {
    let bad = |source: &Source| source.path.split(['/', '.']).any(|part| FORBIDDEN_NAMES.contains(&part));
    let findings: Vec<_> = rust(CRATES).into_iter().filter(bad).map(|source| source.path).collect();
    none("a module is named for its idea:", &findings);
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = |source: &Source| {
        let first = source.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        !first.starts_with("//!") && !source.text.contains("// @generated") && !source.text.contains("\n//! ")
    };
    let findings: Vec<_> = rust(CRATES).into_iter().filter(silent).map(|source| source.path).collect();
    none("a module begins with what it is for and what it leaves out:", &findings);
}

#[test]
fn no_test_is_skipped() {
    let mark = format!("#[{}", "ignore");
    let findings: Vec<_> =
        rust(CRATES).into_iter().filter(|source| source.code().contains(&mark)).map(|source| source.path).collect();
    none("a test that cannot run says so and fails; none is skipped:", &findings);
}
