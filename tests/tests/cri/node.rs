//! A node with podwired, the plugin installed, and a container runtime.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use podwire_tests::containerd::{Containerd, Sandbox};
use podwire_tests::{Netns, Node};
use serde_json::Value;
use tempfile::TempDir;

/// Where Debian has the reference plugins; runtimes use `loopback` beside any other.
const REFERENCE_PLUGINS: &str = "/usr/lib/cni";

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
        install(&node, "install-cni", &bin, &conf);
        Self { runtime: Containerd::start(&node.netns, &bin, &conf), node, folder }
    }

    /// Takes the plugin away again.
    pub(crate) fn uninstall(&self) {
        install(&self.node, "uninstall-cni", &self.folder.path().join("bin"), &self.folder.path().join("net.d"));
    }

    /// Everything that is attached.
    pub(crate) fn attachments(&self) -> Vec<Value> {
        self.node.podwire_json(&["attachment", "list"]).as_array().unwrap().clone()
    }
}

fn install(node: &Node, verb: &str, bin: &Path, conf: &Path) {
    let arguments = ["--bin-dir", bin.to_str().unwrap(), "--conf-dir", conf.to_str().unwrap()];
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
