//! A node with podwired, the plugin installed, and a container runtime.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use podwire_tests::containerd::{Containerd, Sandbox};
use podwire_tests::wait::eventually;
use podwire_tests::{Netns, Node};
use serde_json::Value;
use tempfile::TempDir;

/// Where Debian has the reference plugins; runtimes use `loopback` beside any other.
const REFERENCE_PLUGINS: &str = "/usr/lib/cni";

/// How long the runtime may take to see a new configuration.
const NOTICED_WITHIN: Duration = Duration::from_secs(5);

/// The runtime of a node. It is gone before the node is.
pub(crate) struct RuntimeNode {
    pub(crate) runtime: Containerd,
    pub(crate) node: Node,
    pub(crate) folder: TempDir,
}

impl RuntimeNode {
    /// Installs the plugin on a running node as its operator would, and starts a runtime there.
    pub(crate) fn start(node: Node) -> Self {
        let folder = tempfile::Builder::new().prefix("pwt-cni-").tempdir().unwrap();
        let (bin, conf) = (folder.path().join("bin"), folder.path().join("net.d"));
        fs::create_dir_all(&bin).unwrap();
        symlink(Path::new(REFERENCE_PLUGINS).join("loopback"), bin.join("loopback")).unwrap();
        told(&node, "install-cni", folder.path());
        Self { runtime: Containerd::start(&node.netns, &bin, &conf), node, folder }
    }

    /// Installs the plugin.
    pub(crate) fn install(&self) {
        told(&self.node, "install-cni", self.folder.path());
    }

    /// Takes the plugin away. The runtime can not delete pods until it is back.
    pub(crate) fn uninstall(&self) {
        told(&self.node, "uninstall-cni", self.folder.path());
    }

    /// Waits until the runtime says that it has a network, or none.
    #[track_caller]
    pub(crate) fn wait_for_network(&self, ready: bool) {
        let says = || self.runtime.conditions().unwrap();
        let so = || says().iter().any(|(name, holds, _)| name == "NetworkReady" && *holds == ready);
        eventually(NOTICED_WITHIN, &format!("the network is ready: {ready}"), so);
    }

    /// Everything that is attached.
    pub(crate) fn attachments(&self) -> Vec<Value> {
        self.node.podwire_json(&["attachment", "list"]).as_array().unwrap().clone()
    }
}

fn told(node: &Node, verb: &str, folder: &Path) {
    let [bin, conf] = ["bin", "net.d"].map(|name| folder.join(name).display().to_string());
    let arguments = ["--bin-dir", &bin, "--conf-dir", &conf];
    let _said = node
        .podwired(&[&[verb], &arguments[..]].concat())
        .expect("the plugin is installed and taken away as asked for");
}

/// A sandbox of a name.
pub(crate) fn sandbox(name: &str) -> Sandbox {
    Sandbox { name: name.to_owned(), ..Sandbox::default() }
}

/// Whether busybox in a container reaches an address.
pub(crate) fn reaches(node: &RuntimeNode, container: &str, to: std::net::IpAddr) -> bool {
    let program = if to.is_ipv6() { "ping6" } else { "ping" };
    let (code, said) = node.runtime.exec(container, &[program, "-c", "2", "-w", "5", &to.to_string()]);
    if code != 0 {
        eprintln!("{program} {to}: {said}");
    }
    code == 0
}

/// The same from the node itself, or anywhere else.
pub(crate) fn is_reached(from: &Netns, to: std::net::IpAddr) -> bool {
    from.exec("ping", &["-c", "2", "-w", "5", &to.to_string()]).ok()
}
