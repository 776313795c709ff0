//! What a simulated port is: the object that states it, and the device that a memory port plays.

use std::path::PathBuf;

use ipnet::IpNet;
use podwire_control::model::{Bandwidth, Guard, Mac, Port, PortKind};
use podwire_vswitch::port::PortCaps;
use podwire_vswitch::port::memory::MEMORY_QUEUE_FRAMES;

use super::{HOST, POD_MTU, UPLINK};

/// A port to be added to a `SimSwitch`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SimPort {
    pub(super) name: String,
    /// None for the host port and the uplink.
    pub(super) object: Option<Port>,
    pub(super) caps: PortCaps,
    pub(super) mtu: u16,
    pub(super) queue_frames: usize,
}

impl SimPort {
    /// A guarded pod on the node's pod segment, with all offloads.
    ///
    /// # Panics
    /// When the name is none.
    #[must_use]
    #[track_caller]
    pub fn pod(name: &str, addresses: &[IpNet]) -> Self {
        let object = Port {
            name: name.parse().expect("a port's name"),
            kind: PortKind::Tap,
            netns: PathBuf::from(format!("/run/netns/{name}")),
            ifname: "eth0".to_owned(),
            addresses: addresses.to_vec(),
            mac: None,
            mtu: None,
            bridge: None,
            guard: Guard::On { allowed: Vec::new() },
            bandwidth: Bandwidth::default(),
        };
        Self { object: Some(object), ..Self::device(name, PortCaps::ALL) }
    }

    /// The host port, with all offloads.
    #[must_use]
    pub fn host() -> Self {
        Self::device(HOST, PortCaps::ALL)
    }

    /// The uplink, which takes complete packets only.
    #[must_use]
    pub fn uplink() -> Self {
        Self { mtu: u16::MAX, ..Self::device(UPLINK, PortCaps::NONE) }
    }

    fn device(name: &str, caps: PortCaps) -> Self {
        Self { name: name.to_owned(), object: None, caps, mtu: POD_MTU, queue_frames: MEMORY_QUEUE_FRAMES }
    }

    /// With these offloads.
    #[must_use]
    pub fn caps(mut self, caps: PortCaps) -> Self {
        self.caps = caps;
        self
    }

    /// With this MTU in bytes.
    #[must_use]
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = mtu;
        self
    }

    /// Whose queues hold this many frames each way.
    #[must_use]
    pub fn queue(mut self, frames: usize) -> Self {
        self.queue_frames = frames;
        self
    }

    /// With this MAC in place of the one that follows from its address.
    #[must_use]
    pub fn mac(self, mac: Mac) -> Self {
        self.stated(|port| port.mac = Some(mac))
    }

    /// On this bridge.
    ///
    /// # Panics
    /// When the name is none.
    #[must_use]
    #[track_caller]
    pub fn bridge(self, name: &str) -> Self {
        let name = name.parse().expect("a bridge's name");
        self.stated(|port| port.bridge = Some(name))
    }

    /// That may also send from these prefixes.
    #[must_use]
    pub fn allowed(self, prefixes: &[IpNet]) -> Self {
        self.stated(|port| port.guard = Guard::On { allowed: prefixes.to_vec() })
    }

    /// That may send from any address.
    #[must_use]
    pub fn unguarded(self) -> Self {
        self.stated(|port| port.guard = Guard::Off)
    }

    /// That may be so fast and no faster.
    #[must_use]
    pub fn bandwidth(self, bandwidth: Bandwidth) -> Self {
        self.stated(|port| port.bandwidth = bandwidth)
    }

    fn stated(mut self, change: impl FnOnce(&mut Port)) -> Self {
        change(self.object.as_mut().expect("only pods are stated"));
        self
    }
}
