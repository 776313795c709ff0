//! A TOML document taken apart into the keys of [`KEYS`], with the line of each, and the faults found on the way.
//!
//! The keys are taken one by one instead of by a derived struct, because serde stops at the first fault and an
//! operator wants to see all of them. What the values mean is `check`'s matter.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Fault, KEYS};

/// The values not taken yet, and what was wrong so far.
#[derive(Debug)]
pub(super) struct Document<'i> {
    values: BTreeMap<&'static str, Spanned<DeValue<'i>>>,
    sections: BTreeMap<&'static str, usize>,
    lines: BTreeMap<&'static str, usize>,
    faults: Vec<Fault>,
}

impl<'i> Document<'i> {
    /// Parses the text. Unknown sections and keys become faults; text that is no TOML is refused as a whole.
    pub(super) fn parse(text: &'i str) -> Result<Self, Vec<Fault>> {
        let line_of = |at: usize| 1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count();
        let (root, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            let fault = |error: &toml::de::Error| Fault {
                line: error.span().map(|span| line_of(span.start)),
                key: String::new(),
                problem: format!("this is no TOML: {}", error.message()),
                remedy: "see docs/configuration.md for an example".to_owned(),
            };
            return Err(errors.iter().map(fault).collect());
        }
        let mut document =
            Self { values: BTreeMap::new(), sections: BTreeMap::new(), lines: BTreeMap::new(), faults: Vec::new() };
        for (name, section) in root.into_inner() {
            let line = line_of(name.span().start);
            document.add_section(name.get_ref().as_ref(), line, section.into_inner(), &line_of);
        }
        Ok(document)
    }

    fn add_section(&mut self, name: &str, line: usize, section: DeValue<'i>, line_of: &dyn Fn(usize) -> usize) {
        let Some(known) = sections().find(|&known| known == name) else {
            let all: Vec<_> = sections().map(|section| format!("[{section}]")).collect();
            self.push(Some(line), name, "no such section", &format!("the sections are {}", all.join(", ")));
            return;
        };
        let DeValue::Table(table) = section else {
            self.push(Some(line), name, "this is a section, not a value", &format!("write it as [{name}]"));
            return;
        };
        self.sections.insert(known, line);
        for (key, value) in table {
            let line = line_of(key.span().start);
            let full = format!("{name}.{}", key.get_ref());
            let Some(spec) = KEYS.iter().find(|spec| spec.name == full) else {
                let remedy = format!("the keys of [{name}] are {}", keys_of(known).collect::<Vec<_>>().join(", "));
                self.push(Some(line), &full, "no such key", &remedy);
                continue;
            };
            self.lines.insert(spec.name, line);
            self.values.insert(spec.name, value);
        }
    }

    /// Whether the file has the section.
    pub(super) fn has_section(&self, section: &str) -> bool {
        self.sections.contains_key(section)
    }

    /// The value of a key, if it is there and of the right type.
    pub(super) fn take<T: Deserialize<'i>>(&mut self, key: &'static str, expected: &str) -> Option<T> {
        let value = self.values.remove(key)?;
        match T::deserialize(value.into_deserializer()) {
            Ok(value) => Some(value),
            Err(error) => {
                let problem = error.message().trim_end().replace('\n', ", ");
                self.fault(key, &problem, &format!("write {expected}"));
                None
            }
        }
    }

    /// As [`Document::take`], for text that a type of its own parses.
    pub(super) fn take_text<T: FromStr<Err: std::fmt::Display>>(
        &mut self,
        key: &'static str,
        expected: &str,
    ) -> Option<T> {
        let text: String = self.take(key, expected)?;
        self.parsed(key, &text, expected)
    }

    /// Parses a piece of a key's text.
    pub(super) fn parsed<T: FromStr<Err: std::fmt::Display>>(
        &mut self,
        key: &'static str,
        text: &str,
        expected: &str,
    ) -> Option<T> {
        text.parse().map_err(|error| self.fault(key, &format!("{text:?}: {error}"), &format!("write {expected}"))).ok()
    }

    /// Notes that a key that has to be there is not. Call before taking it.
    pub(super) fn require(&mut self, key: &'static str, expected: &str) {
        if !self.lines.contains_key(key) {
            self.fault(key, "it is missing", &format!("add it: {expected}"));
        }
    }

    /// Notes a fault in a key's value; of a missing key, at its section.
    pub(super) fn fault(&mut self, key: &'static str, problem: &str, remedy: &str) {
        let section = key.split('.').next().unwrap_or_default();
        let line = self.lines.get(key).or_else(|| self.sections.get(section)).copied();
        self.push(line, key, problem, remedy);
    }

    fn push(&mut self, line: Option<usize>, key: &str, problem: &str, remedy: &str) {
        let (key, problem, remedy) = (key.to_owned(), problem.to_owned(), remedy.to_owned());
        self.faults.push(Fault { line, key, problem, remedy });
    }

    /// All faults found.
    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.faults
    }
}

fn sections() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    KEYS.iter().filter_map(|key| key.name.split('.').next()).filter(move |&section| {
        let new = section != last;
        last = section;
        new
    })
}

fn keys_of(section: &'static str) -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter_map(move |key| key.name.strip_prefix(section)?.strip_prefix('.'))
}
