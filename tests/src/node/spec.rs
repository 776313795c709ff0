//! A node's `podwired.toml`, as a value that tests change.

use std::fmt::Write as _;
use std::path::Path;

use ipnet::IpNet;

use crate::plan::{self, NodePlan};

/// How a node's tunnels are received, and sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UplinkKind {
    /// Kernel UDP sockets.
    Udp,
    /// AF_XDP on the underlay interface, in this mode.
    Xdp(&'static str),
    /// The same, and sent through AF_XDP too.
    XdpBoth(&'static str),
}

/// What goes into a node's `podwired.toml`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeSpec {
    /// Name of the node.
    pub name: String,
    /// Pod subnets, one a family.
    pub pod_cidrs: Vec<IpNet>,
    /// Subnets of the whole cluster.
    pub cluster_cidrs: Vec<IpNet>,
    /// Underlay addresses with their prefix; VTEP addresses, at most one a family. Without any there is no uplink.
    pub underlay: Vec<IpNet>,
    /// How tunnels are received.
    pub uplink: UplinkKind,
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP port of VXLAN.
    pub port: u16,
    /// Cores for workers, such as `0-1`; the daemon's own choice when not given.
    pub cpus: Option<String>,
    /// `busy`, `adaptive` or `interrupt`.
    pub poll: String,
    /// Environment of the daemon beside the test's own, such as `RUST_LOG`.
    pub environment: Vec<(String, String)>,
    /// Further lines of the configuration, each with its section, such as `("vxlan", "dscp_copy = true")`.
    pub lines: Vec<(String, String)>,
}

impl NodeSpec {
    /// The plan's node: dual-stack pods and a dual-stack underlay.
    #[must_use]
    pub fn planned(plan: NodePlan) -> Self {
        Self {
            name: plan.name(),
            pod_cidrs: plan.pod_cidrs().to_vec(),
            cluster_cidrs: NodePlan::cluster_cidrs().to_vec(),
            underlay: plan.underlay().to_vec(),
            uplink: UplinkKind::Udp,
            vni: plan::VNI,
            port: plan::VXLAN_PORT,
            cpus: Some(cpu_of(plan)),
            poll: "adaptive".into(),
            environment: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// The same with an underlay of one family only.
    #[must_use]
    pub fn over(mut self, v6: bool) -> Self {
        self.underlay.retain(|address| address.addr().is_ipv6() == v6);
        self
    }

    /// The same with one more line in a section of its configuration.
    #[must_use]
    pub fn line(mut self, section: &str, line: &str) -> Self {
        self.lines.push((section.to_owned(), line.to_owned()));
        self
    }

    /// The same with an uplink of another kind.
    #[must_use]
    pub fn receiving_by(mut self, uplink: UplinkKind) -> Self {
        self.uplink = uplink;
        self
    }

    /// The configuration file's text.
    #[must_use]
    pub fn toml(&self, socket: &Path, state_dir: &Path) -> String {
        let list = |items: Vec<String>| format!("[{}]", items.join(", "));
        let nets = |nets: &[IpNet]| list(nets.iter().map(|net| format!("\"{net}\"")).collect());
        let addresses = list(self.underlay.iter().map(|net| format!("\"{}\"", net.addr())).collect());
        let uplink = match (self.underlay.is_empty(), self.uplink) {
            (true, _) => String::new(),
            (false, UplinkKind::Udp) => format!("[uplink]\nkind = \"udp\"\naddress = {addresses}\n"),
            (false, UplinkKind::Xdp(mode)) => xdp(mode, "auto", &addresses),
            (false, UplinkKind::XdpBoth(mode)) => xdp(mode, "xdp", &addresses),
        };
        let mut text = format!(
            "[node]\nname = \"{}\"\npod_cidrs = {}\ncluster_cidrs = {}\n\
             [host]\ninterface = \"podwire0\"\n{uplink}\
             [vxlan]\nvni = {}\nport = {}\n[workers]\npoll = \"{}\"\n",
            self.name,
            nets(&self.pod_cidrs),
            nets(&self.cluster_cidrs),
            self.vni,
            self.port,
            self.poll
        );
        if let Some(cpus) = &self.cpus {
            let _ = writeln!(text, "cpus = \"{cpus}\"");
        }
        let (socket, state_dir) = (socket.display(), state_dir.display());
        let _ = writeln!(text, "[control]\nsocket = \"{socket}\"\nstate_dir = \"{state_dir}\"");
        for (section, line) in &self.lines {
            if !text.contains(&format!("[{section}]\n")) {
                let _ = writeln!(text, "[{section}]");
            }
            text = text.replacen(&format!("[{section}]\n"), &format!("[{section}]\n{line}\n"), 1);
        }
        text
    }
}

fn xdp(mode: &str, tx: &str, addresses: &str) -> String {
    format!(
        "[uplink]\nkind = \"xdp\"\ndevice = \"{}\"\nmode = \"{mode}\"\ntx = \"{tx}\"\naddress = {addresses}\n",
        plan::UNDERLAY
    )
}

/// Nodes of one machine take turns at its cores: by default all would pin their worker to the first.
fn cpu_of(plan: NodePlan) -> String {
    let allowed = podwire_vswitch::sys::affinity::allowed_cpus();
    let cpus = allowed.numbers();
    cpus[usize::from(plan.0) % cpus.len()].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_has_the_shape_of_the_contract() {
        let text = NodeSpec::planned(NodePlan(1))
            .line("vxlan", "dscp_copy = true")
            .toml(Path::new("/run/x.sock"), Path::new("/var/lib/x"));
        assert!(text.contains("[vxlan]\ndscp_copy = true\nvni = "), "{text}");
        for line in [
            "name = \"node1\"",
            "pod_cidrs = [\"10.244.1.0/24\", \"fd00:244:1::/64\"]",
            "cluster_cidrs = [\"10.244.0.0/16\", \"fd00:244::/32\"]",
            "address = [\"172.31.0.1\", \"fd00:31::1\"]",
            "socket = \"/run/x.sock\"",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is missing in\n{text}");
        }
    }
}
