//! The network configuration that runtimes read.

use serde_json::{Value, json};

use super::PLUGIN;
use crate::daemon::config::Config;

/// What older runtimes take, and what newer ones choose from (CNI 1.1.0, `cniVersions`).
const VERSION: &str = "1.0.0";
const VERSIONS: [&str; 2] = [VERSION, "1.1.0"];

/// What is said in it.
#[derive(Debug)]
pub(super) struct Conflist<'a> {
    /// Name of the network.
    pub(super) network: &'a str,
    /// The configuration that knows socket and spool.
    pub(super) config: &'a Config,
}

impl Conflist<'_> {
    /// The file's text.
    pub(super) fn text(&self) -> String {
        let control = &self.config.control;
        let value = json!({
            "cniVersion": VERSION,
            "cniVersions": VERSIONS,
            "name": self.network,
            "plugins": [{
                "type": PLUGIN,
                "socket": control.socket,
                "spoolDir": control.spool_dir(),
                "capabilities": {"portMappings": true, "bandwidth": true, "ips": true, "mac": true},
            }],
        });
        format!("{value:#}\n")
    }
}

/// Whether a file is a configuration with our plugin.
pub(super) fn is_ours(bytes: &[u8]) -> bool {
    let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
    value["plugins"].as_array().is_some_and(|plugins| plugins.iter().any(|plugin| plugin["type"] == PLUGIN))
}

/// A network's name by libcni's rule.
pub(super) fn network(text: &str) -> Result<String, String> {
    let begins_well = text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    if begins_well && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
        Ok(text.to_owned())
    } else {
        Err("use a-z, A-Z, 0-9, '_', '.' and '-', beginning with a letter or digit".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_ours_by_its_plugin() {
        assert!(is_ours(br#"{"plugins": [{"type": "bridge"}, {"type": "podwire-cni"}]}"#));
        for other in
            [&b""[..], b"no JSON", b"[]", br#"{"type": "podwire-cni"}"#, br#"{"plugins": [{"type": "bridge"}]}"#]
        {
            assert!(!is_ours(other));
        }
    }

    #[test]
    fn a_network_has_a_plain_name() {
        assert_eq!(network("k8s-pod.network_1").as_deref(), Ok("k8s-pod.network_1"));
        for bad in ["", "-a", "a b", "a/b"] {
            assert!(network(bad).is_err(), "{bad}");
        }
    }
}
