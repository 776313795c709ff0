//! The underlay as the kernel sees it, followed for an uplink that sends through AF_XDP: by which next hop each remote VTEP
//! is reached, and with which MAC addresses, MTU and TTL.
//!
//! The kernel decides, and this reads: on a notification everything anew, else a few routes a tick, since the kernel tells
//! nobody what it learns of a path's MTU. It also keeps the kernel's neighbours fresh, as sending through the kernel
//! would. A remote whose way is not certain has none here, and is sent to by UDP, which makes the kernel find one.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::port::xdp::{Way, WayTable, Ways};
use crate::sys::netlink::{
    IpsecPolicies, Link, Neighbour, Netlink, NetlinkError, RouteMonitor, RouteTo, default_hop_limits,
};

/// Routes that are looked up in one tick though no change was told.
const LOOKUPS_PER_TICK: usize = 64;
/// Ticks after which everything is read anew though no change was told: ten seconds.
const TICKS_PER_SYNC: u32 = 20;

/// Why a remote is sent to by UDP.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoWay {
    /// The NIC is gone or down.
    #[error("{0} is not there or down")]
    Device(String),
    /// The NIC has no Ethernet address.
    #[error("{0} has no MAC address")]
    NotEthernet(String),
    /// No address of ours can reach that family.
    #[error("uplink.address has none of its family")]
    Family,
    /// No route.
    #[error("no route leads there")]
    NoRoute,
    /// The kernel's answer was none.
    #[error("{0}")]
    Lookup(String),
    /// The route is not the NIC's.
    #[error("its route leaves by {0}, not by uplink.device")]
    OtherDevice(String),
    /// The packets would be wrapped once more, or stay here.
    #[error("its route is a tunnel's, or this node's own")]
    NotPlain,
    /// The kernel may have to encrypt what is sent.
    #[error("the node has IPsec policies, which AF_XDP would pass by")]
    Ipsec,
    /// The next hop has not answered.
    #[error("the next hop {0} has no known MAC address yet")]
    Unresolved(IpAddr),
    /// The path takes packets that do not fit packet memory.
    #[error("its MTU of {mtu} is more than the {send_bytes_max} bytes that AF_XDP sends here")]
    TooLong {
        /// The path's.
        mtu: u32,
        /// What fits.
        send_bytes_max: u16,
    },
}

/// The NIC, as it is now.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Nic {
    link: Link,
    /// For IPv4, for IPv6.
    hop_limits: [u8; 2],
    /// Longest outer IP packet that AF_XDP sends.
    send_bytes_max: u16,
}

/// What is known of one remote.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Known {
    route: Result<RouteTo, NoWay>,
    way: Result<Way, NoWay>,
}

/// Follows the underlay of one NIC.
#[derive(Debug)]
pub struct Underlay {
    device: String,
    /// Longest outer IP packet that AF_XDP sends through it.
    send_bytes_max: u16,
    /// Our VTEP addresses.
    sources: Vec<IpAddr>,
    netlink: Netlink,
    monitor: RouteMonitor,
    policies: IpsecPolicies,
    /// Whether there are policies now.
    ipsec: bool,
    ways: Arc<Ways>,
    published: WayTable,
    /// Tables that a worker may still be looking at.
    retired: Vec<Arc<WayTable>>,
    nic: Option<Nic>,
    neighbours: HashMap<IpAddr, Neighbour>,
    known: HashMap<IpAddr, Known>,
    /// Remotes in the order they are looked up.
    round: Vec<IpAddr>,
    next: usize,
    ticks: u32,
}

impl Underlay {
    /// Follows the NIC of the calling thread's namespace from now on; nothing is known until [`Underlay::look`].
    ///
    /// # Errors
    /// [`NetlinkError`] when there is no netlink socket to be had.
    pub fn open(
        device: &str,
        send_bytes_max: u16,
        sources: Vec<IpAddr>,
        ways: Arc<Ways>,
    ) -> Result<Self, NetlinkError> {
        Ok(Self {
            device: device.to_owned(),
            send_bytes_max,
            sources,
            netlink: Netlink::open()?,
            monitor: RouteMonitor::open()?,
            policies: IpsecPolicies::open()?,
            ipsec: false,
            ways,
            published: WayTable::default(),
            retired: Vec::new(),
            nic: None,
            neighbours: HashMap::new(),
            known: HashMap::new(),
            round: Vec::new(),
            next: 0,
            ticks: 0,
        })
    }

    /// Takes in what has changed, for the remotes there are now, and tells the workers. To be called at each tick.
    pub fn look(&mut self, remotes: impl IntoIterator<Item = IpAddr>) {
        let remotes: HashSet<IpAddr> = remotes.into_iter().collect();
        let index = self.nic.as_ref().map_or(0, |nic| nic.link.index);
        let told = self.monitor.changed(index);
        let all = told || self.nic.is_none() || self.ticks.is_multiple_of(TICKS_PER_SYNC);
        self.ticks = self.ticks.wrapping_add(1);
        if all {
            self.read_nic();
        }
        self.known.retain(|remote, _| remotes.contains(remote));
        for remote in self.due(&remotes, all) {
            let route = self.route(remote);
            self.known.insert(remote, Known { route, way: Err(NoWay::NoRoute) });
        }
        self.use_next_hops();
        // Who does not say that there are none may have some.
        self.ipsec = self.policies.apply_to_sending().unwrap_or(true);
        self.decide();
        self.publish();
    }

    /// How a remote is sent to over the NIC; or why by UDP.
    ///
    /// # Errors
    /// [`NoWay`].
    pub fn way(&self, remote: IpAddr) -> Result<Way, NoWay> {
        self.known.get(&remote).map_or(Err(NoWay::NoRoute), |known| known.way.clone())
    }

    /// The next hop to a remote, where it has a way.
    #[must_use]
    pub fn next_hop(&self, remote: IpAddr) -> Option<IpAddr> {
        let known = self.known.get(&remote).filter(|known| known.way.is_ok())?;
        known.route.as_ref().ok().map(|route| route.gateway.unwrap_or(remote))
    }

    fn read_nic(&mut self) {
        let (hop_limits, send_bytes_max) = (default_hop_limits(&self.device), self.send_bytes_max);
        // Without an answer there is no NIC: by UDP all is well.
        let link = self.netlink.find_link(&self.device).ok().flatten();
        self.nic = link.map(|link| Nic { link, hop_limits, send_bytes_max });
        let index = self.nic.as_ref().map(|nic| nic.link.index);
        let neighbours = index.and_then(|index| self.netlink.neighbours(index).ok()).unwrap_or_default();
        self.neighbours = neighbours.into_iter().map(|neighbour| (neighbour.address, neighbour)).collect();
    }

    /// The remotes whose routes are to be looked up now: all, or those that are new and the next of the round.
    fn due(&mut self, remotes: &HashSet<IpAddr>, all: bool) -> Vec<IpAddr> {
        if self.round.len() != remotes.len() || self.round.iter().any(|remote| !remotes.contains(remote)) {
            self.round = remotes.iter().copied().collect();
        }
        if all || self.round.len() <= LOOKUPS_PER_TICK {
            return self.round.clone();
        }
        let turn = self.round.iter().cycle().skip(self.next % self.round.len()).take(LOOKUPS_PER_TICK);
        let new = self.round.iter().filter(|remote| !self.known.contains_key(*remote));
        let due: HashSet<IpAddr> = turn.chain(new).copied().collect();
        self.next = (self.next + LOOKUPS_PER_TICK) % self.round.len();
        due.into_iter().collect()
    }

    fn route(&mut self, remote: IpAddr) -> Result<RouteTo, NoWay> {
        let source = self.sources.iter().find(|source| source.is_ipv4() == remote.is_ipv4()).ok_or(NoWay::Family)?;
        let found = self.netlink.route_to(*source, remote).map_err(|error| NoWay::Lookup(error.to_string()))?;
        let route = found.ok_or(NoWay::NoRoute)?;
        match &self.nic {
            Some(nic) if nic.link.index != route.device && route.plain => {
                let name = self.netlink.link_at(route.device).map(|link| link.name);
                Err(NoWay::OtherDevice(name.unwrap_or_else(|_| format!("interface number {}", route.device))))
            }
            _ => Ok(route),
        }
    }

    /// Has the kernel resolve the next hops it does not know, and ask again for those it has not heard of for long: nobody
    /// else may be sending to them.
    fn use_next_hops(&mut self) {
        let Some(nic) = self.nic.as_ref().filter(|nic| nic.link.up) else { return };
        let routes = self.known.iter().filter_map(|(remote, known)| Some((remote, known.route.as_ref().ok()?)));
        let hops: HashSet<IpAddr> =
            routes.filter(|(_, route)| route.plain).map(|(remote, route)| route.gateway.unwrap_or(*remote)).collect();
        for hop in hops {
            if self.neighbours.get(&hop).is_none_or(|neighbour| neighbour.stale || neighbour.mac.is_none()) {
                // What the kernel does not do now it is asked to do in half a second.
                let _ = self.netlink.use_neighbour(nic.link.index, hop);
            }
        }
    }

    fn decide(&mut self) {
        for (&remote, known) in &mut self.known {
            known.way = match (&self.nic, &known.route) {
                (None, _) => Err(NoWay::Device(self.device.clone())),
                (_, Err(why)) => Err(why.clone()),
                _ if self.ipsec => Err(NoWay::Ipsec),
                (Some(nic), Ok(route)) => {
                    let hop = route.gateway.unwrap_or(remote);
                    way(nic, remote, route, self.neighbours.get(&hop))
                }
            };
        }
    }

    fn publish(&mut self) {
        let table: WayTable =
            self.known.iter().filter_map(|(&remote, known)| Some((remote, *known.way.as_ref().ok()?))).collect();
        self.retired.retain(|table| Arc::strong_count(table) > 1);
        if table != self.published {
            self.published.clone_from(&table);
            self.retired.push(self.ways.replace(table));
        }
    }
}

/// Decides how one remote is sent to.
fn way(nic: &Nic, remote: IpAddr, route: &RouteTo, next_hop: Option<&Neighbour>) -> Result<Way, NoWay> {
    let link = &nic.link;
    if !link.up {
        return Err(NoWay::Device(link.name.clone()));
    }
    let source = link.mac.filter(|mac| mac.is_station()).ok_or_else(|| NoWay::NotEthernet(link.name.clone()))?;
    if !route.plain {
        return Err(NoWay::NotPlain);
    }
    let hop = route.gateway.unwrap_or(remote);
    let mac = next_hop.and_then(|neighbour| neighbour.mac).ok_or(NoWay::Unresolved(hop))?;
    let bytes = route.mtu.unwrap_or(u32::MAX).min(link.mtu);
    let send_bytes_max = nic.send_bytes_max;
    let fitting = u16::try_from(bytes).ok().filter(|&mtu| mtu <= send_bytes_max);
    let mtu = fitting.ok_or(NoWay::TooLong { mtu: bytes, send_bytes_max })?;
    let hop_limit = route.hop_limit.unwrap_or(nic.hop_limits[usize::from(remote.is_ipv6())]);
    Ok(Way { next_hop: mac, source, mtu, hop_limit })
}

#[cfg(test)]
mod tests;
