//! Network namespaces that exist as long as a value does, and the cables between them.
//!
//! Both ends of a cable are made inside their namespaces, so the root namespace never sees one.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use podwire_vswitch::sys::netns::{NetnsHandle, in_netns};
use serde::{Deserialize, Serialize};

use super::command::{Missing, must, output};

/// What a cable between two nodes does for the stacks at its ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wire {
    /// Checksums and segmentation, as an untouched veth and a good NIC do
    #[default]
    Offloads,
    /// Nothing: complete packets only
    Plain,
}

/// A network namespace of its own, removed when dropped.
#[derive(Debug)]
pub(crate) struct Netns {
    name: String,
    label: String,
    handle: NetnsHandle,
}

impl Netns {
    /// Makes a namespace with `lo` up; `label` is for the reader of `ip netns` and of the report.
    pub(crate) fn new(label: &str) -> Result<Self> {
        Ok(Self::batch(&[label.to_owned()])?.remove(0))
    }

    /// Makes many at once, which is quicker than one after the other.
    pub(crate) fn batch(labels: &[String]) -> Result<Vec<Self>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = |label: &String| {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            format!("pwf{}-{number}-{label}", std::process::id())
        };
        let names: Vec<String> = labels.iter().map(name).collect();
        // What one call left half done is removed with it.
        let leftovers = Leftovers(&names);
        ip_batch(&names.iter().fold(String::new(), |mut lines, name| {
            let _ = writeln!(lines, "netns add {name}");
            lines
        }))?;
        let open = |(name, label): (&String, &String)| {
            let handle = NetnsHandle::open(&path_of(name))?;
            Ok(Self { name: name.clone(), label: label.clone(), handle })
        };
        let made: Result<Vec<Self>> = names.iter().zip(labels).map(open).collect();
        let made = made?;
        std::mem::forget(leftovers);
        for netns in &made {
            netns.ip("link set lo up")?;
        }
        Ok(made)
    }

    /// Name, as `ip netns` lists it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What it is in its side, such as `pod-1`.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// Path of the namespace's nsfs file.
    pub(crate) fn path(&self) -> PathBuf {
        path_of(&self.name)
    }

    /// Runs `work` on a thread that lives inside; sockets and processes made there belong to the namespace for good.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        Ok(in_netns(&self.handle, work)?)
    }

    /// `ip LINE` for this namespace.
    pub(crate) fn ip(&self, line: &str) -> Result<String> {
        must(&format!("ip -n {} {line}", self.name))
    }

    /// Runs a program inside to its end.
    pub(crate) fn exec(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let line = format!("{program} {} (in {})", arguments.join(" "), self.name);
        self.enter(|| output(Command::new(program).args(arguments), &line))?
    }

    /// Adds an address and brings the interface up.
    pub(crate) fn address(&self, interface: &str, address: IpNet) -> Result<()> {
        self.ip(&format!("address add {address} dev {interface}"))?;
        self.up(interface)
    }

    pub(crate) fn up(&self, interface: &str) -> Result<()> {
        self.ip(&format!("link set {interface} up")).map(drop)
    }

    /// Sets a file below /proc/sys of the namespace.
    pub(crate) fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = sysctl_path(key);
        let written = self.enter(|| fs::write(&path, value))?;
        written.with_context(|| format!("cannot set {key} to {value} in {}", self.name))
    }

    /// Reads a file below /proc/sys of the namespace; none when there is no such setting.
    pub(crate) fn read_sysctl(&self, key: &str) -> Result<Option<String>> {
        let text = self.enter(|| fs::read_to_string(sysctl_path(key)).ok())?;
        Ok(text.map(|text| text.trim().to_owned()))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = must(&format!("ip netns del {}", self.name)) {
            eprintln!("podwire-perf: namespace {} was left behind: {error:#}", self.name);
        }
    }
}

/// Removes what a failed batch has made.
struct Leftovers<'a>(&'a [String]);

impl Drop for Leftovers<'_> {
    fn drop(&mut self) {
        for name in self.0.iter().filter(|name| path_of(name).exists()) {
            let _gone = must(&format!("ip netns del {name}"));
        }
    }
}

fn path_of(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

fn sysctl_path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key.replace('.', "/"))
}

/// A label with what a namespace's name may not have replaced.
pub(crate) fn clear_name(text: &str) -> String {
    let clear = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    text.chars().map(clear).take(40).collect()
}

/// A veth cable between two namespaces. Its ends are down until they get an address or [`Netns::up`].
pub(crate) fn cable(a: (&Netns, &str), b: (&Netns, &str), mtu: u16, wire: Wire) -> Result<()> {
    must(&format!(
        "ip link add {} netns {} mtu {mtu} type veth peer name {} netns {} mtu {mtu}",
        a.1,
        a.0.name(),
        b.1,
        b.0.name()
    ))?;
    if wire == Wire::Plain {
        for (netns, interface) in [a, b] {
            netns.exec("ethtool", &["-K", interface, "tx", "off", "tso", "off", "gso", "off", "gro", "off"])?;
        }
    }
    Ok(())
}

fn ip_batch(lines: &str) -> Result<()> {
    let mut ip = Command::new("ip");
    ip.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = ip.spawn().map_err(|_| Missing::new("ip"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(lines.as_bytes()).context("cannot write to ip -batch")?;
    }
    let ended = child.wait_with_output().context("cannot wait for ip -batch")?;
    if !ended.status.success() {
        bail!("`ip -batch` failed at {:?}: {}", lines.lines().next(), String::from_utf8_lossy(&ended.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_of_what_names_may_have() {
        assert_eq!(clear_name("podwire poll=busy/2"), "podwire-poll-busy-2");
        assert_eq!(clear_name(&"x".repeat(100)).len(), 40);
    }
}
