//! Every key of the file, once: what the reader accepts, what SIGHUP may change, what the documentation must list.

use super::Config;

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    /// Section and name, as in `node.name`.
    pub name: &'static str,
    /// Whether a change is taken over on SIGHUP; others need a restart.
    pub reloads: bool,
    /// Whether two configurations differ in it.
    pub differs: fn(&Config, &Config) -> bool,
}

macro_rules! keys {
    ($($name:literal $reloads:literal |$config:ident| $value:expr;)+) => {
        &[$(KeySpec {
            name: $name,
            reloads: $reloads,
            differs: |old, new| {
                let value = |$config: &Config| $value;
                value(old) != value(new)
            },
        },)+]
    };
}

/// All keys, in the order of the file.
pub const KEYS: &[KeySpec] = keys! {
    "node.name" false |config| config.node.name.clone();
    "node.pod_cidrs" false |config| (config.node.pod_v4, config.node.pod_v6);
    "node.cluster_cidrs" true |config| config.node.cluster_cidrs.clone();
    "node.netns_dirs" true |config| config.node.netns_dirs.clone();
    "host.interface" false |config| config.host.interface.clone();
    "uplink.kind" false |config| config.uplink.as_ref().map(|uplink| uplink.kind.name());
    "uplink.address" false |config| config.uplink.as_ref().map(|uplink| (uplink.v4, uplink.v6));
    "uplink.device" false |config| config.uplink.as_ref().and_then(|uplink| uplink.device.clone());
    "uplink.mode" false |config| config.uplink.as_ref().and_then(|uplink| uplink.xdp()?.mode);
    "uplink.tx" false |config| config.uplink.as_ref().and_then(|uplink| Some(uplink.xdp()?.tx));
    "uplink.busy_poll" false |config| config.uplink.as_ref().and_then(|uplink| Some(uplink.xdp()?.busy_poll));
    "uplink.mtu" true |config| config.uplink.as_ref().map(|uplink| uplink.mtu);
    "uplink.hold_us" false |config| config.uplink.as_ref().map(|uplink| uplink.hold_us);
    "ipam.ranges" true |config| config.ipam.ranges.clone();
    "ipam.reserved" true |config| config.ipam.reserved.clone();
    "vxlan.vni" false |config| config.vxlan.vni;
    "vxlan.port" false |config| config.vxlan.port;
    "vxlan.dscp_copy" false |config| config.vxlan.dscp_copy;
    "vxlan.outer_checksum" false |config| config.vxlan.outer_checksum;
    "offloads.checksum" false |config| config.offloads.checksum;
    "offloads.tso" false |config| config.offloads.tso;
    "offloads.uso" false |config| config.offloads.uso;
    "offloads.udp_segment" false |config| config.offloads.udp_segment;
    "offloads.udp_gro" false |config| config.offloads.udp_gro;
    "workers.cpus" false |config| config.workers.cpus.as_ref().map(|list| list.cpus.clone());
    "workers.poll" true |config| config.workers.poll;
    "workers.flow_cache" false |config| config.workers.flow_cache;
    "control.socket" false |config| config.control.socket.clone();
    "control.state_dir" false |config| config.control.state_dir.clone();
};
