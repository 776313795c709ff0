//! What containers have: attachments, their leases, and how a lease is freed by hand.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::Failure;
use super::output::{Output, dash, list, rows, text, texts};
use super::tables::bandwidth_json;
use crate::client::Client;
use crate::model::{Attachment, HostPort};

const HEADER: [&str; 7] = ["CONTAINER", "INTERFACE", "POD", "NETWORK", "PORT", "ADDRESSES", "HOST PORTS"];
const LEASE_HEADER: [&str; 5] = ["ADDRESS", "CONTAINER", "INTERFACE", "POD", "NETWORK"];

/// All attachments.
pub(super) async fn attachments(client: &Client, output: &mut Output<'_>) -> Result<(), Failure> {
    rows(output, &HEADER, &client.attachments().await?, attachment_json, attachment_row)
}

/// All leases.
pub(super) async fn leases(client: &Client, output: &mut Output<'_>) -> Result<(), Failure> {
    let attachments = client.attachments().await?;
    let leased = attachments.iter().filter(|attachment| attachment.leased);
    let leases: Vec<(IpAddr, &Attachment)> =
        leased.flat_map(|one| one.addresses.iter().map(move |address| (address.addr(), one))).collect();
    rows(output, &LEASE_HEADER, &leases, lease_json, lease_row)
}

/// Frees an address.
pub(super) async fn release(
    client: &Client,
    address: IpAddr,
    force: bool,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    let key = client.release_address(address, force).await?;
    let json = json!({
        "address": address.to_string(),
        "container": key.container.as_str(),
        "interface": key.ifname,
    });
    output.answer(&json, || format!("address {address}: released, with {key}\n"))
}

fn attachment_row(attachment: &Attachment) -> Vec<String> {
    vec![
        attachment.key.container.short().to_owned(),
        attachment.key.ifname.clone(),
        dash(attachment.pod.as_ref()),
        attachment.network.to_string(),
        attachment.port.to_string(),
        list(&attachment.addresses),
        list(&host_ports(attachment)),
    ]
}

fn attachment_json(attachment: &Attachment) -> Value {
    json!({
        "container": attachment.key.container.as_str(),
        "interface": attachment.key.ifname,
        "pod": text(attachment.pod.as_ref()),
        "network": attachment.network.as_str(),
        "netns": attachment.netns.to_string_lossy(),
        "port": attachment.port.as_str(),
        "kind": attachment.kind.name(),
        "addresses": texts(&attachment.addresses),
        "leased": attachment.leased,
        "gateways": texts(&attachment.gateways),
        "mac": attachment.mac.to_string(),
        "mtu": attachment.mtu,
        "host_ports": host_ports(attachment),
        "bandwidth": bandwidth_json(attachment.bandwidth),
    })
}

/// As in "8080 to 80/tcp", or "192.0.2.1:8080 to 80/tcp" where it is open on one address only.
fn host_ports(attachment: &Attachment) -> Vec<String> {
    let shown = |port: &HostPort| {
        let HostPort { host_ip, host_port, container_port, transport } = port;
        let at = match host_ip {
            Some(ip) => std::net::SocketAddr::new(*ip, *host_port).to_string(),
            None => host_port.to_string(),
        };
        format!("{at} to {container_port}/{}", transport.name())
    };
    attachment.host_ports.iter().map(shown).collect()
}

fn lease_row((address, attachment): &(IpAddr, &Attachment)) -> Vec<String> {
    vec![
        address.to_string(),
        attachment.key.container.short().to_owned(),
        attachment.key.ifname.clone(),
        dash(attachment.pod.as_ref()),
        attachment.network.to_string(),
    ]
}

fn lease_json((address, attachment): &(IpAddr, &Attachment)) -> Value {
    json!({
        "address": address.to_string(),
        "container": attachment.key.container.as_str(),
        "interface": attachment.key.ifname,
        "pod": text(attachment.pod.as_ref()),
        "network": attachment.network.as_str(),
    })
}
