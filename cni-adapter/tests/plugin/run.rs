//! Running the plugin, and the service it speaks to.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::fake::{Fake, Running};

/// The container that the fake knows.
pub(crate) const CONTAINER: &str = "8e3f0a6b1c2d";

/// What the plugin did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) ok: bool,
    /// The one object it wrote; null for none.
    pub(crate) said: Value,
    pub(crate) stderr: String,
}

impl Ran {
    /// Says that it failed with a code, in words that hold `word`, by an object of the specification's form.
    #[track_caller]
    pub(crate) fn failed(&self, version: &str, code: u64, word: &str) {
        assert!(!self.ok, "it should fail: {self:?}");
        let mut keys: Vec<&String> = self.said.as_object().unwrap().keys().collect();
        keys.sort();
        assert_eq!(keys, ["cniVersion", "code", "details", "msg"]);
        assert_eq!((&self.said["cniVersion"], &self.said["code"]), (&json!(version), &json!(code)), "{self:?}");
        let text = format!("{} {}", self.said["msg"], self.said["details"]);
        assert!(text.contains(word), "no {word:?} in {text}");
    }

    /// Says that it succeeded without a word, as all but ADD and VERSION do.
    #[track_caller]
    pub(crate) fn done(&self) {
        assert!(self.ok && self.said.is_null(), "{self:?}");
    }
}

/// A call of the plugin, to be changed before it is run.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) environment: Vec<(&'static str, String)>,
    pub(crate) config: Value,
}

impl Call {
    /// A good one of a container that the fake knows.
    pub(crate) fn new(command: &str, version: &str, socket: &Path) -> Self {
        let environment = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", CONTAINER),
            ("CNI_NETNS", "/run/netns/none-of-this-name"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/nowhere"),
        ];
        let mut config =
            json!({"cniVersion": version, "name": "pods", "type": "podwire-cni", "socket": socket, "more": 1});
        match command {
            "CHECK" => {
                config["prevResult"] = json!({
                    "cniVersion": version,
                    "interfaces": [{"name": "eth0", "sandbox": "/run/netns/a"}],
                    "ips": [{"address": "10.244.1.10/24", "interface": 0}],
                });
            }
            "GC" => config["cni.dev/valid-attachments"] = json!([{"containerID": CONTAINER, "ifname": "eth0"}]),
            _ => {}
        }
        Self { environment: environment.map(|(key, value)| (key, value.to_owned())).into(), config }
    }

    /// With another variable; an empty one is not given.
    pub(crate) fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.environment.retain(|(known, _)| *known != key);
        self.environment.push((key, value.into()));
        self
    }

    /// With another key of the configuration.
    pub(crate) fn key(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    pub(crate) fn run(&self) -> Ran {
        let mut plugin = Command::new(env!("CARGO_BIN_EXE_podwire-cni"));
        plugin.env_clear().env("PATH", std::env::var("PATH").unwrap());
        plugin.envs(self.environment.iter().map(|(key, value)| (key, value)));
        let mut plugin = plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        plugin.stdin.take().unwrap().write_all(self.config.to_string().as_bytes()).unwrap();
        let output = plugin.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let said = match output.stdout.trim_ascii() {
            [] => Value::Null,
            text => serde_json::from_slice(text).unwrap(),
        };
        Ran { ok: output.status.success(), said, stderr }
    }
}

/// The fake service on a thread of its own, until it is dropped.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) fake: Arc<Fake>,
    pub(crate) socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    pub(crate) fn start() -> Self {
        let (ready, started) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = async move {
            let running = Running::start();
            ready.send((Arc::clone(&running.fake), running.socket.clone())).unwrap();
            let _ = stopped.await;
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let thread = std::thread::spawn(move || runtime.block_on(serve));
        let (fake, socket) = started.recv().unwrap();
        Self { fake, socket, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn call(&self, command: &str, version: &str) -> Call {
        Call::new(command, version, &self.socket)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join); // a panic of its own was told already
    }
}
