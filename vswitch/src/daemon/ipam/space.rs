//! Which addresses there are to give: pod CIDRs, the ranges in them, and what is reserved.

use ipnet::IpNet;
use podwire_control::model::{IpRange, RangeSource};

use crate::limits;

/// A range can not be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("it {problem}; {remedy}")]
pub struct RangeError {
    /// What is wrong; continues a sentence that begins with the range.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

/// The addresses of a node. Each range lies inside a pod CIDR, and no two overlap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Space {
    pub(super) pod_cidrs: Vec<IpNet>,
    /// In the order they are tried.
    pub(super) ranges: Vec<(IpRange, RangeSource)>,
    pub(super) reserved: Vec<IpRange>,
}

impl Space {
    /// The addresses that the file's ranges and after them the CLI's leave. A family that has neither uses its whole pod
    /// CIDR. A range that does not fit what stands before it is left out, and given back with the reason.
    pub fn new(
        pod_cidrs: impl IntoIterator<Item = IpNet>,
        file: &[IpRange],
        cli: &[IpRange],
        reserved: &[IpRange],
    ) -> (Self, Vec<(IpRange, RangeError)>) {
        let mut space =
            Self { pod_cidrs: pod_cidrs.into_iter().collect(), ranges: Vec::new(), reserved: reserved.to_vec() };
        let mut left_out = Vec::new();
        let stated = [(file, RangeSource::File), (cli, RangeSource::Cli)];
        for (range, source) in stated.into_iter().flat_map(|(list, source)| list.iter().map(move |&one| (one, source)))
        {
            match inside(range, &space.pod_cidrs).and_then(|()| apart(range, &space.ranges)) {
                Ok(()) => space.ranges.push((range, source)),
                Err(error) => left_out.push((range, error)),
            }
        }
        for &net in &space.pod_cidrs {
            if !space.ranges.iter().any(|(range, _)| net.contains(&range.first())) {
                space.ranges.push((net.into(), RangeSource::PodCidr));
            }
        }
        (space, left_out)
    }
}

/// Whether a range lies inside one of the pod CIDRs.
///
/// # Errors
/// Names the pod CIDRs.
pub fn inside(range: IpRange, pod_cidrs: &[IpNet]) -> Result<(), RangeError> {
    if pod_cidrs.iter().any(|net| net.contains(&range.first()) && net.contains(&range.last())) {
        return Ok(());
    }
    let nets = list(pod_cidrs);
    let problem = format!("is not inside one of the node's pod CIDRs ({nets})");
    Err(RangeError { problem, remedy: "name addresses inside one of them".to_owned() })
}

/// Whether a range shares no address with those that stand, and is not one too many.
///
/// # Errors
/// Names the one it overlaps.
pub fn apart(range: IpRange, standing: &[(IpRange, RangeSource)]) -> Result<(), RangeError> {
    if standing.len() >= limits::IPAM_RANGES_MAX {
        let problem = format!("is one too many: a node may have {} ranges", limits::IPAM_RANGES_MAX);
        return Err(RangeError { problem, remedy: "join ranges that touch".to_owned() });
    }
    let Some((other, source)) = standing.iter().find(|(other, _)| other.overlaps(range)) else { return Ok(()) };
    let problem = format!("overlaps the {}'s {other}", source.name());
    Err(RangeError {
        problem,
        remedy: "name addresses that are in no other range, or take that one away first".to_owned(),
    })
}

/// Shown with commas between.
pub(super) fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
