//! `[ipam]`: which addresses of the pod CIDRs pods get.

use ipnet::IpNet;
use podwire_control::model::{IpRange, RangeSource, read};

use super::Ipam;
use super::document::Document;
use crate::daemon::ipam::{RangeError, apart, inside};

/// Reads the section; without pod CIDRs, which is a fault of its own, ranges are only parsed.
pub(super) fn ipam(doc: &mut Document<'_>, pod_cidrs: &[IpNet]) -> Ipam {
    let mut stated = Vec::new();
    for range in ranges(doc, "ipam.ranges", pod_cidrs) {
        match apart(range, &stated) {
            Ok(()) => stated.push((range, RangeSource::File)),
            Err(RangeError { problem, remedy }) => doc.fault("ipam.ranges", &format!("{range} {problem}"), &remedy),
        }
    }
    let reserved = ranges(doc, "ipam.reserved", pod_cidrs);
    Ipam { ranges: stated.into_iter().map(|(range, _)| range).collect(), reserved }
}

/// The ranges of a key that are right by themselves.
fn ranges(doc: &mut Document<'_>, key: &'static str, pod_cidrs: &[IpNet]) -> Vec<IpRange> {
    let expected = "a list of ranges, as in [\"10.244.1.16-10.244.1.200\", \"10.244.1.5\"]";
    let texts: Vec<String> = doc.take(key, expected).unwrap_or_default();
    let mut ranges = Vec::with_capacity(texts.len());
    for text in texts {
        match read::<IpRange>(&text) {
            Err(error) => doc.fault(key, &format!("{text:?} is not {}", error.noun), error.remedy),
            Ok(range) => match inside(range, pod_cidrs) {
                Err(RangeError { problem, remedy }) if !pod_cidrs.is_empty() => {
                    doc.fault(key, &format!("{range} {problem}"), &remedy)
                }
                _ => ranges.push(range),
            },
        }
    }
    ranges
}
