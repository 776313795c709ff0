//! Network namespaces that exist as long as a value does, and the wires between them.
//!
//! Names are unique over processes and threads. A veth pair is made with both ends inside their namespaces,
//! so the root namespace never sees it.

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use ipnet::IpNet;
use nix::sched::{CloneFlags, setns};

use crate::command::{self, Outcome};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A network namespace of its own, deleted when dropped together with the processes it spawned.
#[derive(Debug)]
pub struct Netns {
    name: String,
    children: Mutex<Vec<Child>>,
}

/// What a veth cable between two namespaces is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wire {
    /// MTU of both ends in bytes.
    pub mtu: u16,
    /// Whether both ends offload checksums and segmentation, as an untouched veth does.
    pub offloads: bool,
}

impl Default for Wire {
    fn default() -> Self {
        Self { mtu: 1500, offloads: true }
    }
}

impl Netns {
    /// Makes a namespace with `lo` up; `label` is for the reader of `ip netns`.
    ///
    /// # Panics
    /// Without root, since only root may make namespaces.
    #[must_use]
    #[track_caller]
    pub fn new(label: &str) -> Self {
        require_root();
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let random = RandomState::new().hash_one(number) & 0xffff;
        let name = format!("pwt-{}-{number}-{random:04x}-{label}", std::process::id());
        command::must(&format!("ip netns add {name}"));
        let netns = Self { name, children: Mutex::new(Vec::new()) };
        netns.ip("link set lo up");
        netns
    }

    /// Name, as `ip netns` lists it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Path of the namespace's nsfs file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Runs a program inside and waits for its end. The mount namespace stays as it is, unlike with `ip netns exec`.
    #[track_caller]
    pub fn exec<S: AsRef<str>>(&self, program: &str, arguments: &[S]) -> Outcome {
        let mut all = vec![format!("--net={}", self.path().display()), program.to_owned()];
        all.extend(arguments.iter().map(|argument| argument.as_ref().to_owned()));
        command::run("nsenter", &all)
    }

    /// Whether it has an interface of this name.
    #[must_use]
    #[track_caller]
    pub fn has_interface(&self, name: &str) -> bool {
        self.exec("test", &["-d", &format!("/proc/sys/net/ipv4/conf/{name}")]).ok()
    }

    /// Runs `ip LINE` for this namespace and expects success.
    ///
    /// # Panics
    /// When `ip` refuses.
    #[track_caller]
    pub fn ip(&self, line: &str) -> String {
        command::must(&format!("ip -n {} {line}", self.name))
    }

    /// A command that will run inside; `nsenter` replaces itself, so the child's pid is the program's.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg(program).stdin(Stdio::null());
        command
    }

    /// Starts a program inside that is killed with the namespace; its output is thrown away.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn spawn<S: AsRef<str>>(&self, program: &str, arguments: &[S]) -> u32 {
        let mut command = self.command(Path::new(program));
        command.args(arguments.iter().map(AsRef::as_ref)).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("{program} did not start: {error}"));
        let pid = child.id();
        self.children.lock().expect("no other thread panicked with the list").push(child);
        pid
    }

    /// Runs `body` on a thread that lives inside the namespace. A panic inside goes on in the caller.
    ///
    /// # Panics
    /// When the namespace cannot be entered, or `body` panics.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            self.join_thread();
            body()
        };
        match thread::scope(|scope| scope.spawn(inside).join()) {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Moves the calling thread into the namespace, for the rest of its life.
    ///
    /// # Panics
    /// When the namespace cannot be entered.
    pub fn join_thread(&self) {
        let file = File::open(self.path()).expect("a namespace has an nsfs file while its value lives");
        setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter a network namespace");
    }

    /// Sets a sysctl of the namespace, such as `net.ipv4.ip_forward`. A `/` stands for a dot inside a name.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[track_caller]
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        let result = self.enter(|| fs::write(&path, value));
        assert!(result.is_ok(), "{} could not be set to {value}: {result:?}", path.display());
    }

    /// Interfaces made from now on use their IPv6 addresses at once. Otherwise a new interface's link-local address is
    /// tentative for a second or two, and a router without one solicits no neighbours: the first packets get lost.
    #[track_caller]
    pub fn skip_address_detection(&self) {
        for scope in ["all", "default"] {
            self.sysctl(&format!("net.ipv6.conf.{scope}.accept_dad"), "0");
        }
    }

    /// Adds an address; an IPv6 one is usable at once, without duplicate address detection.
    #[track_caller]
    pub fn address(&self, interface: &str, address: IpNet) {
        let nodad = if address.addr().is_ipv6() { " nodad" } else { "" };
        self.ip(&format!("addr add {address} dev {interface}{nodad}"));
    }

    /// Switches the transmit offloads of an interface on or off.
    ///
    /// # Panics
    /// When ethtool fails.
    #[track_caller]
    pub fn offloads(&self, interface: &str, on: bool) {
        let state = if on { "on" } else { "off" };
        let arguments = ["-K", interface, "tx", state, "tso", state, "gso", state, "gro", state];
        let _ = self.exec("ethtool", &arguments).expect("offloads could not be set");
    }

    /// MAC address of an interface, as text.
    ///
    /// # Panics
    /// When there is no such interface.
    #[must_use]
    #[track_caller]
    pub fn mac(&self, interface: &str) -> String {
        let text = self.ip(&format!("-j link show dev {interface}"));
        let links: serde_json::Value = serde_json::from_str(&text).expect("ip -j prints JSON");
        links[0]["address"].as_str().expect("an Ethernet interface has an address").to_owned()
    }

    /// A veth cable between two namespaces, both ends up, with the given interface names.
    #[track_caller]
    pub fn veth(a: (&Self, &str), b: (&Self, &str), wire: Wire) {
        let ((a, a_name), (b, b_name)) = (a, b);
        command::must(&format!(
            "ip link add {a_name} netns {} mtu {mtu} type veth peer name {b_name} netns {} mtu {mtu}",
            a.name,
            b.name,
            mtu = wire.mtu
        ));
        for (netns, name) in [(a, a_name), (b, b_name)] {
            if !wire.offloads {
                netns.offloads(name, false);
            }
            netns.ip(&format!("link set {name} up"));
        }
    }

    /// Adds a default route of the gateway's family.
    #[track_caller]
    pub fn default_route(&self, gateway: IpAddr) {
        self.ip(&format!("route add default via {gateway}"));
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let children = self.children.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        for child in children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let outcome = command::run("ip", &["netns", "del", &self.name]);
        if !outcome.ok() {
            eprintln!("namespace {} was left behind: {}", self.name, outcome.stderr);
        }
    }
}

/// Ends the test with a sentence unless it runs as root.
///
/// # Panics
/// When it does not.
#[track_caller]
pub fn require_root() {
    let root = nix::unistd::geteuid().is_root();
    assert!(root, "this test needs root, since it makes network namespaces: run `make test` as root or with sudo");
}
