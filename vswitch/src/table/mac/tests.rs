//! Learning, moving, ageing and eviction, static entries, epochs, and all of it with threads at once.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;

const AGEING: u64 = MAC_AGEING_SECONDS;

fn mac(n: u32) -> Mac {
    let [a, b, c, d] = n.to_be_bytes();
    Mac([0x02, 0x00, a, b, c, d])
}

fn known(table: &MacTable, now_s: u64) -> Vec<(Mac, PortId, bool)> {
    let mut all: Vec<_> = table.iter(now_s).map(|entry| (entry.mac, entry.port, entry.is_static)).collect();
    all.sort();
    all
}

#[test]
fn a_learned_mac_is_found_until_it_ages_out() {
    let table = MacTable::new(64);
    assert_eq!(table.learn(mac(1), PortId(3), 100), Learned::New);
    assert_eq!(table.lookup(mac(1), 100 + AGEING - 1), Some(PortId(3)));
    assert_eq!(table.lookup(mac(1), 100 + AGEING), None);
    assert_eq!(table.lookup(mac(2), 100), None);
}

#[test]
fn a_frame_refreshes_the_age_and_writes_once_a_second() {
    let table = MacTable::new(64);
    table.learn(mac(1), PortId(3), 100);
    assert_eq!(table.learn(mac(1), PortId(3), 100), Learned::Known);
    assert_eq!(table.learn(mac(1), PortId(3), 101), Learned::Refreshed);
    assert_eq!(table.learn(mac(1), PortId(3), 100), Learned::Known, "a clock that is behind ages nothing");
    assert_eq!(table.lookup(mac(1), 100 + AGEING), Some(PortId(3)));
    assert_eq!(table.iter(111).map(|entry| entry.age_s).collect::<Vec<_>>(), [10]);
}

#[test]
fn sweeping_frees_what_aged_out_and_nothing_else() {
    let table = MacTable::new(64);
    table.learn(mac(1), PortId(3), 100);
    table.learn(mac(2), PortId(3), 200);
    table.insert_static(mac(3), PortId(3), 0);
    assert_eq!((table.sweep(100 + AGEING - 1), table.len()), (0, 3));
    assert_eq!((table.sweep(100 + AGEING), table.len()), (1, 2));
    assert_eq!(known(&table, 100 + AGEING), [(mac(2), PortId(3), false), (mac(3), PortId(3), true)]);
}

#[test]
fn a_static_mac_neither_ages_nor_moves_and_takes_the_place_of_a_learned_one() {
    let table = MacTable::new(64);
    table.learn(mac(1), PortId(3), 0);
    assert!(table.insert_static(mac(1), PortId(4), 0));
    assert_eq!(table.learn(mac(1), PortId(3), 1), Learned::StaticElsewhere);
    assert_eq!(table.learn(mac(1), PortId(4), 1), Learned::Known);
    assert_eq!(table.lookup(mac(1), 100 * AGEING), Some(PortId(4)));
    assert_eq!((table.len(), table.moves()), (1, 0));
    assert!(table.insert_static(mac(1), PortId(5), 9), "stated anew for another port");
    assert_eq!(known(&table, 9), [(mac(1), PortId(5), true)]);
    assert!(table.remove(mac(1)));
    assert!(!table.remove(mac(1)));
    assert_eq!(table.learn(mac(1), PortId(3), 9), Learned::New);
}

#[test]
fn moves_are_counted_and_limited_a_second() {
    let table = MacTable::new(64);
    table.learn(mac(1), PortId(0), 5);
    let moves = |now_s: u64| {
        let turns = (0..3 * MAC_MOVES_PER_SECOND).map(|turn| table.learn(mac(1), PortId((turn % 2) as u16), now_s));
        let (mut moved, mut limited) = (0, 0);
        turns.for_each(|learned| match learned {
            Learned::Moved { .. } => moved += 1,
            Learned::MoveLimited => limited += 1,
            _ => {}
        });
        (moved, limited > 0)
    };
    assert_eq!(moves(5), (MAC_MOVES_PER_SECOND, true));
    assert_eq!(moves(6), (MAC_MOVES_PER_SECOND, true));
    assert_eq!(moves(5), (0, true), "a worker whose clock is behind gets no second helping");
    assert_eq!(table.moves(), 2 * MAC_MOVES_PER_SECOND);
}

#[test]
fn a_move_says_where_from_and_a_forgotten_mac_does_not_count_as_moved() {
    let table = MacTable::new(64);
    table.learn(mac(1), PortId(1), 0);
    assert_eq!(table.learn(mac(1), PortId(2), 0), Learned::Moved { from: PortId(1) });
    assert_eq!(table.learn(mac(1), PortId(1), AGEING), Learned::New);
    assert_eq!((table.moves(), table.len()), (1, 1));
}

#[test]
fn a_port_that_floods_addresses_pushes_out_only_its_own() {
    let table = MacTable::new(16_384);
    for few in 0..40 {
        assert_eq!(table.learn(mac(few), PortId(u16::try_from(few / 4).unwrap()), 0), Learned::New);
    }
    assert!(table.insert_static(mac(99), PortId(50), 0));
    for flood in 0..100_000 {
        let learned = table.learn(mac(1_000_000 + flood), PortId(60), 1);
        let own = Learned::Evicted { victim: PortId(60) };
        assert!(learned == Learned::New || learned == own || learned == Learned::Full, "{learned:?}");
    }
    for few in 0..40 {
        assert_eq!(table.lookup(mac(few), 1), Some(PortId(u16::try_from(few / 4).unwrap())));
    }
    assert_eq!(table.lookup(mac(99), 1), Some(PortId(50)));
    assert!(table.len() > table.capacity() * 95 / 100, "only {} of {} used", table.len(), table.capacity());
    assert!(table.evictions() > 80_000);
}

#[test]
fn a_port_with_few_addresses_gets_its_place_in_a_flooded_table() {
    let table = MacTable::new(1_024);
    for flood in 0..10_000 {
        table.learn(mac(1_000_000 + flood), PortId(60), 0);
    }
    for few in 0..20 {
        let learned = table.learn(mac(few), PortId(1), 1);
        assert!(matches!(learned, Learned::New | Learned::Evicted { victim: PortId(60) }), "{learned:?}");
    }
    assert!((0..20).all(|few| table.lookup(mac(few), 1) == Some(PortId(1))));
}

#[test]
fn a_table_full_of_static_macs_learns_nothing() {
    let table = MacTable::new(8);
    assert_eq!(table.capacity(), 8);
    assert!((0..8).all(|n| table.insert_static(mac(n), PortId(1), 0)));
    assert_eq!(table.learn(mac(9), PortId(2), 0), Learned::Full);
    assert!(!table.insert_static(mac(9), PortId(2), 0));
    assert_eq!(table.len(), 8);
}

#[test]
fn a_reused_port_id_inherits_nothing() {
    let table = MacTable::new(64);
    table.learn(mac(1), PortId(7), 0);
    table.insert_static(mac(2), PortId(7), 0);
    table.learn(mac(3), PortId(8), 0);
    table.retire_port(PortId(7));
    assert_eq!(known(&table, 0), [(mac(3), PortId(8), false)]);
    assert_eq!(table.lookup(mac(1), 0), None);
    assert_eq!(table.learn(mac(2), PortId(8), 0), Learned::New, "not pinned to a port that is gone");
    assert_eq!(table.learn(mac(1), PortId(7), 0), Learned::New);
    assert_eq!(table.lookup(mac(1), 0), Some(PortId(7)));
    assert_eq!(table.sweep(0), 0, "both places were taken again");
}

#[test]
fn flushing_a_port_forgets_what_it_learned() {
    let table = MacTable::new(64);
    table.learn(mac(1), PortId(7), 0);
    table.learn(mac(2), PortId(8), 0);
    table.insert_static(mac(3), PortId(7), 0);
    assert_eq!(table.flush_port(PortId(7)), 1);
    assert_eq!(known(&table, 0), [(mac(2), PortId(8), false), (mac(3), PortId(7), true)]);
}

#[test]
fn what_is_no_station_or_no_port_is_not_learned() {
    let table = MacTable::new(64);
    for (address, port) in [
        (Mac::BROADCAST, PortId(1)),
        (Mac::ZERO, PortId(1)),
        (mac(1), PortId::NONE),
        (mac(1), PortId(u16::try_from(PORTS_MAX).unwrap())),
    ] {
        assert_eq!(table.learn(address, port, 0), Learned::Full);
        assert!(!table.insert_static(address, port, 0));
        assert_eq!(table.lookup(address, 0), None);
    }
    assert!(table.is_empty());
}

#[test]
fn threads_that_share_a_small_table_never_see_a_port_the_mac_was_not_behind() {
    // MAC n moves between the ports n % 8 and n % 8 + 8, and 256 of them struggle for 64 places.
    let table = MacTable::new(64);
    assert!(table.insert_static(mac(5_000), PortId(30), 0));
    let work = |seed: u32| {
        for turn in 0..60_000_u32 {
            let n = turn.wrapping_mul(0x9e37_79b9).wrapping_add(seed) >> 8 & 0xff;
            let now_s = u64::from(turn / 1_000);
            table.learn(mac(n), PortId(u16::try_from(n % 8 + (turn & 8)).unwrap()), now_s);
            let n = n ^ 0x55;
            let found = table.lookup(mac(n), now_s);
            assert!(found.is_none_or(|port| u32::from(port.0) % 8 == n % 8 && port.0 < 16), "{n} behind {found:?}");
            assert_eq!(table.lookup(mac(5_000), now_s), Some(PortId(30)));
        }
    };
    std::thread::scope(|scope| (0..3).for_each(|seed| drop(scope.spawn(move || work(seed * 77)))));
    // Quiet now: no MAC lies in two places, and the counts are those of the entries.
    let mut macs: Vec<_> = table.iter(60).map(|entry| entry.mac).collect();
    let listed = macs.len();
    assert_eq!(table.len(), listed);
    macs.sort();
    macs.dedup();
    assert_eq!(macs.len(), listed);
}

#[test]
fn a_thread_that_reads_while_a_port_is_reused_never_inherits() {
    // Each life of port 1 learns MACs of its own in the places of the last life's.
    const LIVES: u32 = 20_000;
    const MACS: u32 = 12;
    let table = MacTable::new(16);
    let lives_ended = AtomicU32::new(0);
    let read = || {
        loop {
            let ended = lives_ended.load(Ordering::Acquire);
            if ended == LIVES {
                return;
            }
            for n in (ended.saturating_sub(1) * MACS)..(ended * MACS) {
                assert_eq!(table.lookup(mac(n), 0), None, "MAC {n}, when life {ended} had ended");
            }
        }
    };
    std::thread::scope(|scope| {
        (0..2).for_each(|_| drop(scope.spawn(read)));
        for life in 0..LIVES {
            let learned =
                (life * MACS..(life + 1) * MACS).filter(|&n| table.learn(mac(n), PortId(1), 0) == Learned::New);
            assert!(learned.count() > 0);
            table.retire_port(PortId(1));
            lives_ended.store(life + 1, Ordering::Release);
        }
    });
}

#[test]
fn a_static_mac_stays_pinned_while_workers_struggle_for_its_place() {
    let table = MacTable::new(8);
    let stop = AtomicBool::new(false);
    let work = |port: u16| {
        let mut n = 0_u32;
        while !stop.load(Ordering::Relaxed) {
            n = (n + 1) % 40;
            table.learn(mac(n), PortId(port), 0);
        }
    };
    std::thread::scope(|scope| {
        (1..3).for_each(|port| drop(scope.spawn(move || work(port))));
        for round in 0..5_000 {
            // One of those the workers learn: pinned, moved to another port, removed.
            let pinned = mac(round % 40);
            let ports = [PortId(8), PortId(9)];
            let kept = ports.map(|port| table.insert_static(pinned, port, 0) && table.lookup(pinned, 0) == Some(port));
            table.remove(pinned);
            if kept != [true; 2] {
                stop.store(true, Ordering::Relaxed);
                panic!("round {round}: {kept:?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let listed = table.iter(0).count();
    assert_eq!(table.len(), listed);
}

#[derive(Clone, Debug)]
enum Step {
    Learn(u32, u16),
    Pin(u32, u16),
    Remove(u32),
    Flush(u16),
    Retire(u16),
    Sweep,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let (macs, ports) = (0..12_u32, 0..4_u16);
    prop_oneof![
        8 => (macs.clone(), ports.clone()).prop_map(|(mac, port)| Step::Learn(mac, port)),
        1 => (macs.clone(), ports.clone()).prop_map(|(mac, port)| Step::Pin(mac, port)),
        1 => macs.prop_map(Step::Remove),
        1 => ports.clone().prop_map(Step::Flush),
        1 => ports.prop_map(Step::Retire),
        1 => Just(Step::Sweep),
        2 => (0..200_u64).prop_map(Step::Wait),
    ]
}

/// The obvious table: a map that forgets at once.
#[derive(Default)]
struct Model {
    macs: HashMap<u32, (u16, bool, u64)>,
    now_s: u64,
}

impl Model {
    fn take(&mut self, step: &Step) {
        let now_s = self.now_s;
        match *step {
            Step::Learn(mac, port) => match self.macs.get_mut(&mac) {
                Some((_, true, _)) => {}
                Some(entry) => *entry = (port, false, now_s),
                None => drop(self.macs.insert(mac, (port, false, now_s))),
            },
            Step::Pin(mac, port) => drop(self.macs.insert(mac, (port, true, now_s))),
            Step::Remove(mac) => drop(self.macs.remove(&mac)),
            Step::Flush(gone) => self.macs.retain(|_, (port, is_static, _)| *port != gone || *is_static),
            Step::Retire(gone) => self.macs.retain(|_, (port, ..)| *port != gone),
            Step::Sweep => {}
            Step::Wait(seconds) => self.now_s += seconds,
        }
        let now_s = self.now_s;
        self.macs.retain(|_, (_, is_static, seen_s)| *is_static || now_s - *seen_s < AGEING);
    }
}

fn take(table: &MacTable, step: &Step, now_s: u64) {
    match *step {
        Step::Learn(n, port) => drop(table.learn(mac(n), PortId(port), now_s)),
        Step::Pin(n, port) => assert!(table.insert_static(mac(n), PortId(port), now_s)),
        Step::Remove(n) => drop(table.remove(mac(n))),
        Step::Flush(port) => drop(table.flush_port(PortId(port))),
        Step::Retire(port) => table.retire_port(PortId(port)),
        Step::Sweep => drop(table.sweep(now_s)),
        Step::Wait(_) => {}
    }
}

proptest! {
    #[test]
    fn a_table_that_is_not_full_agrees_with_a_map(steps in prop::collection::vec(step(), 1..80)) {
        // 12 MACs always fit the 16 entries of any two buckets, and 80 steps stay below the moves of a second.
        let table = MacTable::new(32);
        let mut model = Model::default();
        for step in &steps {
            take(&table, step, model.now_s);
            model.take(step);
            let mut expected: Vec<_> =
                model.macs.iter().map(|(&n, &(port, is_static, _))| (mac(n), PortId(port), is_static)).collect();
            expected.sort();
            prop_assert_eq!(known(&table, model.now_s), expected, "after {:?}", step);
            for n in 0..12 {
                let expected = model.macs.get(&n).map(|entry| PortId(entry.0));
                prop_assert_eq!(table.lookup(mac(n), model.now_s), expected);
            }
        }
    }
}
