//! The verb `status`.

use serde_json::{Value, json};

use super::Failure;
use super::output::{Output, dash, list, pairs, table, text, texts};
use crate::client::Client;
use crate::model::{Status, Uplink, WorkerReport};

/// Prints what the switch is and how it is doing.
pub(super) async fn show(client: &Client, output: &mut Output<'_>) -> Result<(), Failure> {
    let status = client.status().await?;
    output.answer(&status_json(&status), || status_text(&status))
}

fn status_json(status: &Status) -> Value {
    let mut json = json!({
        "node": status.node,
        "version": status.version,
        "generation": status.generation,
        "uptime_s": status.uptime_s,
        "vtep_mac": status.vtep_mac.to_string(),
        "gateway_mac": status.gateway_mac.to_string(),
        "pod_cidrs": texts(&status.pod_cidrs),
        "cluster_cidrs": texts(&status.cluster_cidrs),
        "uplink": status.uplink.as_ref().map(uplink_json),
        "tunnel_mtu": status.tunnel_mtu,
        "vni": status.vni.get(),
        "vxlan_port": status.vxlan_port,
        "host_interface": status.host_interface,
        "workers": status.workers.iter().map(worker_json).collect::<Vec<_>>(),
        "offloads": status.offloads.iter()
            .map(|offload| json!({"name": offload.name, "on": offload.on, "why": offload.why}))
            .collect::<Vec<_>>(),
        "counts": {
            "ports": status.counts.ports,
            "bridges": status.counts.bridges,
            "routes": status.counts.routes,
            "vteps": status.counts.vteps,
            "macs": status.counts.macs,
        },
        "warnings": status.warnings,
    });
    if let Some(mac) = text(status.vtep_mac6.as_ref()) {
        json["vtep_mac6"] = mac.into();
    }
    json
}

fn uplink_json(uplink: &Uplink) -> Value {
    let mut json = json!({
        "kind": uplink.kind,
        "addresses": texts(&uplink.addresses),
        "device": uplink.device,
        "mtu": uplink.mtu,
    });
    if let Some(xdp) = &uplink.xdp {
        json["xdp"] = json!({
            "mode": xdp.mode,
            "passed_over": xdp.passed_over,
            "queues": xdp.queues,
            "tx": xdp.tx,
            "tx_why": xdp.tx_why,
            "busy_poll": xdp.busy_poll,
        });
    }
    json
}

fn worker_json(worker: &WorkerReport) -> Value {
    json!({
        "id": worker.id,
        "cpu": worker.cpu,
        "poll": worker.poll,
        "frames": worker.frames,
        "passes": worker.passes,
        "frames_per_pass": worker.frames_per_pass,
    })
}

fn status_text(status: &Status) -> String {
    let uplink = status.uplink.as_ref().map_or_else(
        || "none".to_owned(),
        |uplink| {
            let device = uplink.device.as_ref().map(|device| format!(" on {device}")).unwrap_or_default();
            format!("{}{device}, {}, MTU {}", uplink.kind, list(&uplink.addresses), uplink.mtu)
        },
    );
    let counts = &status.counts;
    let mut lines = vec![
        ("node", status.node.clone()),
        ("version", status.version.clone()),
        ("generation", status.generation.to_string()),
        ("uptime", format!("{} s", status.uptime_s)),
        ("vtep_mac", status.vtep_mac.to_string()),
    ];
    lines.extend(status.vtep_mac6.map(|mac| ("vtep_mac6", mac.to_string())));
    lines.extend([
        ("gateway_mac", status.gateway_mac.to_string()),
        ("pod_cidrs", list(&status.pod_cidrs)),
        ("cluster_cidrs", list(&status.cluster_cidrs)),
        ("uplink", uplink),
    ]);
    if let Some(xdp) = status.uplink.as_ref().and_then(|uplink| uplink.xdp.as_ref()) {
        lines.push(("uplink_mode", format!("{}, receive queues {}, sends through {}", xdp.mode, xdp.queues, xdp.tx)));
        lines.push(("uplink_tx", xdp.tx_why.clone()));
        lines.push(("busy_poll", xdp.busy_poll.clone()));
        lines.extend(xdp.passed_over.iter().map(|why| ("passed_over", why.clone())));
    }
    lines.extend([
        ("tunnel", format!("VNI {}, UDP port {}, MTU {}", status.vni, status.vxlan_port, status.tunnel_mtu)),
        ("host", status.host_interface.clone()),
        ("ports", counts.ports.to_string()),
        ("bridges", counts.bridges.to_string()),
        ("routes", counts.routes.to_string()),
        ("vteps", counts.vteps.to_string()),
        ("macs", counts.macs.to_string()),
    ]);
    let workers: Vec<_> = status.workers.iter().map(worker_row).collect();
    let offloads = status.offloads.iter();
    let offloads: Vec<_> = offloads
        .map(|offload| {
            vec![offload.name.clone(), if offload.on { "on".into() } else { "off".into() }, offload.why.clone()]
        })
        .collect();
    let mut text = pairs(&lines);
    text.push('\n');
    text.push_str(&table(&["WORKER", "CPU", "POLL", "FRAMES", "PASSES", "FRAMES_PER_PASS"], &workers));
    text.push('\n');
    text.push_str(&table(&["OFFLOAD", "STATE", "WHY"], &offloads));
    for warning in &status.warnings {
        text.push_str(&format!("\nwarning: {warning}\n"));
    }
    text
}

fn worker_row(worker: &WorkerReport) -> Vec<String> {
    vec![
        worker.id.to_string(),
        if worker.cpu.is_some() { dash(worker.cpu.as_ref()) } else { "unpinned".into() },
        worker.poll.clone(),
        worker.frames.to_string(),
        worker.passes.to_string(),
        format!("{:.1}", worker.frames_per_pass),
    ]
}
