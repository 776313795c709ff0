//! A bare veth cable between two pods: the limit of the stacks at its ends.

use anyhow::Result;

use super::{MTU, POD_INTERFACE, Side, pod_address, pods, quiet, subnet24};
use crate::lab::{Wire, cable};

pub(super) fn build(label: &str, wire: Wire) -> Result<Side> {
    let (from, to) = pods(label)?;
    cable((&from, POD_INTERFACE), (&to, POD_INTERFACE), MTU, wire)?;
    for (pod, number) in [(&from, 1), (&to, 2)] {
        pod.address(POD_INTERFACE, subnet24(pod_address(number)))?;
    }
    Ok(quiet(from, to, pod_address(2)))
}
