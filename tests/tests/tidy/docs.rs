//! Links between the project's own pages lead somewhere.

use podwire_tests::binary::workspace;

use crate::none;
use crate::source::{Source, files};

#[test]
fn every_relative_link_of_the_documentation_resolves() {
    let findings: Vec<String> = files("", &["md"]).iter().flat_map(broken).collect();
    none("links that lead nowhere:", &findings);
}

fn broken(page: &Source) -> Vec<String> {
    let folder = workspace().join(&page.path).parent().expect("a page lies in a folder").to_owned();
    let outside = |link: &str| link.contains("://") || link.starts_with("mailto:") || link.starts_with('#');
    let lost = links(&page.text).into_iter().filter(|link| {
        let file = link.split('#').next().unwrap_or_default();
        !outside(link) && !folder.join(file).exists()
    });
    lost.map(|link| format!("{}: {link}", page.path)).collect()
}

/// Targets of `[text](target)` outside of code blocks.
fn links(text: &str) -> Vec<String> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            found.extend(targets.map(|target| target.split_whitespace().next().unwrap_or_default().to_owned()));
        }
    }
    found
}

#[test]
fn links_are_found_outside_of_code() {
    let text = "See [a](b.md#c) and [d](https://e \"f\").\n```\n[x](y)\n```\n";
    assert_eq!(links(text), ["b.md#c", "https://e"]);
}
