//! The arguments, as clap reads them.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args as Arguments, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ipnet::IpNet;

use crate::client::SOCKET;
use crate::intent::netns_path;
use crate::model::{BridgeName, IpRange, Mac, PortName, Protocol, Vni, VtepName, read};

/// Speak to podwired, the node's virtual switch.
#[derive(Parser, Debug)]
#[command(name = "podwire", version, propagate_version = true)]
pub(super) struct Args {
    /// podwired's socket
    #[arg(long, global = true, env = "PODWIRE_SOCKET", default_value = SOCKET, value_name = "PATH")]
    pub(super) socket: PathBuf,
    /// How to print
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Format {
    /// Aligned text
    Table,
    /// JSON with stable names
    Json,
}

#[derive(Subcommand, Debug)]
pub(super) enum Verb {
    /// What the switch is and how it is doing
    Status,
    /// Ports
    #[command(subcommand)]
    Port(PortVerb),
    /// L2 segments beside the node's pod segment
    #[command(subcommand)]
    Bridge(BridgeVerb),
    /// MAC addresses of the bridges
    #[command(subcommand)]
    Mac(MacVerb),
    /// Routes
    #[command(subcommand)]
    Route(RouteVerb),
    /// Remote tunnel endpoints
    #[command(subcommand)]
    Vtep(VtepVerb),
    /// Containers' interfaces
    #[command(subcommand)]
    Attachment(AttachmentVerb),
    /// Addresses for pods
    #[command(subcommand)]
    Ipam(IpamVerb),
    /// Counters: outcomes, workers and ports
    Stats {
        /// Print again and again, with the rates
        #[arg(short, long)]
        watch: bool,
        /// Seconds between two prints
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600), requires = "watch")]
        interval: u64,
    },
    /// Why frames were dropped
    Drops {
        /// Reasons that dropped nothing too
        #[arg(long)]
        all: bool,
    },
    /// Why a packet would go where it goes; nothing is sent
    Trace(Trace),
    /// What happens, as it happens
    Events,
    /// State all that the CLI's user wants; what is not in the file is removed
    Apply {
        /// TOML or JSON; '-' for standard input
        #[arg(short, long, value_name = "FILE")]
        file: String,
    },
    /// Fixed facts of the switch
    #[command(subcommand)]
    Show(Show),
    /// A script for the shell's completion
    Completions {
        /// Shell
        shell: Shell,
    },
}

#[derive(Subcommand, Debug)]
pub(super) enum Show {
    /// Every fixed limit
    Limits,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Kind {
    /// A TAP inside the pod's namespace
    Tap,
    /// A veth with AF_XDP, for small packets
    VethXdp,
}

#[derive(Subcommand, Debug)]
pub(super) enum PortVerb {
    /// Add a port, or change it to what is said
    Add(PortAdd),
    /// Remove a port
    Del {
        #[arg(value_parser = read::<PortName>)]
        name: PortName,
    },
    /// Every port
    List,
    /// All about one port
    Show { name: String },
}

#[derive(Arguments, Debug)]
pub(super) struct PortAdd {
    #[arg(value_parser = read::<PortName>)]
    pub(super) name: PortName,
    /// Device
    #[arg(long, value_enum, default_value_t = Kind::Tap)]
    pub(super) kind: Kind,
    /// Network namespace: a name, or a path
    #[arg(long, value_name = "NAME|PATH", value_parser = netns)]
    pub(super) netns: PathBuf,
    /// Interface's name inside
    #[arg(long, default_value = "eth0")]
    pub(super) ifname: String,
    /// Address with prefix length; repeatable
    #[arg(long = "ip", value_name = "ADDRESS/LEN", value_parser = read::<IpNet>)]
    pub(super) ips: Vec<IpNet>,
    /// MAC; follows from the first address when not given
    #[arg(long, value_parser = read::<Mac>)]
    pub(super) mac: Option<Mac>,
    /// MTU in bytes; the tunnel's when not given
    #[arg(long)]
    pub(super) mtu: Option<u16>,
    /// Bridge; the node's pod segment when not given
    #[arg(long, value_parser = read::<BridgeName>)]
    pub(super) bridge: Option<BridgeName>,
    /// Let the port send with any source
    #[arg(long, conflicts_with = "allow")]
    pub(super) no_guard: bool,
    /// Source prefix the port may send with beside its own addresses; repeatable
    #[arg(long, value_name = "PREFIX", value_parser = read::<IpNet>)]
    pub(super) allow: Vec<IpNet>,
}

#[derive(Subcommand, Debug)]
pub(super) enum BridgeVerb {
    /// Add a bridge, or change it to what is said
    Add {
        #[arg(value_parser = read::<BridgeName>)]
        name: BridgeName,
        /// Stretch it to other nodes under this VXLAN network identifier
        #[arg(long, value_parser = read::<Vni>)]
        vni: Option<Vni>,
        /// VTEP to flood to; repeatable
        #[arg(long, value_name = "VTEP", value_parser = read::<VtepName>)]
        flood: Vec<VtepName>,
        /// Let tagged frames pass
        #[arg(long)]
        vlan_transparent: bool,
    },
    /// Remove a bridge
    Del {
        #[arg(value_parser = read::<BridgeName>)]
        name: BridgeName,
    },
    /// Every bridge
    List,
}

#[derive(Subcommand, Debug)]
pub(super) enum MacVerb {
    /// Learned and static addresses
    List {
        /// Of this bridge only
        #[arg(long, value_parser = read::<BridgeName>)]
        bridge: Option<BridgeName>,
    },
    /// Pin an address to a port
    Add {
        #[arg(value_parser = read::<Mac>)]
        mac: Mac,
        /// Where it lives
        #[arg(long, value_parser = read::<PortName>)]
        port: PortName,
        /// Bridge; the node's pod segment when not given
        #[arg(long, value_parser = read::<BridgeName>)]
        bridge: Option<BridgeName>,
    },
    /// Unpin an address
    Del {
        #[arg(value_parser = read::<Mac>)]
        mac: Mac,
        /// Bridge; the node's pod segment when not given
        #[arg(long, value_parser = read::<BridgeName>)]
        bridge: Option<BridgeName>,
    },
}

#[derive(Subcommand, Debug)]
pub(super) enum RouteVerb {
    /// Add a route, or change it to what is said
    #[command(override_usage = "podwire route add <PREFIX> via <VTEP> | host | blackhole | port <NAME>")]
    Add {
        /// Destination, as in 10.244.2.0/24
        #[arg(value_parser = read::<IpNet>)]
        prefix: IpNet,
        /// The word 'via' and the next hop
        #[arg(num_args = 2..=3, required = true, value_name = "VIA")]
        via: Vec<String>,
    },
    /// Remove a route
    Del {
        #[arg(value_parser = read::<IpNet>)]
        prefix: IpNet,
    },
    /// Every route of every owner
    List,
    /// The route an address takes
    Get {
        #[arg(value_parser = read::<IpAddr>)]
        address: IpAddr,
    },
}

#[derive(Subcommand, Debug)]
pub(super) enum VtepVerb {
    /// Add a VTEP, or change it to what is said
    Add(VtepAdd),
    /// Remove a VTEP
    Del {
        #[arg(value_parser = read::<VtepName>)]
        name: VtepName,
    },
    /// Every VTEP
    List,
}

#[derive(Arguments, Debug)]
pub(super) struct VtepAdd {
    #[arg(value_parser = read::<VtepName>)]
    pub(super) name: VtepName,
    /// Underlay address; once a family
    #[arg(long = "remote", required = true, value_name = "ADDRESS", value_parser = read::<IpAddr>)]
    pub(super) remotes: Vec<IpAddr>,
    /// MAC that inner frames are addressed to: one for each --remote in the same order, or one for all
    #[arg(long = "mac", required = true, value_parser = read::<Mac>)]
    pub(super) macs: Vec<Mac>,
    /// VXLAN network identifier; the configured one when not given
    #[arg(long, value_parser = read::<Vni>)]
    pub(super) vni: Option<Vni>,
}

#[derive(Subcommand, Debug)]
pub(super) enum AttachmentVerb {
    /// All attachments
    List,
}

#[derive(Subcommand, Debug)]
pub(super) enum IpamVerb {
    /// Leases, and who holds them
    List,
    /// Ranges, and how far they are used
    Show,
    /// Free an address whose container is gone, with all that container had
    Release {
        /// The address
        #[arg(value_parser = read::<IpAddr>)]
        address: IpAddr,
        /// Also while its container's namespace is there
        #[arg(long)]
        force: bool,
    },
    /// Ranges beside those of the file
    #[command(subcommand)]
    Range(RangeVerb),
}

#[derive(Subcommand, Debug)]
pub(super) enum RangeVerb {
    /// Add a range, to be tried after the others
    Add {
        /// FIRST-LAST, or one address
        #[arg(value_parser = read::<IpRange>)]
        range: IpRange,
    },
    /// Remove a range that holds no leases
    Del {
        /// As it was added
        #[arg(value_parser = read::<IpRange>)]
        range: IpRange,
    },
}

#[derive(Arguments, Debug)]
pub(super) struct Trace {
    /// Port the packet comes in by
    #[arg(long = "in", value_name = "PORT", value_parser = read::<PortName>)]
    pub(super) in_port: PortName,
    /// Source; the port's own when not given
    #[arg(long, value_parser = read::<IpAddr>)]
    pub(super) src: Option<IpAddr>,
    /// Destination
    #[arg(long, value_parser = read::<IpAddr>)]
    pub(super) dst: IpAddr,
    /// Protocol
    #[arg(long, value_enum, default_value_t = Proto::Icmp)]
    pub(super) proto: Proto,
    /// Source port
    #[arg(long)]
    pub(super) sport: Option<u16>,
    /// Destination port
    #[arg(long)]
    pub(super) dport: Option<u16>,
    /// Length of the IP packet in bytes
    #[arg(long)]
    pub(super) size: Option<u32>,
    /// Source MAC; the port's own when not given
    #[arg(long, value_parser = read::<Mac>)]
    pub(super) src_mac: Option<Mac>,
    /// Destination MAC; what the pod would have resolved when not given
    #[arg(long, value_parser = read::<Mac>)]
    pub(super) dst_mac: Option<Mac>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
#[allow(missing_docs)]
pub(super) enum Proto {
    Tcp,
    Udp,
    Icmp,
}

impl From<Proto> for Protocol {
    fn from(proto: Proto) -> Self {
        match proto {
            Proto::Tcp => Self::Tcp,
            Proto::Udp => Self::Udp,
            Proto::Icmp => Self::Icmp,
        }
    }
}

fn netns(given: &str) -> Result<PathBuf, std::convert::Infallible> {
    Ok(netns_path(given))
}
