//! What the daemon says of its uplink: how it receives, and through what each remote is sent to.

use std::net::IpAddr;

use podwire_control::model::{Counter, Uplink, XdpReport};

use super::Controller;
use crate::port::xdp::{BusyPoll, UplinkTx, XdpStatus};

impl Controller {
    /// The uplink, where there is one.
    pub(super) fn uplink_report(&self) -> Option<Uplink> {
        self.config.uplink.as_ref().map(|uplink| Uplink {
            kind: uplink.kind.name().into(),
            addresses: uplink.addresses().collect(),
            device: uplink.device.clone(),
            mtu: self.node.underlay_mtu.into(),
            xdp: self.devices.xdp().map(|xdp| {
                let asked = uplink.xdp().map_or(UplinkTx::Auto, |xdp| xdp.tx);
                xdp_report(xdp, asked, self.switch.worker_count())
            }),
        })
    }

    /// What a remote is sent to through, with the next hop, or why not through AF_XDP.
    pub(super) fn sent_by(&self, remote: IpAddr) -> (&'static str, String) {
        let Some(underlay) = self.devices.underlay() else { return ("udp", String::new()) };
        match (underlay.way(remote), underlay.next_hop(remote)) {
            (Ok(way), Some(hop)) => ("xdp", format!("via {hop} at {}", way.next_hop)),
            (Ok(way), None) => ("xdp", format!("to {}", way.next_hop)),
            (Err(why), _) => ("udp", why.to_string()),
        }
    }
}

/// How an `xdp` uplink receives and sends; `udp` where the NIC can not do it.
fn xdp_report(xdp: Result<&XdpStatus, &str>, asked: UplinkTx, workers: usize) -> XdpReport {
    match xdp {
        Ok(status) => XdpReport {
            mode: status.mode().name().into(),
            passed_over: status.passed_over().to_vec(),
            queues: u32::try_from(status.queues()).unwrap_or(u32::MAX),
            tx: if status.senders() > 0 { "xdp" } else { "udp" }.into(),
            tx_why: tx_why(status, asked, workers),
            busy_poll: busy_poll(status),
        },
        Err(why) => XdpReport {
            mode: "udp".into(),
            passed_over: vec![why.to_owned()],
            queues: 0,
            tx: "udp".into(),
            tx_why: "the NIC can do no AF_XDP".into(),
            busy_poll: "off".into(),
        },
    }
}

fn tx_why(status: &XdpStatus, asked: UplinkTx, workers: usize) -> String {
    let senders = status.senders();
    match asked {
        _ if senders > 0 && senders < workers => {
            format!("{senders} of {workers} workers through AF_XDP, the others by UDP: the NIC has no more queues")
        }
        UplinkTx::Auto if senders > 0 => "zero-copy mode".into(),
        UplinkTx::Auto => "copy mode, where UDP_SEGMENT is faster".into(),
        UplinkTx::Udp | UplinkTx::Xdp => format!("uplink.tx = \"{}\"", asked.name()),
    }
}

fn busy_poll(status: &XdpStatus) -> String {
    match (status.busy_poll(), status.queues_without_napi()) {
        (BusyPoll::Off, _) => "off".into(),
        (BusyPoll::Refused(errno), _) => {
            format!("off, the kernel refuses it: {}; it needs Linux 5.11 and CAP_NET_ADMIN", errno.desc())
        }
        (BusyPoll::On, 0) => "on".into(),
        (BusyPoll::On, without) => format!(
            "on, but for {without} of {} queues: the kernel knows no NAPI instance that serves them",
            status.queues()
        ),
    }
}

/// What is lost before it becomes a frame of ours, by us and by the kernel.
pub(super) fn xdp_counters(xdp: &XdpStatus) -> impl Iterator<Item = Counter> {
    let kernel = xdp.statistics();
    let counters = [
        ("xdp_rx_frames", xdp.frames()),
        ("xdp_tx_packets", xdp.sent()),
        ("xdp_malformed", xdp.malformed()),
        ("xdp_checksum_errors", xdp.checksum_errors()),
        ("xsk_rx_dropped", kernel.rx_dropped),
        ("xsk_rx_invalid", kernel.rx_invalid),
        ("xsk_tx_invalid", kernel.tx_invalid),
        ("xsk_ring_full", kernel.ring_full),
        ("xsk_fill_empty", kernel.fill_empty),
    ];
    counters.into_iter().map(|(name, count)| Counter { name: name.into(), count })
}
