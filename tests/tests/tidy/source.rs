//! Source files as text, and what of them is code, test code or comment.

use std::fs;
use std::path::{Path, PathBuf};

use podwire_tests::binary::workspace;

/// The workspace's crates, by folder.
pub(crate) const CRATES: &[&str] = &["control", "vswitch", "cni-adapter", "perf", "tests"];

/// One file, with its path relative to the workspace.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Path, with slashes.
    pub(crate) path: String,
    /// Whole text.
    pub(crate) text: String,
}

impl Source {
    /// Whether the whole file is test code.
    pub(crate) fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        self.path.contains("/tests/") || name == "tests.rs" || name.ends_with("_tests.rs") || name.ends_with("_test.rs")
    }

    /// Code without comments.
    pub(crate) fn code(&self) -> String {
        let lines = self.text.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines
            .map(|line| line.split(" // ").next().unwrap_or_default())
            .fold(String::new(), |text, line| text + line + "\n")
    }

    /// Code that is compiled into the product, and the code of its tests.
    pub(crate) fn split(&self) -> (String, String) {
        if self.is_test() {
            return (String::new(), self.code());
        }
        let (mut product, mut tests, code) = (String::new(), String::new(), self.code());
        let mut rest = code.as_str();
        while let Some(at) = rest.find("#[cfg(test)]") {
            product.push_str(&rest[..at]);
            let end = at + item_end(&rest[at..], indent_before(&rest[..at]));
            tests.push_str(&rest[at..end]);
            rest = &rest[end..];
        }
        product.push_str(rest);
        (product, tests)
    }
}

/// Blanks between the start of the last line and its end.
fn indent_before(text: &str) -> usize {
    text.len() - text.rfind('\n').map_or(0, |at| at + 1)
}

/// Length of the item at the start of the text: to its semicolon, or to the brace that closes it, which rustfmt puts
/// at the item's own indentation.
fn item_end(text: &str, indent: usize) -> usize {
    let opens = text.find('{').unwrap_or(text.len());
    match text.find(';') {
        Some(semicolon) if semicolon < opens => semicolon + 1,
        _ => {
            let close = format!("\n{}}}", " ".repeat(indent));
            text.find(&close).map_or(text.len(), |at| at + close.len())
        }
    }
}

/// All files below a folder of the workspace with one of these endings; `target` and hidden folders left out.
pub(crate) fn files(below: &str, endings: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    walk(&workspace().join(below), &mut found);
    found.retain(|path| path.extension().is_some_and(|ending| endings.iter().any(|wanted| ending == *wanted)));
    found.sort();
    let read = |path: PathBuf| {
        let relative = path.strip_prefix(workspace()).expect("walked below the workspace");
        let relative = relative.to_str().expect("the workspace's paths are UTF-8").to_owned();
        Source { path: relative, text: fs::read_to_string(&path).expect("sources are UTF-8") }
    };
    found.into_iter().map(read).collect()
}

/// All Rust files of a crate, or of every crate.
pub(crate) fn rust(folders: &[&str]) -> Vec<Source> {
    let sources: Vec<Source> = folders.iter().flat_map(|folder| files(folder, &["rs"])).collect();
    assert!(!sources.is_empty(), "no Rust files below {folders:?}: the scan is wrong");
    sources
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let skipped = name == "target" || name.to_string_lossy().starts_with('.');
        match (path.is_dir(), skipped) {
            (_, true) => {}
            (true, false) => walk(&path, found),
            (false, false) => found.push(path),
        }
    }
}

#[test]
fn tests_are_told_from_the_product() {
    let text = "use a;\n#[cfg(test)]\nmod x_tests;\nfn b() {} // c\n    #[cfg(test)]\n    fn d() {\n        e();\n    }\n\
                // f\n#[cfg(test)]\nmod tests {\n    fn g() {}\n}\nfn h() {}\n";
    let (product, tests) = Source { path: "a/src/b.rs".into(), text: text.into() }.split();
    for (word, in_product) in
        [("use a", true), ("x_tests", false), ("fn b", true), ("e()", false), ("g()", false), ("h()", true)]
    {
        assert_eq!((product.contains(word), tests.contains(word)), (in_product, !in_product), "{word}");
    }
    assert!(!product.contains("// c") && !product.contains("// f"));
}
