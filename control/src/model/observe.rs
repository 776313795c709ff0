//! What the switch says about frames and events: counters, drops, the walk of one frame, events and limits.

use std::net::IpAddr;

use super::validate::Invalid;
use super::{Mac, PortCounters, PortName};

/// A named count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counter {
    /// Outcome, as in `forward` or `drop:no_route`.
    pub name: String,
    /// Frames.
    pub count: u64,
}

/// One worker's counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkerCounters {
    /// Worker.
    pub id: u32,
    /// Its counts.
    pub counters: Vec<Counter>,
}

/// One port's counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortCounterReport {
    /// Port.
    pub port: String,
    /// Its counts.
    pub counters: PortCounters,
}

/// All counters.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CounterReport {
    /// A count per outcome, over all workers.
    pub totals: Vec<Counter>,
    /// The same a worker.
    pub workers: Vec<WorkerCounters>,
    /// Counts a port.
    pub ports: Vec<PortCounterReport>,
}

/// Frames of one port dropped for one reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortDrops {
    /// Port they came in by.
    pub port: String,
    /// How many.
    pub frames: u64,
}

/// One drop reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DropReport {
    /// Name.
    pub reason: String,
    /// One sentence.
    pub meaning: String,
    /// Frames dropped for it.
    pub frames: u64,
    /// The same a port, ports without any left out.
    pub ports: Vec<PortDrops>,
}

/// Transport protocol of a made-up packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum Protocol {
    Tcp,
    Udp,
    Icmp,
}

/// The frame to explain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExplainQuery {
    /// Port it comes in by.
    pub in_port: PortName,
    /// Source; the port's own address of the destination's family when not given.
    pub src: Option<IpAddr>,
    /// Destination.
    pub dst: IpAddr,
    /// Protocol; ICMP means an echo request of the destination's family.
    pub proto: Protocol,
    /// Source port.
    pub sport: Option<u16>,
    /// Destination port.
    pub dport: Option<u16>,
    /// Length of the IP packet in bytes.
    pub size: Option<u32>,
    /// Source MAC; the port's own when not given.
    pub src_mac: Option<Mac>,
    /// Destination MAC; what the pod would have resolved when not given.
    pub dst_mac: Option<Mac>,
}

impl ExplainQuery {
    /// Checks that the fields agree.
    ///
    /// # Errors
    /// Names the field and the remedy.
    pub fn validate(&self) -> Result<(), Invalid> {
        let invalid = |field, problem: String, remedy: &str| {
            Err(Invalid { object: "trace".into(), field, problem, remedy: remedy.into() })
        };
        if let Some(src) = self.src
            && src.is_ipv4() != self.dst.is_ipv4()
        {
            let problem = format!("{src} and dst {} are not of one family", self.dst);
            return invalid("src", problem, "use two IPv4 or two IPv6 addresses");
        }
        if self.proto == Protocol::Icmp && (self.sport.is_some() || self.dport.is_some()) {
            let problem = "icmp has no ports".to_owned();
            return invalid("proto", problem, "leave sport and dport out, or use tcp or udp");
        }
        Ok(())
    }
}

/// One stage the frame passed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Stage of the pipeline.
    pub stage: String,
    /// What it did and why.
    pub text: String,
}

/// The recorded walk of one frame through the stages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// Stages passed, in order.
    pub steps: Vec<Step>,
    /// The outcome's name, as counters have it.
    pub verdict: String,
    /// Where it would leave and as what.
    pub egress: String,
}

macro_rules! event_kinds {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// What happened.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum EventKind { $($(#[doc = $doc])+ $variant,)+ }

        impl EventKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name the CLI shows.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

event_kinds! {
    /// A kind that this version does not know yet; the text still says what happened.
    Unknown = "unknown",
    /// A port was added or changed, or the node's own was made again.
    PortAdded = "port_added",
    /// A port was removed by its owner.
    PortRemoved = "port_removed",
    /// A port closed by itself: its namespace vanished, or its device is gone.
    PortClosed = "port_closed",
    /// A bridge was added, changed or removed.
    BridgeChanged = "bridge_changed",
    /// A route was added, changed or removed.
    RouteChanged = "route_changed",
    /// A VTEP was added, changed or removed.
    VtepChanged = "vtep_changed",
    /// A learned MAC moved to another port.
    MacMoved = "mac_moved",
    /// The underlay refused a length; the path MTU was lowered.
    PathMtuLowered = "path_mtu_lowered",
    /// An offload switched itself off.
    OffloadDisabled = "offload_disabled",
    /// Every worker uses a new snapshot.
    GenerationPublished = "generation_published",
    /// The reader was too slow and missed events.
    EventsMissed = "events_missed",
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// What.
    pub kind: EventKind,
    /// To what, as in `port pod-a`.
    pub object: String,
    /// One sentence.
    pub text: String,
}

/// A fixed limit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limit {
    /// Name.
    pub name: String,
    /// Value.
    pub value: u64,
    /// Unit, as in `frames`.
    pub unit: String,
}
