//! From a document to a [`Config`]: what each value may be, and how the values must fit together.
//!
//! Every function notes what is wrong in the document and goes on, so that one run shows all faults.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use podwire_control::model::Vni;
use serde::Deserialize;

use super::document::Document;
use super::ipam::ipam;
use super::{
    Config, Control, CpuList, Fault, Host, Node, Offloads, Poll, Uplink, UplinkKind, UplinkMtu, Vxlan, Workers,
    XdpUplink,
};
use crate::daemon::netns_dirs;
use crate::limits;
use crate::port::xdp::{UplinkTx, XdpMode};

/// Longest interface name in bytes: IFNAMSIZ (linux/if.h) less the final zero.
const IFNAME_BYTES_MAX: usize = 15;
/// Longest path of a Unix socket in bytes: `sun_path` (unix(7)) less the final zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Largest CPU number a `cpu_set_t` holds.
const CPU_MAX: usize = 1023;
/// Smallest MTU pods may be left with: what every IPv4 host takes (RFC 791), and IPv6's minimum (RFC 8200).
const POD_MTU_MIN: (u16, u16) = (576, 1280);
/// Bytes a VXLAN tunnel adds over IPv4 and over IPv6.
const OVERHEAD_BYTES: (u16, u16) = (50, 70);

/// A value, or a list of values.
#[derive(Deserialize)]
#[serde(untagged, expecting = "this is neither text nor a list of text")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// A number, or a word.
#[derive(Deserialize)]
#[serde(untagged, expecting = "this is neither a number nor a word")]
enum NumberOrWord {
    Number(i64),
    Word(String),
}

/// Checks the text of a file.
pub(super) fn config(text: &str) -> Result<Config, Vec<Fault>> {
    let mut document = Document::parse(text)?;
    let doc = &mut document;
    let node = node(doc);
    let host = host(doc);
    let uplink = doc.has_section("uplink").then(|| uplink(doc));
    let pod_cidrs: Vec<IpNet> = node.iter().flat_map(Node::pod_cidrs).collect();
    let ipam = ipam(doc, &pod_cidrs);
    let vxlan = vxlan(doc);
    let offloads = offloads(doc);
    let workers = workers(doc);
    let control = control(doc);
    if let (Some(node), Some(Some(uplink))) = (&node, &uplink) {
        together(doc, node, uplink);
    }
    let faults = document.into_faults();
    match (node, host, uplink, vxlan, workers, control) {
        (Some(node), Some(host), uplink, Some(vxlan), Some(workers), Some(control)) if faults.is_empty() => {
            Ok(Config { node, host, uplink: uplink.flatten(), ipam, vxlan, offloads, workers, control })
        }
        _ => Err(faults),
    }
}

fn node(doc: &mut Document<'_>) -> Option<Node> {
    doc.require("node.name", "name = \"node1\"");
    let name = doc.take_text("node.name", "the node's name, as in \"node1\"");
    let (pod_v4, pod_v6) = pod_cidrs(doc);
    let cluster_cidrs = cluster_cidrs(doc, pod_v4, pod_v6);
    let netns_dirs = netns_dirs(doc);
    Some(Node { name: name?, pod_v4, pod_v6, cluster_cidrs, netns_dirs })
}

fn pod_cidrs(doc: &mut Document<'_>) -> (Option<Ipv4Net>, Option<Ipv6Net>) {
    let key = "node.pod_cidrs";
    let example = "a list with at most one subnet a family, as in [\"10.244.1.0/24\", \"fd00:244:1::/64\"]";
    doc.require(key, "pod_cidrs = [\"10.244.1.0/24\"], at most one a family");
    let Some(texts) = doc.take::<Vec<String>>(key, example) else { return (None, None) };
    if texts.is_empty() {
        doc.fault(key, "the list is empty", "name at least one subnet for this node's pods");
    }
    let (mut v4, mut v6) = (None, None);
    for net in networks(doc, key, &texts) {
        let (lengths, taken) = match net {
            IpNet::V4(net) => (8..=30, v4.replace(net).is_some()),
            IpNet::V6(net) => (32..=126, v6.replace(net).is_some()),
        };
        if taken {
            doc.fault(key, &format!("{net} is a second subnet of its family"), "keep one a family");
        }
        if !lengths.contains(&net.prefix_len()) {
            let remedy = format!("use a prefix length from /{} to /{}", lengths.start(), lengths.end());
            doc.fault(key, &format!("{net} has a prefix length no pod subnet can have"), &remedy);
        } else if !is_host_address(net.addr()) {
            doc.fault(key, &format!("{net} is no unicast subnet"), "use a private one, such as 10.244.1.0/24");
        }
    }
    (v4, v6)
}

fn cluster_cidrs(doc: &mut Document<'_>, pod_v4: Option<Ipv4Net>, pod_v6: Option<Ipv6Net>) -> Vec<IpNet> {
    let key = "node.cluster_cidrs";
    let texts: Vec<String> = doc.take(key, "a list of subnets, as in [\"10.244.0.0/16\"]").unwrap_or_default();
    let nets = networks(doc, key, &texts);
    for (pod, is_v4, family) in [(pod_v4.map(IpNet::V4), true, "IPv4"), (pod_v6.map(IpNet::V6), false, "IPv6")] {
        let of_family: Vec<_> = nets.iter().filter(|net| matches!(net, IpNet::V4(_)) == is_v4).collect();
        match (pod, of_family.as_slice()) {
            (_, []) => {}
            (None, [net, ..]) if pod_v4.is_some() || pod_v6.is_some() => {
                let problem = format!("{net} is {family}, but the node has no {family} pod subnet");
                doc.fault(key, &problem, &format!("add an {family} subnet to node.pod_cidrs, or leave {net} out"));
            }
            (None, _) => {}
            (Some(pod), nets) if !nets.iter().any(|net| net.contains(&pod)) => {
                let problem = format!("no {family} subnet here contains the node's own pods, {pod}");
                doc.fault(key, &problem, "name the cluster's whole pod range, of which node.pod_cidrs is a part");
            }
            (Some(_), _) => {}
        }
    }
    nets
}

fn netns_dirs(doc: &mut Document<'_>) -> Vec<PathBuf> {
    let key = "node.netns_dirs";
    let Some(dirs) = doc.take::<Vec<PathBuf>>(key, "a list of directories, as in [\"/run/netns\", \"/proc\"]") else {
        return netns_dirs::DEFAULT.iter().map(PathBuf::from).collect();
    };
    if dirs.is_empty() {
        doc.fault(key, "the list is empty", "name at least one directory, as in [\"/run/netns\"]");
    }
    for dir in dirs.iter().filter(|dir| !dir.is_absolute()) {
        doc.fault(key, &format!("{dir:?} is not an absolute path"), "begin with '/', as in \"/run/netns\"");
    }
    dirs
}

/// The subnets among the texts that are right: their host bits are zero.
fn networks(doc: &mut Document<'_>, key: &'static str, texts: &[String]) -> Vec<IpNet> {
    let expected = "address and prefix length, as in 10.244.1.0/24 or fd00:244:1::/64";
    let mut nets = Vec::with_capacity(texts.len());
    for net in texts.iter().filter_map(|text| doc.parsed::<IpNet>(key, text, expected)).collect::<Vec<_>>() {
        if net.trunc() == net {
            nets.push(net);
        } else {
            doc.fault(key, &format!("{net} has host bits set"), &format!("write \"{}\"", net.trunc()));
        }
    }
    nets
}

fn host(doc: &mut Document<'_>) -> Option<Host> {
    let key = "host.interface";
    let interface: String = doc.take(key, "an interface name, as in \"podwire0\"").unwrap_or("podwire0".to_owned());
    interface_name(doc, key, interface).map(|interface| Host { interface })
}

fn interface_name(doc: &mut Document<'_>, key: &'static str, name: String) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
    let good = (1..=IFNAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain) && name != "." && name != "..";
    if !good {
        let remedy = format!("use 1 to {IFNAME_BYTES_MAX} letters, digits, '-', '_' and '.'");
        doc.fault(key, &format!("{name:?} can not be an interface's name"), &remedy);
    }
    good.then_some(name)
}

fn uplink(doc: &mut Document<'_>) -> Option<Uplink> {
    let kind: String = doc.take("uplink.kind", "\"udp\" or \"xdp\"").unwrap_or("udp".to_owned());
    let (v4, v6) = addresses(doc);
    let device: Option<String> = doc.take("uplink.device", "an interface name, as in \"eth0\"");
    let device = device.and_then(|device| interface_name(doc, "uplink.device", device));
    let (mode, tx) = (xdp_mode(doc), uplink_tx(doc));
    let busy_poll: Option<bool> = doc.take("uplink.busy_poll", "true or false");
    let kind = match kind.as_str() {
        "udp" => {
            for (key, given) in [
                ("uplink.mode", mode.is_some()),
                ("uplink.tx", tx.is_some()),
                ("uplink.busy_poll", busy_poll.is_some()),
            ] {
                if given {
                    doc.fault(key, "it is for uplink.kind = \"xdp\" only", "take it out, or change the kind");
                }
            }
            UplinkKind::Udp
        }
        "xdp" => {
            doc.require("uplink.device", "device = \"eth0\", the NIC of the network between the nodes");
            UplinkKind::Xdp(XdpUplink {
                device: device.clone().unwrap_or_default(),
                mode: mode.unwrap_or_default(),
                tx: tx.unwrap_or(UplinkTx::Auto),
                busy_poll: busy_poll.unwrap_or(false),
            })
        }
        _ => {
            doc.fault("uplink.kind", &format!("{kind:?} is no kind of uplink"), "use \"udp\" or \"xdp\"");
            UplinkKind::Udp
        }
    };
    let (mtu, hold_us) = (mtu(doc), hold_us(doc));
    Some(Uplink { kind, v4, v6, device, mtu: mtu?, hold_us: hold_us? })
}

fn hold_us(doc: &mut Document<'_>) -> Option<u32> {
    let key = "uplink.hold_us";
    let expected = format!("a number of microseconds from 0, which is off, to {}", limits::HOLD_US_MAX);
    let hold_us: u32 = doc.take(key, &expected).unwrap_or(20);
    if hold_us > limits::HOLD_US_MAX {
        doc.fault(key, &format!("{hold_us} is out of range"), &format!("write {expected}"));
        return None;
    }
    Some(hold_us)
}

/// The mode, where the key is given: none in it for `auto`.
fn xdp_mode(doc: &mut Document<'_>) -> Option<Option<XdpMode>> {
    let key = "uplink.mode";
    let expected = "\"auto\", \"zerocopy\", \"native\" or \"generic\"";
    let word: String = doc.take(key, expected)?;
    let named = XdpMode::ALL.into_iter().find(|mode| mode.name() == word);
    if named.is_none() && word != "auto" {
        doc.fault(key, &format!("{word:?} is no mode"), &format!("write {expected}"));
    }
    Some(named)
}

/// How to send, where the key is given.
fn uplink_tx(doc: &mut Document<'_>) -> Option<UplinkTx> {
    let key = "uplink.tx";
    let expected = "\"auto\", \"udp\" or \"xdp\"";
    let word: String = doc.take(key, expected)?;
    let named = UplinkTx::ALL.into_iter().find(|tx| tx.name() == word);
    if named.is_none() {
        doc.fault(key, &format!("{word:?} is no way to send"), &format!("write {expected}"));
    }
    Some(named.unwrap_or(UplinkTx::Auto))
}

fn addresses(doc: &mut Document<'_>) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let key = "uplink.address";
    let example = "this node's own address, as in \"172.31.0.1\", or a list with one a family";
    doc.require(key, "address = \"172.31.0.1\", this node's own address");
    let texts = match doc.take(key, example) {
        Some(OneOrMany::One(text)) => vec![text],
        Some(OneOrMany::Many(texts)) => texts,
        None => return (None, None),
    };
    if texts.is_empty() {
        doc.fault(key, "the list is empty", &format!("write {example}"));
    }
    let (mut v4, mut v6) = (None, None);
    for address in texts.iter().filter_map(|text| doc.parsed::<IpAddr>(key, text, example)).collect::<Vec<_>>() {
        let taken = match address {
            IpAddr::V4(address) => v4.replace(address).is_some(),
            IpAddr::V6(address) => v6.replace(address).is_some(),
        };
        if taken {
            doc.fault(key, &format!("{address} is a second address of its family"), "keep one a family");
        }
        if !is_host_address(address) {
            doc.fault(key, &format!("{address} is no address other nodes can reach"), &format!("write {example}"));
        }
    }
    (v4, v6)
}

fn mtu(doc: &mut Document<'_>) -> Option<UplinkMtu> {
    let key = "uplink.mtu";
    let lowest = POD_MTU_MIN.0 + OVERHEAD_BYTES.0;
    let expected = format!("\"auto\", or a number of bytes from {lowest} to {}", u16::MAX);
    match doc.take(key, &expected) {
        None => Some(UplinkMtu::Auto),
        Some(NumberOrWord::Word(word)) if word == "auto" => Some(UplinkMtu::Auto),
        Some(NumberOrWord::Word(word)) => {
            doc.fault(key, &format!("{word:?} is no MTU"), &format!("write {expected}"));
            None
        }
        Some(NumberOrWord::Number(number)) => {
            let bytes = u16::try_from(number).ok().filter(|&bytes| bytes >= lowest);
            if bytes.is_none() {
                doc.fault(key, &format!("{number} is out of range"), &format!("write {expected}"));
            }
            bytes.map(UplinkMtu::Bytes)
        }
    }
}

/// What must fit between `[node]` and `[uplink]`.
fn together(doc: &mut Document<'_>, node: &Node, uplink: &Uplink) {
    for address in uplink.addresses() {
        if let Some(net) = node.pod_cidrs().chain(node.cluster_cidrs.iter().copied()).find(|net| net.contains(&address))
        {
            let problem = format!("{address} lies inside the pods' {net}, so the tunnel would have to carry itself");
            doc.fault("uplink.address", &problem, "name the node's address on the network between the nodes");
        }
    }
    if let (UplinkMtu::Bytes(bytes), true) = (uplink.mtu, node.pod_v6.is_some()) {
        let overhead = if uplink.v6.is_some() { OVERHEAD_BYTES.1 } else { OVERHEAD_BYTES.0 };
        let lowest = POD_MTU_MIN.1 + overhead;
        if bytes < lowest {
            let problem = format!("{bytes} leaves IPv6 pods less than the {} bytes IPv6 needs", POD_MTU_MIN.1);
            doc.fault("uplink.mtu", &problem, &format!("write {lowest} or more, or leave IPv6 out of node.pod_cidrs"));
        }
    }
}

fn vxlan(doc: &mut Document<'_>) -> Option<Vxlan> {
    let vni_range = format!("a number from 0 to {}", Vni::MAX);
    let vni: i64 = doc.take("vxlan.vni", &vni_range).unwrap_or(1);
    let vni = u32::try_from(vni).ok().and_then(|vni| Vni::try_from(vni).ok()).or_else(|| {
        doc.fault("vxlan.vni", &format!("{vni} is no VXLAN network identifier"), &format!("write {vni_range}"));
        None
    });
    let port: i64 = doc.take("vxlan.port", "a UDP port from 1 to 65535").unwrap_or(4789);
    let port = u16::try_from(port).ok().filter(|&port| port != 0).or_else(|| {
        let remedy = "write a number from 1 to 65535: 4789 is the standard's, 8472 is flannel's";
        doc.fault("vxlan.port", &format!("{port} is no UDP port"), remedy);
        None
    });
    let dscp_copy = doc.take("vxlan.dscp_copy", "true or false").unwrap_or(false);
    let outer_checksum = doc.take("vxlan.outer_checksum", "true or false").unwrap_or(true);
    Some(Vxlan { vni: vni?, port: port?, dscp_copy, outer_checksum })
}

fn offloads(doc: &mut Document<'_>) -> Offloads {
    let mut wanted = |key| doc.take::<bool>(key, "true or false");
    let checksum = wanted("offloads.checksum").unwrap_or(true);
    let (tso, uso) = (wanted("offloads.tso"), wanted("offloads.uso"));
    let udp_segment = wanted("offloads.udp_segment").unwrap_or(true);
    let udp_gro = wanted("offloads.udp_gro").unwrap_or(true);
    for (key, wanted, base, there) in [
        ("offloads.tso", tso, "offloads.checksum", checksum),
        ("offloads.uso", uso, "offloads.tso", checksum && tso.unwrap_or(true)),
    ] {
        if wanted == Some(true) && !there {
            let remedy = format!("set {base} = true, or leave {key} out");
            doc.fault(key, &format!("the kernel does not have it without {base}, which is off"), &remedy);
        }
    }
    let tso = checksum && tso.unwrap_or(true);
    Offloads { checksum, tso, uso: tso && uso.unwrap_or(true), udp_segment, udp_gro }
}

fn workers(doc: &mut Document<'_>) -> Option<Workers> {
    let text: Option<String> = doc.take("workers.cpus", "a CPU list as text, as in \"0-1,3\"");
    let cpus = text.and_then(|text| match cpu_list(&text) {
        Ok(cpus) => Some(CpuList { text, cpus }),
        Err(problem) => {
            doc.fault("workers.cpus", &format!("{text:?}: {problem}"), "write CPUs and ranges, as in \"0-1,3\"");
            None
        }
    });
    let poll = doc.take("workers.poll", "\"adaptive\", \"busy\" or \"interrupt\"").unwrap_or(Poll::Adaptive);
    let flow_cache = flow_cache(doc)?;
    Some(Workers { cpus, poll, flow_cache })
}

fn flow_cache(doc: &mut Document<'_>) -> Option<usize> {
    let Some(flows) = doc.take("workers.flow_cache", "a number of flows") else {
        return Some(limits::FLOWS_PER_WORKER);
    };
    if flows > limits::FLOWS_PER_WORKER_MAX {
        let remedy = format!("use 0, which switches the cache off, to {}", limits::FLOWS_PER_WORKER_MAX);
        doc.fault("workers.flow_cache", &format!("{flows} flows are too many"), &remedy);
        return None;
    }
    Some(flows)
}

fn cpu_list(text: &str) -> Result<Vec<usize>, String> {
    let number = |text: &str| match text.trim().parse::<usize>() {
        Ok(cpu) if cpu <= CPU_MAX => Ok(cpu),
        _ => Err(format!("{text:?} is no CPU from 0 to {CPU_MAX}")),
    };
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("the range {part:?} runs backwards"));
        }
        for cpu in first..=last {
            if cpus.contains(&cpu) {
                return Err(format!("CPU {cpu} is named twice"));
            }
            cpus.push(cpu);
        }
    }
    if cpus.len() > limits::WORKERS_MAX {
        return Err(format!("that is {} workers, more than {}", cpus.len(), limits::WORKERS_MAX));
    }
    Ok(cpus)
}

fn control(doc: &mut Document<'_>) -> Option<Control> {
    let socket = absolute(doc, "control.socket", "/run/podwire/podwired.sock");
    let state_dir = absolute(doc, "control.state_dir", "/var/lib/podwire");
    let (socket, state_dir) = (socket?, state_dir?);
    let bytes = socket.as_os_str().len();
    if bytes > SOCKET_PATH_BYTES_MAX {
        let remedy = format!("use one of at most {SOCKET_PATH_BYTES_MAX} bytes");
        doc.fault("control.socket", &format!("a path of {bytes} bytes is too long for a Unix socket"), &remedy);
    }
    Some(Control { socket, state_dir })
}

fn absolute(doc: &mut Document<'_>, key: &'static str, default: &str) -> Option<PathBuf> {
    let path: PathBuf = doc.take(key, &format!("a path, as in {default:?}")).unwrap_or(PathBuf::from(default));
    if !path.is_absolute() {
        doc.fault(key, &format!("{:?} is not an absolute path", path), &format!("begin with '/', as in {default:?}"));
        return None;
    }
    Some(path)
}

/// Whether a host can have the address and others can reach it.
fn is_host_address(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0 || v4.octets()[0] >= 240,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    !(special || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}
