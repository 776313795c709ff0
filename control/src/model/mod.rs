//! Validated plain types: what can be said to podwire at all. No serialisation, no I/O.

mod mac;
mod name;
mod object;
mod vni;

pub use mac::{Mac, MacError};
pub use name::{BridgeName, NAME_BYTES_MAX, NameError, PortName, VtepName};
pub use object::{
    Bridge, Endpoint, Guard, Key, Object, Owner, OwnerError, Port, PortKind, Route, StaticMac, Via, Vtep,
};
pub use vni::{Vni, VniError};
