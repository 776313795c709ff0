//! The devices at the start, which frames wait for: several are opened at a time, and interfaces left from before stay as
//! they are until frames flow.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use podwire_control::model::{Port, PortKind};

use super::kept::{Kept, drop_kept};
use super::open::OpenPort;
use super::{DeviceError, Devices, together};
use crate::compile::{HOST_PORT, NodeSpec};
use crate::daemon::config::Config;
use crate::daemon::netns_dirs;
use crate::port::interface::InterfaceSpec;
use crate::switch::PortHalves;

/// What the start opens.
#[derive(Clone, Copy, Debug)]
pub struct AtStart<'a> {
    /// Says what the host's interface is called, and where namespaces may be.
    pub config: &'a Config,
    /// The pods' ports.
    pub ports: &'a [Port],
    /// The node.
    pub node: &'a NodeSpec,
    /// MTU of ports that state none.
    pub mtu: u16,
}

impl Devices {
    /// Opens the host's TAP and the pods' devices, or attaches to those left from before; [`Self::settle`] is to follow.
    /// What the service manager kept is used, or let go of.
    pub fn open_at_start(&mut self, start: AtStart<'_>) -> Vec<(String, Result<PortHalves, DeviceError>)> {
        let mut kept = Kept::take_back();
        let wanted: Vec<Wanted> = self.wanted(start).map(|wanted| wanted.claim(&mut kept)).collect();
        kept.release();
        let (workers, offloads) = (self.workers, self.tap_offloads());
        let open = |Wanted { name, kind, spec, queues }: Wanted| {
            let is_kept = queues.is_some();
            let allowed =
                spec.netns.as_ref().map_or(Ok(()), |path| netns_dirs::check(path, &start.config.node.netns_dirs));
            let opened = allowed.map_err(DeviceError::from).and_then(|()| match kind {
                PortKind::Tap => OpenPort::tap_of_before(&name, &spec, workers, offloads, queues),
                PortKind::VethXdp => OpenPort::veth(&name, &spec, workers),
            });
            if is_kept && opened.is_err() {
                drop_kept(&name);
            }
            (name, opened)
        };
        let keep = |(name, opened): (String, Result<_, _>)| {
            let halves = opened.map(|opened| self.keep(&name, opened));
            (name, halves)
        };
        together(wanted, open).into_iter().map(keep).collect()
    }

    /// Makes the TAPs that were opened at the start what their ports say, one by one since the workers need the cores; gives
    /// those that can not be.
    pub fn settle(&mut self, start: AtStart<'_>) -> Vec<(String, DeviceError)> {
        let taps: Vec<Wanted> = self.wanted(start).filter(|wanted| wanted.kind == PortKind::Tap).collect();
        let mut open: HashMap<&str, &mut OpenPort> =
            self.ports.iter_mut().map(|(name, open)| (name.as_str(), open)).collect();
        let found = taps.into_iter().filter_map(|tap| Some((open.remove(tap.name.as_str())?, tap)));
        found.filter_map(|(open, tap)| Some((tap.name, open.update(&tap.spec).err()?))).collect()
    }

    fn wanted<'a>(&'a self, start: AtStart<'a>) -> impl Iterator<Item = Wanted> + 'a {
        let host = self.host_spec(&start.config.host.interface, start.node, start.mtu);
        let host = Wanted { name: HOST_PORT.to_owned(), kind: PortKind::Tap, spec: host, queues: None };
        let pods = start.ports.iter().map(move |port| {
            let spec = self.pod_spec(port, start.node, start.mtu);
            Wanted { name: port.name.to_string(), kind: port.kind, spec, queues: None }
        });
        std::iter::once(host).chain(pods)
    }
}

/// A device that is to be opened.
#[derive(Debug)]
struct Wanted {
    name: String,
    kind: PortKind,
    spec: InterfaceSpec,
    /// Its queues, where they were kept.
    queues: Option<Vec<OwnedFd>>,
}

impl Wanted {
    fn claim(mut self, kept: &mut Kept) -> Self {
        if self.kind == PortKind::Tap {
            self.queues = kept.claim(&self.name, &self.spec);
        }
        self
    }
}
