//! A pod with a network stack of its own: smoltcp over the test's end of a memory port, without offloads.
//!
//! A [`World`] moves frames between hosts, switches and the wire in virtual time, as fast as nothing waits.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use podwire_control::model::Mac;
use podwire_tests::sim::SimPort;
use podwire_tests::{Faults, NodePlan, SimNet, plan};
use podwire_vswitch::frame::Checksum;
use podwire_vswitch::port::PortCaps;
use podwire_vswitch::port::memory::MemoryFrame;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

/// Longest step of virtual time while nothing is due.
const STEP: Duration = Duration::from_millis(50);
/// Shortest, so that time goes on.
const STEP_MIN: Duration = Duration::from_micros(10);

/// What smoltcp takes for its device: frames in, frames out.
#[derive(Debug)]
struct Nic {
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    mtu: u16,
}

impl Device for Nic {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = usize::from(self.mtu) + 14;
        capabilities
    }
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

struct Sending<'a>(&'a mut Vec<Vec<u8>>);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut frame = vec![0; len];
        let result = write(&mut frame);
        self.0.push(frame);
        result
    }
}

/// One pod.
pub(crate) struct Host {
    /// Place of its switch in the net.
    at: usize,
    port: String,
    plan: NodePlan,
    number: u8,
    nic: Nic,
    iface: Interface,
    /// Its sockets.
    pub(crate) sockets: SocketSet<'static>,
}

impl Host {
    /// Its address of a family.
    pub(crate) fn ip(&self, v6: bool) -> IpAddr {
        plan::of_family(&self.plan.pod(self.number), v6)
    }

    /// What connecting a TCP socket needs beside the socket.
    pub(crate) fn parts(&mut self) -> (&mut Interface, &mut SocketSet<'static>) {
        (&mut self.iface, &mut self.sockets)
    }

    /// Lets the stack work at this moment, and moves its frames; returns how many moved.
    fn exchange(&mut self, net: &mut SimNet, now: Instant) -> usize {
        let switch = net.switch(self.at);
        for frame in switch.take(&self.port) {
            let left_undone = matches!(frame.offload.checksum, Checksum::Partial { .. }) || frame.offload.gso.is_some();
            assert!(!left_undone, "a port without offloads gets complete packets: {:?}", frame.offload);
            self.nic.received.push_back(frame.bytes);
        }
        let received = self.nic.received.len();
        self.iface.poll(now, &mut self.nic, &mut self.sockets);
        let sent = std::mem::take(&mut self.nic.sent);
        let moved = received - self.nic.received.len() + sent.len();
        for bytes in sent {
            switch.inject(&self.port, MemoryFrame::new(bytes));
        }
        moved
    }
}

/// Two nodes of the plan, and hosts on them.
pub(crate) struct World {
    pub(crate) net: SimNet,
    pub(crate) hosts: Vec<Host>,
}

impl World {
    /// Two nodes joined by this wire.
    pub(crate) fn new(faults: Faults, seed: u64) -> Self {
        Self { net: SimNet::planned(2, faults, seed), hosts: Vec::new() }
    }

    /// Adds a host to node 1 or 2, whose stack and port have this MTU; returns its place.
    pub(crate) fn host(&mut self, node: u8, number: u8, mtu: u16) -> usize {
        let plan = NodePlan(node);
        let port = format!("pod{number}");
        let at = usize::from(node) - 1;
        self.net.switch(at).port(SimPort::pod(&port, &plan.pod(number)).caps(PortCaps::NONE).mtu(mtu));
        let mut nic = Nic { received: VecDeque::new(), sent: Vec::new(), mtu };
        let mac = Mac::of_ip(plan::of_family(&plan.pod(number), false));
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac.0)));
        config.random_seed = u64::from(node) << 8 | u64::from(number);
        let mut iface = Interface::new(config, &mut nic, self.now());
        iface.update_ip_addrs(|own| {
            for address in plan.pod(number) {
                own.push(IpCidr::new(address.addr().into(), address.prefix_len())).expect("room for two");
            }
        });
        let (IpAddr::V4(v4), IpAddr::V6(v6)) =
            (plan::of_family(&plan.gateways(), false), plan::of_family(&plan.gateways(), true))
        else {
            unreachable!("asked for by family")
        };
        iface.routes_mut().add_default_ipv4_route(v4).expect("room for two");
        iface.routes_mut().add_default_ipv6_route(v6).expect("room for two");
        self.hosts.push(Host { at, port, plan, number, nic, iface, sockets: SocketSet::new(Vec::new()) });
        self.hosts.len() - 1
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::from_micros(i64::try_from(self.net.now().as_micros()).expect("virtual time is short"))
    }

    /// Moves everything that can move now.
    fn settle(&mut self) {
        let now = self.now();
        loop {
            let moved: usize = self.hosts.iter_mut().map(|host| host.exchange(&mut self.net, now)).sum();
            if self.net.run() + moved == 0 {
                break;
            }
        }
    }

    /// Lets time pass to what is due next.
    fn wait(&mut self) {
        let now = self.now();
        let due = |host: &mut Host| host.iface.poll_delay(now, &host.sockets).map(Duration::from);
        let next = self.hosts.iter_mut().filter_map(due).chain(self.net.next_arrival()).min();
        self.net.advance(next.unwrap_or(STEP).clamp(STEP_MIN, STEP));
    }

    /// Runs until `done` gives something, for at most this long in virtual time.
    pub(crate) fn within<T>(&mut self, limit: Duration, mut done: impl FnMut(&mut [Host]) -> Option<T>) -> Option<T> {
        let end = self.net.now() + limit;
        loop {
            self.settle();
            if let Some(result) = done(&mut self.hosts) {
                return Some(result);
            }
            // What the caller has just sent or read may let something move at once.
            self.settle();
            if self.net.now() >= end {
                return None;
            }
            self.wait();
        }
    }

    /// As [`World::within`], where something must come of it.
    #[track_caller]
    pub(crate) fn until<T>(&mut self, limit: Duration, done: impl FnMut(&mut [Host]) -> Option<T>) -> T {
        let result = self.within(limit, done);
        let (wire, totals) = (self.net.count(), self.net.switch(0).totals());
        result.unwrap_or_else(|| panic!("nothing came of it in {limit:?} of virtual time; {wire:?}; node 1 {totals}"))
    }
}
