//! `podwired install-cni` and `podwired uninstall-cni`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use podwire_tests::binary::binary;
use podwire_tests::command::Outcome;
use podwire_tests::{Netns, Node};
use serde_json::{Value, json};

use crate::plugin::{Call, node};

/// Directories of a runtime.
struct Runtime(tempfile::TempDir);

impl Runtime {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn plugin(&self) -> PathBuf {
        self.0.path().join("bin/podwire-cni")
    }

    fn conflist(&self) -> PathBuf {
        self.0.path().join("net.d/10-podwire.conflist")
    }

    fn run(&self, node: &Node, words: &[&str]) -> Outcome {
        let (bin, conf) = (self.0.path().join("bin"), self.0.path().join("net.d"));
        let places = ["--bin-dir", bin.to_str().unwrap(), "--conf-dir", conf.to_str().unwrap()];
        node.podwired(&[words, &places].concat())
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_plugin_is_installed_left_alone_and_taken_away() {
    let node = node();
    let runtime = Runtime::new();
    let _ = runtime.run(&node, &["install-cni"]).expect("it is installed");
    assert_eq!((mode(&runtime.plugin()), mode(&runtime.conflist())), (0o755, 0o644));
    assert_eq!(fs::read(runtime.plugin()).unwrap(), fs::read(binary("podwire-cni")).unwrap());
    let text: Value = serde_json::from_slice(&fs::read(runtime.conflist()).unwrap()).unwrap();
    assert_eq!((&text["name"], &text["cniVersion"]), (&json!("podwire"), &json!("1.0.0")));
    let plugin = &text["plugins"][0];
    assert_eq!(plugin["type"], "podwire-cni");
    let netns = Netns::new("a");
    let mut call = Call::in_netns(&node, "a", &netns);
    for key in ["socket", "spoolDir"] {
        assert_eq!(plugin[key], call.config[key], "{key}");
    }
    call.config = plugin.clone();
    call.key("name", text["name"].clone()).key("cniVersion", text["cniVersion"].clone()).run("ADD").done();

    let inodes = || [runtime.plugin(), runtime.conflist()].map(|path| fs::metadata(path).unwrap().ino());
    let first = inodes();
    let said = runtime.run(&node, &["install-cni"]).expect("it is there");
    assert_eq!(inodes(), first, "nothing is touched");
    assert_eq!(said.matches("is as it should be").count(), 2, "{said}");
    let said = runtime.run(&node, &["install-cni", "--network", "other"]).expect("it is changed");
    assert!(said.contains("wrote") && fs::read_to_string(runtime.conflist()).unwrap().contains("\"other\""));

    let edited = fs::read_to_string(runtime.conflist()).unwrap().replace("\"socket\"", "\"mtu\": 1400, \"socket\"");
    fs::write(runtime.conflist(), edited.replace("podwired.sock", "old.sock")).unwrap();
    let _ = runtime.run(&node, &["install-cni"]).expect("it is mended");
    let text: Value = serde_json::from_slice(&fs::read(runtime.conflist()).unwrap()).unwrap();
    let plugin = &text["plugins"][0];
    assert_eq!((&text["name"], &plugin["mtu"]), (&json!("other"), &json!(1400)), "what was edited stays");
    assert_eq!(plugin["socket"], json!(node.socket()), "what podwired knows better does not");

    let said = runtime.run(&node, &["uninstall-cni"]).expect("it is taken away");
    assert_eq!(said.matches("removed").count(), 2, "{said}");
    assert!(!runtime.plugin().exists() && !runtime.conflist().exists());
    assert_eq!(runtime.run(&node, &["uninstall-cni"]).expect("nothing is there"), "");
}

#[test]
fn runtimes_are_told_only_when_podwired_can_attach() {
    let mut node = node();
    assert!(node.stop());
    let runtime = Runtime::new();
    let outcome = runtime.run(&node, &["install-cni", "--wait", "1"]);
    assert!(!outcome.ok() && outcome.stderr.contains("could not attach pods within 1 s"), "{outcome:?}");
    assert!(outcome.stderr.contains("cannot reach podwired"), "{outcome:?}");
    assert!(runtime.plugin().exists() && !runtime.conflist().exists());
    node.start();
    let _ = runtime.run(&node, &["install-cni"]).expect("it is installed");
    assert!(node.stop());
    let _ = runtime.run(&node, &["install-cni", "--wait", "1"]).expect("runtimes know it already");
}

#[test]
fn foreign_files_are_refused_and_earlier_ones_are_told_of() {
    let node = node();
    let runtime = Runtime::new();
    for folder in ["bin", "net.d"] {
        fs::create_dir(runtime.0.path().join(folder)).unwrap();
    }
    fs::write(runtime.conflist(), r#"{"plugins": [{"type": "bridge"}]}"#).unwrap();
    for verb in ["install-cni", "uninstall-cni"] {
        let outcome = runtime.run(&node, &[verb]);
        assert!(!outcome.ok() && outcome.stderr.contains("10-podwire.conflist is not podwire's"), "{outcome:?}");
    }
    assert!(!runtime.plugin().exists(), "nothing was begun");
    fs::rename(runtime.conflist(), runtime.0.path().join("net.d/05-other.conflist")).unwrap();
    let said = runtime.run(&node, &["install-cni"]).expect("it is installed");
    assert!(said.contains("warning: 05-other.conflist comes before 10-podwire.conflist"), "{said}");
    let outcome = runtime.run(&node, &["install-cni", "--from", "/bin/true"]);
    assert!(outcome.stderr.contains("/bin/true is no podwire-cni"), "{outcome:?}");
    for wrong in [["--conf-name", "a/b.conflist"], ["--conf-name", "10-a.conf"], ["--network", "a b"]] {
        let outcome = runtime.run(&node, &["install-cni", wrong[0], wrong[1]]);
        assert!(!outcome.ok() && outcome.stderr.contains(wrong[0]), "{outcome:?}");
    }
}

#[test]
fn removing_the_package_takes_the_plugin_away_and_an_upgrade_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let (podwired, asked) = (folder.path().join("podwired"), folder.path().join("asked"));
    fs::write(&podwired, format!("#!/bin/sh\necho \"$@\" >>{}\necho removed it\nexit 1\n", asked.display())).unwrap();
    fs::set_permissions(&podwired, fs::Permissions::from_mode(0o755)).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/debian/prerm");
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let run = |words: &[&str]| {
        let ran = Command::new("sh").arg(script).args(words).env("PATH", &path).output().unwrap();
        assert!(ran.status.success() && ran.stdout.is_empty(), "{ran:?}");
        String::from_utf8(ran.stderr).unwrap()
    };
    assert_eq!(run(&["upgrade", "0.2.0"]), "");
    assert!(!asked.exists());
    let said = run(&["remove"]);
    assert!(said.contains("may still be installed") && said.contains("may still be there"), "{said}");
    assert_eq!(fs::read_to_string(&asked).unwrap(), "uninstall-cni\ncleanup --keep-store\n");
}
