//! Which CPUs workers run on: the list in the configuration, the set the process may use, and pinning.
//!
//! A list is absolute (CPU numbers of the machine) or relative (positions in the allowed set), since in a pod with
//! a static CPU manager nobody knows the numbers beforehand. That manager may also move threads later, which
//! [`is_pinned_to`] notices.

use std::fmt;
use std::io;
use std::str::FromStr;

use core_affinity::CoreId;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// CPUs that Linux' affinity calls can name.
const CPU_NUMBER_MAX: usize = 1_023;

/// What can go wrong with CPUs.
#[derive(Debug, thiserror::Error)]
pub enum AffinityError {
    /// The list can not be read.
    #[error("CPU list {list:?} can not be read at {part:?}: write numbers and ranges up to 1023, as in 0-1,3")]
    List {
        /// The whole list.
        list: String,
        /// The part that is wrong.
        part: String,
    },
    /// A CPU is listed that this process may not use.
    #[error("CPU {cpu} may not be used by this process, only {allowed}: change the list or the process' cpuset")]
    NotAllowed {
        /// The CPU's number.
        cpu: usize,
        /// What may be used.
        allowed: CpuList,
    },
    /// A relative list counts beyond the allowed set.
    #[error("the CPU list asks for allowed CPU number {position} (counted from 0), but only {allowed} may be used")]
    TooFew {
        /// Position asked for.
        position: usize,
        /// What may be used.
        allowed: CpuList,
    },
    /// The kernel refused to pin the thread.
    #[error("cannot pin the thread to CPU {cpu}: {source}; check the process' cpuset, or run unpinned")]
    Pin {
        /// The CPU's number.
        cpu: usize,
        /// What the kernel said.
        source: io::Error,
    },
}

/// CPU numbers in ascending order, each once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CpuList(Vec<usize>);

impl CpuList {
    /// The numbers.
    #[must_use]
    pub fn numbers(&self) -> &[usize] {
        &self.0
    }

    /// Takes the list as CPU numbers of the machine.
    ///
    /// # Errors
    /// [`AffinityError::NotAllowed`] names the first CPU that is not in `allowed`.
    pub fn absolute(&self, allowed: &Self) -> Result<Vec<usize>, AffinityError> {
        match self.0.iter().find(|cpu| !allowed.0.contains(cpu)) {
            Some(&cpu) => Err(AffinityError::NotAllowed { cpu, allowed: allowed.clone() }),
            None => Ok(self.0.clone()),
        }
    }

    /// Takes the list as positions in `allowed`, counted from 0.
    ///
    /// # Errors
    /// [`AffinityError::TooFew`] when `allowed` is not that long.
    pub fn relative_to(&self, allowed: &Self) -> Result<Vec<usize>, AffinityError> {
        let pick = |&position: &usize| {
            let too_few = || AffinityError::TooFew { position, allowed: allowed.clone() };
            allowed.0.get(position).copied().ok_or_else(too_few)
        };
        self.0.iter().map(pick).collect()
    }
}

impl FromStr for CpuList {
    type Err = AffinityError;

    fn from_str(list: &str) -> Result<Self, AffinityError> {
        let mut numbers = Vec::new();
        for part in list.split(',').map(str::trim) {
            let wrong = || AffinityError::List { list: list.to_owned(), part: part.to_owned() };
            let number = |text: &str| match text.trim().parse::<usize>() {
                Ok(number) if number <= CPU_NUMBER_MAX => Ok(number),
                _ => Err(wrong()),
            };
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(wrong());
            }
            numbers.extend(first..=last);
        }
        numbers.sort_unstable();
        numbers.dedup();
        Ok(Self(numbers))
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, run) in self.0.chunk_by(|a, b| a + 1 == *b).enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match run {
                [one] => write!(f, "{comma}{one}")?,
                run => write!(f, "{comma}{}-{}", run[0], run[run.len() - 1])?,
            }
        }
        Ok(())
    }
}

/// The CPUs the calling thread may run on. Ask before pinning: a pinned thread is allowed one.
#[must_use]
pub fn allowed_cpus() -> CpuList {
    CpuList(core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect())
}

/// Pins the calling thread to one CPU.
///
/// # Errors
/// [`AffinityError::Pin`] when the kernel refuses.
pub fn pin_current_thread(cpu: usize) -> Result<(), AffinityError> {
    if cpu <= CPU_NUMBER_MAX && core_affinity::set_for_current(CoreId { id: cpu }) {
        return Ok(());
    }
    let source = if cpu <= CPU_NUMBER_MAX { io::Error::last_os_error() } else { io::ErrorKind::InvalidInput.into() };
    Err(AffinityError::Pin { cpu, source })
}

/// Whether the calling thread is still pinned to this CPU and no other. Allocates nothing; for the worker's tick.
#[must_use]
pub fn is_pinned_to(cpu: usize) -> bool {
    let this_thread = Pid::from_raw(0);
    let Ok(set) = sched_getaffinity(this_thread) else { return false };
    (0..CpuSet::count()).all(|at| set.is_set(at).unwrap_or(false) == (at == cpu))
}

/// Times the calling thread's core went to another thread though it had not asked to wait (`ru_nivcsw`, getrusage(2)):
/// taken by the scheduler, or offered by `sched_yield` and accepted. 0 where the kernel does not say.
#[must_use]
pub fn cores_given_away() -> u64 {
    // SAFETY: all-zero is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the structure outlives the call, which writes no more than that. A failure leaves it zero.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    u64::try_from(usage.ru_nivcsw).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> CpuList {
        text.parse().unwrap()
    }

    #[test]
    fn a_list_is_numbers_and_ranges() {
        for (text, numbers, shown) in [
            ("0", &[0][..], "0"),
            ("0-1,3", &[0, 1, 3], "0-1,3"),
            ("3, 1 - 2 ,2", &[1, 2, 3], "1-3"),
            ("1023", &[1023], "1023"),
        ] {
            assert_eq!(list(text).numbers(), numbers, "{text}");
            assert_eq!(list(text).to_string(), shown);
        }
    }

    #[test]
    fn a_list_that_makes_no_sense_is_refused_with_the_part() {
        for (text, part) in [("", ""), ("0,,1", ""), ("2-1", "2-1"), ("0,x", "x"), ("1024", "1024"), ("-1", "-1")] {
            match text.parse::<CpuList>() {
                Err(AffinityError::List { part: found, .. }) => assert_eq!(found, part, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn absolute_numbers_must_be_allowed_and_relative_ones_count_in_the_allowed_set() {
        let allowed = list("4-5,7");
        assert_eq!(list("5,7").absolute(&allowed).unwrap(), [5, 7]);
        assert!(matches!(list("5-6").absolute(&allowed), Err(AffinityError::NotAllowed { cpu: 6, .. })));
        assert_eq!(list("0,2").relative_to(&allowed).unwrap(), [4, 7]);
        assert!(matches!(list("0-3").relative_to(&allowed), Err(AffinityError::TooFew { position: 3, .. })));
    }

    #[test]
    fn a_pinned_thread_runs_on_its_cpu_alone_and_notices_when_it_is_moved() {
        let allowed = allowed_cpus();
        let cpu = allowed.numbers()[allowed.numbers().len() - 1];
        std::thread::spawn(move || {
            pin_current_thread(cpu).unwrap();
            assert!(is_pinned_to(cpu));
            assert!(!is_pinned_to(cpu + 1));
            assert_eq!(allowed_cpus().numbers(), [cpu]);
        })
        .join()
        .unwrap();
        assert_eq!(allowed_cpus(), allowed, "other threads are left alone");
    }

    #[test]
    fn pinning_to_a_cpu_that_is_not_there_is_an_error() {
        assert!(matches!(pin_current_thread(CPU_NUMBER_MAX), Err(AffinityError::Pin { .. })));
        assert!(matches!(pin_current_thread(1 << 20), Err(AffinityError::Pin { .. })));
    }
}
