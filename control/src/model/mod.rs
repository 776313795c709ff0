//! Validated plain types: what can be said to podwire, and what it answers. No serialisation, no I/O.

mod attachment;
mod bandwidth;
mod change;
mod ipam;
mod mac;
mod name;
mod object;
mod observe;
mod report;
mod text;
mod validate;
mod via;
mod vni;

pub use attachment::{
    AddressSource, AttachRequest, Attachment, AttachmentKey, HostPort, PodName, Readiness, Transport,
};
pub use bandwidth::{BURST_DEFAULT_MS, Bandwidth, Bits, BitsError, RATE_BITS_PER_S_MIN, RateLimit};
pub use change::{Action, Applied, Changed, Refusal};
pub use ipam::{IpRange, IpRangeError, IpamReport, RangeReport, RangeSource, RangesChanged};
pub use mac::{Mac, MacError};
pub use name::{
    BridgeName, CONTAINER_BYTES_MAX, ContainerId, ContainerIdError, NAME_BYTES_MAX, NETWORK_BYTES_MAX, NameError,
    NetworkName, NetworkNameError, PortName, VtepName,
};
pub use object::{
    Bridge, Endpoint, Guard, Key, Object, Owner, OwnerError, Port, PortKind, Route, StaticMac, Via, Vtep,
};
pub use observe::{
    Counter, CounterReport, DropReport, Event, EventKind, ExplainQuery, Explanation, Limit, PortCounterReport,
    PortDrops, Protocol, Step, WorkerCounters,
};
pub use report::{
    BridgeReport, EndpointReport, MacReport, ObjectCounts, OffloadReport, PortCounters, PortReport, PortRole,
    PortState, RouteMatch, RouteReport, Status, Uplink, VtepReport, WorkerReport, XdpReport,
};
pub use text::{Text, TextError, read};
pub use validate::{IFNAME_BYTES_MAX, Invalid, PORT_MTU_MIN, PORT_MTU_MIN_IPV6, check_objects};
pub use via::{VIA_WORDS, ViaError};
pub use vni::{Vni, VniError};
