//! A node: a namespace with an underlay interface and, once started, a `podwired` of its own.
//!
//! The daemon's log goes to a file; it is printed when the test fails. What stays behind a killed daemon
//! (its persistent TAPs) goes with the namespaces.

mod left;
mod spec;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use podwire_vswitch::daemon::store::Place;
use serde_json::Value;
use tempfile::TempDir;

use crate::binary::binary;
use crate::command::{self, Outcome};
use crate::netns::{Netns, Wire};
use crate::plan::NodePlan;
use crate::pod::{POD_INTERFACE, Pod};
use crate::supervisor::Supervisor;
use crate::underlay::{RemoteNode, join_underlay};

pub use left::Left;
pub use spec::{NodeSpec, UplinkKind};

/// How long a daemon may take from its start to the first answer.
const START_MAX: Duration = Duration::from_secs(10);
/// How long a daemon may take to end after SIGTERM.
const STOP_MAX: Duration = Duration::from_secs(5);

/// How long a switch may take to be quiet after the last probe.
const QUIET_MAX: Duration = Duration::from_secs(2);

/// How long neighbours may take to be resolved; over IPv6 an interface may ask only a second or two after it came up.
const RESOLVED_MAX: Duration = Duration::from_secs(10);

/// A node's namespace and the daemon in it.
#[derive(Debug)]
pub struct Node {
    /// The node's own namespace, where its processes and its host TAP are.
    pub netns: Netns,
    /// What the configuration file says.
    pub spec: NodeSpec,
    /// The service manager that starts the daemon, where there is one.
    pub supervisor: Option<Supervisor>,
    /// The program that is started.
    pub program: PathBuf,
    folder: TempDir,
    daemon: Option<Child>,
}

impl Node {
    /// A node that is not wired and not started yet.
    ///
    /// # Panics
    /// When no temporary folder can be made.
    #[must_use]
    #[track_caller]
    pub fn new(spec: NodeSpec) -> Self {
        let netns = Netns::new(&spec.name);
        netns.sysctl("net.ipv4.ip_forward", "1");
        netns.sysctl("net.ipv6.conf.all.forwarding", "1");
        let folder = tempfile::Builder::new().prefix("podwire-test-").tempdir().expect("a temporary folder");
        Self { netns, spec, supervisor: None, program: binary("podwired"), folder, daemon: None }
    }

    /// Two planned nodes on one wire, both daemons running, each knowing the other as a VTEP with its routes.
    #[must_use]
    #[track_caller]
    pub fn pair(wire: Wire) -> (Self, Self) {
        Self::pair_of([NodeSpec::planned(NodePlan(1)), NodeSpec::planned(NodePlan(2))], wire)
    }

    /// [`Self::pair`] of nodes that differ from the plan.
    #[must_use]
    #[track_caller]
    pub fn pair_of(specs: [NodeSpec; 2], wire: Wire) -> (Self, Self) {
        let [mut a, mut b] = specs.map(Self::new);
        join_underlay((&a.netns, &a.spec.underlay), (&b.netns, &b.spec.underlay), wire);
        Self::introduce(&mut a, &mut b);
        (a, b)
    }

    /// Starts two wired nodes and makes each known to the other.
    #[track_caller]
    pub fn introduce(a: &mut Self, b: &mut Self) {
        a.start();
        b.start();
        a.reach(&b.as_remote());
        b.reach(&a.as_remote());
    }

    /// Path of the control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("podwired.sock")
    }

    /// The daemon's state directory.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Where its store is.
    #[must_use]
    pub fn store(&self) -> Place {
        let main = self.state_dir().join("podwired.redb");
        Place { main, copy: self.socket().with_extension("copy.redb"), node: self.spec.name.clone() }
    }

    /// Damages the store of a daemon that does not run, and takes its copy away; gives what the store was.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn damage_store(&self) -> Vec<u8> {
        let Place { main, copy, .. } = self.store();
        let whole = fs::read(&main).expect("there is a store");
        fs::write(main, &whole[..100]).expect("it can be written");
        fs::remove_file(copy).expect("there is a copy");
        whole
    }

    /// Path of the daemon's log; later starts append.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.folder.path().join("podwired.log")
    }

    /// The daemon's process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// Starts `podwired` and waits until `podwire status` answers.
    ///
    /// # Panics
    /// When it ends, or does not answer in time; the log is printed.
    #[track_caller]
    pub fn start(&mut self) {
        assert!(self.daemon.is_none(), "{} runs already", self.spec.name);
        let config = self.folder.path().join("podwired.toml");
        let text = self.spec.toml(&self.socket(), &self.state_dir());
        fs::write(&config, text).expect("the configuration can be written");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("the log can be opened");
        let mut command = match &self.supervisor {
            Some(supervisor) => supervisor.command(&self.netns, &self.program),
            None => self.netns.command(&self.program),
        };
        command.arg("--config").arg(&config).envs(self.spec.environment.iter().cloned());
        command.stdout(log.try_clone().expect("a file can be cloned")).stderr(log);
        self.daemon = Some(command.spawn().expect("nsenter starts"));
        // With its copies of what a service manager keeps.
        drop(command);
        self.wait_until_ready();
    }

    #[track_caller]
    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + START_MAX;
        loop {
            if self.socket().exists() && self.podwire_outcome(&["status"]).ok() {
                return;
            }
            let ended = self.daemon.as_mut().and_then(|daemon| daemon.try_wait().ok().flatten());
            assert!(ended.is_none(), "podwired of {} ended with {ended:?} at its start", self.spec.name);
            assert!(Instant::now() < deadline, "podwired of {} gave no answer in {START_MAX:?}", self.spec.name);
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the daemon with SIGTERM, or with SIGKILL when it takes too long, and says whether it ended by itself with 0.
    pub fn stop(&mut self) -> bool {
        let Some(mut daemon) = self.daemon.take() else { return true };
        signal(&daemon, Signal::SIGTERM);
        let deadline = Instant::now() + STOP_MAX;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = daemon.try_wait() {
                return status.success();
            }
            thread::sleep(Duration::from_millis(1));
        }
        let _ = daemon.kill();
        let _ = daemon.wait();
        false
    }

    /// Ends the daemon at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// Runs `podwired cleanup` with this node's configuration.
    #[track_caller]
    pub fn cleanup(&self) -> Outcome {
        self.podwired(&["cleanup"])
    }

    /// Runs a verb of `podwired` with this node's configuration, in its namespace.
    #[track_caller]
    pub fn podwired<S: AsRef<str>>(&self, verb: &[S]) -> Outcome {
        let config = self.folder.path().join("podwired.toml").display().to_string();
        let mut all = vec!["--config", &config];
        all.extend(verb.iter().map(AsRef::as_ref));
        self.netns.exec(&binary("podwired").display().to_string(), &all)
    }

    /// Asks the daemon to read its configuration again.
    pub fn reload(&self) {
        if let Some(daemon) = &self.daemon {
            signal(daemon, Signal::SIGHUP);
        }
    }

    /// Runs `podwire` against this node, for commands that may fail.
    #[track_caller]
    pub fn podwire_outcome<S: AsRef<str>>(&self, arguments: &[S]) -> Outcome {
        let mut all = vec!["--socket".to_owned(), self.socket().display().to_string()];
        all.extend(arguments.iter().map(|argument| argument.as_ref().to_owned()));
        command::run(&binary("podwire").display().to_string(), &all)
    }

    /// Runs `podwire` and gives what it printed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn podwire<S: AsRef<str>>(&self, arguments: &[S]) -> String {
        self.podwire_outcome(arguments).expect("podwire refused")
    }

    /// Runs `podwire -o json` and gives the parsed answer.
    ///
    /// # Panics
    /// When it fails, or prints something else.
    #[track_caller]
    pub fn podwire_json<S: AsRef<str>>(&self, arguments: &[S]) -> Value {
        let mut all = vec!["-o", "json"];
        all.extend(arguments.iter().map(AsRef::as_ref));
        let text = self.podwire(&all);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("podwire {all:?} printed no JSON ({error}): {text}"))
    }

    /// A counter of the whole switch, by its name in `podwire stats`, such as `drop:no_route`.
    ///
    /// # Panics
    /// When there is no such counter.
    #[must_use]
    #[track_caller]
    pub fn total(&self, counter: &str) -> u64 {
        let stats = self.podwire_json(&["stats"]);
        let value = &stats["totals"][counter];
        value.as_u64().unwrap_or_else(|| panic!("stats have no counter {counter}: {}", stats["totals"]))
    }

    /// Says that received frames and outcomes add up, once the switch is quiet.
    ///
    /// # Panics
    /// When they still do not after a while.
    #[track_caller]
    pub fn assert_every_frame_is_counted(&self) {
        let deadline = Instant::now() + QUIET_MAX;
        let ports = self.podwire_json(&["port", "list"]);
        loop {
            let stats = self.podwire_json(&["stats"]);
            let (received, ended) = (received_frames(&stats, &ports), ended_frames(&stats));
            if received == ended {
                return;
            }
            assert!(Instant::now() < deadline, "{received} frames were received and {ended} ended: {stats}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Adds a pod of the plan by its host number, with a TAP of the default kind.
    #[must_use]
    #[track_caller]
    pub fn pod(&self, name: &str, addresses: &[IpNet]) -> Pod {
        self.pod_with(name, addresses, &[])
    }

    /// Adds a pod with further arguments of `podwire port add`, such as `--mtu 1280`; with a TAP unless they say `--kind`.
    #[must_use]
    #[track_caller]
    pub fn pod_with(&self, name: &str, addresses: &[IpNet], more: &[&str]) -> Pod {
        let pod = Pod::unattached(name, addresses);
        let mut arguments: Vec<String> = ["port", "add", name, "--netns"].map(String::from).to_vec();
        arguments.push(pod.netns.path().display().to_string());
        arguments.extend(["--ifname".into(), POD_INTERFACE.into()]);
        arguments.extend(addresses.iter().flat_map(|address| ["--ip".into(), address.to_string()]));
        if !more.contains(&"--kind") {
            arguments.extend(["--kind".into(), "tap".into()]);
        }
        arguments.extend(more.iter().map(|&word| word.to_owned()));
        self.podwire(&arguments);
        pod
    }

    /// By what each endpoint of the node's first VTEP is sent to, and why.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn sent_by(&self) -> Vec<(String, String)> {
        let vteps = self.podwire_json(&["vtep", "list"]);
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let endpoints = vteps[0]["endpoints"].as_array().expect("a VTEP");
        endpoints.iter().map(|end| (text(&end["sent_by"]), text(&end["sent_by_why"]))).collect()
    }

    /// Waits until the node sends to all endpoints of its first VTEP through AF_XDP.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn wait_for_xdp(&self) {
        let began = Instant::now();
        while self.sent_by().iter().any(|(by, _)| by != "xdp") {
            assert!(began.elapsed() < RESOLVED_MAX, "still sent otherwise: {:?}", self.sent_by());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What another node must know of this one: `status` names the VTEP's MAC addresses.
    ///
    /// # Panics
    /// When `status` has no `vtep_mac`.
    #[must_use]
    #[track_caller]
    pub fn as_remote(&self) -> RemoteNode {
        let status = self.podwire_json(&["status"]);
        let mac = status["vtep_mac"].as_str().unwrap_or_else(|| panic!("status has no vtep_mac: {status}"));
        RemoteNode {
            name: self.spec.name.clone(),
            pod_cidrs: self.spec.pod_cidrs.clone(),
            underlay: self.spec.underlay.clone(),
            mac: mac.to_owned(),
            mac6: status["vtep_mac6"].as_str().unwrap_or(mac).to_owned(),
        }
    }

    /// Makes another node reachable: one VTEP with an endpoint a family, and a route to each of its pod subnets.
    #[track_caller]
    pub fn reach(&self, remote: &RemoteNode) {
        let mut arguments: Vec<String> = ["vtep", "add", &remote.name].map(String::from).to_vec();
        for address in &remote.underlay {
            let mac = if address.addr().is_ipv6() { &remote.mac6 } else { &remote.mac };
            arguments.extend(["--remote".into(), address.addr().to_string(), "--mac".into(), mac.clone()]);
        }
        self.podwire(&arguments);
        for cidr in &remote.pod_cidrs {
            self.podwire(&["route", "add", &cidr.to_string(), "via", &remote.name]);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log_path()).unwrap_or_default();
            eprintln!("---- log of podwired on {} ----\n{log}----", self.spec.name);
        }
    }
}

/// What devices received: a tunnel's frames are its uplink's too, and are told a second time by its name.
fn received_frames(stats: &Value, ports: &Value) -> u64 {
    let rows = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let tunnels: Vec<Value> =
        rows(ports).into_iter().filter(|port| port["role"] == "tunnel").map(|port| port["name"].clone()).collect();
    let devices = rows(&stats["ports"]).into_iter().filter(|port| !tunnels.contains(&port["port"]));
    devices.filter_map(|port| port["counters"]["rx_frames"].as_u64()).sum()
}

fn ended_frames(stats: &Value) -> u64 {
    let is_outcome = |name: &str| {
        ["forward", "flood", "reply"].contains(&name) || name.starts_with("punt:") || name.starts_with("drop:")
    };
    let totals = stats["totals"].as_object().into_iter().flatten();
    totals.filter(|(name, _)| is_outcome(name)).filter_map(|(_, value)| value.as_u64()).sum()
}

fn signal(child: &Child, signal: Signal) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}
