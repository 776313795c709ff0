//! ADD: an interface whole, or nothing of it.

use std::io::Write;

use podwire_control::client::ClientError;
use podwire_control::model::{AddressSource, AttachRequest, AttachmentKey};
use serde_json::Value;

use super::Request;
use crate::daemon::Daemon;
use crate::failure::{Code, Failure};
use crate::ipam::Ipam;

impl Request<'_> {
    pub(super) fn add(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let mut attach = self.attachment()?;
        let mut result = self.config.previous()?.unwrap_or_default();
        let own_dns = self.config.dns()?;
        let ipam = self.ipam()?;
        let attempt = format!("attach {}", attach.key);
        // Nothing is begun while podwired is away.
        let daemon = self.connect().map_err(|error| Failure::of(&error, &attempt))?;
        if let Some(ipam) = &ipam {
            let (addresses, dns) = ipam.add().map_err(|failure| after_ipam(&daemon, &attach.key, ipam, failure))?;
            attach.addresses = AddressSource::Given(addresses);
            result.name_servers(dns);
        }
        let made = match daemon.call(async |client| client.attach(&attach).await) {
            Ok(made) => made,
            Err(error) if is_certain(&error) => return Err(give_back(ipam.as_ref(), Failure::of(&error, &attempt))),
            Err(error) => return Err(self.undo(&attach.key, ipam.as_ref(), Failure::of(&error, &attempt))),
        };
        result.add(&made, self.config.version);
        result.name_servers(own_dns.cloned().unwrap_or_default());
        let told = print(out, &result.json(self.config.version));
        told.map_err(|failure| self.undo(&attach.key, ipam.as_ref(), failure))
    }

    /// What podwired is asked for; the addresses are those wanted of it.
    fn attachment(&self) -> Result<AttachRequest, Failure> {
        let config = self.config;
        let (key, netns, args) = (self.environment.key()?, self.environment.netns()?, self.environment.args()?);
        let wanted = config.wanted()?.or(&args);
        Ok(AttachRequest {
            key,
            network: config.name()?,
            netns,
            pod: args.pod,
            kind: config.kind()?,
            addresses: AddressSource::Lease { wanted: wanted.addresses },
            mac: wanted.mac,
            mtu: config.mtu()?,
            host_ports: wanted.host_ports,
            bandwidth: wanted.bandwidth,
        })
    }

    /// Takes back what may be there. Addresses are kept while their interface may stay; a DEL gives them back.
    fn undo(&self, key: &AttachmentKey, ipam: Option<&Ipam<'_>>, failure: Failure) -> Failure {
        match self.detach(key) {
            Ok(()) => give_back(ipam, failure),
            Err(stays) => failure.and(&format!("and what was begun could not be taken back: {stays}")),
        }
    }
}

/// Whether podwired has certainly made nothing. What is not available may have been made and wait for a stuck worker.
fn is_certain(error: &ClientError) -> bool {
    match error {
        ClientError::Refused { .. }
        | ClientError::NotFound(_)
        | ClientError::AlreadyExists(_)
        | ClientError::Exhausted(_) => true,
        ClientError::Unreachable { .. }
        | ClientError::Deadline { .. }
        | ClientError::Unavailable(_)
        | ClientError::Failed { .. }
        | ClientError::Answer { .. } => false,
    }
}

/// An IPAM plugin that fails may have given a part (CNI 1.1.0, section 4). An interface that is there keeps what it has.
fn after_ipam(daemon: &Daemon, key: &AttachmentKey, ipam: &Ipam<'_>, failure: Failure) -> Failure {
    match daemon.call(async |client| client.attachments().await) {
        Ok(all) if all.iter().any(|one| one.key == *key) => failure,
        Ok(_) => ipam.give_back(failure),
        Err(error) => failure.and(&format!("and what it gave is kept, as {key} may be there: {error}")),
    }
}

fn give_back(ipam: Option<&Ipam<'_>>, failure: Failure) -> Failure {
    match ipam {
        Some(ipam) => ipam.give_back(failure),
        None => failure,
    }
}

/// Writes a result.
fn print(out: &mut dyn Write, result: &Value) -> Result<(), Failure> {
    writeln!(out, "{result}").and_then(|()| out.flush()).map_err(|error| {
        Failure::new(Code::IO, format!("cannot write the result: {error}"), "the runtime has to read standard output")
    })
}
