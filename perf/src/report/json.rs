//! The report as JSON, and read back. The shape has a number; a file of another shape is refused and not guessed at.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{Report, SCHEMA};

pub(super) fn render(report: &Report) -> Result<String> {
    serde_json::to_string_pretty(report).context("the report can not be written as JSON")
}

pub(super) fn read(path: &Path) -> Result<Report> {
    let name = path.display();
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read {name}; `podwire-perf run --json FILE` writes such a file"))?;
    let value: serde_json::Value = serde_json::from_str(&text).with_context(|| format!("{name} is no JSON"))?;
    let schema = value["schema"].as_u64();
    ensure!(
        schema == Some(SCHEMA.into()),
        "{name} is no report of this podwire-perf (schema {schema:?}, not {SCHEMA}): measure again"
    );
    serde_json::from_value(value).with_context(|| format!("{name} is no report of podwire-perf"))
}
