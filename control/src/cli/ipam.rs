//! The verb `ipam`: ranges of addresses for pods, shown and changed; leases are the attachments' matter.

use serde_json::{Value, json};

use super::args::{IpamVerb, RangeVerb};
use super::output::{Output, list, table, texts};
use super::{Failure, attachment};
use crate::client::Client;
use crate::model::{Action, IpRange, IpamReport, RangeReport, RangesChanged};

/// Does what the verb says and prints the answer.
pub(super) async fn ipam(client: &Client, verb: IpamVerb, output: &mut Output<'_>) -> Result<(), Failure> {
    match verb {
        IpamVerb::List => attachment::leases(client, output).await,
        IpamVerb::Release { address, force } => attachment::release(client, address, force, output).await,
        IpamVerb::Show => {
            let report = client.ipam().await?;
            output.answer(&report_json(&report), || report_text(&report))
        }
        IpamVerb::Range(RangeVerb::Add { range }) => {
            let changed = client.change_ranges(&[range], &[]).await?;
            output.answer(&changed_json(&changed), || changed_text(&changed, range))
        }
        IpamVerb::Range(RangeVerb::Del { range }) => {
            let changed = client.change_ranges(&[], &[range]).await?;
            output.answer(&changed_json(&changed), || changed_text(&changed, range))
        }
    }
}

fn report_json(report: &IpamReport) -> Value {
    json!({
        "ranges": report.ranges.iter().map(range_json).collect::<Vec<_>>(),
        "reserved": texts(&report.reserved),
    })
}

fn range_json(row: &RangeReport) -> Value {
    json!({
        "range": row.range.to_string(),
        "source": row.source.name(),
        "size": row.size,
        "held": row.held,
        "reserved": row.reserved,
        "free": row.free,
    })
}

fn report_text(report: &IpamReport) -> String {
    let rows: Vec<_> = report.ranges.iter().map(range_row).collect();
    let ranges = table(&["RANGE", "SOURCE", "SIZE", "HELD", "RESERVED", "FREE"], &rows);
    format!("{ranges}\nreserved  {}\n", list(&report.reserved))
}

fn range_row(row: &RangeReport) -> Vec<String> {
    vec![
        row.range.to_string(),
        row.source.name().to_owned(),
        row.size.to_string(),
        row.held.to_string(),
        row.reserved.to_string(),
        row.free.to_string(),
    ]
}

fn changed_json(changed: &RangesChanged) -> Value {
    json!({"added": texts(&changed.added), "removed": texts(&changed.removed)})
}

fn changed_text(changed: &RangesChanged, asked: IpRange) -> String {
    let what = match (changed.added.contains(&asked), changed.removed.contains(&asked)) {
        (true, _) => Action::Added.name(),
        (_, true) => Action::Removed.name(),
        _ => "unchanged",
    };
    format!("range {asked}: {what}\n")
}
