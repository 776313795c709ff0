//! Many containers: at once, in a row, beside a hundred others.

use std::fs;
use std::time::{Duration, Instant};

use podwire_tests::{Netns, Node};

use crate::plugin::{Call, attachments, node};

/// Containers that are made, and deleted, at the same time: those of a node that boots, more than podwired has connections.
const AT_ONCE: usize = 110;
/// How many containers come and go in a row; `PODWIRE_CNI_ROUNDS` says another number.
const ROUNDS: usize = 60;
/// Containers that are there while another's time is taken.
const PRESENT: usize = 100;
/// What podwired may grow by over the rounds.
const RSS_KIB_MAX: u64 = 8 << 10;

fn rounds() -> usize {
    std::env::var("PODWIRE_CNI_ROUNDS").map_or(ROUNDS, |text| text.parse().expect("a number of rounds"))
}

#[test]
fn containers_at_once_get_addresses_of_their_own() {
    let node = node();
    let all: Vec<(String, Netns)> = (0..AT_ONCE)
        .map(|number| format!("c{number}"))
        .map(|name| {
            let netns = Netns::new(&name);
            (name, netns)
        })
        .collect();
    let at_once = |command: &str| {
        std::thread::scope(|scope| {
            let one = |(name, netns): &'_ (String, Netns)| _ = Call::in_netns(&node, name, netns).run(command).done();
            all.iter().for_each(|container| _ = scope.spawn(move || one(container)));
        });
    };
    at_once("ADD");
    let mut told: Vec<String> =
        attachments(&node).iter().flat_map(|one| &one.addresses).map(ToString::to_string).collect();
    assert_eq!(told.len(), 2 * AT_ONCE);
    told.sort();
    told.dedup();
    assert_eq!(told.len(), 2 * AT_ONCE, "no address is another's");
    for (_, netns) in &all {
        assert!(netns.ip("-j addr show dev eth0").contains("10.244.1."));
    }
    at_once("DEL");
    assert!(attachments(&node).is_empty());
}

#[test]
fn containers_that_come_and_go_leave_nothing_in_podwired() {
    let node = node();
    let netns = Netns::new("a");
    let round = |number: usize| {
        let call = Call::in_netns(&node, &format!("c{number}"), &netns);
        call.run("ADD").done();
        call.run("DEL").done();
    };
    (0..20).for_each(round);
    let before = footprint(&node);
    let rounds = rounds();
    (20..20 + rounds).for_each(round);
    let after = footprint(&node);
    println!(
        "{rounds} containers came and went: descriptors {} -> {}, RSS {} -> {} KiB",
        before.0, after.0, before.1, after.1
    );
    assert!(attachments(&node).is_empty());
    assert_eq!(after.0, before.0, "open descriptors");
    assert!(after.1 < before.1 + RSS_KIB_MAX, "RSS {} -> {} KiB", before.1, after.1);
}

/// Open descriptors and resident memory (KiB) of podwired.
fn footprint(node: &Node) -> (usize, u64) {
    let process = format!("/proc/{}", node.pid().expect("podwired runs"));
    let descriptors = fs::read_dir(format!("{process}/fd")).unwrap().count();
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    (descriptors, line.split_whitespace().next().unwrap().parse().unwrap())
}

#[test]
fn an_add_is_soon_done_beside_a_hundred_others() {
    let node = node();
    let others = Netns::new("others");
    for number in 0..PRESENT {
        let call = Call::in_netns(&node, &format!("other{number}"), &others);
        call.named(&format!("eth{number}")).run("ADD").done();
    }
    let netns = Netns::new("a");
    let mut times: Vec<Duration> = (0..50)
        .map(|number| {
            let call = Call::in_netns(&node, &format!("c{number}"), &netns);
            let begun = Instant::now();
            call.run("ADD").done();
            let took = begun.elapsed();
            call.run("DEL").done();
            took
        })
        .collect();
    times.sort();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("ADD beside {PRESENT} others: p50 {p50:?}, p99 {p99:?}");
    assert!(p50 < Duration::from_secs(1), "p50 {p50:?}");
}
