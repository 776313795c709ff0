//! Two pods on Open vSwitch with its userspace datapath, run by hand from Debian's package: nothing of it has to be
//! started or configured on the machine.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use super::{MTU, POD_INTERFACE, Side, pod_address, pods, quiet, subnet24};
use crate::lab::{Missing, Netns, Process, Wire, cable, folder, stop};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// How often, and how many times, it is looked whether the database answers.
const STEP: Duration = Duration::from_millis(50);
const STEPS: usize = 100;
/// Seconds that ovs-vsctl waits for ovs-vswitchd.
const CONFIGURE_SECONDS: &str = "--timeout=20";

pub(super) fn build(label: &str) -> Result<Side> {
    if !Path::new(SCHEMA).exists() {
        return Err(Missing::new("ovs-vswitchd").into());
    }
    let folder = folder()?;
    let at = folder.path();
    let node = Netns::new(&format!("{label}-node"))?;
    let (from, to) = pods(label)?;
    for (pod, number) in [(&from, 1), (&to, 2)] {
        let outside = format!("veth{number}");
        cable((pod, POD_INTERFACE), (&node, &outside), MTU, Wire::Offloads)?;
        // Its userspace datapath completes no checksum for AF_PACKET ports.
        pod.exec("ethtool", &["-K", POD_INTERFACE, "tx", "off"])?;
        node.up(&outside)?;
        pod.address(POD_INTERFACE, subnet24(pod_address(number)))?;
    }
    let processes = start(&node, at)?;
    let interfaces = ["veth1", "veth2"].map(|name| (0, name.to_owned())).to_vec();
    let quiet = quiet(from, to, pod_address(2));
    Ok(Side { processes, others: vec![node], interfaces, _folder: Some(folder), ..quiet })
}

fn start(node: &Netns, at: &Path) -> Result<Vec<Process>> {
    let socket = format!("unix:{}", at.join("db.sock").display());
    let database = at.join("conf.db").display().to_string();
    node.exec("ovsdb-tool", &["create", &database, SCHEMA])?;
    let mut server = command("ovsdb-server", at);
    server.arg(&database).arg(format!("--remote=p{socket}")).arg("--no-chdir");
    let mut server = Process::start(node, server, &at.join("ovsdb-server.log"))?;
    for _ in 0..STEPS {
        if at.join("db.sock").exists() {
            break;
        }
        server.must_run()?;
        stop::sleep(STEP)?;
    }
    let database = format!("--db={socket}");
    node.exec("ovs-vsctl", &[&database, "--no-wait", CONFIGURE_SECONDS, "init"])?;
    let mut switch = command("ovs-vswitchd", at);
    switch.arg(&socket).arg("--no-chdir");
    let mut switch = Process::start(node, switch, &at.join("ovs-vswitchd.log"))?;
    let configured = node.exec(
        "ovs-vsctl",
        &[
            database.as_str(),
            CONFIGURE_SECONDS,
            "add-br",
            "br0",
            "--",
            "set",
            "bridge",
            "br0",
            "datapath_type=netdev",
            "--",
            "add-port",
            "br0",
            "veth1",
            "--",
            "add-port",
            "br0",
            "veth2",
        ],
    );
    switch.must_run()?;
    if let Err(error) = configured {
        bail!("Open vSwitch was not configured: {error:#}\n{}", switch.last_words());
    }
    Ok(vec![switch, server])
}

/// A program of Open vSwitch that keeps all its files in the folder.
fn command(program: &str, at: &Path) -> Command {
    let mut command = Command::new(program);
    command.envs(["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"].map(|variable| (variable, at)));
    command
}
