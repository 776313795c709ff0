//! `podwire trace`: makes up the frame a pod would send, and lets the pipeline itself say what becomes of it.
//!
//! As a pod does, it first resolves its next hop, by a made-up ARP request or neighbour solicitation. The walk runs
//! on scratch state: nothing is learned, counted or sent.

use std::net::IpAddr;
use std::sync::Arc;

use etherparse::PacketBuilder;
use ipnet::IpNet;
use podwire_control::model::{ExplainQuery, Explanation, Mac, Protocol, Refusal, Step};

use crate::compile::link_local;
use crate::frame::{Batch, Egress, Frame};
use crate::id::{MonoNs, PortId};
use crate::outcome::{DropReason, Verdict};
use crate::pipeline::{Recorder, Stage, WorkerState, deliveries, forward};
use crate::snapshot::{PortEntry, Role, Snapshot};
use crate::stats::WorkerStats;
use crate::wire::{L3, nd};

/// Source port of a made-up packet, where none is asked for: the first ephemeral one (RFC 6335).
const SOURCE_PORT: u16 = 49_152;
/// Destination port, where none is asked for.
const DESTINATION_PORT: u16 = 80;
/// Length in bytes of a made-up packet, where none is asked for.
const PACKET_BYTES: u32 = 100;

/// Who sends: what the query leaves out is taken from the port.
struct Sender<'a> {
    id: PortId,
    entry: &'a PortEntry,
    mac: Mac,
    address: IpAddr,
}

/// Explains what would become of a frame, and whether workers that have a flow cache would keep it.
///
/// # Errors
/// A refusal that names the port or address and the remedy.
pub fn explain(
    snapshot: &Snapshot,
    query: &ExplainQuery,
    addresses: &[IpNet],
    flow_cache: bool,
    now: MonoNs,
) -> Result<Explanation, Refusal> {
    query.validate().map_err(|invalid| Refusal::new("trace", invalid.to_string()))?;
    let sender = sender(snapshot, query, addresses)?;
    let state = WorkerState::new(Arc::new(WorkerStats::new(0)), usize::from(flow_cache));
    let mut walk = Walk { snapshot, state, now, steps: Vec::new() };
    let dst_mac = match query.dst_mac {
        Some(mac) => mac,
        None => {
            let hop = next_hop(snapshot, &sender, query.dst, addresses);
            match walk.resolve(&sender, hop) {
                Ok(mac) => mac,
                Err(unanswered) => return Ok(walk.ended(unanswered.verdict, unanswered.egress(hop))),
            }
        }
    };
    let bytes = packet(query, &sender, dst_mac)?;
    let (verdict, egress, _) = walk.walk(sender.id, &bytes);
    Ok(walk.ended(verdict, egress))
}

fn sender<'a>(snapshot: &'a Snapshot, query: &ExplainQuery, addresses: &[IpNet]) -> Result<Sender<'a>, Refusal> {
    let name = query.in_port.as_str();
    let found = snapshot.ports.iter().enumerate().find_map(|(slot, entry)| {
        let entry = entry.as_ref().filter(|entry| entry.name == name && !matches!(entry.role, Role::Tunnel(_)))?;
        Some((PortId(u16::try_from(slot).ok()?), entry))
    });
    let (id, entry) = found.ok_or_else(|| {
        Refusal::new(format!("port {name}"), "there is no such port; `podwire port list` shows those there are")
    })?;
    if entry.role == Role::Uplink {
        return Err(Refusal::new("port uplink", "trace a frame from a pod or from the host"));
    }
    let node = &snapshot.node;
    let host = entry.role == Role::Host;
    let same_family = |address: &IpAddr| address.is_ipv4() == query.dst.is_ipv4();
    let own = match query.dst {
        IpAddr::V4(_) if host => node.v4.map(|gateway| IpAddr::V4(gateway.address)),
        IpAddr::V6(_) if host => node.v6.map(|gateway| IpAddr::V6(gateway.address)),
        _ => addresses.iter().map(IpNet::addr).find(same_family),
    };
    let address = query.src.or(own).ok_or_else(|| {
        let family = if query.dst.is_ipv4() { "IPv4" } else { "IPv6" };
        Refusal::new(format!("port {name}"), format!("it has no {family} address; give one with --src"))
    })?;
    Ok(Sender { id, entry, mac: query.src_mac.unwrap_or(entry.mac), address })
}

/// Whom the sender's kernel would resolve: the destination where it is on the sender's link, else the gateway.
fn next_hop(snapshot: &Snapshot, sender: &Sender<'_>, dst: IpAddr, addresses: &[IpNet]) -> IpAddr {
    let on_link = sender.entry.role == Role::Host || addresses.iter().any(|own| own.contains(&dst));
    let gateway = match dst {
        IpAddr::V4(_) => snapshot.node.v4.map(|gateway| IpAddr::V4(gateway.address)),
        IpAddr::V6(_) => snapshot.node.v6.map(|gateway| IpAddr::V6(gateway.address)),
    };
    if on_link { dst } else { gateway.unwrap_or(dst) }
}

/// What became of a question that the switch does not answer itself.
struct Unanswered {
    verdict: Verdict,
    /// Its ways out, in words.
    ways: String,
}

impl Unanswered {
    /// What that means for the packet, which is not walked.
    fn egress(&self, hop: IpAddr) -> String {
        let ways = &self.ways;
        match self.verdict {
            Verdict::Flood(_) => format!(
                "the question floods: {ways}; if the station with {hop} is there it answers, and --dst-mac with its MAC \
                 traces the packet itself"
            ),
            Verdict::Forward(_) => format!(
                "the question goes to {ways}; --dst-mac with the MAC that answers for {hop} traces the packet itself"
            ),
            _ => format!("not sent: nobody answers for {hop}"),
        }
    }
}

struct Walk<'a> {
    snapshot: &'a Snapshot,
    state: WorkerState,
    now: MonoNs,
    steps: Vec<Step>,
}

impl Walk<'_> {
    /// Runs one frame through the pipeline: its verdict, its way out in words, and the frame afterwards.
    fn walk(&mut self, port: PortId, bytes: &[u8]) -> (Verdict, String, Batch) {
        let mut frame = Frame::new();
        frame.fill(bytes);
        frame.ingress = port;
        let mut batch = Batch::new();
        batch.push(frame);
        let mut recorder = Recorder::default();
        forward(self.snapshot, &mut self.state, self.now, &mut batch, &mut recorder);
        let steps = recorder.steps.into_iter();
        self.steps.extend(steps.map(|step| Step { stage: step.stage.to_string(), text: step.text }));
        let (verdict, egress) =
            batch.items().first().map_or((Verdict::Drop(DropReason::UnknownPort), String::new()), |item| {
                (item.verdict, describe(self.snapshot, item))
            });
        (verdict, egress, batch)
    }

    /// The whole walk. Its last step is the verdict, which is not said twice.
    fn ended(mut self, verdict: Verdict, egress: String) -> Explanation {
        self.steps.pop_if(|last| last.stage == Stage::Verdict.to_string());
        Explanation { steps: self.steps, verdict: verdict.name(), egress }
    }

    /// The MAC the sender would learn for an address, or what became of its question.
    fn resolve(&mut self, sender: &Sender<'_>, hop: IpAddr) -> Result<Mac, Unanswered> {
        let question = match (hop, sender.address) {
            (IpAddr::V4(target), IpAddr::V4(own)) => Some(nd::arp_request(sender.mac, own, target).to_vec()),
            (IpAddr::V6(target), _) => nd::solicitation(sender.mac, link_local(sender.entry.mac), target),
            _ => None,
        };
        let asks = if hop.is_ipv4() { "ARP" } else { "a neighbour solicitation" };
        self.steps.push(Step { stage: "sender".into(), text: format!("resolves {hop} by {asks}") });
        let (verdict, ways, batch) = self.walk(sender.id, &question.unwrap_or_default());
        match (verdict, batch.items().first()) {
            (Verdict::Reply, Some(item)) => {
                let answer = crate::wire::parse(item.frame.bytes(), &item.frame.offload);
                answer
                    .map(|headers| match headers.l3 {
                        L3::Arp(packet) => packet.sender_mac,
                        _ => headers.src,
                    })
                    .map_err(|reason| Unanswered { verdict: Verdict::Drop(reason), ways })
            }
            _ => Err(Unanswered { verdict, ways }),
        }
    }
}

/// The packet asked for, as bytes.
fn packet(query: &ExplainQuery, sender: &Sender<'_>, dst_mac: Mac) -> Result<Vec<u8>, Refusal> {
    let ports = (query.sport.unwrap_or(SOURCE_PORT), query.dport.unwrap_or(DESTINATION_PORT));
    let builder = PacketBuilder::ethernet2(sender.mac.0, dst_mac.0);
    let (builder, l3_len) = match (sender.address, query.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => (builder.ipv4(src.octets(), dst.octets(), 64), 20),
        (IpAddr::V6(src), IpAddr::V6(dst)) => (builder.ipv6(src.octets(), dst.octets(), 64), 40),
        _ => return Err(Refusal::new("trace", "source and destination must be of one family")),
    };
    let l4_len = if query.proto == Protocol::Tcp { 20 } else { 8 };
    let size = query.size.unwrap_or(PACKET_BYTES);
    let payload_len = usize::try_from(size).unwrap_or(usize::MAX).saturating_sub(l3_len + l4_len);
    if size > 65_535 {
        return Err(Refusal::new("trace", format!("a packet of {size} bytes is none; use at most 65535")));
    }
    let payload = vec![0; payload_len];
    let mut bytes = Vec::new();
    let written = match (query.proto, query.dst) {
        (Protocol::Tcp, _) => builder.tcp(ports.0, ports.1, 1, 64_240).syn().write(&mut bytes, &payload),
        (Protocol::Udp, _) => builder.udp(ports.0, ports.1).write(&mut bytes, &payload),
        (Protocol::Icmp, IpAddr::V4(_)) => builder.icmpv4_echo_request(1, 1).write(&mut bytes, &payload),
        (Protocol::Icmp, IpAddr::V6(_)) => builder.icmpv6_echo_request(1, 1).write(&mut bytes, &payload),
    };
    written.map_err(|error| Refusal::new("trace", format!("the packet can not be made: {error}")))?;
    Ok(bytes)
}

/// The ways out in words.
fn describe(snapshot: &Snapshot, item: &crate::frame::Item) -> String {
    let answered = matches!(item.verdict, Verdict::Drop(_)) && item.egress != Egress::None;
    let ways: Vec<String> = deliveries(snapshot, item)
        .map(|way| {
            let name = snapshot.port(way.port).map_or("?", |entry| entry.name.as_str());
            match way.encap {
                Some(encap) => format!("tunnel to {name} at {} with vni {}", encap.remote, encap.vni),
                None => format!("port {name}"),
            }
        })
        .collect();
    match (ways.is_empty(), answered) {
        (true, _) => "nowhere".into(),
        (false, true) => format!("an ICMP error goes back through {}", ways.join(", ")),
        (false, false) => ways.join(", "),
    }
}
