//! CPU time that a switch and the whole machine have used, from procfs.

use std::fs;

/// Ticks a second in procfs (`USER_HZ`), the same on every architecture that Linux still has.
const TICKS_PER_SECOND: f64 = 100.0;

/// Somebody who uses CPU time for a side: a process, or one thread of this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Spender {
    Process(i32),
    Thread(i32),
}

impl Spender {
    fn ticks(self) -> u64 {
        let path = match self {
            Self::Process(pid) => format!("/proc/{pid}/stat"),
            Self::Thread(tid) => format!("/proc/self/task/{tid}/stat"),
        };
        stat_ticks(&fs::read_to_string(path).unwrap_or_default()).unwrap_or(0)
    }
}

/// CPU seconds used up to a moment.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct CpuTime {
    /// All that was not idle, of all CPUs.
    pub(crate) system_s: f64,
    /// Of the switch: its own code and the system calls it makes.
    pub(crate) switch_s: f64,
}

impl CpuTime {
    /// Up to now.
    #[allow(clippy::cast_precision_loss, reason = "ticks of a machine's life fit")]
    pub(crate) fn now(spenders: &[Spender]) -> Self {
        let system = busy_ticks(&fs::read_to_string("/proc/stat").unwrap_or_default()).unwrap_or(0);
        let switch: u64 = spenders.iter().map(|spender| spender.ticks()).sum();
        Self { system_s: system as f64 / TICKS_PER_SECOND, switch_s: switch as f64 / TICKS_PER_SECOND }
    }

    /// What was used from `earlier` to this moment.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { system_s: self.system_s - earlier.system_s, switch_s: self.switch_s - earlier.switch_s }
    }
}

/// utime and stime of `/proc/PID/stat` (proc_pid_stat(5)); the name in parentheses may hold anything.
fn stat_ticks(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// user, nice, system, irq, softirq of the first line of `/proc/stat`; guests are in user, stolen time is nobody's.
fn busy_ticks(stat: &str) -> Option<u64> {
    let fields: Vec<u64> =
        stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map_while(|field| field.parse().ok()).collect();
    Some([0, 1, 2, 5, 6].iter().filter_map(|&at| fields.get(at)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "7 (a ) (b) S 1 7 7 0 -1 4194304 1 2 3 4 30 12 0 0 20 0 1 0";
        assert_eq!(stat_ticks(stat), Some(42));
        assert_eq!(stat_ticks("7 (a"), None);
    }

    #[test]
    fn idle_waiting_and_stolen_time_are_not_busy() {
        assert_eq!(busy_ticks("cpu  1 2 4 1000 1000 8 16 1000 1 0\ncpu0 9 9"), Some(31));
    }

    #[test]
    fn work_of_this_process_is_seen() {
        let this = [Spender::Process(std::process::id().cast_signed())];
        let before = CpuTime::now(&this);
        let worked = std::hint::black_box(
            (0..400_000_000_u64).fold(0, |sum: u64, step| sum.wrapping_add(std::hint::black_box(step))),
        );
        let used = CpuTime::now(&this).since(before);
        assert!(used.switch_s > 0.0 && used.system_s > 0.0, "{used:?} for {worked}");
    }
}
