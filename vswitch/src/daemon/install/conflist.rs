//! The network configuration that runtimes read.

use podwire_control::model::NetworkName;
use serde_json::{Value, json};

use super::PLUGIN;
use crate::daemon::config::Config;

/// What older runtimes take, and what newer ones choose from (CNI 1.1.0, `cniVersions`).
const VERSION: &str = "1.0.0";
const VERSIONS: [&str; 2] = [VERSION, "1.1.0"];

/// The network's name where nothing else is said.
const NETWORK: &str = "podwire";

/// What is said in it.
#[derive(Debug)]
pub(super) struct Conflist<'a> {
    /// Name of the network; none leaves what is there, or is podwire's.
    pub(super) network: Option<&'a NetworkName>,
    /// The configuration that knows socket and spool.
    pub(super) config: &'a Config,
}

impl Conflist<'_> {
    /// The file's text. Of one that is there already all stays that is not ours to know, and of one that says the same
    /// every byte.
    pub(super) fn text(&self, before: Option<&[u8]>) -> Vec<u8> {
        let there: Option<Value> = before.and_then(|bytes| serde_json::from_slice(bytes).ok());
        let mut value = there.clone().unwrap_or_else(|| json!({"name": NETWORK, "plugins": [{"type": PLUGIN}]}));
        if let Some(network) = self.network {
            value["name"] = network.as_str().into();
        }
        if value.get("cniVersion").is_none() && value.get("cniVersions").is_none() {
            value["cniVersion"] = VERSION.into();
            value["cniVersions"] = VERSIONS.into();
        }
        let control = &self.config.control;
        for plugin in value["plugins"].as_array_mut().into_iter().flatten().filter(|plugin| plugin["type"] == PLUGIN) {
            plugin["socket"] = json!(control.socket);
            plugin["spoolDir"] = json!(control.spool_dir());
            plugin["capabilities"] = json!({"portMappings": true, "bandwidth": true, "ips": true, "mac": true});
        }
        match before {
            Some(bytes) if there.as_ref() == Some(&value) => bytes.to_owned(),
            _ => format!("{value:#}\n").into_bytes(),
        }
    }
}

/// Whether a file is a configuration with our plugin.
pub(super) fn is_ours(bytes: &[u8]) -> bool {
    let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
    value["plugins"].as_array().is_some_and(|plugins| plugins.iter().any(|plugin| plugin["type"] == PLUGIN))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config() -> Config {
        let text =
            "[node]\nname = \"n\"\npod_cidrs = [\"10.244.1.0/24\"]\n[control]\nsocket = \"/s\"\nstate_dir = \"/d\"\n";
        Config::parse(Path::new("podwired.toml"), text).unwrap()
    }

    /// What becomes of a file.
    fn installed(network: Option<&str>, before: Option<&Value>) -> Value {
        let network = network.map(|name| name.parse().unwrap());
        let (config, before) = (config(), before.map(Value::to_string));
        let text = Conflist { network: network.as_ref(), config: &config }.text(before.as_deref().map(str::as_bytes));
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn a_fresh_one_says_what_podwired_is() {
        let fresh = installed(None, None);
        let capabilities = json!({"portMappings": true, "bandwidth": true, "ips": true, "mac": true});
        let plugin = json!({"type": PLUGIN, "socket": "/s", "spoolDir": "/d/spool", "capabilities": capabilities});
        let expected = json!({"cniVersion": VERSION, "cniVersions": VERSIONS, "name": "podwire", "plugins": [plugin]});
        assert_eq!(fresh, expected);
        assert_eq!(installed(Some("other"), None)["name"], "other");
    }

    #[test]
    fn of_one_that_is_there_only_what_podwired_knows_is_changed() {
        let edited = json!({
            "cniVersion": "0.4.0", "name": "mine", "disableCheck": true,
            "plugins": [
                {"type": PLUGIN, "port": "veth-xdp", "mtu": 1400, "timeout": 20, "socket": "/old", "dns": {"search": ["a"]},
                 "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.1.0/24"}]]}},
                {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "socket": "/its own"},
            ],
        });
        let mut expected = edited.clone();
        let own = installed(None, None)["plugins"][0].clone();
        for key in ["socket", "spoolDir", "capabilities"] {
            expected["plugins"][0][key] = own[key].clone();
        }
        assert_eq!(installed(None, Some(&edited)), expected);
        let mut renamed = expected.clone();
        renamed["name"] = "other".into();
        assert_eq!(installed(Some("other"), Some(&edited)), renamed);
        let bare = json!({"name": "podwire", "plugins": [{"type": PLUGIN}]});
        assert_eq!(installed(None, Some(&bare)), installed(None, None), "versions are added");
    }

    #[test]
    fn one_that_says_the_same_stays_to_the_byte() {
        let fresh = installed(None, None).to_string();
        let config = config();
        let text = Conflist { network: None, config: &config }.text(Some(fresh.as_bytes()));
        assert_eq!(text, fresh.as_bytes());
    }

    #[test]
    fn a_configuration_is_ours_by_its_plugin() {
        assert!(is_ours(br#"{"plugins": [{"type": "bridge"}, {"type": "podwire-cni"}]}"#));
        for other in
            [&b""[..], b"no JSON", b"[]", br#"{"type": "podwire-cni"}"#, br#"{"plugins": [{"type": "bridge"}]}"#]
        {
            assert!(!is_ours(other));
        }
    }
}
