//! The peers, each built from nothing in namespaces of its own and gone with its value: one file a peer.
//!
//! A side is two pods and what lies between them. It is paused but while it is measured, so that it takes no core from
//! the others.

mod cable;
mod kernel_bridge;
mod kernel_vxlan;
mod ovs;
mod podwire;
mod tap_loop;

use std::net::Ipv4Addr;
use std::path::Path as FilePath;

use anyhow::{Context, Result};
use ipnet::{IpNet, Ipv4Net};
use tempfile::TempDir;

use crate::lab::{InterfaceOffloads, Missing, Netns, Process, Spender, Wire, clear_name, offloads_of};
use crate::scenario::{Peer, PeerKind, Topology};
use tap_loop::TapLoop;

/// From one pod to the other.
#[derive(Clone, Debug)]
pub(crate) struct Path<'a> {
    pub(crate) from: &'a Netns,
    pub(crate) to: &'a Netns,
    /// Address of the receiving pod.
    pub(crate) target: Ipv4Addr,
    /// Who uses CPU time for the switch in between.
    pub(crate) spenders: Vec<Spender>,
}

/// MTU of a node's pods, and of the cable between two nodes.
const MTU: u16 = 1_500;
/// Interface of a pod.
pub(crate) const POD_INTERFACE: &str = "eth0";

/// What a side is built for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site<'a> {
    pub(crate) topology: Topology,
    pub(crate) wire: Wire,
    /// Where `podwired` is.
    pub(crate) bin_dir: &'a FilePath,
}

/// A side that was built, or why it can not be on this machine.
#[derive(Debug)]
pub(crate) enum Built {
    Ready(Box<Side>),
    Skipped(String),
}

/// Two pods and what lies between them. Fields are dropped in this order: who uses a namespace ends before it.
#[derive(Debug)]
pub(crate) struct Side {
    processes: Vec<Process>,
    tap_loop: Option<TapLoop>,
    from: Netns,
    to: Netns,
    /// Nodes and idle pods.
    others: Vec<Netns>,
    target: Ipv4Addr,
    /// Interfaces beside the pods' own whose offloads are told: a namespace among `others`, and a name in it.
    interfaces: Vec<(usize, String)>,
    /// Sockets, configurations and logs.
    _folder: Option<TempDir>,
}

impl Side {
    /// Builds a peer. One whose programs are an optional package and not installed is skipped.
    pub(crate) fn build(peer: &Peer, site: &Site<'_>) -> Result<Built> {
        let label = clear_name(peer.to_string().split(' ').next().unwrap_or_default());
        let built = match (peer.kind(), site.topology) {
            (PeerKind::Cable, _) => cable::build(&label, site.wire),
            (PeerKind::KernelBridge, _) => kernel_bridge::build(&label),
            (PeerKind::KernelVxlan, _) => kernel_vxlan::build(&label, site.wire),
            (PeerKind::Ovs, _) => ovs::build(&label),
            (PeerKind::TapLoop, _) => tap_loop::build(&label),
            (PeerKind::Podwire(options), Topology::Node) => podwire::node(&label, options, site),
            (PeerKind::Podwire(options), Topology::Nodes) => podwire::nodes(&label, options, site),
        };
        match built {
            Ok(side) => {
                side.pause();
                Ok(Built::Ready(Box::new(side)))
            }
            Err(error) if *peer.kind() == PeerKind::Ovs && error.is::<Missing>() => {
                Ok(Built::Skipped(error.to_string()))
            }
            Err(error) => Err(error).with_context(|| format!("cannot build {peer}")),
        }
    }

    /// From one pod to the other.
    pub(crate) fn path(&self) -> Path<'_> {
        let processes = self.processes.iter().map(Process::spender);
        let threads = self.tap_loop.iter().map(TapLoop::spender);
        let spenders: Vec<Spender> = processes.chain(threads).collect();
        Path { from: &self.from, to: &self.to, target: self.target, spenders }
    }

    /// Stops what runs for the side.
    pub(crate) fn pause(&self) {
        self.processes.iter().for_each(Process::pause);
        self.tap_loop.iter().for_each(TapLoop::pause);
    }

    /// Lets it run again.
    pub(crate) fn resume(&mut self) -> Result<()> {
        for process in &mut self.processes {
            process.resume();
            process.must_run()?;
        }
        self.tap_loop.iter().for_each(TapLoop::resume);
        Ok(())
    }

    /// What the interfaces on the way do for the stack.
    pub(crate) fn offloads(&self) -> Result<Vec<InterfaceOffloads>> {
        let pods = [&self.from, &self.to].map(|pod| (pod, POD_INTERFACE));
        let others = self.interfaces.iter().map(|(at, name)| (&self.others[*at], name.as_str()));
        pods.into_iter().chain(others).map(|(netns, name)| offloads_of(netns, name)).collect()
    }

    /// TCP congestion control that sockets of its pods get.
    pub(crate) fn congestion_control(&self) -> Result<Option<String>> {
        self.from.read_sysctl("net.ipv4.tcp_congestion_control")
    }
}

/// Address of one of two pods on a node: the first or the second.
fn pod_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, number)
}

fn subnet24(address: Ipv4Addr) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(address, 24))
}

/// Namespaces of the two pods of a side.
fn pods(label: &str) -> Result<(Netns, Netns)> {
    Ok((Netns::new(&format!("{label}-a"))?, Netns::new(&format!("{label}-b"))?))
}

/// A side without processes.
fn quiet(from: Netns, to: Netns, target: Ipv4Addr) -> Side {
    let (processes, others, interfaces) = (Vec::new(), Vec::new(), Vec::new());
    Side { processes, tap_loop: None, from, to, others, target, interfaces, _folder: None }
}
