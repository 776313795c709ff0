//! What one parse of a frame finds, as plain values; the pipeline's stages read these and not the bytes.

use std::net::{Ipv4Addr, Ipv6Addr};

use podwire_control::model::Mac;

/// An 802.1Q or 802.1ad tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VlanTag {
    /// VLAN identifier, 12 bits.
    pub vid: u16,
    /// Priority code point, 3 bits.
    pub priority: u8,
}

/// All headers of one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Headers {
    /// Destination MAC.
    pub dst: Mac,
    /// Source MAC.
    pub src: Mac,
    /// Outermost tag, if any.
    pub vlan: Option<VlanTag>,
    /// EtherType behind all tags (or a length below 1536: an 802.3 frame).
    pub ethertype: u16,
    /// Where the L3 header starts, counted from the frame's first byte.
    pub l3_offset: u16,
    /// Network layer.
    pub l3: L3,
    /// Where the L4 header starts; the end of the L3 packet's headers when there is none.
    pub l4_offset: u16,
    /// Transport layer.
    pub l4: L4,
}

/// Network layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum L3 {
    /// Neither ARP nor IP.
    #[default]
    Other,
    /// ARP for IPv4 over Ethernet (RFC 826).
    Arp(Arp),
    /// IPv4 (RFC 791).
    V4(Ipv4),
    /// IPv6 (RFC 8200).
    V6(Ipv6),
}

/// ARP for IPv4 over Ethernet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    /// 1 request, 2 reply.
    pub operation: u16,
    /// Sender hardware address.
    pub sender_mac: Mac,
    /// Sender protocol address; 0.0.0.0 in a probe (RFC 5227).
    pub sender_ip: Ipv4Addr,
    /// Target hardware address.
    pub target_mac: Mac,
    /// Target protocol address.
    pub target_ip: Ipv4Addr,
}

/// Where a fragment lies in its packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Bytes in front of it.
    pub offset: u16,
    /// Whether more follow.
    pub more: bool,
    /// Identification (16 bits in IPv4, 32 in IPv6).
    pub id: u32,
}

/// IPv4 header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv4 {
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Type of service: DSCP and ECN.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Header length in bytes, options included: 20 to 60.
    pub header_len: u8,
    /// Total length in bytes as the header says. A super-frame's may be 0 or stale: see `packet_len`.
    pub total_len: u16,
    /// DF.
    pub dont_fragment: bool,
    /// Present when this is a fragment (offset not 0, or more to follow).
    pub fragment: Option<Fragment>,
}

/// IPv6 header with its extension headers walked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv6 {
    /// Source.
    pub src: Ipv6Addr,
    /// Destination.
    pub dst: Ipv6Addr,
    /// Traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Protocol behind the extension headers.
    pub protocol: u8,
    /// Bytes of the extension headers.
    pub extensions_len: u16,
    /// Payload length as the header says (extension headers included).
    pub payload_len: u16,
    /// Present when there is a fragment header.
    pub fragment: Option<Fragment>,
}

/// Transport layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum L4 {
    /// None that we read: another protocol, or a fragment that is not the first.
    #[default]
    None,
    /// TCP (RFC 9293).
    Tcp(TcpHeader),
    /// UDP (RFC 768).
    Udp(UdpHeader),
    /// ICMP for IPv4 (RFC 792).
    Icmp4(IcmpHeader),
    /// ICMPv6 (RFC 4443), neighbour discovery included.
    Icmp6(IcmpHeader),
}

/// What is read of a TCP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpHeader {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Header length in bytes, options included: 20 to 60.
    pub header_len: u8,
    /// FIN is bit 0, CWR bit 7.
    pub flags: u8,
}

/// What is read of a UDP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdpHeader {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Length field; a super-frame's may be 0 or stale.
    pub len: u16,
}

/// What is read of an ICMP or ICMPv6 header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpHeader {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
}
