//! Who is measured, as one word of a scenario with its options: `podwire poll=busy workers=2`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use podwire_control::model::PortKind;
use serde::{Deserialize, Serialize};

/// Idle pods that may lie beside the two that talk.
const IDLE_PODS_MAX: usize = 1_000;

/// The text names nobody who could be measured.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("{0:?} is no side: use cable, kernel-bridge, kernel-vxlan, ovs, tap-loop or podwire")]
    Unknown(String),
    #[error(
        "{peer} has no option {option:?}: podwire has poll, workers, uplink, mode, tx, hold_us, pods and idle_pods"
    )]
    Option { peer: String, option: String },
    #[error("{option}={value} can not be: {want}")]
    Value { option: &'static str, value: String, want: &'static str },
}

/// Options of a podwire side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PodwireOptions {
    /// How workers wait: podwired's `workers.poll`.
    pub(crate) poll: String,
    /// Workers, each on a CPU of its own from the first; podwired's own choice when not given.
    pub(crate) workers: Option<usize>,
    /// podwired's `uplink.kind`.
    pub(crate) uplink: String,
    /// podwired's `uplink.mode`, for `uplink=xdp`; its default when not given.
    pub(crate) mode: Option<String>,
    /// podwired's `uplink.tx`, for `uplink=xdp`; its default when not given.
    pub(crate) tx: Option<String>,
    /// podwired's `uplink.hold_us`; its default when not given.
    pub(crate) hold_us: Option<usize>,
    /// Kind of the pods' ports.
    pub(crate) pods: PortKind,
    /// Further pods on the (first) node that do nothing.
    pub(crate) idle_pods: usize,
}

impl Default for PodwireOptions {
    fn default() -> Self {
        let (poll, uplink) = ("adaptive".to_owned(), "udp".to_owned());
        Self { poll, workers: None, uplink, mode: None, tx: None, hold_us: None, pods: PortKind::Tap, idle_pods: 0 }
    }
}

/// Which switch it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum PeerKind {
    /// A bare veth cable between the two pods: no switch at all.
    Cable,
    KernelBridge,
    /// Kernel bridge, routes and VXLAN on each node, as flannel sets them up.
    KernelVxlan,
    /// Open vSwitch with its userspace datapath.
    Ovs,
    /// A bare loop from TAP to TAP, without a switch's logic.
    TapLoop,
    Podwire(PodwireOptions),
}

/// Who is measured. Two with the same text are the same.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Peer {
    text: String,
    kind: PeerKind,
}

impl Peer {
    pub(crate) fn kind(&self) -> &PeerKind {
        &self.kind
    }

    /// Whether it is the switch that targets are for.
    pub(crate) fn is_podwire(&self) -> bool {
        matches!(self.kind, PeerKind::Podwire(_))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl From<Peer> for String {
    fn from(peer: Peer) -> Self {
        peer.text
    }
}

impl TryFrom<String> for Peer {
    type Error = PeerError;

    fn try_from(text: String) -> Result<Self, PeerError> {
        text.parse()
    }
}

impl FromStr for Peer {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or_default();
        let mut kind = match name {
            "cable" => PeerKind::Cable,
            "kernel-bridge" => PeerKind::KernelBridge,
            "kernel-vxlan" => PeerKind::KernelVxlan,
            "ovs" => PeerKind::Ovs,
            "tap-loop" => PeerKind::TapLoop,
            "podwire" => PeerKind::Podwire(PodwireOptions::default()),
            _ => return Err(PeerError::Unknown(text.to_owned())),
        };
        for word in words.clone() {
            let unknown = || PeerError::Option { peer: name.to_owned(), option: word.to_owned() };
            let PeerKind::Podwire(options) = &mut kind else { return Err(unknown()) };
            let (option, value) = word.split_once('=').ok_or_else(unknown)?;
            options.set(option, value).unwrap_or_else(|| Err(unknown()))?;
        }
        if let PeerKind::Podwire(PodwireOptions { uplink, mode, tx, .. }) = &kind
            && uplink != "xdp"
            && let Some((option, value)) =
                mode.iter().map(|mode| ("mode", mode)).chain(tx.iter().map(|tx| ("tx", tx))).next()
        {
            return Err(PeerError::Value { option, value: value.clone(), want: "it is for uplink=xdp only" });
        }
        let text = words.fold(name.to_owned(), |text, word| text + " " + word);
        Ok(Self { text, kind })
    }
}

impl PodwireOptions {
    /// Sets one; none when there is no such option.
    fn set(&mut self, option: &str, value: &str) -> Option<Result<(), PeerError>> {
        let number = |option, range: RangeInclusive<usize>, want| match value.parse::<usize>() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(PeerError::Value { option, value: value.to_owned(), want }),
        };
        let word = |option, among: &[&str], want| match among.contains(&value) {
            true => Ok(value.to_owned()),
            false => Err(PeerError::Value { option, value: value.to_owned(), want }),
        };
        Some(match option {
            "poll" => word("poll", &["adaptive", "busy", "interrupt"], "use adaptive, busy or interrupt")
                .map(|poll| self.poll = poll),
            "uplink" => word("uplink", &["udp", "xdp"], "use udp or xdp").map(|uplink| self.uplink = uplink),
            "mode" => word("mode", &["zerocopy", "native", "generic"], "use zerocopy, native or generic")
                .map(|mode| self.mode = Some(mode)),
            "tx" => word("tx", &["auto", "udp", "xdp"], "use auto, udp or xdp").map(|tx| self.tx = Some(tx)),
            "pods" => {
                let want = "use tap or veth-xdp";
                let found = PortKind::ALL.into_iter().find(|kind| kind.name() == value);
                let refused = || PeerError::Value { option: "pods", value: value.to_owned(), want };
                found.ok_or_else(refused).map(|kind| self.pods = kind)
            }
            "workers" => number("workers", 1..=64, "use 1 to 64").map(|workers| self.workers = Some(workers)),
            "idle_pods" => number("idle_pods", 1..=IDLE_PODS_MAX, "use 1 to 1000").map(|pods| self.idle_pods = pods),
            "hold_us" => number("hold_us", 0..=1_000, "use 0 to 1000").map(|hold_us| self.hold_us = Some(hold_us)),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_a_name_with_options() {
        let peer: Peer = " podwire  poll=busy workers=2 idle_pods=250".parse().unwrap();
        assert_eq!(peer.to_string(), "podwire poll=busy workers=2 idle_pods=250");
        let options =
            PodwireOptions { poll: "busy".into(), workers: Some(2), idle_pods: 250, ..PodwireOptions::default() };
        assert_eq!(peer.kind(), &PeerKind::Podwire(options));
        let both = "podwire uplink=xdp tx=xdp".parse::<Peer>().unwrap();
        let sending = PodwireOptions { uplink: "xdp".into(), tx: Some("xdp".into()), ..PodwireOptions::default() };
        assert_eq!(both.kind(), &PeerKind::Podwire(sending));
        let at_once = PodwireOptions { hold_us: Some(0), ..PodwireOptions::default() };
        assert_eq!("podwire hold_us=0".parse::<Peer>().unwrap().kind(), &PeerKind::Podwire(at_once));
        let veth: Peer = "podwire pods=veth-xdp".parse().unwrap();
        let options = PodwireOptions { pods: PortKind::VethXdp, ..PodwireOptions::default() };
        assert_eq!(veth.kind(), &PeerKind::Podwire(options));
        assert_eq!("ovs".parse::<Peer>().unwrap().kind(), &PeerKind::Ovs);
    }

    #[test]
    fn what_there_is_not_is_refused_by_name() {
        for (text, names) in [
            ("bridge", "\"bridge\""),
            ("", "\"\""),
            ("cable poll=busy", "cable has no option \"poll=busy\""),
            ("podwire pol=busy", "\"pol=busy\""),
            ("podwire busy", "\"busy\""),
            ("podwire poll=lazy", "poll=lazy"),
            ("podwire pods=veth", "pods=veth"),
            ("podwire workers=0", "workers=0"),
            ("podwire uplink=xdp tx=both", "tx=both"),
            ("podwire tx=xdp", "tx=xdp can not be: it is for uplink=xdp only"),
            ("podwire uplink=udp mode=native", "mode=native can not be: it is for uplink=xdp only"),
            ("podwire uplink=xdp mode=fast", "mode=fast"),
            ("podwire idle_pods=x", "idle_pods=x"),
            ("podwire hold_us=1001", "hold_us=1001"),
        ] {
            let error = text.parse::<Peer>().unwrap_err().to_string();
            assert!(error.contains(names), "{text}: {error}");
        }
    }
}
