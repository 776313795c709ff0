//! A node whose containers come and go through the plugin.

use std::ffi::OsString;
use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use podwire_control::client::{Client, ClientError};
use podwire_control::model::Attachment;
use podwire_tests::binary::binary;
use podwire_tests::{Netns, Node, NodePlan, NodeSpec, Pod, wait};
use serde_json::{Value, json};

/// Where Debian has the reference plugins.
pub(crate) const REFERENCE_PLUGINS: &str = "/usr/lib/cni";
const DEADLINE: Duration = Duration::from_secs(20);

/// What the plugin did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) ok: bool,
    /// The one object it wrote; null for none.
    pub(crate) said: Value,
    pub(crate) stderr: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn done(self) -> Value {
        assert!(self.ok, "{self:?}");
        self.said
    }

    /// Its code and all its words, told by an object of the specification's form.
    #[track_caller]
    pub(crate) fn failed(&self) -> (u64, String) {
        assert!(!self.ok, "{self:?}");
        let keys: Vec<&String> = self.said.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["cniVersion", "code", "details", "msg"]);
        (self.said["code"].as_u64().unwrap(), format!("{} {}", self.said["msg"], self.said["details"]))
    }

    /// Says that it failed with a code, told in a version, of an object and with a remedy.
    #[track_caller]
    pub(crate) fn failed_so(&self, version: &str, code: u64, object: &str, remedy: &str) {
        let said = &self.said;
        assert_eq!((self.failed().0, &said["cniVersion"]), (code, &json!(version)), "{self:?}");
        assert!(said["msg"].as_str().unwrap().contains(object), "{object:?} in {said}");
        assert!(said["details"].as_str().unwrap().contains(remedy), "{remedy:?} in {said}");
    }
}

/// A node of the plan that runs alone.
pub(crate) fn node() -> Node {
    let spec = NodeSpec { underlay: Vec::new(), ..NodeSpec::planned(NodePlan(1)) };
    let mut node = Node::new(spec);
    node.start();
    node
}

/// A request of the runtime, to be changed before it is made.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) container: String,
    pub(crate) netns: String,
    pub(crate) ifname: String,
    /// Variables that are otherwise: another value, or not set.
    pub(crate) variables: Vec<(&'static str, Option<OsString>)>,
    pub(crate) config: Value,
}

impl Call {
    pub(crate) fn of(node: &Node, container: &str, netns: &str) -> Self {
        let config = json!({
            "cniVersion": "1.1.0", "name": "pods", "type": "podwire-cni",
            "socket": node.socket(), "spoolDir": node.state_dir().join("spool"),
        });
        let (container, netns, ifname) = (container.to_owned(), netns.to_owned(), "eth0".into());
        Self { container, netns, ifname, variables: Vec::new(), config }
    }

    pub(crate) fn in_netns(node: &Node, container: &str, netns: &Netns) -> Self {
        Self::of(node, container, netns.path().to_str().unwrap())
    }

    pub(crate) fn named(mut self, ifname: &str) -> Self {
        ifname.clone_into(&mut self.ifname);
        self
    }

    pub(crate) fn key(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    /// With another value of a variable; none to have it unset.
    pub(crate) fn with(mut self, variable: &'static str, value: Option<impl Into<OsString>>) -> Self {
        self.variables.push((variable, value.map(Into::into)));
        self
    }

    pub(crate) fn run(&self, command: &str) -> Ran {
        self.run_with(command, self.config.to_string().as_bytes())
    }

    /// With another request on standard input.
    pub(crate) fn run_with(&self, command: &str, request: &[u8]) -> Ran {
        let mut plugin = self.process(command);
        plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut plugin = plugin.spawn().unwrap();
        let _ = plugin.stdin.take().unwrap().write_all(request); // one that fails early need not read it
        ran(plugin.wait_with_output().unwrap())
    }

    /// The process of a command.
    pub(crate) fn process(&self, command: &str) -> Command {
        let mut plugin = Command::new(binary("podwire-cni"));
        plugin.env("CNI_COMMAND", command).env("CNI_CONTAINERID", &self.container).env("CNI_NETNS", &self.netns);
        plugin.env("CNI_IFNAME", &self.ifname).env("CNI_PATH", REFERENCE_PLUGINS);
        for (variable, value) in &self.variables {
            match value {
                Some(value) => plugin.env(variable, value),
                None => plugin.env_remove(variable),
            };
        }
        plugin
    }

    /// CHECK, as it is after an ADD that said `result`.
    pub(crate) fn check(&self, result: &Value) -> Ran {
        self.clone().key("prevResult", result.clone()).run("CHECK")
    }
}

/// What a process of the plugin did.
pub(crate) fn ran(output: Output) -> Ran {
    let said = match output.stdout.trim_ascii() {
        [] => Value::Null,
        text => serde_json::from_slice(text).unwrap(),
    };
    Ran { ok: output.status.success(), said, stderr: String::from_utf8(output.stderr).unwrap() }
}

/// A container that the plugin wired, and what the plugin said of it.
pub(crate) fn container(node: &Node, name: &str) -> (Pod, Call, Value) {
    let netns = Netns::new(name);
    let call = Call::in_netns(node, name, &netns);
    let result = call.run("ADD").done();
    let addresses = addresses(&result).iter().map(|address| address.parse().unwrap()).collect();
    (Pod { netns, name: format!("{name}.eth0"), addresses }, call, result)
}

pub(crate) fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().unwrap();
    ips.iter().map(|ip| ip["address"].as_str().unwrap().to_owned()).collect()
}

/// What podwired says is attached.
pub(crate) fn attachments(node: &Node) -> Vec<Attachment> {
    ask(node, async |client| client.attachments().await)
}

/// Frees an address by force, as its operator may.
pub(crate) fn release(node: &Node, address: IpAddr) {
    let _ = ask(node, async |client| client.release_address(address, true).await);
}

fn ask<T>(node: &Node, question: impl AsyncFnOnce(&Client) -> Result<T, ClientError>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let asked = async { question(&Client::connect(&node.socket(), DEADLINE).await?).await };
    runtime.block_on(asked).unwrap()
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    wait::eventually(Duration::from_secs(5), what, holds);
}
