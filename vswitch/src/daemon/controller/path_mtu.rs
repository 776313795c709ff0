//! Path MTUs that were lowered: who is told, and when they are forgotten. Lowering them is the workers' affair.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use crate::id::MonoNs;
use crate::snapshot::VtepEntry;

/// A lowered path MTU is tried again after this long (RFC 1191, section 6.3, and RFC 8201, section 5.3: ten minutes).
const FORGOTTEN_AFTER_NS: u64 = 600 * 1_000_000_000;

/// What the last look saw: name, value, and since when it is so low.
#[derive(Debug, Default)]
pub(super) struct PathMtus(HashMap<String, (u16, MonoNs)>);

impl PathMtus {
    /// Looks at the VTEPs there are: gives those whose path MTU was lowered since the last look, with its value, and
    /// forgets values that are ten minutes old. A VTEP that is gone leaves nothing.
    pub(super) fn look<'a>(&mut self, vteps: impl Iterator<Item = &'a VtepEntry>, now: MonoNs) -> Vec<(String, u16)> {
        let mut lowered = Vec::new();
        let mut seen = HashMap::new();
        for vtep in vteps {
            let mtu = vtep.path_mtu.load(Ordering::Relaxed);
            if mtu == u16::MAX {
                continue;
            }
            let since = match self.0.get(&vtep.name) {
                Some(&(before, since)) if before == mtu => since,
                _ => {
                    lowered.push((vtep.name.clone(), mtu));
                    now
                }
            };
            if now.since(since) > FORGOTTEN_AFTER_NS {
                vtep.path_mtu.store(u16::MAX, Ordering::Relaxed);
            } else {
                seen.insert(vtep.name.clone(), (mtu, since));
            }
        }
        self.0 = seen;
        lowered
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU16;

    use podwire_control::model::Vni;

    use super::*;
    use crate::id::PortId;

    fn vtep(name: &str) -> VtepEntry {
        let path_mtu = Arc::new(AtomicU16::new(u16::MAX));
        let vni = Vni::try_from(1).unwrap();
        VtepEntry { name: name.into(), port: PortId(1), endpoints: [None, None], vni, path_mtu }
    }

    fn at(minutes: u64, seconds: u64) -> MonoNs {
        MonoNs((minutes * 60 + seconds) * 1_000_000_000)
    }

    #[test]
    fn a_lowered_path_mtu_is_told_once_and_forgotten_after_ten_minutes() {
        let (vteps, mut known) = ([vtep("a"), vtep("b")], PathMtus::default());
        let mut look = |minutes, seconds| known.look(vteps.iter(), at(minutes, seconds));
        assert_eq!(look(0, 0), []);
        vteps[0].path_mtu.store(1_400, Ordering::Relaxed);
        assert_eq!(look(1, 0), [("a".to_owned(), 1_400)]);
        assert_eq!(look(5, 0), []);
        vteps[1].path_mtu.store(1_300, Ordering::Relaxed);
        assert_eq!(look(6, 0), [("b".to_owned(), 1_300)]);
        assert_eq!(look(11, 0), []);
        let values = || [0, 1].map(|at: usize| vteps[at].path_mtu.load(Ordering::Relaxed));
        assert_eq!(values(), [1_400, 1_300], "ten minutes, not less");
        assert_eq!(look(11, 1), []);
        assert_eq!(values(), [u16::MAX, 1_300]);
        // Learned anew, it is told anew, and its time begins anew.
        vteps[0].path_mtu.store(1_400, Ordering::Relaxed);
        assert_eq!(look(12, 0), [("a".to_owned(), 1_400)]);
        assert_eq!((look(16, 1), values()), (vec![], [1_400, u16::MAX]));
        assert_eq!((look(22, 0), values()), (vec![], [1_400, u16::MAX]));
        assert_eq!((look(22, 1), values()), (vec![], [u16::MAX, u16::MAX]));
    }

    #[test]
    fn a_path_that_narrows_further_has_its_time_again() {
        let (vteps, mut known) = ([vtep("a")], PathMtus::default());
        for (minute, mtu) in [(0, 1_400), (8, 1_300)] {
            vteps[0].path_mtu.store(mtu, Ordering::Relaxed);
            assert_eq!(known.look(vteps.iter(), at(minute, 0)), [("a".to_owned(), mtu)]);
        }
        known.look(vteps.iter(), at(17, 59));
        assert_eq!(vteps[0].path_mtu.load(Ordering::Relaxed), 1_300);
        known.look(vteps.iter(), at(18, 1));
        assert_eq!(vteps[0].path_mtu.load(Ordering::Relaxed), u16::MAX);
        known.look(std::iter::empty(), at(19, 0));
        assert!(known.0.is_empty());
    }
}
