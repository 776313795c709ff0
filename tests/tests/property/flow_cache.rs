//! The flow cache changes nothing: the same traffic and the same changes of configuration, through a switch with it and
//! one without, give the same bytes, offloads, tunnels and counters.
//!
//! Flows come again and again with changes in between, so that most frames are hits and some find what was kept
//! outdated, by what is configured, learned, aged, or told by the underlay.

use std::time::Duration;

use podwire_tests::sim::{self, FLOW_EVENTS, SimSwitch};
use podwire_vswitch::id::VtepId;
use podwire_vswitch::stats::Event;
use proptest::prelude::*;

use crate::build::Built;
use crate::check;
use crate::frames::{Body, Door, IpOf, Load, MacOf, Shape, Sum, shapes};
use crate::topology::{Topology, pod_name, stranger, topologies};

const CASES: u32 = 200;
/// One step of a run. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    /// Frames of the stock, by number, received in one batch a port; some with another TTL or length.
    Frames(Vec<(usize, Twist)>),
    /// Milliseconds pass.
    Wait(u64),
    /// A route is stated or taken back.
    Route { at: usize, hop: u8, stated: bool },
    /// A pod's device is replaced by one with another MTU.
    Reopen { pod: usize, mtu: u16 },
    /// A pod goes.
    Close { pod: usize },
    /// A stranger's MAC is pinned to a pod, or let go.
    Pin { number: u8, pod: usize, stated: bool },
    /// The underlay has told of a narrower path, or it is forgotten.
    PathMtu { vtep: usize, mtu: Option<u16> },
    /// Nothing changes but the generation.
    Publish,
}

/// What makes a frame of a flow unlike the others.
#[derive(Clone, Copy, Debug)]
enum Twist {
    None,
    Ttl(u8),
    Tos(u8),
}

fn steps() -> BoxedStrategy<Step> {
    let twist = prop_oneof![
        16 => Just(Twist::None),
        1 => prop_oneof![Just(0_u8), Just(1), Just(2), Just(255)].prop_map(Twist::Ttl),
        1 => any::<u8>().prop_map(Twist::Tos),
    ];
    let frames = prop::collection::vec((any::<prop::sample::Index>(), twist), 1..40)
        .prop_map(|list| list.into_iter().map(|(at, twist)| (at.index(1 << 16), twist)).collect());
    let mtu = || prop_oneof![Just(1_280_u16), Just(1_430), Just(1_450)];
    prop_oneof![
        14 => frames.prop_map(Step::Frames),
        2 => prop_oneof![Just(1_u64), Just(400), Just(1_000), Just(299_000), Just(300_000)].prop_map(Step::Wait),
        2 => (0_usize..16, 0_u8..10, any::<bool>()).prop_map(|(at, hop, stated)| Step::Route { at, hop, stated }),
        1 => (0_usize..6, mtu()).prop_map(|(pod, mtu)| Step::Reopen { pod, mtu }),
        1 => (0_usize..6).prop_map(|pod| Step::Close { pod }),
        1 => (0_u8..3, 0_usize..6, any::<bool>()).prop_map(|(number, pod, stated)| Step::Pin { number, pod, stated }),
        1 => (0_usize..3, prop::option::of(1_300_u16..1_500)).prop_map(|(vtep, mtu)| Step::PathMtu { vtep, mtu }),
        1 => Just(Step::Publish),
    ]
    .boxed()
}

/// Frames of which most are flows that arrive: of the merely random ones too few are.
fn flows() -> BoxedStrategy<Shape> {
    (shapes(), prop::bool::weighted(0.1))
        .prop_map(|(mut shape, wild)| {
            let Body::Ip { extension, load, part, ttl, src, dst, .. } = &mut shape.body else { return shape };
            if wild {
                return shape;
            }
            (*extension, *part, shape.tags, *ttl, *src) = (false, None, 0, 64, IpOf::Own);
            if !matches!(load, Load::Udp { .. } | Load::Tcp { .. }) {
                *load = Load::Udp { len: 20, sum: Sum::Right };
            }
            if let Load::Udp { len, .. } | Load::Tcp { len, .. } = load {
                *len %= 1_300;
            }
            if let IpOf::LinkLocal | IpOf::Network | IpOf::Gateway = dst {
                *dst = IpOf::Pod(0);
            }
            if let Door::Tunnel { known, vni, tos, flags, .. } = &mut shape.door {
                (*known, *vni, *tos, *flags) = (true, if *vni < 3 { 0 } else { 2 }, *tos & !3, 8);
                shape.dst = if *vni == 0 { MacOf::Node } else { shape.dst };
            } else if matches!(shape.dst, MacOf::Group(_) | MacOf::Zero | MacOf::Remote(_)) {
                shape.dst = MacOf::Gateway;
            }
            shape
        })
        .boxed()
}

/// The switch with the cache, and the one without.
struct Twins {
    topology: Topology,
    cached: SimSwitch,
    plain: SimSwitch,
}

impl Twins {
    fn both(&mut self, mut change: impl FnMut(&mut SimSwitch)) {
        change(&mut self.cached);
        change(&mut self.plain);
    }

    fn step(&mut self, step: &Step, stock: &[Built]) {
        let pods = self.topology.pods.len();
        match step {
            Step::Frames(list) => {
                for (at, twist) in list {
                    let Some(Built { port, frame }) = stock.get(at % stock.len().max(1)) else { continue };
                    let mut frame = frame.clone();
                    twisted(&mut frame.bytes, frame.outer.is_some(), *twist);
                    if self.has(port) {
                        self.both(|switch| {
                            switch.inject(port, frame.clone());
                        });
                    }
                }
                self.both(|switch| {
                    switch.run();
                });
            }
            Step::Wait(ms) => self.both(|switch| {
                switch.advance(Duration::from_millis(*ms));
            }),
            Step::Route { at, hop, stated } => {
                let Some(route) = self.topology.route_of_stock(*at, *hop) else { return };
                self.both(|switch| {
                    if *stated {
                        switch.state([route.clone()])
                    } else {
                        switch.withdraw(&route.key())
                    };
                });
            }
            Step::Reopen { pod, mtu } => {
                let at = pod % pods;
                self.topology.pods[at].mtu = *mtu;
                let port = self.topology.pod_port(at);
                if self.has(&pod_name(at)) {
                    self.both(|switch| {
                        switch.remove_port(&pod_name(at));
                    });
                }
                self.both(|switch| {
                    switch.port(port.clone());
                });
            }
            Step::Close { pod } => {
                let name = pod_name(pod % pods);
                if self.has(&name) {
                    self.both(|switch| {
                        switch.remove_port(&name);
                    });
                }
            }
            Step::Pin { number, pod, stated } => {
                let object = sim::static_mac(None, stranger(*number), &pod_name(pod % pods));
                self.both(|switch| {
                    if *stated {
                        switch.state([object.clone()])
                    } else {
                        switch.withdraw(&object.key())
                    };
                });
            }
            Step::PathMtu { vtep, mtu } => {
                let id = VtepId(u16::try_from(vtep % self.topology.vteps.len().max(1)).expect("few VTEPs"));
                let mtu = mtu.unwrap_or(u16::MAX);
                self.both(|switch| {
                    if let Some(vtep) = switch.snapshot().vteps.get(id) {
                        vtep.path_mtu.store(mtu, std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
            Step::Publish => self.both(|switch| {
                switch.state([]);
            }),
        }
    }

    fn has(&self, port: &str) -> bool {
        self.plain.snapshot().ports.iter().flatten().any(|entry| entry.name == port)
    }

    /// What both sent and counted since the last look.
    fn compare(&self, step: &Step) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.cached.take_all(), self.plain.take_all(), "with the cache (left) and without: {:?}", step);
        let counted = |switch: &SimSwitch| {
            let totals = switch.totals();
            let events = Event::ALL.iter().filter(|event| !FLOW_EVENTS.contains(event));
            let events: Vec<_> = events.map(|&event| (event.name(), totals.event(event))).collect();
            let outcomes: Vec<_> = totals.0.ports.outcomes().map(|(name, count)| (name.to_string(), count)).collect();
            let ports = switch.snapshot().ports.iter().flatten().filter(|entry| self.has(&entry.name));
            let ports: Vec<_> =
                ports.map(|entry| (entry.name.clone(), format!("{:?}", switch.counters(&entry.name)))).collect();
            (events, outcomes, ports)
        };
        prop_assert_eq!(counted(&self.cached), counted(&self.plain), "counters, cached left: {:?}", step);
        let known = |switch: &SimSwitch| {
            let now_s = switch.now().seconds();
            let bridges = switch.snapshot().bridges.iter().flatten();
            let mut macs: Vec<_> =
                bridges.flat_map(|bridge| bridge.macs.iter(now_s)).map(|entry| format!("{entry:?}")).collect();
            macs.sort();
            macs
        };
        prop_assert_eq!(known(&self.cached), known(&self.plain), "MAC tables, cached left: {:?}", step);
        Ok(())
    }
}

/// The frame with another TTL or TOS, its IPv4 header checksum put right.
fn twisted(bytes: &mut [u8], tunnelled: bool, twist: Twist) {
    let l3 = if tunnelled { 8 + 14 } else { 14 };
    let Some(header) = bytes.get_mut(l3..l3 + 40) else { return };
    match (header[0], twist) {
        (0x45, Twist::Ttl(ttl)) => header[8] = ttl,
        (0x45, Twist::Tos(tos)) => header[1] = tos,
        (version, Twist::Ttl(ttl)) if version >> 4 == 6 => header[7] = ttl,
        (version, Twist::Tos(tos)) if version >> 4 == 6 => header[0] = 0x60 | tos >> 4,
        _ => {}
    }
    if header[0] == 0x45 {
        header[10..12].fill(0);
        let sum = podwire_vswitch::wire::checksum::sum(&header[..20]);
        let sum = podwire_vswitch::wire::checksum::finish(sum);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

#[test]
fn the_flow_cache_changes_nothing() {
    let tally = std::cell::RefCell::new([0_u64; FLOW_EVENTS.len()]);
    let runs = (
        topologies(),
        prop::collection::vec(flows(), 1..12),
        prop::collection::vec(steps(), 1..60),
        prop_oneof![4 => Just(256_usize), 1 => Just(8)],
    );
    check(CASES, &runs, |(topology, shapes, steps, flows)| {
        let stock: Vec<Built> = shapes.iter().filter_map(|shape| shape.build(&topology)).collect();
        let (cached, plain) = (topology.switch_with_flows(flows), topology.switch_with_flows(0));
        let mut twins = Twins { topology, cached, plain };
        for step in &steps {
            twins.step(step, &stock);
            twins.compare(step)?;
        }
        let totals = twins.cached.totals();
        tally.borrow_mut().iter_mut().zip(FLOW_EVENTS).for_each(|(sum, event)| *sum += totals.event(event));
        prop_assert_eq!(FLOW_EVENTS.map(|event| twins.plain.totals().event(event)), [0; 4]);
        Ok(())
    });
    let [hits, misses, invalidations, _] = tally.into_inner();
    println!("{hits} hits, {misses} misses, {invalidations} of them outdated");
    // Most misses are frames that are dropped or flooded, and stay so.
    assert!(hits > misses / 20 && invalidations > hits / 20, "the traffic is too tame");
}
