//! The rules of the house that a machine can check: layers, `unsafe`, lengths, names, links, licences, and that
//! every named outcome is tested and documented. Reads the sources as text; needs no root.

mod coverage;
mod docs;
mod layers;
mod licences;
mod packaging;
mod rules;
mod source;

/// Fails with all findings at once, so that one run shows the whole list.
#[track_caller]
fn none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}\n  {}", findings.join("\n  "));
}
