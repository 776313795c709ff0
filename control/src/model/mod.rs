//! Validated plain types: what can be said to podwire, and what it answers. No serialisation, no I/O.

mod attachment;
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
    AddressSource, AttachRequest, Attachment, AttachmentKey, Bandwidth, CONTAINER_BYTES_MAX, ContainerId,
    ContainerIdError, HostPort, PodName, RateLimit, Readiness, Transport,
};
pub use change::{Action, Applied, Changed, Refusal};
pub use ipam::{IpRange, IpRangeError, IpamReport, RangeReport, RangeSource, RangesChanged};
pub use mac::{Mac, MacError};
pub use name::{BridgeName, NAME_BYTES_MAX, NameError, PortName, VtepName};
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
