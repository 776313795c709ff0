//! A slow, obvious switch to hold the real one to: what should become of one frame, from the documents alone.
//!
//! It keeps no compiled table: every question is a scan over the stated objects, every checksum is summed over the
//! whole packet, MACs are learned into a `HashMap`. It says outcome, egress ports and bytes of frames that are well
//! formed. Left out: super-frames, rate limits, full tables, learned path MTUs, and which fault of a malformed frame
//! is named first.

mod ingress;
mod packet;
mod route;
mod segment;
mod tables;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use podwire_control::model::{Mac, Object};
use podwire_vswitch::compile::{Device, HOST_PORT, NodeSpec, UPLINK_PORT};
use podwire_vswitch::frame::Outer;

use packet::{Net, Seen};

/// Seconds after which a station that was not seen again is forgotten (ARCHITECTURE.md, "Limits").
const AGEING_SECONDS: u64 = 300;

/// One frame as it comes in.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Seconds on the switch's clock.
    pub now_s: u64,
    /// Name of the port it comes in by.
    pub port: &'a str,
    /// The frame; from the VXLAN header on, when it comes from the uplink.
    pub bytes: &'a [u8],
    /// Whether its L4 checksum field holds only the pseudo-header sum.
    pub partial: bool,
    /// What an uplink knows of it.
    pub outer: Option<Outer>,
}

/// One frame as it goes out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sent {
    /// Name of the device's port.
    pub port: String,
    /// Remote address, VNI and outer TOS, when it goes into a tunnel.
    pub tunnel: Option<(IpAddr, u32, u8)>,
    /// Whether the checksum is left for the device to complete.
    pub partial: bool,
    /// The (inner) frame.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The end of a long frame by its sum: enough to see that two differ.
        let (head, tail) = self.bytes.split_at(self.bytes.len().min(120));
        let hex: String = head.iter().map(|byte| format!("{byte:02x}")).collect();
        let (len, tail) = (self.bytes.len(), packet::checksum(&[tail]));
        write!(f, "{} {:?} partial={} {len} bytes {hex} .. {tail:?}", self.port, self.tunnel, self.partial)
    }
}

/// What becomes of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expected {
    /// Name of the outcome, as `podwire drops` has it.
    pub outcome: String,
    /// All that is sent, sorted.
    pub sent: Vec<Sent>,
}

/// Where something is: behind a port, or behind a tunnel to another node.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Place {
    Port(String),
    Tunnel(String),
}

/// A frame on its way.
#[derive(Clone, Debug)]
struct Flight {
    now_s: u64,
    from: Place,
    /// Name of the bridge it is on; none is the pod segment.
    bridge: Option<String>,
    bytes: Vec<u8>,
    partial: bool,
    seen: Seen,
}

/// One way out.
#[derive(Clone, Debug)]
struct Way {
    to: Place,
    tunnel: Option<(IpAddr, u32, u8)>,
    mtu: usize,
}

/// The decision.
#[derive(Clone, Debug)]
struct Fate {
    outcome: String,
    ways: Vec<Way>,
    bytes: Vec<u8>,
    partial: bool,
}

impl Fate {
    fn drop(reason: &str) -> Self {
        Self { outcome: format!("drop:{reason}"), ways: Vec::new(), bytes: Vec::new(), partial: false }
    }
}

/// No limit.
const ANY_LENGTH: usize = usize::MAX;

/// The switch.
#[derive(Clone, Debug)]
pub struct Reference {
    node: NodeSpec,
    objects: Vec<Object>,
    devices: BTreeMap<String, Device>,
    /// By bridge and address: where it was seen, and in which second.
    learned: HashMap<(Option<String>, Mac), (Place, u64)>,
}

impl Reference {
    /// A switch of these objects, of which those ports forward whose device is there.
    #[must_use]
    pub fn new(node: &NodeSpec, objects: &[Object], devices: impl IntoIterator<Item = (String, Device)>) -> Self {
        let devices = devices.into_iter().collect();
        Self { node: node.clone(), objects: objects.to_vec(), devices, learned: HashMap::new() }
    }

    /// What becomes of a frame; none when it is malformed, which is not this switch's to judge.
    pub fn decide(&mut self, arrival: &Arrival<'_>) -> Option<Expected> {
        let fate = if arrival.port == UPLINK_PORT { self.of_uplink(arrival)? } else { self.of_port(arrival)? };
        Some(self.send(fate))
    }

    fn send(&self, fate: Fate) -> Expected {
        let Fate { mut outcome, ways, bytes, partial } = fate;
        let mut sent = Vec::new();
        for way in &ways {
            let port = match (&way.to, way.tunnel) {
                (Place::Port(name), None) => name.clone(),
                _ => UPLINK_PORT.to_owned(),
            };
            let Some(device) = self.devices.get(&port) else {
                if outcome == "forward" {
                    outcome = "drop:no_uplink".to_owned();
                }
                continue;
            };
            for bytes in fit(&bytes, partial, device.caps.checksum, way.mtu) {
                let (bytes, partial) = bytes;
                sent.push(Sent { port: port.clone(), tunnel: way.tunnel, partial, bytes });
            }
        }
        sent.sort();
        Expected { outcome, sent }
    }

    fn to_port(name: &str, mtu: usize) -> Way {
        Way { to: Place::Port(name.to_owned()), tunnel: None, mtu }
    }

    fn is_host(place: &Place) -> bool {
        *place == Place::Port(HOST_PORT.to_owned())
    }

    fn is_pod(place: &Place) -> bool {
        matches!(place, Place::Port(_)) && !Self::is_host(place)
    }
}

/// The packets that a frame leaves as through a port of this MTU: whole, in fragments, or (a copy of a flood that is
/// too long) not at all.
fn fit(bytes: &[u8], partial: bool, takes_partial: bool, mtu: usize) -> Vec<(Vec<u8>, bool)> {
    let seen = packet::read(bytes).expect("the switch sends well-formed frames");
    let Net::Ip(ip) = seen.net else { return vec![(bytes.to_vec(), false)] };
    let fits = ip.len <= mtu;
    if fits && (takes_partial || !partial) {
        return vec![(bytes.to_vec(), partial)];
    }
    let whole = if partial { complete(bytes, seen.l3, &ip) } else { bytes.to_vec() };
    if fits {
        return vec![(whole, false)];
    }
    packet::fragments(&whole, seen.l3, &ip, mtu).into_iter().map(|piece| (piece, false)).collect()
}

/// The frame with its TCP or UDP checksum summed over all it covers.
fn complete(bytes: &[u8], l3: usize, ip: &packet::Ip) -> Vec<u8> {
    let mut whole = bytes.to_vec();
    let at = ip.l4 + if ip.protocol == packet::TCP { 16 } else { 6 };
    whole[at..at + 2].fill(0);
    let l4 = ip.payload(l3, &whole);
    let pseudo = packet::pseudo(ip.src, ip.dst, ip.protocol, l4.len());
    let sum = packet::checksum(&[&pseudo, l4]);
    whole[at..at + 2].copy_from_slice(if sum == [0, 0] { &[0xff, 0xff] } else { &sum });
    whole
}

impl Sent {
    /// The same with a complete checksum. Of a flooded frame's copies, only those must be complete whose device asks
    /// for it; whether the others are is nobody's business.
    #[must_use]
    pub fn completed(self) -> Self {
        match packet::read(&self.bytes) {
            Some(Seen { l3, net: Net::Ip(ip), .. }) if self.partial => {
                Self { bytes: complete(&self.bytes, l3, &ip), partial: false, ..self }
            }
            _ => self,
        }
    }
}
