//! What containers have on the switch: by whom, in which namespace, under which port.
//!
//! Pure. What the pipeline needs of an attachment is its port, an object of the owner `cni`; what only container runtimes
//! speak of stands here.

use std::collections::BTreeMap;

use ipnet::IpNet;
use podwire_control::model::{AttachmentKey, ContainerId, PortName};

use super::nat::Mapping;
use super::store::StoredAttachment;

/// All attachments.
#[derive(Clone, Debug, Default)]
pub struct Attachments {
    by_key: BTreeMap<AttachmentKey, StoredAttachment>,
}

impl Attachments {
    /// Those that the store remembers.
    #[must_use]
    pub fn new(all: impl IntoIterator<Item = StoredAttachment>) -> Self {
        Self { by_key: all.into_iter().map(|one| (one.attachment.key.clone(), one)).collect() }
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, key: &AttachmentKey) -> Option<&StoredAttachment> {
        self.by_key.get(key)
    }

    /// All, in order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &StoredAttachment> {
        self.by_key.values()
    }

    /// The addresses that those have that were leased theirs.
    pub fn leases(&self) -> impl Iterator<Item = (AttachmentKey, Vec<IpNet>)> {
        let attachments = self.iter().map(|one| &one.attachment);
        let leased = attachments.filter(|attachment| attachment.leased);
        leased.map(|attachment| (attachment.key.clone(), attachment.addresses.clone()))
    }

    /// The node's ports that lead to them.
    #[must_use]
    pub fn mappings(&self) -> Vec<Mapping> {
        self.mappings_without(&[])
    }

    /// The node's ports that lead to others than these.
    #[must_use]
    pub fn mappings_without(&self, gone: &[AttachmentKey]) -> Vec<Mapping> {
        let attachments = self.iter().map(|one| &one.attachment).filter(|one| !gone.contains(&one.key));
        attachments.flat_map(|one| Mapping::of_pod(&one.host_ports, &one.addresses)).collect()
    }

    /// Puts one in the place of that of before.
    pub fn insert(&mut self, one: StoredAttachment) {
        self.by_key.insert(one.attachment.key.clone(), one);
    }

    /// Forgets one.
    pub fn remove(&mut self, key: &AttachmentKey) {
        self.by_key.remove(key);
    }

    /// A name for an attachment's port: that of before, or a new one for which `is_free` holds.
    ///
    /// # Panics
    /// Never: a container's id begins as a port's name must.
    #[must_use]
    pub fn port_name(&self, key: &AttachmentKey, is_free: impl Fn(&PortName) -> bool) -> PortName {
        match self.by_key.get(key) {
            Some(known) => known.attachment.port.clone(),
            None => names(&key.container, &key.ifname).find(is_free).expect("there are more names than ports"),
        }
    }
}

/// `8e3f0a6b1c2d4.eth0`, then `8e3f0a6b1c2d4.eth0-2` and so on.
fn names(container: &ContainerId, ifname: &str) -> impl Iterator<Item = PortName> {
    let shown = container.short().to_owned();
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || "-_.".contains(letter) { letter } else { '-' };
    let ifname: String = ifname.chars().map(plain).collect();
    (1_u32..).filter_map(move |number| match number {
        1 => format!("{shown}.{ifname}").parse().ok(),
        _ => format!("{shown}.{ifname}-{number}").parse().ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(container: &str, ifname: &str, taken: &[&str]) -> String {
        let key = AttachmentKey { container: container.parse().unwrap(), ifname: ifname.to_owned() };
        Attachments::default().port_name(&key, |name| !taken.contains(&name.as_str())).to_string()
    }

    #[test]
    fn a_port_is_named_after_container_and_interface_and_never_as_another() {
        let sandbox = "8e3f0a6b1c2d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7";
        assert_eq!(named(sandbox, "eth0", &[]), "8e3f0a6b1c2d4.eth0");
        assert_eq!(named(sandbox, "eth0", &["8e3f0a6b1c2d4.eth0"]), "8e3f0a6b1c2d4.eth0-2");
        assert_eq!(named("c", "net@1", &["c.net-1", "c.net-1-2"]), "c.net-1-3");
    }
}
