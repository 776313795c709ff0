//! A real container runtime: containerd with runc in a node's namespace, told what to do over the Kubernetes container
//! runtime interface, as a kubelet would.
//!
//! Its root, state and sockets are its own; what it mounts and runs is gone with the value.

mod image;

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::command;
use crate::netns::Netns;
use cri::runtime_service_client::RuntimeServiceClient;

/// The interface's messages.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, missing_debug_implementations)]
pub mod cri {
    include!(concat!(env!("OUT_DIR"), "/runtime.v1.rs"));
}

/// How long containerd may take to serve, and one call to be answered.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Where the controllers' hierarchies are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Seconds a command in a container may take.
const EXEC_SECONDS_MAX: i64 = 20;

/// A pod as a kubelet names it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sandbox {
    /// Its name.
    pub name: String,
    /// Ports of the node that lead to it: (port of the node, port of the pod), TCP.
    pub host_ports: Vec<(u16, u16)>,
    /// Annotations, such as `kubernetes.io/ingress-bandwidth`.
    pub annotations: Vec<(String, String)>,
}

/// containerd in a node's namespace.
#[derive(Debug)]
pub struct Containerd {
    folder: TempDir,
    process: Child,
    runtime: Runtime,
    client: RuntimeServiceClient<Channel>,
    /// Sandboxes that were not removed yet.
    sandboxes: Mutex<Vec<String>>,
}

impl Containerd {
    /// Starts it, with the CNI plugins and configurations of these folders.
    ///
    /// # Panics
    /// When it does not serve in time.
    #[must_use]
    #[track_caller]
    pub fn start(netns: &Netns, bin_dir: &Path, conf_dir: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("pwt-cri-").tempdir().expect("a temporary folder");
        let at = folder.path();
        fs::write(at.join("config.toml"), configuration(at, bin_dir, conf_dir)).expect("the configuration is written");
        let log = File::create(at.join("containerd.log")).expect("the log can be made");
        let mut command = netns.command(Path::new("containerd"));
        command.arg("--config").arg(at.join("config.toml"));
        command.stdout(log.try_clone().expect("a file can be cloned")).stderr(log);
        let process = command.spawn().expect("nsenter starts");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let socket = socket(at);
        let client = RuntimeServiceClient::new(runtime.block_on(async { channel(socket) }));
        let started = Self { folder, process, runtime, client, sandboxes: Mutex::default() };
        started.wait_until_ready();
        image::import(&started.folder.path().join("image"), &self::socket(started.folder.path()));
        started
    }

    #[track_caller]
    fn wait_until_ready(&self) {
        let deadline = Instant::now() + ANSWER_MAX;
        while self.conditions().is_err() {
            assert!(Instant::now() < deadline, "containerd does not serve in {ANSWER_MAX:?}: {}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What it says of itself, such as whether the network is ready, as (condition, holds, why not).
    ///
    /// # Errors
    /// containerd's own.
    pub fn conditions(&self) -> Result<Vec<(String, bool, String)>, tonic::Status> {
        let mut client = self.client.clone();
        let answer = self.runtime.block_on(client.status(cri::StatusRequest {}))?.into_inner();
        let conditions = answer.status.unwrap_or_default().conditions;
        Ok(conditions.into_iter().map(|one| (one.r#type, one.status, one.message)).collect())
    }

    /// Runs a pod's sandbox; gives its id.
    ///
    /// # Errors
    /// containerd's, with the plugin's in it.
    pub fn run(&self, sandbox: &Sandbox) -> Result<String, tonic::Status> {
        let request = cri::RunPodSandboxRequest { config: Some(self.config(sandbox)) };
        let mut client = self.client.clone();
        let id = self.runtime.block_on(client.run_pod_sandbox(request))?.into_inner().pod_sandbox_id;
        self.known().push(id.clone());
        Ok(id)
    }

    /// Name of its folder, which no other has.
    fn name(&self) -> String {
        self.folder.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.sandboxes.lock().expect("no other thread panicked with the list")
    }

    fn config(&self, sandbox: &Sandbox) -> cri::PodSandboxConfig {
        let mapping = |&(host_port, container_port): &(u16, u16)| cri::PortMapping {
            protocol: cri::Protocol::Tcp.into(),
            container_port: container_port.into(),
            host_port: host_port.into(),
            host_ip: String::new(),
        };
        cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: sandbox.name.clone(),
                uid: format!("uid-{}", sandbox.name),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: sandbox.name.clone(),
            log_directory: self.folder.path().join("logs").display().to_string(),
            port_mappings: sandbox.host_ports.iter().map(mapping).collect(),
            annotations: sandbox.annotations.iter().cloned().collect(),
            linux: Some(cri::LinuxPodSandboxConfig { cgroup_parent: format!("/{}", self.name()) }),
        }
    }

    /// A sandbox's addresses, the first one first.
    ///
    /// # Panics
    /// When there is no such sandbox.
    #[must_use]
    #[track_caller]
    pub fn addresses(&self, id: &str) -> Vec<IpAddr> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned() };
        let mut client = self.client.clone();
        let answer = self.runtime.block_on(client.pod_sandbox_status(request)).expect("the sandbox is known");
        let network = answer.into_inner().status.and_then(|status| status.network).unwrap_or_default();
        let texts = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|more| more.ip));
        texts.filter_map(|text| text.parse().ok()).collect()
    }

    /// Starts a container with busybox in a sandbox; gives its id.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    #[track_caller]
    pub fn container(&self, sandbox: &Sandbox, id: &str, command: &[&str]) -> String {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: id.to_owned(),
            config: Some(cri::ContainerConfig {
                metadata: Some(cri::ContainerMetadata { name: "c".into() }),
                image: Some(cri::ImageSpec { image: image::NAME.into() }),
                command: vec!["/bin/busybox".into()],
                args: command.iter().map(|word| (*word).to_owned()).collect(),
            }),
            sandbox_config: Some(self.config(sandbox)),
        };
        let mut client = self.client.clone();
        self.runtime.block_on(async {
            let made = client.create_container(request).await.expect("the container is made").into_inner();
            let container_id = made.container_id.clone();
            client.start_container(cri::StartContainerRequest { container_id }).await.expect("it starts");
            made.container_id
        })
    }

    /// Runs busybox in a container; gives its exit code and all it printed.
    ///
    /// # Panics
    /// When there is no such container.
    #[must_use]
    #[track_caller]
    pub fn exec(&self, container: &str, command: &[&str]) -> (i32, String) {
        let request = cri::ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: std::iter::once("/bin/busybox").chain(command.iter().copied()).map(str::to_owned).collect(),
            timeout: EXEC_SECONDS_MAX,
        };
        let mut client = self.client.clone();
        let done = self.runtime.block_on(client.exec_sync(request)).expect("the command runs").into_inner();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.exit_code, text(&done.stdout) + &text(&done.stderr))
    }

    /// Stops a sandbox and removes it with its containers.
    ///
    /// # Errors
    /// containerd's, with the plugin's in it; the sandbox stays then.
    pub fn remove(&self, id: &str) -> Result<(), tonic::Status> {
        let mut client = self.client.clone();
        self.runtime.block_on(async {
            client.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() }).await?;
            client.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() }).await
        })?;
        self.known().retain(|known| known != id);
        Ok(())
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("containerd.log")).unwrap_or_default()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("containerd's log:\n{}", self.log());
        }
        let left = self.known().clone();
        for id in left {
            if let Err(error) = self.remove(&id) {
                eprintln!("sandbox {id} is left: {}", error.message());
            }
        }
        let pid = Pid::from_raw(self.process.id().cast_signed());
        let _gone_already = kill(pid, Signal::SIGTERM);
        let _ended = self.process.wait();
        let mounts = command::run("findmnt", &["--raw", "--noheadings", "--output", "TARGET"]).stdout;
        // What was mounted last lies on top.
        for mount in mounts.lines().rev().filter(|mount| Path::new(mount).starts_with(self.folder.path())) {
            command::run("umount", &["--lazy", mount]);
        }
        for controller in fs::read_dir(CGROUPS).into_iter().flatten().flatten() {
            let _had_none = fs::remove_dir(controller.path().join(self.name()));
        }
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("c.sock")
}

fn channel(socket: PathBuf) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // containerd refuses an authority that is a path.
    Endpoint::from_static("http://localhost").timeout(ANSWER_MAX).connect_with_connector_lazy(connector)
}

/// As few plugins as CRI needs, nothing outside the folder, and what a machine without systemd and AppArmor needs.
fn configuration(folder: &Path, bin_dir: &Path, conf_dir: &Path) -> String {
    let (at, socket) = (folder.display(), socket(folder));
    let (socket, bin_dir, conf_dir, image) = (socket.display(), bin_dir.display(), conf_dir.display(), image::NAME);
    format!(
        r#"version = 2
root = "{at}/root"
state = "{at}/state"
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{image}"
restrict_oom_score_adj = true
disable_apparmor = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{bin_dir}"
conf_dir = "{conf_dir}"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"#
    )
}
