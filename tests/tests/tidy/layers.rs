//! Inside `vswitch` modules depend on each other in one direction: wire, frame, table, snapshot, pipeline, worker,
//! switch, daemon. `sys` belongs to port, worker and daemon.

use crate::none;
use crate::source::{Source, rust};

/// What each top module may name beside itself; `port` without `+` means the plain types at its root only, such as
/// `PortCaps`, and no device.
const LAYERS: &[(&str, &[&str])] = &[
    ("id", &[]),
    ("limits", &[]),
    ("outcome", &["id"]),
    // Wire and frame are one layer: the parse looks at a frame's offload, a frame's item keeps what it found.
    ("wire", &["id", "limits", "outcome", "frame"]),
    ("frame", &["id", "limits", "outcome", "wire"]),
    ("stats", &["id", "limits", "outcome"]),
    ("table", &["id", "limits", "outcome", "wire", "frame", "stats"]),
    ("segment", &["id", "limits", "outcome", "wire", "frame", "port"]),
    ("snapshot", &["id", "limits", "outcome", "wire", "frame", "stats", "table", "port"]),
    ("compile", &["id", "limits", "outcome", "wire", "frame", "stats", "table", "port", "snapshot"]),
    ("pipeline", &["id", "limits", "outcome", "wire", "frame", "stats", "table", "port", "segment", "snapshot"]),
    ("sys", &["id", "limits", "outcome", "wire", "frame"]),
    ("port", &["id", "limits", "outcome", "wire", "frame", "stats", "table", "segment", "sys"]),
    (
        "worker",
        &[
            "id", "limits", "outcome", "wire", "frame", "stats", "table", "port+", "segment", "snapshot", "pipeline",
            "sys",
        ],
    ),
    (
        "switch",
        &[
            "id", "limits", "outcome", "wire", "frame", "stats", "table", "port+", "segment", "snapshot", "compile",
            "pipeline", "worker",
        ],
    ),
    (
        "daemon",
        &[
            "id", "limits", "outcome", "wire", "frame", "stats", "table", "port+", "segment", "snapshot", "compile",
            "pipeline", "worker", "switch", "sys",
        ],
    ),
];

/// Files at the crate's root that belong to no layer.
const ROOTS: &[&str] = &["lib", "main"];

#[test]
fn modules_of_the_engine_depend_in_one_direction() {
    let findings: Vec<String> =
        rust(&["vswitch/src"]).iter().filter(|source| !source.is_test()).flat_map(check).collect();
    none("a module of vswitch names one it may not (see LAYERS in this test, and ARCHITECTURE.md):", &findings);
}

fn check(source: &Source) -> Vec<String> {
    let parts = parts_of(&source.path);
    let top = parts.first().map_or("", String::as_str);
    if ROOTS.contains(&top) {
        return Vec::new();
    }
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == top) else {
        return vec![format!("{}: `{top}` is no known layer; give it a line in LAYERS", source.path)];
    };
    let (product, _) = source.split();
    let refused = references(&product, parts.len()).into_iter().filter(|(to, inner)| {
        let known = LAYERS.iter().any(|(name, _)| name == to);
        known && to != top && !permits(allowed, to, inner)
    });
    refused.map(|(to, inner)| format!("{}: crate::{to}::{inner}", source.path)).collect()
}

fn permits(allowed: &[&str], to: &str, inner: &str) -> bool {
    let plain = inner.starts_with(|first: char| first.is_uppercase() || first == '{');
    allowed.iter().any(|entry| match *entry {
        "port" => to == "port" && plain,
        other => other.trim_end_matches('+') == to,
    })
}

/// `vswitch/src/table/mac.rs` is `[table, mac]`; a `mod.rs` is its folder.
fn parts_of(path: &str) -> Vec<String> {
    let inside = path.trim_start_matches("vswitch/src/").trim_end_matches(".rs").trim_end_matches("/mod");
    inside.split('/').map(str::to_owned).collect()
}

/// The top modules that the code names, each with what follows it: through `crate::` and through a chain of `super::`
/// that is as long as the file is deep.
fn references(code: &str, depth: usize) -> Vec<(String, String)> {
    let prefixes = ["crate::".to_owned(), "super::".repeat(depth)];
    let mut found = Vec::new();
    for prefix in &prefixes {
        for (at, _) in code.match_indices(prefix.as_str()) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if before.is_alphanumeric() || "_:$".contains(before) {
                continue;
            }
            let rest = &code[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(group) => found.extend(group_items(group).iter().map(|item| path_head(item))),
                None => found.push(path_head(rest)),
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Splits `table::mac, frame::{A, B}} ...` at its outermost commas, up to the brace that closes the group.
fn group_items(group: &str) -> Vec<String> {
    let (mut items, mut depth) = (vec![String::new()], 0_usize);
    for letter in group.chars() {
        match letter {
            '}' if depth == 0 => break,
            ',' if depth == 0 => {
                items.push(String::new());
                continue;
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        items.last_mut().expect("the list starts with one").push(letter);
    }
    items.iter().map(|item| item.trim().to_owned()).collect()
}

fn path_head(path: &str) -> (String, String) {
    let is_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    let name = |text: &str| text.chars().take_while(|&letter| is_name(letter)).collect::<String>();
    let first = name(path);
    let rest = path[first.len()..].strip_prefix("::").unwrap_or_default();
    let second = if rest.starts_with('{') { "{".to_owned() } else { name(rest) };
    (first, second)
}

#[test]
fn the_layer_check_sees_every_way_to_name_a_module() {
    let findings = |path: &str, text: &str| check(&Source { path: path.into(), text: text.into() }).len();
    assert_eq!(findings("vswitch/src/wire/tcp.rs", "use crate::limits::A;\nuse super::udp;\n"), 0);
    assert_eq!(findings("vswitch/src/wire/tcp.rs", "use crate::table::mac;\n"), 1);
    assert_eq!(
        findings("vswitch/src/wire/tcp.rs", "use crate::{\n    limits::A,\n    table::{B, C}, pipeline,\n};\n"),
        2
    );
    assert_eq!(findings("vswitch/src/wire/tcp.rs", "fn a() { super::super::sys::now() }\n"), 1);
    assert_eq!(findings("vswitch/src/wire/mod.rs", "use super::sys;\n"), 1);
    assert_eq!(findings("vswitch/src/wire/tcp.rs", "#[cfg(test)]\nmod tests {\n    use crate::pipeline;\n}\n"), 0);
    assert_eq!(findings("vswitch/src/pipeline/mod.rs", "use crate::port::PortCaps;\n"), 0);
    assert_eq!(findings("vswitch/src/pipeline/mod.rs", "use crate::port::tap::Tap;\n"), 1);
    assert_eq!(findings("vswitch/src/worker.rs", "use crate::port::tap::Tap;\n"), 0);
    assert_eq!(findings("vswitch/src/switch.rs", "use crate::sys::tap;\n"), 1);
    assert_eq!(findings("vswitch/src/manager.rs", ""), 1);
}
