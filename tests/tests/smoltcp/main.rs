//! Real TCP, UDP and ICMP of an independent stack (smoltcp) through two switches and a bad wire, in virtual time.
//!
//! Hosts are plain: no super-frames, complete checksums, which smoltcp verifies on every packet it receives.

mod host;

use std::net::IpAddr;
use std::time::Duration;

use podwire_tests::{Faults, NodePlan, plan};
use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpEndpoint, IpListenEndpoint};

use host::{Host, World};

/// What fits the plan's tunnels.
const POD_MTU: u16 = 1_430;
/// Bytes each way of a transfer.
const TRANSFER: usize = 1 << 20;
/// One way over the wire.
const DELAY: Duration = Duration::from_millis(1);

fn wire(loss_permille: u32, duplicate_permille: u32, reorder_permille: u32) -> Faults {
    Faults { loss_permille, duplicate_permille, reorder_permille, delay: DELAY }
}

/// One side of a transfer: what it has sent and received, and the pattern it does so by.
struct Side {
    host: usize,
    handle: SocketHandle,
    sent: usize,
    received: usize,
    salt: u8,
}

/// The byte at a place of a stream.
fn pattern(at: usize, salt: u8) -> u8 {
    u8::try_from((at ^ (at >> 8) ^ (at >> 16)) & 0xff).expect("a byte") ^ salt
}

impl Side {
    fn new(world: &mut World, host: usize, salt: u8) -> Self {
        let buffer = || tcp::SocketBuffer::new(vec![0; 65_535]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_ack_delay(None);
        let handle = world.hosts[host].sockets.add(socket);
        Self { host, handle, sent: 0, received: 0, salt }
    }

    /// Sends and receives what it can; true when all has come, gone, and been acknowledged.
    fn work(&mut self, hosts: &mut [Host], other_salt: u8) -> bool {
        let socket = hosts[self.host].sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        while socket.can_recv() {
            let mut bytes = [0; 4_096];
            let len = socket.recv_slice(&mut bytes).expect("there is something");
            for byte in &bytes[..len] {
                assert_eq!(*byte, pattern(self.received, other_salt), "byte {} is another", self.received);
                self.received += 1;
            }
        }
        while socket.can_send() && self.sent < TRANSFER {
            let end = TRANSFER.min(self.sent + 4_096);
            let bytes: Vec<u8> = (self.sent..end).map(|at| pattern(at, self.salt)).collect();
            self.sent += socket.send_slice(&bytes).expect("the connection is open");
        }
        self.sent == TRANSFER && self.received == TRANSFER && socket.send_queue() == 0
    }
}

/// Sends a megabyte each way between two hosts, byte by byte checked; returns how long it took in virtual time.
#[track_caller]
fn transfer(world: &mut World, [client, server]: [usize; 2], v6: bool, limit: Duration) -> Duration {
    let begin = world.net.now();
    let (mut one, mut other) = (Side::new(world, client, 0x00), Side::new(world, server, 0xa5));
    let remote = IpEndpoint::new(world.hosts[server].ip(v6).into(), 80);
    let listener = world.hosts[server].sockets.get_mut::<tcp::Socket<'_>>(other.handle);
    listener.listen(80).expect("a port to listen on");
    let (iface, sockets) = world.hosts[client].parts();
    let socket = sockets.get_mut::<tcp::Socket<'_>>(one.handle);
    socket.connect(iface.context(), remote, 50_000).expect("a way to the server");
    world.until(limit, |hosts| {
        let salts = (one.salt, other.salt);
        let done = (one.work(hosts, salts.1), other.work(hosts, salts.0));
        (done == (true, true)).then_some(())
    });
    let took = world.net.now() - begin;
    for side in [&one, &other] {
        world.hosts[side.host].sockets.remove(side.handle);
    }
    took
}

fn world_of_two(faults: Faults, seed: u64, mtu: u16) -> (World, [usize; 2]) {
    let mut world = World::new(faults, seed);
    let hosts = [world.host(1, 10, mtu), world.host(2, 20, mtu)];
    (world, hosts)
}

#[test]
fn a_megabyte_each_way_arrives_whole_over_every_wire() {
    // Loss, duplicates and reordering in thousandths, and the longest it may take. smoltcp without congestion control
    // goes back and sends again what was lost, so time grows with loss, but does not explode.
    let wires = [(0, 0, 0, 1), (5, 0, 0, 20), (0, 100, 100, 20), (20, 20, 50, 60)];
    let mut table = String::new();
    for (loss, duplicate, reorder, limit_s) in wires {
        for v6 in [false, true] {
            let (mut world, hosts) = world_of_two(wire(loss, duplicate, reorder), 1, POD_MTU);
            let took = transfer(&mut world, hosts, v6, Duration::from_secs(limit_s));
            let count = world.net.count();
            table += &format!("{loss:>5} {duplicate:>5} {reorder:>5} {v6:>6} {took:>12.1?} {count:?}\n");
            assert_eq!((count.too_big, count.unknown), (0, 0), "the switches keep to the wire's MTU and to its nodes");
            assert_eq!(count.lost == 0, loss == 0);
        }
    }
    println!(" loss   dup  reord     v6         time  wire\n{table}");
}

#[test]
fn the_same_seed_takes_the_same_time() {
    let run = |seed| {
        let (mut world, hosts) = world_of_two(wire(10, 10, 10), seed, POD_MTU);
        (transfer(&mut world, hosts, false, Duration::from_secs(60)), world.net.count())
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3).1, run(4).1);
}

#[test]
fn pods_of_one_node_talk_without_the_wire() {
    let mut world = World::new(wire(1_000, 0, 0), 1);
    let hosts = [world.host(1, 10, POD_MTU), world.host(1, 11, POD_MTU)];
    for v6 in [false, true] {
        transfer(&mut world, hosts, v6, Duration::from_secs(5));
    }
    assert_eq!(world.net.count(), Default::default());
}

#[test]
fn small_mtus_carry_the_same_bytes() {
    for (v6, mtu) in [(false, 576), (true, 1_280)] {
        let (mut world, hosts) = world_of_two(wire(0, 0, 0), 1, mtu);
        transfer(&mut world, hosts, v6, Duration::from_secs(20));
    }
}

/// Sends an echo request, and a second one a second later, since smoltcp does not keep an answer while it asks for the
/// MAC to send it to. Returns how long the answered one took.
#[track_caller]
fn ping(world: &mut World, host: usize, to: IpAddr) -> Duration {
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 4_096]);
    let mut socket = icmp::Socket::new(buffer(), buffer());
    socket.bind(icmp::Endpoint::Ident(7)).expect("an identifier");
    let handle = world.hosts[host].sockets.add(socket);
    let data = [0x5a; 200];
    let echo = |world: &mut World| {
        let begin = world.net.now();
        send_echo(&mut world.hosts[host], handle, to, &data);
        let answer = world.within(Duration::from_secs(1), |hosts| {
            let socket = hosts[host].sockets.get_mut::<icmp::Socket<'_>>(handle);
            socket.recv().ok().map(|(bytes, from)| (bytes.to_vec(), IpAddr::from(from)))
        });
        answer.map(|(bytes, from)| (bytes, from, world.net.now() - begin))
    };
    let answered = echo(world).or_else(|| echo(world));
    let (bytes, from, took) = answered.unwrap_or_else(|| panic!("{to} answers no echo request"));
    assert_eq!((from, &bytes[8..]), (to, &data[..]));
    world.hosts[host].sockets.remove(handle);
    took
}

fn send_echo(host: &mut Host, handle: SocketHandle, to: IpAddr, data: &[u8]) {
    let own = host.ip(to.is_ipv6());
    let socket = host.sockets.get_mut::<icmp::Socket<'_>>(handle);
    let checksums = ChecksumCapabilities::default();
    match (own, to) {
        (IpAddr::V6(own), IpAddr::V6(remote)) => {
            let echo = Icmpv6Repr::EchoRequest { ident: 7, seq_no: 1, data };
            let bytes = socket.send(echo.buffer_len(), remote.into()).expect("room");
            echo.emit(&own, &remote, &mut Icmpv6Packet::new_unchecked(bytes), &checksums);
        }
        _ => {
            let echo = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 1, data };
            let bytes = socket.send(echo.buffer_len(), to.into()).expect("room");
            echo.emit(&mut Icmpv4Packet::new_unchecked(bytes), &checksums);
        }
    }
}

#[test]
fn pings_are_answered_by_gateways_neighbours_and_remote_pods() {
    let mut world = World::new(wire(0, 0, 0), 1);
    let hosts = [world.host(1, 10, POD_MTU), world.host(1, 11, POD_MTU), world.host(2, 20, POD_MTU)];
    for v6 in [false, true] {
        let gateway = plan::of_family(&NodePlan(1).gateways(), v6);
        let [neighbour, remote] = [1, 2].map(|at: usize| world.hosts[hosts[at]].ip(v6));
        assert!(ping(&mut world, hosts[0], gateway) < DELAY);
        assert!(ping(&mut world, hosts[0], neighbour) < DELAY);
        let took = ping(&mut world, hosts[0], remote);
        assert!(took >= 2 * DELAY && took < 3 * DELAY, "{took:?}");
    }
}

fn udp_socket(host: &mut Host, port: u16) -> SocketHandle {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 16], vec![0; 65_535]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(port).expect("a free port");
    host.sockets.add(socket)
}

#[test]
fn datagrams_arrive_and_one_that_no_route_covers_is_answered() {
    let mut world = World::new(wire(0, 0, 0), 1);
    let [sender, receiver] = [world.host(1, 10, POD_MTU), world.host(2, 20, POD_MTU)];
    let from = udp_socket(&mut world.hosts[sender], 1_000);
    let to = udp_socket(&mut world.hosts[receiver], 2_000);
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 4_096]);
    let mut errors = icmp::Socket::new(buffer(), buffer());
    errors.bind(icmp::Endpoint::Udp(IpListenEndpoint::from(1_000))).expect("a port to hear of");
    let errors = world.hosts[sender].sockets.add(errors);
    for v6 in [false, true] {
        let remote = world.hosts[receiver].ip(v6);
        let nowhere = plan::of_family(&NodePlan(99).pod(9), v6);
        for (destination, len) in [(remote, 1_300), (nowhere, 50)] {
            let socket = world.hosts[sender].sockets.get_mut::<udp::Socket<'_>>(from);
            socket.send_slice(&vec![0x42; len], IpEndpoint::new(destination.into(), 2_000)).expect("room");
        }
        let (bytes, source) = world.until(Duration::from_secs(5), |hosts| {
            let socket = hosts[receiver].sockets.get_mut::<udp::Socket<'_>>(to);
            socket.recv().ok().map(|(bytes, meta)| (bytes.to_vec(), meta.endpoint))
        });
        assert_eq!((bytes, source.port), (vec![0x42; 1_300], 1_000));
        // smoltcp hears of an error only if its checksum and all of the quoted datagram are right.
        let (error, speaker) = world.until(Duration::from_secs(5), |hosts| {
            let socket = hosts[sender].sockets.get_mut::<icmp::Socket<'_>>(errors);
            socket.recv().ok().map(|(bytes, from)| (bytes.to_vec(), from))
        });
        assert_eq!(error[..2], if v6 { [1, 0] } else { [3, 0] }, "destination unreachable, no route");
        assert_eq!(IpAddr::from(speaker), plan::of_family(&NodePlan(1).gateways(), v6));
    }
}
