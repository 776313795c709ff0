//! An image of nothing but busybox, for sandboxes and containers alike, made here since there is no registry.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;

use crate::command;

/// Its name.
pub(super) const NAME: &str = "podwire.test/busybox:1";
const BUSYBOX: &str = "/bin/busybox";

/// Makes the image in a folder, in the layout of `docker save`, and gives it to containerd.
///
/// # Panics
/// When busybox, tar or ctr is missing.
#[track_caller]
pub(super) fn import(folder: &Path, socket: &Path) {
    let root = folder.join("root");
    fs::create_dir_all(root.join("bin")).expect("a folder for the image");
    fs::copy(BUSYBOX, root.join("bin/busybox")).expect("busybox-static is installed");
    fs::set_permissions(root.join("bin/busybox"), PermissionsExt::from_mode(0o755)).expect("it is ours");
    let tar = |from: &Path, to: &Path, what: &[&str]| {
        let line = format!("tar --create --owner 0 --group 0 --directory {} --file {}", from.display(), to.display());
        command::must(&format!("{line} {}", what.join(" ")));
    };
    let layer = folder.join("layer.tar");
    tar(&root, &layer, &["bin"]);
    let digest = command::must(&format!("sha256sum {}", layer.display()));
    let digest = digest.split_whitespace().next().expect("a digest comes first");
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": [BUSYBOX, "sleep", "1000000"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]);
    for (name, content) in [("config.json", config), ("manifest.json", manifest)] {
        fs::write(folder.join(name), content.to_string()).expect("the folder is writable");
    }
    let image = folder.join("image.tar");
    tar(folder, &image, &["manifest.json", "config.json", "layer.tar"]);
    command::must(&format!("ctr --address {} --namespace k8s.io images import {}", socket.display(), image.display()));
}
