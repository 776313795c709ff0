//! Every named outcome has a test that names it, and every crate that was chosen is used.

use podwire_vswitch::outcome::{DropReason, PuntReason};

use crate::none;
use crate::source::{CRATES, Source, files, rust};

/// Whether a missing test or an unused crate fails. While the pipeline is being written it is only listed.
const ENFORCED: bool = true;

/// Crates whose use is part of the design, by the name that code uses, and where.
const CHOSEN: &[(&str, &str)] = &[
    ("tun", "vswitch"),
    ("crossbeam_channel", "vswitch"),
    ("arc_swap", "vswitch"),
    ("core_affinity", "vswitch"),
    ("redb", "vswitch"),
    ("etherparse", ""),
    ("smoltcp", ""),
    ("proptest", "vswitch"),
    ("hdrhistogram", "perf"),
    ("clap", ""),
];

#[test]
fn every_reason_is_named_by_a_test() {
    let tests = test_code();
    let drops = DropReason::ALL.iter().map(|reason| (format!("DropReason::{reason:?}"), reason.name(), "drop"));
    let punts = PuntReason::ALL.iter().map(|reason| (format!("PuntReason::{reason:?}"), reason.name(), "punt"));
    let missing = drops.chain(punts).filter(|(variant, name, kind)| {
        let quoted = [format!("\"{name}\""), format!("{kind}:{name}")];
        !has_word(&tests, variant) && !quoted.iter().any(|text| has_word(&tests, text))
    });
    report(
        "reasons that no test of the pipeline or of tests/ names:",
        &missing.map(|(variant, ..)| variant).collect::<Vec<_>>(),
    );
}

#[test]
fn every_chosen_crate_is_used() {
    let all = rust(CRATES);
    let used = |name: &str, folder: &str| {
        let own = |source: &&Source| source.path.starts_with(folder) && !source.path.starts_with("tests/tests/tidy/");
        all.iter().filter(own).any(|source| {
            let code = source.code();
            has_word(&code, &format!("{name}::")) || has_word(&code, &format!("use {name};"))
        })
    };
    let unused = CHOSEN.iter().filter(|(name, folder)| !used(name, folder));
    report("crates of the design that no code names:", &unused.map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
}

/// Test code in which a case may be: of the whole engine but the list of reasons itself, of `tests/`, and data files.
fn test_code() -> String {
    let engine = rust(&["vswitch"])
        .into_iter()
        .filter(|source| source.path != "vswitch/src/outcome.rs")
        .map(|source| source.split().1);
    let rings = rust(&["tests"])
        .into_iter()
        .filter(|source| !source.path.starts_with("tests/tests/tidy/"))
        .map(|source| source.code());
    let data = files("tests", &["toml", "case", "txt"]).into_iter().map(|source| source.text);
    engine.chain(rings).chain(data).fold(String::new(), |text, more| text + &more + "\n")
}

/// Whether the text has the words with nothing of a longer name around them.
fn has_word(text: &str, words: &str) -> bool {
    let part = |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    let ends_open = words.ends_with(|letter: char| !letter.is_alphanumeric());
    text.match_indices(words).any(|(at, _)| {
        let (before, after) = (text[..at].chars().next_back(), text[at + words.len()..].chars().next());
        !part(before) && (ends_open || !part(after))
    })
}

#[track_caller]
fn report(rule: &str, findings: &[String]) {
    if ENFORCED {
        none(rule, findings);
    } else if !findings.is_empty() {
        eprintln!("not enforced yet: {rule}\n  {}", findings.join("\n  "));
    }
}

#[test]
fn a_longer_name_is_not_its_beginning() {
    assert!(has_word("Drop(DropReason::TooBig)", "DropReason::TooBig"));
    assert!(!has_word("DropReason::TooBigger", "DropReason::TooBig"));
    assert!(!has_word("virtun::x", "tun::") && has_word("use tun::Device;", "tun::"));
}
