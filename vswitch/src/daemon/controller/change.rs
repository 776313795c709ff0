//! One request carried out: its devices are opened, it is stored and published, in that order.
//!
//! A failure takes back what was done before it, so that a refused request changes nothing. Only where a port's device
//! has to make room for another interface is there a moment without it. A worker that is stuck is the one failure that
//! comes too late for that: the request stands, and its refusal says so.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;

use podwire_control::model::{Action, Applied, Changed, EventKind, Key, Mac, Object, Owner, Port, Refusal};

use super::{Controller, find_port, finish};
use crate::compile::Compiled;
use crate::daemon::devices::{Closing, DeviceError};
use crate::daemon::ledger::{Changes, Plan};
use crate::daemon::store::{Batch, Store, StoreError};
use crate::id::PortId;
use crate::snapshot::Snapshot;
use crate::switch::{PortHalves, SwitchError};
use crate::wire::nd;

/// What a refusal names when the store is at fault.
pub(super) const STORE: &str = "store";

/// What a request has done so far.
#[derive(Default)]
struct Work {
    opened: Vec<(String, PortHalves)>,
    /// Ports as they were, whose device was changed in place.
    updated: Vec<Port>,
    /// Ports as they were, whose device had to make room.
    displaced: Vec<Port>,
}

impl Controller {
    /// Puts a plan in force; `stated` are the keys of the objects its request spoke of.
    pub(super) fn carry_out(&mut self, plan: Plan, stated: &[Key]) -> Result<Applied, Vec<Refusal>> {
        self.carry_out_with(plan, stated, Batch::default())?
    }

    /// Puts a plan in force, and stores `rows` in one transaction with its objects. A request that stands although a
    /// worker does not take it up is the inner error.
    ///
    /// # Errors
    /// Refusals that name each object; nothing has changed then.
    pub(super) fn carry_out_with(
        &mut self,
        plan: Plan,
        stated: &[Key],
        rows: Batch<'_>,
    ) -> Result<Result<Applied, Vec<Refusal>>, Vec<Refusal>> {
        let reopen = self.reopenable(&plan, stated);
        if plan.own.is_empty() && plan.effective.is_empty() && reopen.is_empty() && rows.is_empty() {
            // Stated again after a worker was stuck, it is still not in force before that worker uses it.
            let settled = self.switch.settled().map_err(|error| self.kept(plan.owner, &error));
            return Ok(settled.map(|generation| applied(generation, &plan.own, stated.len())));
        }
        let mut work = Work::default();
        let done = self.open_ports(&plan, &reopen, &mut work).and_then(|()| {
            let compiled = self.compile(&plan.next);
            placed(&compiled)?;
            self.remember(&plan, rows)?;
            Ok(compiled)
        });
        let compiled = match done {
            Ok(compiled) => compiled,
            Err(refusals) => {
                self.undo(work);
                return Err(refusals);
            }
        };
        let before = self.switch.snapshot();
        let taken = self.take_over(&plan, compiled, work).map(|generation| {
            self.tell(&plan.effective, generation);
            let new = plan.effective.added.iter().chain(&plan.effective.changed).chain(&reopen);
            self.announce(new.filter_map(port_name), &before);
            applied(generation, &plan.own, stated.len())
        });
        Ok(taken)
    }

    /// Ports that are stated again while their device is closed: the owner wants another try.
    fn reopenable(&self, plan: &Plan, stated: &[Key]) -> Vec<Key> {
        let again = |key: &&Key| {
            let closed = port_name(key).is_some_and(|name| self.closed.contains_key(&name));
            closed && !plan.effective.touches(key)
        };
        stated.iter().filter(again).cloned().collect()
    }

    /// Opens the devices of new ports, and changes those of changed ones, in place where the interface stays. First
    /// come those that need no other to go, so that most failures come before anything is touched.
    fn open_ports(&mut self, plan: &Plan, reopen: &[Key], work: &mut Work) -> Result<(), Vec<Refusal>> {
        let effective = plan.next.effective();
        let before: Vec<Port> = self.ledger.effective().ports().map(|(_, port)| port.clone()).collect();
        let open: Vec<&Port> = before.iter().filter(|port| self.devices.is_open(port.name.as_str())).collect();
        let served = |port: &Port| open.iter().any(|old| old.name == port.name && same_device(old, port));
        let touched = plan.effective.added.iter().chain(&plan.effective.changed).chain(reopen);
        let wanted: Vec<Port> = touched
            .filter_map(|key| match effective.get(key) {
                Some((_, Object::Port(port))) if !served(port) => Some(port.clone()),
                _ => None,
            })
            .collect();
        let in_place = |port: &Port| {
            self.devices.is_at(port) && open.iter().any(|old| old.name == port.name && old.kind == port.kind)
        };
        let (changed, wanted): (Vec<Port>, Vec<Port>) = wanted.into_iter().partition(in_place);
        let as_they_were: Vec<Port> =
            open.iter().filter(|old| changed.iter().any(|new| new.name == old.name)).map(|&old| old.clone()).collect();
        let names: HashSet<&str> = wanted.iter().map(|port| port.name.as_str()).collect();
        let interfaces: HashSet<_> = wanted.iter().map(interface).collect();
        let in_the_way = |old: &Port| names.contains(old.name.as_str()) || interfaces.contains(&interface(old));
        let displaced: Vec<Port> = open.into_iter().filter(|old| in_the_way(old)).cloned().collect();
        let taken: HashSet<_> = displaced.iter().map(interface).collect();
        let must_wait =
            |port: &Port| taken.contains(&interface(port)) || displaced.iter().any(|old| old.name == port.name);
        let (waiting, free): (Vec<&Port>, Vec<&Port>) = wanted.iter().partition(|port| must_wait(port));
        self.open_all(&free, work)?;
        work.updated = as_they_were;
        self.update_all(&changed)?;
        for old in &displaced {
            // No worker may hold the device any more when it goes, or its end would be taken for the new one's.
            if let Some(id) = self.port_id(old.name.as_str()) {
                self.detach_port(id);
            }
            finish(vec![self.devices.close(old.name.as_str())]);
            work.displaced.push(old.clone());
        }
        self.open_all(&waiting, work)
    }

    fn open_all(&mut self, ports: &[&Port], work: &mut Work) -> Result<(), Vec<Refusal>> {
        each(ports.iter().copied(), |port| {
            let halves = self.open_pod(port)?;
            work.opened.push((port.name.to_string(), halves));
            Ok(())
        })
    }

    fn update_all(&mut self, ports: &[Port]) -> Result<(), Vec<Refusal>> {
        let mtu = self.pod_mtu();
        each(ports, |port| self.devices.update_pod(port, &self.node, mtu))
    }

    fn remember(&mut self, plan: &Plan, rows: Batch<'_>) -> Result<(), Vec<Refusal>> {
        let Some(store) = self.store.as_mut().filter(|_| Store::keeps(plan.owner)) else { return Ok(()) };
        let touched = plan.next.objects(plan.owner).filter(|(key, _)| plan.own.touches(key));
        let upserts: Vec<Object> = touched.map(|(_, object)| object.clone()).collect();
        let objects = Some((plan.owner, upserts.as_slice(), plan.own.removed.as_slice()));
        let stored = store.commit(&Batch { objects, ..rows });
        stored.map_err(|error: StoreError| vec![Refusal::new(STORE, error.to_string())])
    }

    /// Publishes a request whose devices are open and which is stored, and closes what it removes.
    fn take_over(&mut self, plan: &Plan, compiled: Compiled, work: Work) -> Result<u64, Vec<Refusal>> {
        let gone: Vec<String> = plan.effective.removed.iter().filter_map(port_name).collect();
        let ids: Vec<PortId> = gone.iter().filter_map(|name| self.port_id(name)).collect();
        for name in gone.iter().chain(work.opened.iter().map(|(name, _)| name)) {
            self.closed.remove(name);
        }
        self.ledger = plan.next.clone();
        let published = self.publish(compiled, work.opened);
        // In this order: no worker sends to a port any more, none holds its device, the device goes.
        for id in ids {
            self.detach_port(id);
        }
        let closing: Vec<Closing> = gone.iter().map(|name| self.devices.close(name)).collect();
        finish(closing);
        published.map_err(|error| self.kept(plan.owner, &error))
    }

    /// What to say of a request that stands although a worker does not take it up. It is not taken back: that worker
    /// would not take that up either, and the others forward by it already.
    fn kept(&self, owner: Owner, error: &SwitchError) -> Vec<Refusal> {
        let after = match self.store.is_some() && Store::keeps(owner) {
            true => "it is in the store, and in force after the restart",
            false => "state it again after the restart",
        };
        vec![Refusal::new("switch", format!("{error}. The request was not taken back: {after}"))]
    }

    /// Takes back what was done for a request that failed. Nothing of it was published.
    fn undo(&mut self, work: Work) {
        let opened: Vec<String> = work.opened.into_iter().map(|(name, _)| name).collect();
        finish(opened.iter().map(|name| self.devices.close(name)).collect());
        for refusal in self.update_all(&work.updated).err().into_iter().flatten() {
            tracing::error!(object = %refusal.object, reason = refusal.reason, "a refused change could not be taken back");
        }
        let mut lost = false;
        for port in work.displaced {
            let name = port.name.as_str();
            let again = self.open_pod(&port).map_err(|error| error.to_string());
            let attached = again.and_then(|halves| match self.port_id(name) {
                Some(id) => self.switch.attach(id, halves).map_err(|error| error.to_string()),
                None => Ok(()),
            });
            if let Err(reason) = attached {
                self.closed.insert(name.to_owned(), reason);
                lost = true;
            }
        }
        if lost {
            let compiled = self.compile(&self.ledger);
            if let Err(error) = self.publish(compiled, Vec::new()) {
                tracing::error!(%error, "a refused request could not be taken back whole");
            }
        }
    }

    fn tell(&self, changes: &Changes, generation: u64) {
        let lists = [(&changes.added, "added"), (&changes.changed, "changed"), (&changes.removed, "removed")];
        for (keys, what) in lists {
            for key in keys {
                let kind = match (key, what) {
                    (Key::Port(_), "removed") => EventKind::PortRemoved,
                    (Key::Port(_), _) => EventKind::PortAdded,
                    (Key::Bridge(_) | Key::Mac { .. }, _) => EventKind::BridgeChanged,
                    (Key::Route(_), _) => EventKind::RouteChanged,
                    (Key::Vtep(_), _) => EventKind::VtepChanged,
                };
                self.events.publish(kind, key, what);
            }
        }
        let text = format!("every worker uses generation {generation}");
        self.events.publish(EventKind::GenerationPublished, "switch", text);
    }

    /// Tells those who were on a new pod's segment before it where it is, so that nobody sends to a MAC of before.
    fn announce(&self, names: impl Iterator<Item = String>, before: &Snapshot) {
        let snapshot = self.switch.snapshot();
        let effective = self.ledger.effective();
        for name in names {
            let Some(port) = name.parse().ok().and_then(|name| effective.port(&name)) else { continue };
            let Some(own) = find_port(&snapshot, &name) else { continue };
            let Some(bridge) = snapshot.port(own).and_then(|entry| entry.bridge) else { continue };
            let of_before = before.bridge(bridge).map_or(&[][..], |bridge| &bridge.members);
            let members = snapshot.bridge(bridge).map_or(&[][..], |bridge| &bridge.members);
            let told: Vec<PortId> =
                members.iter().copied().filter(|&member| member != own && of_before.contains(&member)).collect();
            let mac = port.mac_in_force();
            for frame in port.addresses.iter().filter_map(|own| announcement(mac, own.addr())) {
                for &member in &told {
                    // An announcement that is lost is made good by the next question.
                    let _ = self.switch.originate(member, frame.clone());
                }
            }
        }
    }
}

/// Does something to the device of each port, and does not stop at the first that fails, so that all are named.
fn each<'a>(
    ports: impl IntoIterator<Item = &'a Port>,
    mut act: impl FnMut(&Port) -> Result<(), DeviceError>,
) -> Result<(), Vec<Refusal>> {
    let refused = |port: &Port, error: DeviceError| Refusal::new(Key::Port(port.name.clone()), error.to_string());
    let refusals: Vec<Refusal> =
        ports.into_iter().filter_map(|port| act(port).err().map(|error| refused(port, error))).collect();
    if refusals.is_empty() { Ok(()) } else { Err(refusals) }
}

/// Whether the two are served by the same device as it is.
fn same_device(old: &Port, new: &Port) -> bool {
    let device = |port: &Port| {
        (port.kind, port.netns.clone(), port.ifname.clone(), port.addresses.clone(), port.mac_in_force(), port.mtu)
    };
    device(old) == device(new) && old.bridge.is_none() == new.bridge.is_none()
}

fn interface(port: &Port) -> (&Path, &str) {
    (&port.netns, &port.ifname)
}

fn port_name(key: &Key) -> Option<String> {
    match key {
        Key::Port(name) => Some(name.to_string()),
        _ => None,
    }
}

/// Refuses a snapshot that has no slot for some object.
fn placed(compiled: &Compiled) -> Result<(), Vec<Refusal>> {
    let reason = "its place is still taken by what this request deletes; delete first, in a request of its own";
    let refusals: Vec<Refusal> = compiled.left_out.iter().map(|key| Refusal::new(key, reason)).collect();
    if refusals.is_empty() { Ok(()) } else { Err(refusals) }
}

fn applied(generation: u64, own: &Changes, stated: usize) -> Applied {
    let lists = [(&own.added, Action::Added), (&own.changed, Action::Changed), (&own.removed, Action::Removed)];
    let changed: Vec<Changed> = lists
        .into_iter()
        .flat_map(|(keys, action)| keys.iter().map(move |key| Changed { key: key.clone(), action }))
        .collect();
    let altered = own.added.len() + own.changed.len();
    Applied { generation, changed, unchanged: stated.saturating_sub(altered) as u64 }
}

/// The frame that says `address` is at `mac`.
fn announcement(mac: Mac, address: IpAddr) -> Option<Vec<u8>> {
    match address {
        IpAddr::V4(own) => Some(nd::arp_request(mac, own, own).to_vec()),
        IpAddr::V6(own) => nd::announcement(mac, own),
    }
}
