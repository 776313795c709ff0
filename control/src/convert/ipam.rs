//! The ranges that pods' addresses are leased from.

use super::{ConvertError, Number, Result, each, enumeration, numbers, rows, shown, text, texts};
use crate::model::{self, IpRange, IpamReport, RangeReport, RangesChanged};
use crate::proto as pb;

const OBJECT: &str = "ipam";

numbers! {
    RangeSource, RangeSource { PodCidr, File, Cli };
}

impl From<RangeReport> for pb::RangeRow {
    fn from(row: RangeReport) -> Self {
        Self {
            range: row.range.to_string(),
            source: pb::RangeSource::from(row.source).into(),
            size: row.size,
            held: row.held,
            reserved: row.reserved,
            free: row.free,
        }
    }
}

impl TryFrom<pb::RangeRow> for RangeReport {
    type Error = ConvertError;

    fn try_from(row: pb::RangeRow) -> Result<Self> {
        Ok(Self {
            range: text(OBJECT, "range", &row.range)?,
            source: enumeration(&format!("range {}", row.range), "source", row.source)?,
            size: row.size,
            held: row.held,
            reserved: row.reserved,
            free: row.free,
        })
    }
}

impl From<IpamReport> for pb::GetIpamResponse {
    fn from(report: IpamReport) -> Self {
        Self { ranges: each(report.ranges), reserved: shown(&report.reserved) }
    }
}

impl TryFrom<pb::GetIpamResponse> for IpamReport {
    type Error = ConvertError;

    fn try_from(report: pb::GetIpamResponse) -> Result<Self> {
        Ok(Self { ranges: rows(report.ranges)?, reserved: texts(OBJECT, "reserved", &report.reserved)? })
    }
}

impl From<RangesChanged> for pb::ChangeRangesResponse {
    fn from(changed: RangesChanged) -> Self {
        Self { added: shown(&changed.added), removed: shown(&changed.removed) }
    }
}

impl TryFrom<pb::ChangeRangesResponse> for RangesChanged {
    type Error = ConvertError;

    fn try_from(changed: pb::ChangeRangesResponse) -> Result<Self> {
        let (added, removed) = ranges(&changed.added, &changed.removed)?;
        Ok(Self { added, removed })
    }
}

/// The ranges that are added and removed, of a request or its answer.
pub(crate) fn ranges(added: &[String], removed: &[String]) -> Result<(Vec<IpRange>, Vec<IpRange>)> {
    Ok((texts(OBJECT, "range", added)?, texts(OBJECT, "range", removed)?))
}
