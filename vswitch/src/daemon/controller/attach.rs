//! Containers' interfaces, as the CNI plugin asks for them: attached, taken away, checked, collected. Those that nobody asks to
//! take away are `vanished`'s matter.
//!
//! An attachment is its port (an object of the owner `cni`), its leases and its record, and all of it goes into the store
//! in one transaction. So a process that is killed in between leaves either all of it or nothing, and devices that no
//! record speaks of are taken over or removed with their namespace.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use podwire_control::model::{
    AddressSource, AttachRequest, Attachment, AttachmentKey, Guard, Key, NetworkName, Object, Owner, Port, Readiness,
    Refusal, Route, StaticMac, Via,
};
use podwire_control::service::BackendError;

use super::Controller;
use super::change::STORE;
use super::vanished::{boot_id, is_vanished};
use crate::compile::{HOST_PORT, UPLINK_PORT};
use crate::daemon::ipam::{Change, IpamError};
use crate::daemon::ledger;
use crate::daemon::nat::{Mapping, conflict};
use crate::daemon::netns_dirs;
use crate::daemon::store::{Batch, Store, StoredAttachment};
use crate::sys::netns::{NetnsHandle, identity_of};

impl Controller {
    /// Wires a container's interface. The same request again is answered the same; another one for the same container and
    /// interface changes what differs, and keeps the leases.
    ///
    /// # Errors
    /// [`BackendError`]; nothing has changed then.
    pub fn attach(&mut self, request: AttachRequest) -> Result<Attachment, BackendError> {
        if self.store.is_none() {
            // Its addresses would be given to another after the next start.
            return Err(BackendError::Unavailable(self.warnings.join("; ")));
        }
        // What is still to be taken away may be of this very container, or of one that had its namespace's path before.
        self.carry_out_spool();
        if let Some(why) = self.spool.waits(&request.key) {
            return Err(BackendError::Unavailable(format!("{} is to be taken away first: {why}", request.key)));
        }
        self.reconcile_attachments(|one| one.netns == request.netns);
        // A device that went a moment ago is not to be taken for an open one.
        self.close_vanished();
        let (key, netns) = (&request.key, &request.netns);
        netns_dirs::check(netns, &self.config.node.netns_dirs).map_err(|error| refused(key, error.to_string()))?;
        let netns_id = NetnsHandle::open(netns).map_err(|error| refused(key, error.to_string()))?.id();
        let (addresses, leases) = self.addresses(&request)?;
        let mappings = self.mappings_with(&request, &addresses)?;
        let port = self.port_for(&request, addresses);
        let attachment = self.attachment(request, &port);
        let object = Object::Port(port.clone());
        object.validate().map_err(|invalid| BackendError::Refused(vec![invalid.refusal()]))?;
        let stated = [object.key()];
        let change = ledger::Change { upserts: vec![object], ..ledger::Change::default() };
        let plan = self.ledger.change(Owner::Cni, change).map_err(of_ledger)?;
        let stored = StoredAttachment { attachment: attachment.clone(), netns_id, boot_id: boot_id().to_owned() };
        let before = self.attachments.get(&attachment.key);
        let (again, same) = (before.is_some(), before == Some(&stored));
        let attached = if same { &[] } else { std::slice::from_ref(&stored) };
        let rows = Batch { attached, releases: Some(leases.rows()), ..Batch::default() };
        // Before the rest, since it is what most often fails, and what is most easily taken back.
        if let Err(error) = self.set_host_ports(mappings) {
            self.restore_host_ports();
            return Err(refused(&attachment.key, error.to_string()));
        }
        let taken_up = self.carry_out_with(plan, &stated, rows).map_err(|refusals| {
            self.restore_host_ports();
            not_carried_out(refusals)
        })?;
        self.ipam.apply(leases);
        self.attachments.insert(stored);
        taken_up.map_err(not_taken_up)?;
        if again {
            // What somebody has changed inside is put right.
            let mended = self.devices.update_pod(&port, &self.node, self.pod_mtu());
            mended.map_err(|error| refused(&attachment.key, error.to_string()))?;
        }
        Ok(attachment)
    }

    /// The port that a request comes to.
    fn port_for(&self, request: &AttachRequest, addresses: Vec<IpNet>) -> Port {
        let effective = self.ledger.effective();
        Port {
            name: self.attachments.port_name(&request.key, |name| effective.port(name).is_none()),
            kind: request.kind,
            netns: request.netns.clone(),
            ifname: request.key.ifname.clone(),
            addresses,
            mac: request.mac,
            mtu: request.mtu,
            bridge: None,
            guard: Guard::On { allowed: Vec::new() },
            bandwidth: request.bandwidth,
        }
    }

    /// What a request comes to with its port.
    fn attachment(&self, request: AttachRequest, port: &Port) -> Attachment {
        let has_family = |gateway: &IpAddr| port.addresses.iter().any(|own| own.addr().is_ipv4() == gateway.is_ipv4());
        Attachment {
            key: request.key,
            network: request.network,
            netns: request.netns,
            pod: request.pod,
            port: port.name.clone(),
            kind: request.kind,
            addresses: port.addresses.clone(),
            leased: matches!(request.addresses, AddressSource::Lease { .. }),
            gateways: self.node.gateways().filter(has_family).collect(),
            mac: port.mac_in_force(),
            mtu: port.mtu.unwrap_or_else(|| self.pod_mtu()),
            host_ports: request.host_ports,
            bandwidth: request.bandwidth,
        }
    }

    /// The addresses a container is to have, and what that does to the leases.
    fn addresses(&mut self, request: &AttachRequest) -> Result<(Vec<IpNet>, Change), BackendError> {
        let key = &request.key;
        match &request.addresses {
            AddressSource::Lease { wanted } => {
                let mut planned = self.lease(key, wanted);
                if matches!(planned, Err(IpamError::Exhausted { .. })) {
                    // Runtimes that crash never say that a container is gone.
                    self.reconcile_attachments(|_| true);
                    planned = self.lease(key, wanted);
                }
                let leases = planned.map_err(|error| of_ipam(key, &error))?;
                Ok((leases.addresses().to_vec(), leases))
            }
            AddressSource::Given(given) => {
                for address in given.iter().map(IpNet::addr) {
                    self.ipam.check_given(key, address).map_err(|error| of_ipam(key, &error))?;
                }
                Ok((given.clone(), self.ipam.release([key])))
            }
        }
    }

    /// Plans a lease beside what ports have by themselves.
    fn lease(&self, key: &AttachmentKey, wanted: &[IpAddr]) -> Result<Change, IpamError> {
        let taken = self.addresses_of_ports();
        self.ipam.allocate(key, wanted, |address| taken.contains(&address))
    }

    /// The node's ports with those of one more attachment.
    fn mappings_with(&self, request: &AttachRequest, addresses: &[IpNet]) -> Result<Vec<Mapping>, BackendError> {
        let mut mappings = self.attachments.mappings_without(std::slice::from_ref(&request.key));
        let tunnel_port = self.config.uplink.as_ref().map(|_| self.config.vxlan.port);
        for wanted in Mapping::of_pod(&request.host_ports, addresses) {
            if let Some(conflict) = conflict(&mappings, tunnel_port, &wanted) {
                return Err(refused(&request.key, conflict.to_string()));
            }
            mappings.push(wanted);
        }
        Ok(mappings)
    }

    /// Has the node's ports lead where the attachments say, after others were tried.
    fn restore_host_ports(&mut self) {
        // What fails is among the warnings, and tried again.
        let _ = self.set_host_ports(self.attachments.mappings());
    }

    /// The addresses that ports of the pods' segment have, leased or not.
    fn addresses_of_ports(&self) -> HashSet<IpAddr> {
        let effective = self.ledger.effective();
        let ports = effective.ports().map(|(_, port)| port).filter(|port| port.bridge.is_none());
        ports.flat_map(|port| port.addresses.iter().map(IpNet::addr)).collect()
    }

    /// Takes a container's interface away with all it holds; false when there is none.
    ///
    /// # Errors
    /// [`BackendError`]; nothing of the attachment has changed then.
    pub fn detach(&mut self, key: &AttachmentKey) -> Result<bool, BackendError> {
        let found = self.attachments.get(key).is_some();
        if found {
            self.take_away(std::slice::from_ref(key))?;
        }
        Ok(found)
    }

    /// Takes attachments away, all of them or none.
    pub(super) fn take_away(&mut self, keys: &[AttachmentKey]) -> Result<(), BackendError> {
        let known = keys.iter().filter_map(|key| self.attachments.get(key));
        let ports: Vec<Key> = known.map(|one| Key::Port(one.attachment.port.clone())).collect();
        self.unstate_referring(&ports)?;
        let change = ledger::Change { deletes: ports, ignore_missing: true, ..ledger::Change::default() };
        let plan = self.ledger.change(Owner::Cni, change).map_err(of_ledger)?;
        let freed = self.ipam.release(keys);
        let rows = Batch { detached: keys, releases: Some(freed.rows()), ..Batch::default() };
        let taken_up = self.carry_out_with(plan, &[], rows).map_err(not_carried_out)?;
        self.ipam.apply(freed);
        keys.iter().for_each(|key| self.attachments.remove(key));
        self.restore_host_ports();
        taken_up.map(drop).map_err(not_taken_up)
    }

    /// Takes back what leads to ports that go: a container's end can not wait for an operator.
    fn unstate_referring(&mut self, ports: &[Key]) -> Result<(), BackendError> {
        let refers = |object: &Object| match object {
            Object::Mac(StaticMac { port, .. }) | Object::Route(Route { via: Via::Port(port), .. }) => {
                ports.contains(&Key::Port(port.clone()))
            }
            _ => false,
        };
        for owner in Owner::ALL {
            let deletes: Vec<Key> =
                self.ledger.objects(owner).filter(|(_, object)| refers(object)).map(|(key, _)| key.clone()).collect();
            if deletes.is_empty() {
                continue;
            }
            for key in &deletes {
                tracing::warn!(%key, %owner, "it led to a container that is gone, and is taken back");
            }
            self.change(owner, ledger::Change { deletes, ..ledger::Change::default() }).map_err(not_carried_out)?;
        }
        Ok(())
    }

    /// What of an attachment is not as it was made, a sentence each. `netns` and `addresses` are what the runtime knows.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] when there is none.
    pub fn check_attachment(
        &self,
        key: &AttachmentKey,
        netns: &Path,
        addresses: &[IpNet],
    ) -> Result<Vec<String>, BackendError> {
        let Some(StoredAttachment { attachment, netns_id, .. }) = self.attachments.get(key) else {
            let reason = "podwired knows of no such attachment; delete the container and create it again";
            return Err(BackendError::NotFound(Refusal::new(key, reason)));
        };
        let mut drifts = Vec::new();
        if identity_of(netns) != Some(*netns_id) {
            drifts.push(format!("{} is not the namespace it was made in", netns.display()));
        }
        for told in addresses.iter().filter(|told| !attachment.addresses.contains(told)) {
            drifts.push(format!("the runtime was told {told}, which it does not have"));
        }
        for own in attachment.addresses.iter().filter(|own| !addresses.is_empty() && !addresses.contains(own)) {
            drifts.push(format!("it has {own}, of which the runtime was not told"));
        }
        for own in
            attachment.addresses.iter().filter(|own| attachment.leased && self.ipam.holder_of(own.addr()) != Some(key))
        {
            drifts.push(format!("the lease of {} is missing", own.addr()));
        }
        match self.ledger.effective().port(&attachment.port) {
            None => drifts.push(format!("port {} is missing", attachment.port)),
            Some(port) => match self.closed.get(port.name.as_str()) {
                Some(reason) => drifts.push(format!("port {} is closed: {reason}", port.name)),
                None => {
                    let found = self.devices.drifts(port, &self.node, self.pod_mtu());
                    drifts.extend(found.unwrap_or_else(|error| vec![error.to_string()]));
                }
            },
        }
        Ok(drifts)
    }

    /// Takes away the attachments of a network that are not among `valid`, one by one; gives their keys.
    ///
    /// # Errors
    /// The first [`BackendError`], after all were tried.
    pub fn collect_attachments(
        &mut self,
        network: &NetworkName,
        valid: &[AttachmentKey],
    ) -> Result<Vec<AttachmentKey>, BackendError> {
        self.carry_out_spool();
        let attachments = self.attachments.iter().map(|one| &one.attachment);
        let stale = attachments.filter(|one| one.network == *network && !valid.contains(&one.key));
        let stale: Vec<AttachmentKey> = stale.map(|one| one.key.clone()).collect();
        let tried: Vec<_> = stale.iter().map(|key| self.detach(key)).collect();
        tried.into_iter().collect::<Result<Vec<_>, _>>().map(|_| stale)
    }

    /// All attachments, as they are now.
    #[must_use]
    pub fn attachments(&self) -> Vec<Attachment> {
        let effective = self.ledger.effective();
        let now = |one: &StoredAttachment| {
            let stated = effective.port(&one.attachment.port).and_then(|port| port.mtu);
            Attachment { mtu: stated.unwrap_or_else(|| self.pod_mtu()), ..one.attachment.clone() }
        };
        self.attachments.iter().map(now).collect()
    }

    /// Frees a leased address by detaching who holds it; with `force` also while its namespace is there.
    ///
    /// # Errors
    /// [`BackendError`]; nothing has changed then.
    pub fn release_address(&mut self, address: IpAddr, force: bool) -> Result<AttachmentKey, BackendError> {
        let object = format!("address {address}");
        let Some(key) = self.ipam.holder_of(address).cloned() else {
            let reason = "nobody holds it; see `podwire ipam list`";
            return Err(BackendError::NotFound(Refusal::new(object, reason)));
        };
        if let Some(one) = self.attachments.get(&key).filter(|one| !force && !is_vanished(one)) {
            let netns = one.attachment.netns.display();
            let reason = format!("its container's namespace {netns} is there; delete the container, or use --force");
            return Err(BackendError::Refused(vec![Refusal::new(object, reason)]));
        }
        self.detach(&key)?;
        Ok(key)
    }

    /// Whether containers can be attached, and how those that are fare.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let stuck = self.switch.turning().err().map(|error| error.to_string());
        let closed = [HOST_PORT, UPLINK_PORT].into_iter().find_map(|name| {
            let reason = self.closed.get(name)?;
            Some(format!("port {name} is closed: {reason}"))
        });
        // Without the store nobody knows whose interfaces there were before.
        let without_store = self.store.is_none().then(|| self.warnings.join("; "));
        let pods_suffer = stuck.or(closed).or(without_store);
        let nothing_stored = self.store.as_ref().and_then(Store::unusable).map(str::to_owned);
        Readiness { cannot_attach: pods_suffer.clone().or(nothing_stored), pods_suffer }
    }

    /// Why the next container will be refused an address, if so. No reason to call the node not ready: its pods would be
    /// evicted.
    pub(super) fn full(&self) -> Option<String> {
        let taken = self.addresses_of_ports();
        self.ipam.full(|address| taken.contains(&address)).map(|error| error.to_string())
    }
}

fn refused(key: &AttachmentKey, reason: String) -> BackendError {
    BackendError::Refused(vec![Refusal::new(key, reason)])
}

/// Of a request of which nothing was done. What the store can not take now it may take later.
fn not_carried_out(refusals: Vec<Refusal>) -> BackendError {
    match refusals.iter().any(|refusal| refusal.object == STORE) {
        true => not_taken_up(refusals),
        false => BackendError::Refused(refusals),
    }
}

/// Of a request that can be asked again: it stands though a worker is stuck, or the store failed.
fn not_taken_up(refusals: Vec<Refusal>) -> BackendError {
    let sentences: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    BackendError::Unavailable(sentences.join("; "))
}

fn of_ipam(key: &AttachmentKey, error: &IpamError) -> BackendError {
    let refusal = Refusal::new(key, error.to_string());
    match error {
        IpamError::Exhausted { .. } => BackendError::Exhausted(refusal),
        _ => BackendError::Refused(vec![refusal]),
    }
}

fn of_ledger(refused: Vec<ledger::Refusal>) -> BackendError {
    BackendError::Refused(super::refusals(refused))
}
