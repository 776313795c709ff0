//! Links: find one, change its properties, remove it.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp};
use podwire_control::model::Mac;

use super::{Netlink, NetlinkError};

/// Where an XDP program runs (linux/if_link.h).
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// What is known of one network interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Interface index, unique in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Hardware address, where it is an Ethernet one.
    pub mac: Option<Mac>,
    /// Largest L3 packet in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Driver kind as `ip -d link` names it ("tun", "veth", "bridge"); none for plain devices.
    pub kind: Option<String>,
    /// Largest super-frame the stack builds for it, in bytes; 0 when the kernel does not say.
    pub gso_max_size: u32,
    /// Number of the link it stands on, or of its other end, in that one's namespace; none for links by themselves.
    pub other: Option<u32>,
}

impl Link {
    fn of(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            kind: None,
            gso_max_size: 0,
            other: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(bytes) => link.mac = <[u8; 6]>::try_from(bytes).ok().map(Mac),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Link(index) => link.other = Some(index),
                LinkAttribute::GsoMaxSize(bytes) => link.gso_max_size = bytes,
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link
    }
}

impl Netlink {
    /// The link of a name, or none when there is none.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn find_link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.get_link(message, &format!("look up interface {name}")) {
            Err(error) if error.is_not_found() => Ok(None),
            found => found.map(Some),
        }
    }

    /// The link of a name.
    ///
    /// # Errors
    /// [`NetlinkError`], also when there is none.
    pub fn link(&mut self, name: &str) -> Result<Link, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.get_link(message, &format!("look up interface {name}"))
    }

    /// The link of an index.
    ///
    /// # Errors
    /// [`NetlinkError`], also when there is none.
    pub fn link_at(&mut self, index: u32) -> Result<Link, NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.get_link(message, &format!("look up interface number {index}"))
    }

    /// The link that bears an address: what an uplink's MTU is taken from. None when no link bears it.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn link_of_address(&mut self, address: IpAddr) -> Result<Option<Link>, NetlinkError> {
        let bearer = self.addresses()?.into_iter().find(|link| link.address.addr() == address);
        bearer.map(|bearer| self.link_at(bearer.index)).transpose()
    }

    /// The number of the XDP program that a link runs, in whatever mode; none when it runs none.
    ///
    /// # Errors
    /// [`NetlinkError`], also when there is no such link.
    pub fn xdp_program(&mut self, name: &str) -> Result<Option<u32>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let link = self.get_message(message, &format!("look up the XDP program of interface {name}"))?;
        let xdp = link.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::Xdp(xdp) => Some(xdp),
            _ => None,
        });
        let program = xdp.into_iter().flatten().find_map(|attribute| match attribute {
            LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) if id != 0 => Some(id),
            _ => None,
        });
        Ok(program)
    }

    /// Has a link run an XDP program, in place of the one it runs in that mode. Nobody holds it there: it stays until
    /// another is put in its place, or the link goes. Fails where a bpf link holds one, or one runs in the other mode.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn set_xdp(&mut self, index: u32, program: BorrowedFd<'_>, native: bool) -> Result<(), NetlinkError> {
        let mode = if native { XDP_FLAGS_DRV_MODE } else { XDP_FLAGS_SKB_MODE };
        let on = vec![LinkAttribute::Xdp(vec![LinkXdp::Fd(program.as_raw_fd()), LinkXdp::Flags(mode)])];
        self.change(index, on, &format!("run an XDP program on interface number {index}"))
    }

    /// Takes the XDP program off a link, in whatever mode it runs; one that a bpf link holds stays.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn clear_xdp(&mut self, name: &str) -> Result<(), NetlinkError> {
        let index = self.link(name)?.index;
        // Without a mode the kernel looks at the driver's program only. Taking off what is not there is fine.
        let mut result = Ok(());
        for mode in [XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE] {
            let off = vec![LinkAttribute::Xdp(vec![LinkXdp::Fd(-1), LinkXdp::Flags(mode)])];
            result = result.and(self.change(index, off, &format!("take the XDP program off interface {name}")));
        }
        result
    }

    fn get_link(&mut self, message: LinkMessage, action: &str) -> Result<Link, NetlinkError> {
        self.get_message(message, action).map(Link::of)
    }

    fn get_message(&mut self, message: LinkMessage, action: &str) -> Result<LinkMessage, NetlinkError> {
        let answers = self.request(RouteNetlinkMessage::GetLink(message), 0, action)?;
        let found = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        });
        let empty = || NetlinkError::Answer { action: action.to_owned(), reason: "it holds no link".into() };
        found.ok_or_else(empty)
    }

    /// Puts a link up.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn set_up(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.set_flags(index, LinkFlags::Up, "up")
    }

    /// Puts a link down.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn set_down(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.set_flags(index, LinkFlags::empty(), "down")
    }

    fn set_flags(&mut self, index: u32, flags: LinkFlags, state: &str) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = flags;
        message.header.change_mask = LinkFlags::Up;
        let action = format!("put interface number {index} {state}");
        self.request(RouteNetlinkMessage::SetLink(message), 0, action).map(drop)
    }

    /// Sets the largest L3 packet in bytes.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        self.change(index, vec![LinkAttribute::Mtu(mtu)], &format!("set the MTU of interface number {index} to {mtu}"))
    }

    /// Sets the hardware address.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn set_mac(&mut self, index: u32, mac: Mac) -> Result<(), NetlinkError> {
        let action = format!("set the MAC address of interface number {index} to {mac}");
        self.change(index, vec![LinkAttribute::Address(mac.0.to_vec())], &action)
    }

    /// Renames a link; older kernels want it down first.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn rename(&mut self, index: u32, name: &str) -> Result<(), NetlinkError> {
        let action = format!("rename interface number {index} to {name}");
        self.change(index, vec![LinkAttribute::IfName(name.to_owned())], &action)
    }

    /// Sets the largest super-frame the stack builds for a link, for both families (for IPv4 it is a setting of its
    /// own since Linux 6.3; older kernels ignore that one).
    ///
    /// # Errors
    /// [`NetlinkError`]; kernels before 4.16 refuse.
    pub fn set_gso_max_size(&mut self, index: u32, bytes: u32) -> Result<(), NetlinkError> {
        let sizes = vec![LinkAttribute::GsoMaxSize(bytes), LinkAttribute::GsoIpv4MaxSize(bytes)];
        self.change(index, sizes, &format!("set gso_max_size of interface number {index} to {bytes}"))
    }

    /// Removes a link.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn delete_link(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let action = format!("remove interface number {index}");
        self.request(RouteNetlinkMessage::DelLink(message), 0, action).map(drop)
    }

    fn change(&mut self, index: u32, attributes: Vec<LinkAttribute>, action: &str) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = attributes;
        self.request(RouteNetlinkMessage::SetLink(message), 0, action).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netns::testing::TestNetns;

    #[test]
    fn a_link_is_changed_renamed_and_removed() {
        let netns = TestNetns::new();
        netns.ip("link add first type veth peer name other");
        netns.enter(|| {
            let mut netlink = Netlink::open().unwrap();
            let link = netlink.link("first").unwrap();
            assert_eq!((link.up, link.kind.as_deref()), (false, Some("veth")));
            let mac = Mac([2, 0, 0, 0, 0, 7]);
            netlink.set_mac(link.index, mac).unwrap();
            netlink.set_mtu(link.index, 1_280).unwrap();
            netlink.set_gso_max_size(link.index, 62_000).unwrap();
            netlink.rename(link.index, "second").unwrap();
            netlink.set_up(link.index).unwrap();
            let name = "second".to_owned();
            let wanted = Link { name, mac: Some(mac), mtu: 1_280, up: true, gso_max_size: 62_000, ..link };
            assert_eq!(netlink.link("second").unwrap(), wanted);
            netlink.set_down(wanted.index).unwrap();
            assert!(!netlink.link_at(wanted.index).unwrap().up);
            netlink.delete_link(wanted.index).unwrap();
            assert_eq!(netlink.find_link("second").unwrap(), None);
        });
    }

    #[test]
    fn an_error_says_what_was_tried_on_which_object_and_what_to_do() {
        let netns = TestNetns::new();
        let error = netns.enter(|| Netlink::open().unwrap().link("nowhere0").unwrap_err());
        assert!(error.is_not_found());
        let text = error.to_string();
        assert!(text.contains("look up interface nowhere0") && text.contains("check the interface's name"), "{text}");
    }
}
