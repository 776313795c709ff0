//! Nothing flows: what the switch uses all the same.

use anyhow::Result;
use podwire_vswitch::sys::clock::mono_now;

use super::Span;
use crate::lab::{CpuTime, stop};
use crate::metric::{Metric, Sample};
use crate::side::Path;

/// Percent of one core, over all threads of the switch.
#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
pub(super) fn measure(path: &Path<'_>, span: Span) -> Result<Sample> {
    stop::sleep(span.warm_up)?;
    let (begin, before) = (mono_now(), CpuTime::now(&path.spenders));
    stop::sleep(span.time)?;
    let used = CpuTime::now(&path.spenders).since(before).switch_s;
    Ok(Sample::of(&[(Metric::CorePercent, 100.0 * used * 1e9 / mono_now().since(begin) as f64)]))
}
