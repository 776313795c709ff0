//! `podwired cleanup`: takes away whatever podwired left on this node, for those who remove it for good.
//!
//! What can be left: the steering program (only where something else holds its link), the host's TAP, the pods' interfaces
//! that the store knows, the nftables table, the control socket, the store and its copy, the CNI plugin's notes. Nothing
//! stops at the first error; all are told at the end.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use podwire_control::model::{Object, Port, PortKind};
use podwire_control::spool;

use super::config::Config;
use super::nat;
use super::store::{Place, Store, StoreError, if_there};
use crate::port::veth::remove_leftover;
use crate::sys::bpf::{NicLock, attached, detach_ours};
use crate::sys::netlink::{Netlink, NetlinkError};
use crate::sys::netns::{NetnsHandle, in_netns};
use crate::sys::tap::LINK_KIND;

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Cleaned {
    /// What was taken away, in sentences.
    pub(super) removed: Vec<String>,
    /// What could not be, and why.
    pub(super) failed: Vec<String>,
}

impl Cleaned {
    /// Notes one step: true when something was there and is gone.
    fn note(&mut self, what: &str, done: Result<bool, impl fmt::Display>) {
        match done {
            Ok(true) => self.removed.push(what.to_owned()),
            Ok(false) => {}
            Err(error) => self.failed.push(format!("{what}: {error}")),
        }
    }
}

/// Takes everything away; the store and its notes only if they are not to be kept.
///
/// # Errors
/// [`StoreError::InUse`] while a podwired runs on this store; nothing was touched then.
pub(super) fn cleanup(config: &Config, keep_store: bool) -> Result<Cleaned, StoreError> {
    let mut cleaned = Cleaned::default();
    let place = Place::of(config);
    // One that can not use its store has not locked it.
    if UnixStream::connect(&config.control.socket).is_ok() {
        return Err(StoreError::InUse { path: place.main });
    }
    let mut ports = Vec::new();
    match Store::peek(&place) {
        Ok(remembered) => ports = stored_ports(remembered.objects.into_iter().map(|(_, object)| object)),
        Err(error @ StoreError::InUse { .. }) => return Err(error),
        Err(error) => cleaned.failed.push(format!("the pods' interfaces: {error}")),
    }
    if let Some(device) = config.uplink.as_ref().and_then(|uplink| uplink.device.as_deref()) {
        cleaned.note(&format!("the steering program on {device}"), remove_program(device));
    }
    for port in &ports {
        cleaned.note(&format!("interface {} of pod {}", port.ifname, port.name), remove_pod(port));
    }
    let interface = &config.host.interface;
    cleaned.note(&format!("interface {interface}"), remove_tap(interface));
    cleaned.note(&format!("nftables table inet {}", nat::TABLE), nat::remove());
    let socket = &config.control.socket;
    cleaned.note(&socket.display().to_string(), if_there(fs::remove_file(socket)));
    // The store last, with the notes on what it tells of: it is what tells of pods that failed now.
    if cleaned.failed.is_empty() && !keep_store {
        let spool_dir = config.control.spool_dir();
        cleaned.note(&spool_dir.display().to_string(), remove_spool(&spool_dir));
        for file in place.files() {
            cleaned.note(&file.display().to_string(), if_there(fs::remove_file(&file)));
        }
    }
    Ok(cleaned)
}

fn stored_ports(objects: impl Iterator<Item = Object>) -> Vec<Port> {
    let ports = objects.filter_map(|object| match object {
        Object::Port(port) => Some(port),
        _ => None,
    });
    ports.collect()
}

/// Takes a program of ours off the NIC. Another's is not ours to take, and a NIC that is gone has none.
fn remove_program(device: &str) -> Result<bool, String> {
    let found = match attached(device) {
        Err(error) if error.is_not_found() => None,
        found => found.map_err(|error| error.to_string())?,
    };
    if !found.is_some_and(|program| program.is_ours()) {
        return Ok(false);
    }
    let link = Netlink::open().and_then(|mut netlink| netlink.link(device)).map_err(|error| error.to_string())?;
    let _lock = NicLock::take(device, link.index).map_err(|error| error.to_string())?;
    detach_ours(device).map_err(|error| error.to_string())
}

/// Removes a pod's device. Of a veth pair our own end is removed, and the other goes with it.
fn remove_pod(port: &Port) -> Result<bool, String> {
    match port.kind {
        PortKind::Tap => remove_pod_tap(port),
        PortKind::VethXdp => remove_leftover(port.name.as_str()).map_err(|error| error.to_string()),
    }
}

/// Removes a pod's TAP; a namespace that is gone took it along.
fn remove_pod_tap(port: &Port) -> Result<bool, String> {
    let path: PathBuf = port.netns.clone();
    if !path.exists() {
        return Ok(false);
    }
    let netns = NetnsHandle::open(&path).map_err(|error| error.to_string())?;
    let done = in_netns(&netns, || remove_tap(&port.ifname)).map_err(|error| error.to_string())?;
    done.map_err(|error| error.to_string())
}

/// Removes an interface of the calling thread's namespace if it is a TAP.
fn remove_tap(name: &str) -> Result<bool, NetlinkError> {
    let mut netlink = Netlink::open()?;
    let Some(link) = netlink.find_link(name)? else { return Ok(false) };
    if link.kind.as_deref() != Some(LINK_KIND) {
        return Ok(false);
    }
    match netlink.delete_link(link.index) {
        Err(error) if error.is_not_found() => Ok(false),
        done => done.map(|()| true),
    }
}

/// Removes the notes and their directory; what is none of them stays, and the directory with it.
fn remove_spool(dir: &Path) -> io::Result<bool> {
    for key in spool::pending(dir)? {
        spool::remove(dir, &key)?;
    }
    if_there(fs::remove_dir(dir))
}
