//! Messages of netfilter's netlink protocol (linux/netfilter/nfnetlink.h): a header of their own, then attributes.

use std::convert::Infallible;

use netlink_packet_core::{
    DefaultNla, Emitable, NLA_HEADER_SIZE, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlasIterator,
};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{Message, Netlink, NetlinkError};

/// Bytes of `struct nfgenmsg`: family, version 0, resource id 0.
const HEADER_BYTES: usize = 4;

/// A message of some subsystem.
#[derive(Debug)]
pub(super) struct Netfilter {
    /// Subsystem and type (`nlmsg_type`).
    pub(super) kind: u16,
    /// `NFPROTO_…` or `AF_…`.
    pub(super) family: u8,
    /// Its attributes; nested ones as they are.
    pub(super) attributes: Vec<u8>,
}

impl Netfilter {
    pub(super) fn new(subsystem: u16, kind: u16, family: u8, attributes: &[DefaultNla]) -> Self {
        let mut bytes = vec![0; attributes.buffer_len()];
        attributes.emit(&mut bytes);
        Self { kind: subsystem << 8 | kind, family, attributes: bytes }
    }

    /// The value of the first attribute of a type.
    pub(super) fn attribute(&self, kind: u16) -> Option<&[u8]> {
        attribute(&self.attributes, kind)
    }
}

/// The value of the first attribute of a type among those in `attributes`.
pub(super) fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    NlasIterator::new(attributes).map_while(Result::ok).find(|found| found.kind() == kind).map(|found| {
        let end = usize::from(found.length());
        &found.into_inner()[NLA_HEADER_SIZE..end]
    })
}

impl Message for Netfilter {}

impl NetlinkSerializable for Netfilter {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        HEADER_BYTES + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..HEADER_BYTES].copy_from_slice(&[self.family, 0, 0, 0]);
        buffer[HEADER_BYTES..].copy_from_slice(&self.attributes);
    }
}

impl NetlinkDeserializable for Netfilter {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        let family = payload.first().copied().unwrap_or(0);
        let attributes = payload.get(HEADER_BYTES..).unwrap_or_default().to_vec();
        Ok(Self { kind: header.message_type, family, attributes })
    }
}

impl Netlink {
    /// A socket for netfilter in the calling thread's namespace.
    pub(super) fn netfilter() -> Result<Self, NetlinkError> {
        Self::of_protocol(NETLINK_NETFILTER)
    }
}
