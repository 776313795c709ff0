//! Where output goes and in which form: an aligned table for people, JSON with stable names for programs.

use std::io::{self, Write};

use clap::Command;
use clap_complete::Shell;
use serde_json::Value;

use super::Failure;
use super::args::Format;

/// Standard output, or what stands for it in a test.
pub(super) struct Output<'a> {
    format: Format,
    out: &'a mut (dyn Write + Send),
}

impl<'a> Output<'a> {
    pub(super) fn new(format: Format, out: &'a mut (dyn Write + Send)) -> Self {
        Self { format, out }
    }

    /// Prints one answer: `json`, or the text of it.
    pub(super) fn answer(&mut self, json: &Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.write(&format!("{json:#}\n")),
            Format::Table => self.write(&text()),
        }
    }

    /// Prints one of many answers: JSON takes one line, so that a reader can follow.
    pub(super) fn one_of_many(&mut self, json: &Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.write(&format!("{json}\n")),
            Format::Table => self.write(&text()),
        }
    }

    /// Prints the completion script of `shell`.
    pub(super) fn completions(&mut self, shell: Shell, command: &mut Command) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(shell, command, "podwire", &mut script);
        self.write(&String::from_utf8_lossy(&script))
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        let written: io::Result<()> = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        Ok(written?)
    }
}

/// Prints a list: a JSON array, or a table.
pub(super) fn rows<T>(
    output: &mut Output<'_>,
    header: &[&str],
    reports: &[T],
    json: fn(&T) -> Value,
    row: fn(&T) -> Vec<String>,
) -> Result<(), Failure> {
    let all = Value::Array(reports.iter().map(json).collect());
    output.answer(&all, || table(header, &reports.iter().map(row).collect::<Vec<_>>()))
}

/// Rows below a header, each column as wide as its widest cell; numbers stand at the right.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let is_number = |cell: &str| cell.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let columns: Vec<(usize, bool)> = header
        .iter()
        .enumerate()
        .map(|(at, title)| {
            let cells = || rows.iter().filter_map(|row| row.get(at));
            let width = cells().map(|cell| cell.chars().count()).chain([title.len()]).max().unwrap_or(0);
            (width, !rows.is_empty() && cells().all(|cell| is_number(cell)))
        })
        .collect();
    let titles = header.iter().map(ToString::to_string).collect();
    let mut text = String::new();
    for row in std::iter::once(&titles).chain(rows) {
        let mut line = String::new();
        for (cell, (width, right)) in row.iter().zip(&columns) {
            let padded = if *right { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
            line.push_str(&padded);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Names and values, one a line.
pub(super) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = pairs.iter().map(|(name, value)| format!("{name:<width$}  {value}").trim_end().to_owned() + "\n");
    lines.collect()
}

/// Values with commas between, or a dash when there are none.
pub(super) fn list<T: ToString>(values: &[T]) -> String {
    let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    if texts.is_empty() { "-".into() } else { texts.join(",") }
}

/// A value, or a dash.
pub(super) fn dash<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "-".into(), ToString::to_string)
}

/// Each as a JSON string.
pub(super) fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

/// A value as a JSON string, or null.
pub(super) fn text<T: ToString>(value: Option<&T>) -> Option<String> {
    value.map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_stand_at_the_right() {
        let rows = [vec!["pod-a".into(), "7".into(), "up".into()], vec!["b".into(), "1450".into(), String::new()]];
        assert_eq!(table(&["NAME", "MTU", "STATE"], &rows), "NAME    MTU  STATE\npod-a     7  up\nb      1450\n");
        assert_eq!(table(&["NAME", "MTU"], &[]), "NAME  MTU\n");
        assert_eq!(pairs(&[("a", "1".into()), ("long", String::new())]), "a     1\nlong\n");
    }
}
