//! A backend that answers with made-up, fixed reports and keeps what is stated, and a service over it on a real
//! Unix socket.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // a fixture that several tests share

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipnet::IpNet;
use podwire_control::model::*;
use podwire_control::service::{self, Backend, BackendError};
use tokio::sync::{broadcast, oneshot};
use tokio::task::JoinHandle;

type Answer<T> = Result<T, BackendError>;

/// Keeps what is stated a key; everything else is fixed.
#[derive(Debug)]
pub struct Fake {
    pub stated: Mutex<BTreeMap<Key, Object>>,
    pub ranges: Mutex<Vec<IpRange>>,
    pub events: broadcast::Sender<Event>,
    /// How long a change takes.
    pub change_takes: Mutex<Duration>,
    /// How long attaching takes.
    pub attach_takes: Mutex<Duration>,
    /// What every call about attachments answers, if anything.
    pub fails: Mutex<Option<BackendError>>,
    /// What is leased; none means that there is no more.
    pub leases: Mutex<Vec<IpNet>>,
    pub readiness: Mutex<Readiness>,
    /// What was asked to be attached, what was detached, and which networks were collected keeping how many.
    pub asked: Mutex<Vec<AttachRequest>>,
    pub detached: Mutex<Vec<AttachmentKey>>,
    pub kept: Mutex<Vec<(NetworkName, usize)>>,
}

impl Default for Fake {
    fn default() -> Self {
        let readiness = Readiness { cannot_attach: Some("no address is free".into()), pods_suffer: None };
        Self {
            stated: Mutex::default(),
            ranges: Mutex::default(),
            events: broadcast::channel(16).0,
            change_takes: Mutex::default(),
            attach_takes: Mutex::default(),
            fails: Mutex::default(),
            leases: Mutex::default(),
            readiness: Mutex::new(readiness),
            asked: Mutex::default(),
            detached: Mutex::default(),
            kept: Mutex::default(),
        }
    }
}

/// The service over a fake, stopped when dropped.
#[derive(Debug)]
pub struct Running {
    pub fake: Arc<Fake>,
    pub socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    pub served: JoinHandle<Result<(), service::ServeError>>,
    _dir: tempfile::TempDir,
}

impl Running {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("podwired.sock");
        let fake = Arc::new(Fake::default());
        let listener = service::bind(&socket).unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = service::serve(listener, Arc::clone(&fake), async {
            let _ = stopped.await;
        });
        Self { fake, socket, stop: Some(stop), served: tokio::spawn(serving), _dir: dir }
    }

    pub fn stop(&mut self) {
        drop(self.stop.take());
    }
}

pub fn mac(text: &str) -> Mac {
    text.parse().unwrap()
}

pub fn counters(rx_frames: u64) -> PortCounters {
    PortCounters {
        rx_frames,
        rx_segments: rx_frames * 2,
        rx_bytes: rx_frames * 100,
        tx_frames: 3,
        ..Default::default()
    }
}

pub fn port_report(name: &str, state: PortState) -> PortReport {
    PortReport {
        id: 2,
        name: name.into(),
        owner: Owner::Cli,
        role: PortRole::Pod,
        device: "tap".into(),
        netns: Some("/run/netns/a".into()),
        ifname: Some("eth0".into()),
        addresses: vec!["10.244.1.10/24".parse().unwrap(), "fd00:244:1::a/64".parse().unwrap()],
        mac: Some(mac("0a:58:0a:f4:01:0a")),
        mtu: 1450,
        bridge: None,
        guard: Some(Guard::On { allowed: vec!["10.9.0.0/16".parse().unwrap()] }),
        bandwidth: Bandwidth { ingress: Some(RateLimit::new(Bits(100_000_000), None)), egress: None },
        state,
        counters: counters(5),
    }
}

impl Fake {
    fn fail(&self) -> Answer<()> {
        self.fails.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    pub fn status_report() -> Status {
        Status {
            node: "node1".into(),
            version: "0.1.0".into(),
            generation: 7,
            uptime_s: 61,
            vtep_mac: mac("0a:5a:00:00:00:01"),
            vtep_mac6: Some(mac("0a:5a:00:00:00:02")),
            gateway_mac: mac("0a:58:0a:f4:01:01"),
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap(), "fd00:244:1::/64".parse().unwrap()],
            cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            uplink: Some(Uplink {
                kind: "xdp".into(),
                addresses: vec!["172.31.0.1".parse().unwrap()],
                device: Some("eth0".into()),
                mtu: 1500,
                xdp: Some(XdpReport {
                    mode: "native".into(),
                    passed_over: vec!["zerocopy: the driver does not support it".into()],
                    queues: 2,
                    tx: "udp".into(),
                    tx_why: "copy mode, where UDP_SEGMENT is faster".into(),
                    busy_poll: "off".into(),
                }),
            }),
            tunnel_mtu: 1450,
            vni: 1.try_into().unwrap(),
            vxlan_port: 4789,
            host_interface: "podwire0".into(),
            workers: vec![WorkerReport {
                id: 0,
                cpu: None,
                poll: "adaptive".into(),
                frames: 40,
                passes: 10,
                frames_per_pass: 4.0,
            }],
            offloads: vec![OffloadReport { name: "udp_segment".into(), on: true, why: "probed".into() }],
            counts: ObjectCounts { ports: 2, bridges: 1, routes: 1, vteps: 1, macs: 2 },
            warnings: vec!["one worker may not be pinned".into()],
        }
    }

    fn published(&self, generation: u64) {
        let event = Event {
            time_ms: 1_700_000_000_123,
            kind: EventKind::GenerationPublished,
            object: format!("generation {generation}"),
            text: "every worker uses it".into(),
        };
        let _ = self.events.send(event); // nobody listening is fine
    }

    fn put(stated: &mut BTreeMap<Key, Object>, object: Object, applied: &mut Applied) {
        let key = object.key();
        let action = match stated.insert(key.clone(), object.clone()) {
            None => Action::Added,
            Some(before) if before == object => {
                applied.unchanged += 1;
                return;
            }
            Some(_) => Action::Changed,
        };
        applied.changed.push(Changed { key, action });
    }
}

/// The one attachment there is.
pub fn attachment() -> Attachment {
    let container = "8e3f0a6b1c2d".parse().unwrap();
    Attachment {
        key: AttachmentKey { container, ifname: "eth0".into() },
        network: "pods".parse().unwrap(),
        netns: "/run/netns/cni-8e3f".into(),
        pod: Some(PodName { namespace: "default".into(), name: "web-0".into() }),
        port: "8e3f0a6b1c2d.eth0".parse().unwrap(),
        kind: PortKind::Tap,
        addresses: vec!["10.244.1.10/24".parse().unwrap(), "fd00:244:1::a/64".parse().unwrap()],
        leased: true,
        gateways: vec!["10.244.1.1".parse().unwrap(), "fd00:244:1::1".parse().unwrap()],
        mac: Mac([2, 0, 10, 244, 1, 10]),
        mtu: 1450,
        host_ports: Vec::new(),
        bandwidth: Bandwidth::default(),
    }
}

impl Backend for Fake {
    fn status(&self) -> Answer<Status> {
        Ok(Self::status_report())
    }

    fn apply(&self, _: Owner, objects: Vec<Object>) -> Answer<Applied> {
        let mut stated = self.stated.lock().unwrap();
        let mut applied = Applied { generation: 8, ..Applied::default() };
        let keys: Vec<Key> = objects.iter().map(Object::key).collect();
        for key in stated.keys().filter(|key| !keys.contains(key)).cloned().collect::<Vec<_>>() {
            stated.remove(&key);
            applied.changed.push(Changed { key, action: Action::Removed });
        }
        for object in objects {
            Self::put(&mut stated, object, &mut applied);
        }
        self.published(8);
        Ok(applied)
    }

    fn change(&self, _: Owner, upserts: Vec<Object>, deletes: Vec<Key>) -> Answer<Applied> {
        let takes = *self.change_takes.lock().unwrap();
        std::thread::sleep(takes);
        let mut stated = self.stated.lock().unwrap();
        let mut applied = Applied { generation: 9, ..Applied::default() };
        let refused: Vec<_> = upserts
            .iter()
            .filter_map(|object| match object {
                Object::Route(Route { via: Via::Vtep(name), prefix }) if name.as_str() == "nowhere" => {
                    let reason = "via nowhere: there is no such VTEP; add it first";
                    Some(Refusal::new(format!("route {prefix}"), reason))
                }
                _ => None,
            })
            .collect();
        if !refused.is_empty() {
            return Err(BackendError::Refused(refused));
        }
        for key in deletes {
            if stated.remove(&key).is_none() {
                return Err(BackendError::NotFound(Refusal::new(key, "cli stated no such object; see the list")));
            }
            applied.changed.push(Changed { key, action: Action::Removed });
        }
        for object in upserts {
            Self::put(&mut stated, object, &mut applied);
        }
        self.published(9);
        Ok(applied)
    }

    fn ports(&self) -> Answer<Vec<PortReport>> {
        let host = PortReport {
            id: 0,
            owner: Owner::File,
            role: PortRole::Host,
            netns: None,
            addresses: Vec::new(),
            guard: None,
            bandwidth: Bandwidth::default(),
            ..port_report("podwire0", PortState::Up)
        };
        let gone = PortState::Closed { reason: "its namespace is gone".into() };
        Ok(vec![host, port_report("pod-a", PortState::Up), port_report("pod-b", gone)])
    }

    fn bridges(&self) -> Answer<Vec<BridgeReport>> {
        Ok(vec![BridgeReport {
            name: "blue".into(),
            owner: Owner::Cli,
            vni: Some(7.try_into().unwrap()),
            flood: vec!["node2".into()],
            vlan_transparent: true,
            ports: vec!["pod-a".into()],
            macs: 2,
        }])
    }

    fn macs(&self, bridge: Option<&BridgeName>) -> Answer<Vec<MacReport>> {
        let bridge = bridge.map_or_else(|| "pods".to_owned(), ToString::to_string);
        let row = |text, pinned_by, age_s| MacReport {
            bridge: bridge.clone(),
            mac: mac(text),
            port: "pod-a".into(),
            pinned_by,
            age_s,
        };
        Ok(vec![row("02:00:00:00:00:0a", None, 12), row("02:00:00:00:00:0b", Some(Owner::Cli), 0)])
    }

    fn routes(&self) -> Answer<Vec<RouteReport>> {
        let row = |prefix: &str, via, owner, shadowed| RouteReport {
            route: Route { prefix: prefix.parse().unwrap(), via },
            owner,
            shadowed,
        };
        let port = Via::Port("pod-a".parse().unwrap());
        Ok(vec![
            row("10.244.2.0/24", Via::Vtep("node2".parse().unwrap()), Owner::Cli, false),
            row("10.244.2.0/24", Via::Blackhole, Owner::Kernel, true),
            row("10.9.0.0/16", port, Owner::Kubernetes, false),
        ])
    }

    fn vteps(&self) -> Answer<Vec<VtepReport>> {
        let end = |remote: &str| EndpointReport {
            remote: remote.parse().unwrap(),
            mac: mac("02:00:00:00:00:02"),
            path_mtu: 1500,
            sent_by: if remote.contains(':') { "udp" } else { "xdp" }.into(),
            sent_by_why: if remote.contains(':') { "no route leads there" } else { "via 172.31.0.2" }.into(),
        };
        Ok(vec![VtepReport {
            name: "node2".into(),
            owner: Owner::Cli,
            vni: 1.try_into().unwrap(),
            endpoints: vec![end("172.31.0.2"), end("fd00::2")],
            counters: counters(9),
        }])
    }

    fn route(&self, address: IpAddr) -> Answer<RouteMatch> {
        match address {
            IpAddr::V4(_) => {
                let via = Via::Vtep("node2".parse().unwrap());
                let route = Route { prefix: "10.244.2.0/24".parse().unwrap(), via };
                Ok(RouteMatch { route, owner: Owner::Cli })
            }
            IpAddr::V6(_) => {
                let reason = "no route covers it; add one with 'podwire route add'";
                Err(BackendError::NotFound(Refusal::new(format!("route to {address}"), reason)))
            }
        }
    }

    fn counters(&self) -> Answer<CounterReport> {
        let count = |name: &str, count| Counter { name: name.into(), count };
        let totals = vec![count("forward", 40), count("drop:no_route", 2), count("flood", 0)];
        let workers = vec![WorkerCounters { id: 0, counters: totals.clone() }];
        let ports = vec![PortCounterReport { port: "pod-a".into(), counters: counters(5) }];
        Ok(CounterReport { totals, workers, ports })
    }

    fn drops(&self) -> Answer<Vec<DropReport>> {
        let row = |reason: &str, frames, ports| DropReport {
            reason: reason.into(),
            meaning: "A cluster address that no route covers.".into(),
            frames,
            ports,
        };
        let port = PortDrops { port: "pod-a".into(), frames: 2 };
        Ok(vec![row("no_route", 2, vec![port]), row("hairpin", 0, Vec::new())])
    }

    fn explain(&self, query: ExplainQuery) -> Answer<Explanation> {
        let step = |stage: &str, text: String| Step { stage: stage.into(), text };
        Ok(Explanation {
            steps: vec![
                step("ingress", format!("{} to {}", query.in_port, query.dst)),
                step("route", "10.244.2.0/24 via node2".into()),
            ],
            verdict: "forward".into(),
            egress: "tunnel node2, 172.31.0.2, VNI 1".into(),
        })
    }

    fn ipam(&self) -> Answer<IpamReport> {
        let row = |range: &str, source, size, held, reserved| RangeReport {
            range: range.parse().unwrap(),
            source,
            size,
            held,
            reserved,
            free: size - held - reserved,
        };
        let mut ranges = vec![row("10.244.1.16-10.244.1.200", RangeSource::File, 185, 3, 11)];
        ranges.extend(
            self.ranges
                .lock()
                .unwrap()
                .iter()
                .map(|range| RangeReport { range: *range, ..row("10.244.1.201", RangeSource::Cli, 4, 0, 0) }),
        );
        ranges.push(row("fd00:244:1::-fd00:244:1::ffff:ffff:ffff:ffff", RangeSource::PodCidr, u64::MAX, 3, 2));
        Ok(IpamReport {
            ranges,
            reserved: vec!["10.244.1.20".parse().unwrap(), "10.244.1.30-10.244.1.39".parse().unwrap()],
        })
    }

    fn change_ranges(&self, add: Vec<IpRange>, remove: Vec<IpRange>) -> Answer<RangesChanged> {
        let mut ranges = self.ranges.lock().unwrap();
        if let Some(missing) = remove.iter().find(|range| !ranges.contains(range)) {
            let reason = "the CLI stated no such range; see 'podwire ipam show'";
            return Err(BackendError::NotFound(Refusal::new(format!("range {missing}"), reason)));
        }
        ranges.retain(|range| !remove.contains(range));
        let added: Vec<_> = add.into_iter().filter(|range| !ranges.contains(range)).collect();
        ranges.extend(&added);
        Ok(RangesChanged { added, removed: remove })
    }

    fn limits(&self) -> Answer<Vec<Limit>> {
        let limits = service::LIMITS.iter();
        Ok(limits
            .map(|(name, value, unit)| Limit { name: (*name).into(), value: *value, unit: (*unit).into() })
            .collect())
    }

    fn attach(&self, request: AttachRequest) -> Answer<Attachment> {
        self.fail()?;
        self.asked.lock().unwrap().push(request.clone());
        let takes = *self.attach_takes.lock().unwrap();
        std::thread::sleep(takes);
        let addresses = match request.addresses {
            AddressSource::Given(addresses) => addresses,
            AddressSource::Lease { .. } => self.leases.lock().unwrap().clone(),
        };
        if addresses.is_empty() {
            return Err(BackendError::Exhausted(Refusal::new("ipam", "10.244.1.0/24 is full")));
        }
        let AttachRequest { key, network, netns, .. } = request;
        Ok(Attachment { key, network, netns, addresses, ..attachment() })
    }

    fn detach(&self, key: &AttachmentKey) -> Answer<bool> {
        self.fail()?;
        self.detached.lock().unwrap().push(key.clone());
        Ok(*key == attachment().key)
    }

    fn check_attachment(&self, key: &AttachmentKey, netns: &Path, addresses: &[IpNet]) -> Answer<Vec<String>> {
        self.fail()?;
        if *key != attachment().key {
            return Err(BackendError::NotFound(Refusal::new(key, "there is none")));
        }
        Ok(addresses.iter().map(|address| format!("{} has {address}", netns.display())).collect())
    }

    fn collect_attachments(&self, network: &NetworkName, valid: &[AttachmentKey]) -> Answer<Vec<AttachmentKey>> {
        self.fail()?;
        self.kept.lock().unwrap().push((network.clone(), valid.len()));
        let own = attachment();
        Ok(if *network == own.network && !valid.contains(&own.key) { vec![own.key] } else { Vec::new() })
    }

    fn attachments(&self) -> Answer<Vec<Attachment>> {
        self.fail()?;
        Ok(vec![attachment()])
    }

    fn release_address(&self, address: IpAddr, force: bool) -> Answer<AttachmentKey> {
        if force {
            return Ok(attachment().key);
        }
        Err(BackendError::Refused(vec![Refusal::new(format!("address {address}"), "its container is there")]))
    }

    fn readiness(&self) -> Answer<Readiness> {
        self.fail()?;
        Ok(self.readiness.lock().unwrap().clone())
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}
