//! Making the pair and its sockets, or taking over what an earlier process left.

use std::io;
use std::os::fd::AsFd;

use super::{VethHalves, VethPort, VethRx, VethTx};
use crate::limits::{VETH_XDP_MTU_MAX, WORKERS_MAX};
use crate::port::interface::{Interface, InterfaceError, InterfaceSpec, configure, inside, other_device};
use crate::sys::bpf::{AttachMode, BpfError, Redirect};
use crate::sys::ethtool;
use crate::sys::netlink::{Link, Netlink, NetlinkError, VETH_KIND, VethSpec};
use crate::sys::netns::{NetnsError, NetnsHandle, set_ipv6_conf};
use crate::sys::xsk::{BindMode, SlotPlan, XskError, XskSocket, XskSpec};

/// What the names of the switch's ends begin with.
const DEVICE_PREFIX: &str = "pwx";
/// What either end is to be.
const END: &str = "end of a veth pair";
/// Slots to receive into: twice the frames that wait in a TAP, since nothing holds the pod back.
const RECEIVE_SLOTS: usize = 1_024;
/// Slots of each worker to send from: more than a pass brings.
const SEND_SLOTS: usize = 256;

/// What can go wrong when a veth-xdp port is set up.
#[derive(Debug, thiserror::Error)]
pub enum VethPortError {
    /// The pod's namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The pod's end, or what is in its place.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// There is no pod to give an end to.
    #[error("{ifname}: a veth-xdp port needs a pod's network namespace; give one, or use kind tap")]
    NoNetns {
        /// The pod's end.
        ifname: String,
    },
    /// Frames would not fit.
    #[error(
        "{ifname}: an MTU of {mtu} is more than the {VETH_XDP_MTU_MAX} a veth-xdp port carries; give the port a smaller one (`--mtu {VETH_XDP_MTU_MAX}`), or use kind tap"
    )]
    Mtu {
        /// The pod's end.
        ifname: String,
        /// What was asked for.
        mtu: u16,
    },
    /// The pod's end keeps its checksum offload.
    #[error("cannot switch the checksum offload of {ifname} off: {source}; use kind tap")]
    Checksum {
        /// The pod's end.
        ifname: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The program.
    #[error(transparent)]
    Program(#[from] BpfError),
    /// A socket.
    #[error(transparent)]
    Socket(#[from] XskError),
}

/// Name of the switch's end of a port's pair: the same at each start, so that a leftover is found again. Others' devices
/// do not have such names, and two ports have the same with a chance of one to 2^48.
#[must_use]
pub fn device_name(port: &str) -> String {
    // FNV-1a, 64 bits: stable over versions and machines, which `std`'s hashers are not.
    let hash = port
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{DEVICE_PREFIX}{:012x}", (hash ^ (hash >> 48)) & 0xffff_ffff_ffff)
}

/// Removes the pair of a port that nobody serves any more, with the pod's end; false when there is none.
///
/// # Errors
/// [`NetlinkError`].
pub fn remove_leftover(port: &str) -> Result<bool, NetlinkError> {
    let mut netlink = Netlink::open()?;
    let Some(link) = netlink.find_link(&device_name(port))?.filter(is_veth) else { return Ok(false) };
    match netlink.delete_link(link.index) {
        Err(error) if error.is_not_found() => Ok(false),
        done => done.map(|()| true),
    }
}

pub(super) fn check_mtu(ifname: &str, mtu: u16) -> Result<(), VethPortError> {
    if mtu <= VETH_XDP_MTU_MAX { Ok(()) } else { Err(VethPortError::Mtu { ifname: ifname.to_owned(), mtu }) }
}

pub(super) fn open(port: &str, spec: &InterfaceSpec, workers: usize) -> Result<(VethPort, VethHalves), VethPortError> {
    check_mtu(&spec.ifname, spec.mtu)?;
    let path = spec.netns.as_deref().ok_or_else(|| VethPortError::NoNetns { ifname: spec.ifname.clone() })?;
    let netns = NetnsHandle::open(path)?;
    let (device, made) = make_pair(&device_name(port), spec, &netns)?;
    let opened = serve(device, spec, netns, workers);
    if opened.is_err() && made {
        // The first error matters.
        let _ = remove_leftover(port);
    }
    opened
}

/// The switch's end of the pair, and whether it was made just now. One left from before is taken over when its other end is
/// the pod's interface of the spec; a stray one is removed.
fn make_pair(name: &str, spec: &InterfaceSpec, netns: &NetnsHandle) -> Result<(Link, bool), VethPortError> {
    let failed = |source| InterfaceError::Netlink { ifname: name.to_owned(), source };
    let pods = inside(Some(netns), || Netlink::open()?.find_link(&spec.ifname))?;
    let pods = pods.map_err(|source| InterfaceError::Netlink { ifname: spec.ifname.clone(), source })?;
    let mut netlink = Netlink::open().map_err(failed)?;
    let ours = netlink.find_link(name).map_err(failed)?;
    match (ours, pods) {
        (Some(ours), Some(pods)) if is_veth(&ours) && is_veth(&pods) && are_pair(&ours, &pods) => {
            return Ok((ours, false));
        }
        (_, Some(other)) => return Err(other_device(&other, END).into()),
        (Some(stray), None) if is_veth(&stray) => netlink.delete_link(stray.index).map_err(failed)?,
        (Some(other), None) => return Err(other_device(&other, END).into()),
        (None, None) => {}
    }
    // As many queues to send on as there can be workers, so that a later number of them needs no new pair.
    let tx_queues = u32::try_from(WORKERS_MAX).unwrap_or(1);
    let (peer, peer_netns) = (spec.ifname.as_str(), netns.as_fd());
    let pair = VethSpec { name, tx_queues, peer, peer_netns, peer_mac: spec.mac };
    netlink.add_veth(&pair).map_err(failed)?;
    Ok((netlink.link(name).map_err(failed)?, true))
}

fn is_veth(link: &Link) -> bool {
    link.kind.as_deref() == Some(VETH_KIND)
}

/// Whether each says that the other is its other end. Numbers are of different namespaces, so that two others might say so
/// by chance; but one of them bears a name only we give.
fn are_pair(one: &Link, other: &Link) -> bool {
    one.other == Some(other.index) && other.other == Some(one.index)
}

/// Program, sockets, and the pod's end as the spec says.
fn serve(
    link: Link,
    spec: &InterfaceSpec,
    netns: NetnsHandle,
    workers: usize,
) -> Result<(VethPort, VethHalves), VethPortError> {
    let failed = |source| InterfaceError::Netlink { ifname: link.name.clone(), source };
    let mut netlink = Netlink::open().map_err(failed)?;
    let mut redirect = Redirect::load()?;
    // Before it is up for the first time: no frame of the pod may reach the node's stack, nor one of the stack the pod.
    let first = if link.up { None } else { Some(attach(&mut redirect, &link)?) };
    if !link.up {
        set_ipv6_conf(&link.name, "disable_ipv6", "1");
        netlink.set_mtu(link.index, VETH_XDP_MTU_MAX.into()).map_err(failed)?;
        netlink.set_up(link.index).map_err(failed)?;
    }
    // The sockets of an earlier process are gone, or this fails, before its program is replaced.
    let halves = open_sockets(&link.name, workers)?;
    redirect.set_socket(halves.rx.socket.fd())?;
    let (mode, passed_over) = match first {
        Some(attached) => attached,
        None => attach(&mut redirect, &link)?,
    };
    let index = inside(Some(&netns), || configure_pods_end(spec))??;
    let interface = Interface::new(&spec.ifname, index, Some(netns));
    let device = Interface::new(&link.name, link.index, None);
    let watch = halves.rx.socket.watch()?;
    Ok((VethPort { interface, device, mode, passed_over, watch }, halves))
}

/// Attaches in the driver, or else in the stack; says why not in the driver.
fn attach(redirect: &mut Redirect, link: &Link) -> Result<(AttachMode, Option<String>), VethPortError> {
    match redirect.attach(&link.name, link.index, AttachMode::Native) {
        Ok(()) => Ok((AttachMode::Native, None)),
        Err(error) => {
            redirect.attach(&link.name, link.index, AttachMode::Generic)?;
            Ok((AttachMode::Generic, Some(error.to_string())))
        }
    }
}

/// A socket for each worker, each on a queue of its own; that of the first queue receives, too.
fn open_sockets(device: &str, workers: usize) -> Result<VethHalves, VethPortError> {
    let open = |queue, receive| {
        let slots = SlotPlan { receive, send: SEND_SLOTS };
        XskSocket::open(&XskSpec { device: device.to_owned(), queue, mode: BindMode::Copy, slots })
    };
    let XskSocket { receiver, sender: first } = open(0, RECEIVE_SLOTS)?;
    first.raise_limits();
    let mut tx = vec![VethTx::new(first)];
    for queue in 1..u32::try_from(workers.min(WORKERS_MAX)).unwrap_or(1) {
        let sender = open(queue, 0)?.sender;
        sender.raise_limits();
        tx.push(VethTx::new(sender));
    }
    Ok(VethHalves { rx: VethRx::new(receiver), tx })
}

/// Makes the pod's end what the spec says, in the pod's namespace; its number there.
fn configure_pods_end(spec: &InterfaceSpec) -> Result<u32, VethPortError> {
    let failed = |source| InterfaceError::Netlink { ifname: spec.ifname.clone(), source };
    let mut netlink = Netlink::open().map_err(failed)?;
    let link = netlink.link(&spec.ifname).map_err(failed)?;
    ethtool::set_tx_checksum(&spec.ifname, false)
        .map_err(|source| VethPortError::Checksum { ifname: spec.ifname.clone(), source })?;
    configure(&mut netlink, spec, &[], &link).map_err(failed)?;
    Ok(link.index)
}
