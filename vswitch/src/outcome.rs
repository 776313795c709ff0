//! How a received frame can end. Every one ends in exactly one [`Verdict`], and every reason has a name that
//! counters, `podwire drops` and `podwire trace` share.

use crate::id::{BridgeId, PortId};

/// The one outcome of a received frame, fixed after it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// Left through one port: a pod, or a tunnel to another node.
    Forward(PortId),
    /// Went to every other member of the bridge.
    Flood(BridgeId),
    /// Answered by the switch itself: ARP, neighbour discovery, echo to the gateway.
    Reply,
    /// Handed to the node's own stack through the host port.
    Punt(PuntReason),
    /// Ended here.
    Drop(DropReason),
}

macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl $name {
            /// All of them, in counter order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name that counters and the CLI show.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// One sentence for `podwire drops`.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc,)+).trim_ascii(),)+ }
            }

            /// Position in [`Self::ALL`].
            #[must_use]
            pub fn index(self) -> usize {
                self as usize
            }
        }
    };
}
pub(crate) use reasons;

reasons! {
    /// Why a frame is the node's own affair.
    PuntReason {
        /// Addressed to the gateway, which is the node, or to the multicast routers.
        Gateway = "gateway",
        /// No pod subnet of the cluster covers the destination; the node's stack routes and masquerades it.
        Outside = "outside",
        /// A route names the host as its next hop.
        HostRoute = "host_route",
    }
}

reasons! {
    /// Why a frame was dropped.
    DropReason {
        /// The frame is shorter than an Ethernet header or its VLAN tags.
        EthernetTruncated = "ethernet_truncated",
        /// More VLAN tags than the switch walks.
        VlanTooDeep = "vlan_too_deep",
        /// The ARP packet is short or not Ethernet and IPv4.
        ArpMalformed = "arp_malformed",
        /// The IPv4 header is short, of the wrong version, or its lengths contradict the frame.
        Ipv4Malformed = "ipv4_malformed",
        /// The IPv4 header checksum is wrong.
        Ipv4Checksum = "ipv4_checksum",
        /// The IPv6 header is short, of the wrong version, or its length contradicts the frame.
        Ipv6Malformed = "ipv6_malformed",
        /// The IPv6 extension headers are cut off, or more than the switch walks.
        Ipv6Extensions = "ipv6_extensions",
        /// A fragment reaches beyond the largest IP packet or is not a multiple of eight bytes.
        FragmentMalformed = "fragment_malformed",
        /// The TCP, UDP or ICMP header is cut off or its length contradicts the packet.
        L4Malformed = "l4_malformed",
        /// The device's offload description contradicts the frame.
        OffloadInvalid = "offload_invalid",

        /// The port the frame came in by is not configured any more.
        UnknownPort = "unknown_port",
        /// The source MAC address is a group address or zero.
        SourceMacInvalid = "source_mac_invalid",
        /// The source MAC address is not the pod's own.
        SpoofedMac = "spoofed_mac",
        /// The source IP address is not the pod's own.
        SpoofedIp = "spoofed_ip",
        /// An ARP packet claims an address that is not the pod's own.
        SpoofedArp = "spoofed_arp",
        /// A neighbour discovery packet claims an address that is not the pod's own.
        SpoofedNd = "spoofed_nd",
        /// A link-local control frame (01:80:C2:00:00:0x), which no bridge forwards.
        LinkLocalControl = "link_local_control",
        /// A tagged frame on a bridge that is not VLAN-transparent.
        VlanNotAllowed = "vlan_not_allowed",
        /// The port sends more broadcast and multicast than it may.
        FloodLimit = "flood_limit",
        /// The port sends faster than its limit.
        RateEgress = "rate_egress",

        /// The datagram is too short for a VXLAN header and an inner Ethernet header.
        VxlanTruncated = "vxlan_truncated",
        /// The VXLAN header's flags are not those of RFC 7348.
        VxlanFlags = "vxlan_flags",
        /// No tunnel of this switch has the VXLAN network identifier.
        VxlanUnknownVni = "vxlan_unknown_vni",
        /// The datagram comes from an address that is no known VTEP.
        VxlanUnknownVtep = "vxlan_unknown_vtep",
        /// The inner destination MAC address is not this node's.
        VxlanNotForUs = "vxlan_not_for_us",
        /// The outer header says congestion experienced, the inner one says not ECN-capable (RFC 6040).
        EcnIllegal = "ecn_illegal",

        /// The destination lies behind the port the frame came in by.
        Hairpin = "hairpin",
        /// The bridge has no other member to flood to.
        FloodNowhere = "flood_nowhere",
        /// A bridged frame is longer than its egress port takes.
        L2TooBig = "l2_too_big",
        /// A routable frame is not addressed to a unicast host address.
        NotRoutable = "not_routable",
        /// Source or destination can not be on a network: loopback, unspecified, or the same on both sides.
        Martian = "martian",
        /// The TTL or hop limit ran out; the sender was told.
        TtlExceeded = "ttl_exceeded",
        /// A cluster address that no route covers; the sender was told.
        NoRoute = "no_route",
        /// An address of this node's pod subnet that no pod has; the sender was told.
        NoSuchPod = "no_such_pod",
        /// A blackhole route.
        Blackhole = "blackhole",
        /// It came from a tunnel and would leave through one again.
        TunnelToTunnel = "tunnel_to_tunnel",
        /// Longer than the egress MTU, with DF set or over IPv6; the sender was told the MTU.
        TooBig = "too_big",
        /// It needs fragmentation or segmentation that can not be done.
        Uncuttable = "uncuttable",
        /// The route leads to a VTEP that has no endpoint, or to no uplink at all.
        NoUplink = "no_uplink",

        /// The egress port is sent to faster than its limit.
        RateIngress = "rate_ingress",
        /// The egress device had no room.
        TxFull = "tx_full",
        /// The underlay refused the datagram's length; the path MTU was lowered.
        TxTooBig = "tx_too_big",
        /// The egress device is down or gone.
        TxDown = "tx_down",
        /// The egress device refused the frame for another reason.
        TxRefused = "tx_refused",
    }
}

impl Verdict {
    /// The outcome's name, as in `forward`, `flood`, `reply`, `punt:outside`, `drop:no_route`.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Forward(_) => "forward".into(),
            Self::Flood(_) => "flood".into(),
            Self::Reply => "reply".into(),
            Self::Punt(reason) => format!("punt:{}", reason.name()),
            Self::Drop(reason) => format!("drop:{}", reason.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_name_of_its_own_and_a_sentence() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::ALL.len());
        assert!(DropReason::ALL.iter().all(|reason| reason.meaning().ends_with('.')));
        assert!(DropReason::ALL.iter().enumerate().all(|(at, reason)| reason.index() == at));
    }
}
