//! Links between the project's own pages lead somewhere, and what a user can meet by name is on the page for it:
//! outcomes and counters, events, and the verbs of the command line. (Configuration keys: a test of the daemon's.)

use podwire_control::model::EventKind;
use podwire_tests::binary::workspace;
use podwire_vswitch::outcome::{DropReason, PuntReason};
use podwire_vswitch::stats::Event;

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

#[test]
fn every_reason_and_counter_has_its_row_in_the_page_of_outcomes() {
    let page = page("docs/drops.md");
    let drops = DropReason::ALL.iter().map(|reason| reason.name());
    let punts = PuntReason::ALL.iter().map(|reason| reason.name());
    let names: Vec<&str> = drops.chain(punts).chain(Event::ALL.iter().map(|event| event.name())).collect();
    let missing = names.iter().filter(|name| !page.contains(&format!("\n| `{name}` | ")));
    none("no row in docs/drops.md:", &missing.map(|name| (*name).to_owned()).collect::<Vec<_>>());

    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let stale = rows.map(|(name, _)| name).filter(|name| name.contains('_') && !names.contains(name));
    none("rows of docs/drops.md for what there is not:", &stale.map(str::to_owned).collect::<Vec<_>>());
}

#[test]
fn every_kind_of_event_is_in_the_page_of_the_command_line() {
    let page = page("docs/cli.md");
    let missing = EventKind::ALL.iter().map(|kind| kind.name()).filter(|name| !page.contains(&format!("`{name}`")));
    none("no word of these events in docs/cli.md:", &missing.map(str::to_owned).collect::<Vec<_>>());
}

#[test]
fn every_verb_of_the_command_line_is_in_its_page() {
    let arguments = page("control/src/cli/args.rs");
    let verbs = verbs(&arguments);
    assert!(verbs.len() > 15, "the verbs were found: {verbs:?}");
    let page = page("docs/cli.md");
    let missing = verbs.into_iter().filter(|verb| !page.contains(&format!("podwire {verb}")));
    none("verbs that docs/cli.md does not name as `podwire VERB`:", &missing.collect::<Vec<_>>());
}

#[test]
fn every_module_of_the_engine_is_on_the_map() {
    let (map, root) = (page("ARCHITECTURE.md"), page("vswitch/src/lib.rs"));
    let modules: Vec<&str> = root.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(modules.len() > 10, "the modules were found: {modules:?}");
    let missing =
        modules.iter().filter(|name| !map.contains(&format!("`{name}`")) && !map.contains(&format!("`{name}/`")));
    none(
        "modules of vswitch that ARCHITECTURE.md does not name:",
        &missing.map(|name| (*name).to_owned()).collect::<Vec<_>>(),
    );
}

fn page(path: &str) -> String {
    std::fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What can be typed, as in `port add`, from clap's enums: a variant that holds another of them is its first word.
fn verbs(arguments: &str) -> Vec<String> {
    let variants = |of: &str| -> Vec<(String, String)> {
        let body = arguments.split(&format!("enum {of} {{\n")).nth(1).and_then(|rest| rest.split("\n}").next());
        let lines = body.unwrap_or_default().lines().filter_map(|line| line.strip_prefix("    "));
        let named = lines.filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()));
        let parts = named.map(|line| {
            let name: String = line.chars().take_while(|letter| letter.is_alphanumeric()).collect();
            let holds = line[name.len()..].trim_matches(['(', ')', ',', ' ', '{']);
            (name.to_lowercase(), holds.to_owned())
        });
        parts.collect()
    };
    let all = variants("Verb").into_iter().flat_map(|(first, holds)| match variants(&holds) {
        inner if inner.is_empty() => vec![first],
        inner => inner.into_iter().map(|(second, _)| format!("{first} {second}")).collect(),
    });
    all.collect()
}

#[test]
fn verbs_are_found_with_their_second_word() {
    let text = "enum Verb {\n    /// A\n    Port(PortVerb),\n    Stats {\n        watch: bool,\n    },\n    Trace(Trace),\n}\n\
                enum PortVerb {\n    Add(PortAdd),\n    Show { name: String },\n}\nstruct Trace {\n}\n";
    assert_eq!(verbs(text), ["port add", "port show", "stats", "trace"]);
}
