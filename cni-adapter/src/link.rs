//! Removing a pod's interface without podwired, over route netlink in the pod's namespace.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::sched::{CloneFlags, setns};

/// The namespace of the process' first thread.
const OWN: &str = "/proc/self/ns/net";

/// Removes an interface if it is of a kind that podwired makes: a TAP or a veth. A namespace that is gone took it along;
/// our own is never a pod's.
///
/// # Errors
/// The kernel's, or that it is of another kind.
pub(crate) fn remove(netns: &Path, ifname: &str) -> io::Result<()> {
    let is_ours = |link: &LinkMessage| is_of_kind(link, &[InfoKind::Tun, InfoKind::Veth]);
    match remove_if(netns, ifname, is_ours)? {
        true => Ok(()),
        false => Err(io::Error::other("it is neither a TAP nor a veth")),
    }
}

/// Removes a TAP that nobody has open; one that podwired has open is another container's.
///
/// # Errors
/// The kernel's.
pub(crate) fn remove_left_over(netns: &Path, ifname: &str) -> io::Result<()> {
    remove_if(netns, ifname, |link| is_of_kind(link, &[InfoKind::Tun]) && !has_carrier(link)).map(drop)
}

/// Removes an interface if it fits; false when it does not. One that is not there is fine.
fn remove_if(netns: &Path, ifname: &str, fits: impl Fn(&LinkMessage) -> bool + Send) -> io::Result<bool> {
    let file = match File::open(netns) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        file => file?,
    };
    let (own, other) = (fs::metadata(OWN)?, file.metadata()?);
    if (own.dev(), own.ino()) == (other.dev(), other.ino()) {
        return Err(io::Error::other("this is the node's own namespace"));
    }
    let inside = || {
        setns(file, CloneFlags::CLONE_NEWNET)?;
        remove_here(ifname, fits)
    };
    // A thread that has entered another namespace is never used for anything else.
    let entered = thread::scope(|scope| scope.spawn(inside).join());
    entered.unwrap_or_else(|_| Err(io::Error::other("the thread inside panicked")))
}

fn remove_here(ifname: &str, fits: impl Fn(&LinkMessage) -> bool) -> io::Result<bool> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut wanted = LinkMessage::default();
    wanted.attributes.push(LinkAttribute::IfName(ifname.to_owned()));
    let found = match ask(&socket, RouteNetlinkMessage::GetLink(wanted), 0) {
        Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => return Ok(true),
        found => found?,
    };
    let Some(RouteNetlinkMessage::NewLink(link)) = found else { return Ok(true) };
    if !fits(&link) {
        return Ok(false);
    }
    let mut gone = LinkMessage::default();
    gone.header.index = link.header.index;
    ask(&socket, RouteNetlinkMessage::DelLink(gone), NLM_F_ACK).map(|_| true)
}

fn has_carrier(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::Carrier(1..)))
}

fn is_of_kind(link: &LinkMessage, kinds: &[InfoKind]) -> bool {
    let infos = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    infos.flatten().any(|info| matches!(info, LinkInfo::Kind(kind) if kinds.contains(kind)))
}

/// One request; its one answer, or none where only an acknowledgement comes.
fn ask(socket: &Socket, message: RouteNetlinkMessage, flags: u16) -> io::Result<Option<RouteNetlinkMessage>> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (datagram, _from) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&datagram).map_err(io::Error::other)?;
    match answer.into_parts().1 {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        NetlinkPayload::InnerMessage(answer) => Ok(Some(answer)),
        _ => Ok(None),
    }
}
