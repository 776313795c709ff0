//! A kill at every step of attaching and detaching: after the next start a container is attached whole or not at all, and
//! both can be asked for again.
//!
//! strace ends the daemon as one of its threads is about to make its n-th system call of those that change something.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use podwire_control::client::ClientError;
use podwire_control::model::{AttachRequest, HostPort, Transport};
use podwire_tests::probe::Path;
use podwire_tests::probe::ping::{Ping, ping};
use podwire_tests::{Node, Pod};

use crate::api::{Api, eventually, node};
use crate::attach::{container, request};

/// Steps of one kind each, so that the later ones are reached too: those of the kernel's tables and of TAPs, of the store, and
/// of what workers and the caller are told.
const STEPS: [&str; 3] = ["ioctl,sendto", "pwrite64,fdatasync", "write,writev,sendmsg,futex,clock_nanosleep"];
/// More of them no request takes.
const STEPS_MAX: usize = 200;
const ATTACHED_WITHIN: Duration = Duration::from_secs(5);
/// What the container that comes and goes is to be reached by.
const WEB: HostPort = HostPort { host_ip: None, host_port: 8080, container_port: 80, transport: Transport::Tcp };

/// strace on a daemon, until the daemon or the value is gone.
struct Killer(Child);

impl Killer {
    /// Kills the daemon at the step of this number, counted for each of its threads from 1.
    fn at_step(node: &Node, steps: &str, step: usize) -> Self {
        let pid = node.pid().unwrap();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-p", &pid.to_string(), "-e", &format!("trace={steps}")]);
        strace.args(["-e", &format!("inject={steps}:signal=KILL:when={step}")]);
        let child = strace.stdin(Stdio::null()).spawn().expect("strace is installed");
        let killer = Self(child);
        eventually(ATTACHED_WITHIN, "strace holds every thread", || !is_running(node) || is_traced(pid));
        killer
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        let _ended_with_the_daemon = self.0.kill();
        let _status = self.0.wait();
    }
}

fn is_traced(pid: u32) -> bool {
    let mut threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.all(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
    })
}

fn is_running(node: &Node) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.pid().unwrap())).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']) && !rest.is_empty())
}

/// Asks for something while the daemon is to be killed at a step, and starts it again after `meanwhile`; false when it got
/// through all of them.
fn killed<T>(
    node: &mut Node,
    (steps, step): (&str, usize),
    meanwhile: fn(&Node),
    ask: impl FnOnce(&Api) -> Result<T, ClientError>,
) -> bool {
    let api = Api::of(node);
    let warnings = || api.ask(api.client.status()).map(|status| status.warnings);
    let before = warnings().unwrap();
    let killer = Killer::at_step(node, steps, step);
    let answered = ask(&api).is_ok();
    drop(killer);
    // The last thread of a killed process may end a moment after its sockets. Or nft was killed in its place, whose work is
    // tried again only in a while, and at the next start at once.
    let killed = !answered || !is_running(node) || !warnings().is_ok_and(|now| now == before);
    if killed {
        node.kill();
        meanwhile(node);
        node.start();
    }
    killed
}

/// Says that addresses are held, and the node's ports lead, as the attachments say.
#[track_caller]
fn assert_kept_as_attached(node: &Node, api: &Api) {
    let attachments = api.attachments();
    let ranges = api.ask(api.client.ipam()).unwrap().ranges;
    for range in &ranges {
        assert_eq!(range.held, attachments.len() as u64, "each holds one of {}", range.range);
    }
    let v4 = &ranges[0];
    assert_eq!(v4.free, v4.size - v4.reserved - v4.held);
    let opened = attachments.iter().filter(|one| one.host_ports == [WEB]);
    let mut wanted: Vec<String> =
        opened.flat_map(|one| &one.addresses).map(|address| format!("8080 : {} . 80", address.addr())).collect();
    wanted.sort();
    let table = node.netns.exec("nft", &["list", "table", "inet", "podwire"]).stdout;
    let elements = table.split(['{', '}', ',']).filter_map(|part| part.trim().strip_prefix("tcp . "));
    let mut found: Vec<&str> = elements.collect();
    found.sort_unstable();
    assert_eq!(found, wanted, "{table}");
}

#[test]
fn a_kill_at_any_step_leaves_a_container_attached_whole_or_not_at_all() {
    kill_at_each_step(&STEPS, |_| {});
}

#[test]
fn a_kill_at_any_step_of_the_store_is_made_good_from_its_copy() {
    kill_at_each_step(&STEPS[1..2], |node| {
        fs::write(node.store().main, "damaged").unwrap();
    });
}

fn kill_at_each_step(all_steps: &[&str], meanwhile: fn(&Node)) {
    let mut node = node();
    let (stays, first) = container(&Api::of(&node), "stays");
    let only_first = std::slice::from_ref(&first);
    let mut comer = Pod::unattached("comes", &[]);
    let comes = AttachRequest { host_ports: vec![WEB], ..request("comes", &comer.netns) };
    let once = Ping { count: 1, ..Ping::default() };
    let (mut whole, mut nothing) = (0, 0);
    for &steps in all_steps {
        for step in 1.. {
            assert!(step < STEPS_MAX, "a request has fewer steps");
            let at = (steps, step);
            let killed_adding = killed(&mut node, at, meanwhile, |api| api.attach(&comes));
            let api = Api::of(&node);
            let found = api.attachments().into_iter().find(|one| one.key == comes.key);
            assert_kept_as_attached(&node, &api);
            if killed_adding {
                *(if found.is_some() { &mut whole } else { &mut nothing }) += 1;
            }
            if let Some(one) = found {
                assert_eq!(api.drifts(&one), Vec::<String>::new(), "{at:?}");
            }
            let attached = api.attach(&comes).unwrap();
            assert_eq!(api.drifts(&attached), Vec::<String>::new(), "{at:?}");
            comer.addresses = attached.addresses;
            assert!(ping(Path::v4(&stays, &comer), once).all(), "{at:?}");
            drop(api);

            let killed_deleting = killed(&mut node, at, meanwhile, |api| api.ask(api.client.detach(&comes.key)));
            let api = Api::of(&node);
            let left = api.attachments();
            assert_kept_as_attached(&node, &api);
            match left.iter().find(|one| one.key == comes.key) {
                Some(one) => assert_eq!(api.drifts(one), Vec::<String>::new(), "{at:?}"),
                None => assert_eq!(left, only_first, "{at:?}"),
            }
            if killed_deleting {
                *(if left.len() > 1 { &mut whole } else { &mut nothing }) += 1;
            }
            api.detach("comes");
            assert_eq!(api.attachments(), only_first);
            assert!(!comer.netns.has_interface("eth0") || killed_deleting, "{at:?}");
            assert_eq!(api.drifts(&first), Vec::<String>::new());
            if !killed_adding && !killed_deleting {
                eprintln!("{step} steps of {steps}");
                break;
            }
        }
    }
    eprintln!("after {whole} of the kills it was attached, and not after {nothing}");
    assert!(whole > 5 && nothing > 5);
}
