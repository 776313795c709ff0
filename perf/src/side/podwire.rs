//! Two pods on podwired: on one node, or on two nodes with its VXLAN between them.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ipnet::{IpNet, Ipv4Net};
use podwire_control::client::Client;
use podwire_control::model::{Bandwidth, Endpoint, Guard, Object, Owner, Port, PortKind, Route, Via, Vtep};
use podwire_vswitch::sys::affinity::allowed_cpus;
use podwire_vswitch::sys::clock::mono_now;
use tokio::runtime::Runtime;

use super::kernel_vxlan::{node_address, underlay};
use super::{POD_INTERFACE, Side, Site, quiet};
use crate::lab::{Netns, Process, folder, stop};
use crate::scenario::PodwireOptions;

/// How long podwired may take to its first answer, and for each later one: hundreds of ports come in one call.
const START_NS_MAX: u64 = 10_000_000_000;
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Pods in one call.
const PODS_PER_CALL: usize = 64;

/// Two pods on one node.
pub(super) fn node(label: &str, options: &PodwireOptions, site: &Site<'_>) -> Result<Side> {
    let folder = folder()?;
    let netns = Netns::new(&format!("{label}-node"))?;
    let cpus = options.workers.map(|workers| worker_cpus(workers, 0)).transpose()?;
    let mut node = Node::start(&netns, 1, options, &Place { at: folder.path(), site, cpus, uplink: false })?;
    let (from, to) = super::pods(label)?;
    node.add(&[(&from, pod_address(1, 0)), (&to, pod_address(1, 1))])?;
    let mut others = node.idle_pods(label, options.idle_pods)?;
    others.insert(0, netns);
    let quiet = quiet(from, to, pod_address(1, 1));
    Ok(Side { processes: vec![node.process], others, _folder: Some(folder), ..quiet })
}

/// Two nodes with one pod each, a cable between them. Each node has its own CPUs, as far as there are enough.
pub(super) fn nodes(label: &str, options: &PodwireOptions, site: &Site<'_>) -> Result<Side> {
    let folder = folder()?;
    let netns = [Netns::new(&format!("{label}-node1"))?, Netns::new(&format!("{label}-node2"))?];
    underlay(&netns, site.wire)?;
    let mut started = Vec::new();
    for (number, netns) in (1_u8..).zip(&netns) {
        let workers = options.workers.unwrap_or(1);
        let cpus = Some(worker_cpus(workers, usize::from(number - 1) * workers)?);
        started.push(Node::start(netns, number, options, &Place { at: folder.path(), site, cpus, uplink: true })?);
    }
    let (from, to) = super::pods(label)?;
    for (at, pod) in [&from, &to].into_iter().enumerate() {
        let other = started[1 - at].number;
        let vtep_mac = started[1 - at].vtep_mac()?;
        started[at].reach(other, vtep_mac)?;
        let address = pod_address(started[at].number, 0);
        started[at].add(&[(pod, address)])?;
    }
    let mut others = started[0].idle_pods(label, options.idle_pods)?;
    others.splice(0..0, netns);
    let interfaces = [0, 1].map(|at| (at, "uplink".to_owned())).to_vec();
    let processes = started.into_iter().map(|node| node.process).collect();
    let quiet = quiet(from, to, pod_address(2, 0));
    Ok(Side { processes, others, interfaces, _folder: Some(folder), ..quiet })
}

/// Address of a pod, counted from 0.
fn pod_address(node: u8, pod: usize) -> Ipv4Addr {
    let [.., high, low] = (pod + 2).to_be_bytes();
    Ipv4Addr::new(10, 240 + node, high, low)
}

fn pod_cidr(node: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(10, 240 + node, 0, 0), 16)
}

/// So many CPUs, counted on from `first` and round again, as `workers.cpus` has them.
fn worker_cpus(workers: usize, first: usize) -> Result<String> {
    let allowed = allowed_cpus();
    let cpus = allowed.numbers();
    ensure!(workers <= cpus.len(), "workers={workers} needs as many CPUs, and this process may use {}", cpus.len());
    let chosen: Vec<String> = (first..first + workers).map(|at| cpus[at % cpus.len()].to_string()).collect();
    Ok(chosen.join(","))
}

/// Where a node is started.
struct Place<'a> {
    at: &'a Path,
    site: &'a Site<'a>,
    cpus: Option<String>,
    uplink: bool,
}

/// A running podwired and the way to tell it things.
struct Node {
    process: Process,
    number: u8,
    client: Client,
    runtime: Runtime,
    pods: PortKind,
}

impl Node {
    fn start(netns: &Netns, number: u8, options: &PodwireOptions, place: &Place<'_>) -> Result<Self> {
        let program = place.site.bin_dir.join("podwired");
        ensure!(
            program.is_file(),
            "{} is missing: run `make build`, or say where podwired is with --bin-dir",
            program.display()
        );
        let config = place.at.join(format!("node{number}.toml"));
        let socket = place.at.join(format!("node{number}.sock"));
        fs::write(&config, configuration(number, options, place, &socket))
            .with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = Command::new(&program);
        command.arg("--config").arg(&config);
        let mut process = Process::start(netns, command, &place.at.join(format!("node{number}.log")))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start a runtime for the client")?;
        let client = connect(&runtime, &socket, &mut process)?;
        Ok(Self { process, number, client, runtime, pods: options.pods })
    }

    fn add(&mut self, pods: &[(&Netns, Ipv4Addr)]) -> Result<()> {
        for some in pods.chunks(PODS_PER_CALL) {
            let ports: Result<Vec<Object>> = some.iter().map(|(pod, address)| port(self.pods, pod, *address)).collect();
            self.state(&ports?)?;
        }
        Ok(())
    }

    /// Pods that do nothing, in namespaces of their own.
    fn idle_pods(&mut self, label: &str, pods: usize) -> Result<Vec<Netns>> {
        let labels: Vec<String> = (0..pods).map(|pod| format!("{label}-idle{pod}")).collect();
        let made = if labels.is_empty() { Vec::new() } else { Netns::batch(&labels)? };
        let number = self.number;
        let addressed: Vec<(&Netns, Ipv4Addr)> =
            made.iter().enumerate().map(|(pod, netns)| (netns, pod_address(number, 2 + pod))).collect();
        self.add(&addressed)?;
        Ok(made)
    }

    fn vtep_mac(&self) -> Result<podwire_control::model::Mac> {
        Ok(self.runtime.block_on(self.client.status())?.vtep_mac)
    }

    /// Makes another node's pods reachable.
    fn reach(&mut self, other: u8, mac: podwire_control::model::Mac) -> Result<()> {
        let name: podwire_control::model::VtepName = format!("node{other}").parse()?;
        let v4 = Some(Endpoint { remote: node_address(other), mac });
        let route = Route { prefix: IpNet::V4(pod_cidr(other)), via: Via::Vtep(name.clone()) };
        self.state(&[Object::Vtep(Vtep { name, v4, v6: None, vni: None }), Object::Route(route)])
    }

    fn state(&self, objects: &[Object]) -> Result<()> {
        let done = self.runtime.block_on(self.client.change(Owner::Cli, objects, &[]));
        if let Err(error) = done {
            bail!("podwired of node{}: {}", self.number, error.sentences().join("; "));
        }
        Ok(())
    }
}

fn port(kind: PortKind, pod: &Netns, address: Ipv4Addr) -> Result<Object> {
    Ok(Object::Port(Port {
        name: pod.name().parse()?,
        kind,
        netns: pod.path(),
        ifname: POD_INTERFACE.to_owned(),
        addresses: vec![IpNet::V4(Ipv4Net::new_assert(address, 16))],
        mac: None,
        mtu: None,
        bridge: None,
        guard: Guard::On { allowed: Vec::new() },
        bandwidth: Bandwidth::default(),
    }))
}

fn configuration(number: u8, options: &PodwireOptions, place: &Place<'_>, socket: &Path) -> String {
    let PodwireOptions { poll, uplink, mode, tx, hold_us, .. } = options;
    let cidr = pod_cidr(number);
    let mut text = format!(
        "[node]\nname = \"node{number}\"\npod_cidrs = [\"{cidr}\"]\ncluster_cidrs = [\"{cidr}\"]\n\
         [host]\ninterface = \"podwire0\"\nmasquerade = false\n[workers]\npoll = \"{poll}\"\n"
    );
    if let Some(cpus) = &place.cpus {
        let _ = writeln!(text, "cpus = \"{cpus}\"");
    }
    if place.uplink {
        let address = node_address(number);
        let _ = writeln!(text, "[uplink]\nkind = \"{uplink}\"\naddress = \"{address}\"\ndevice = \"uplink\"");
        for (key, value) in [("mode", mode), ("tx", tx)] {
            if let Some(value) = value {
                let _ = writeln!(text, "{key} = \"{value}\"");
            }
        }
        if let Some(hold_us) = hold_us {
            let _ = writeln!(text, "hold_us = {hold_us}");
        }
    }
    let state: PathBuf = place.at.join(format!("node{number}.state"));
    let (socket, state) = (socket.display(), state.display());
    let _ = writeln!(text, "[control]\nsocket = \"{socket}\"\nstate_dir = \"{state}\"");
    text
}

fn connect(runtime: &Runtime, socket: &Path, process: &mut Process) -> Result<Client> {
    let begin = mono_now();
    loop {
        process.must_run()?;
        let answered = runtime.block_on(async {
            let client = Client::connect(socket, ANSWER_MAX).await?;
            client.status().await.map(|_| client)
        });
        match answered {
            Ok(client) => return Ok(client),
            Err(error) if mono_now().since(begin) > START_NS_MAX => {
                bail!("podwired does not answer: {error}; its last words:\n{}", process.last_words());
            }
            Err(_) => stop::sleep(Duration::from_millis(20))?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_inside_the_nodes_subnet_and_not_its_gateway() {
        for pod in [0, 1, 252, 1_001] {
            let address = pod_address(2, pod);
            assert!(pod_cidr(2).contains(&address) && address != Ipv4Addr::new(10, 242, 0, 1), "{address}");
        }
    }

    #[test]
    fn workers_get_cpus_that_there_are() {
        let allowed = allowed_cpus();
        assert_eq!(worker_cpus(1, 0).unwrap(), allowed.numbers()[0].to_string());
        assert_eq!(worker_cpus(1, allowed.numbers().len()).unwrap(), allowed.numbers()[0].to_string());
        assert!(worker_cpus(allowed.numbers().len() + 1, 0).is_err());
    }
}
