//! Detaching that has to wait: what the CNI plugin was told to take away while podwired was not there.
//!
//! A directory with an empty file an attachment, named after it; podwired carries it out when it starts, or as soon as it
//! sees it, and then removes the file. An empty file needs no space of a full disk but its name's.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::model::{AttachmentKey, IFNAME_BYTES_MAX};

/// Where it is unless it is configured otherwise: `spool` in podwired's state directory.
pub const DIR: &str = "/var/lib/podwire/spool";

/// Between the container's id, which has none, and the interface's name.
const SEPARATOR: char = '@';

/// Notes that an attachment is to be taken away. Durable when it returns.
///
/// # Errors
/// The file system's.
pub fn add(dir: &Path, key: &AttachmentKey) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    if key.ifname.contains('/') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{:?} is no interface name", key.ifname)));
    }
    File::create(path(dir, key))?.sync_all()?;
    File::open(dir)?.sync_all()
}

/// All that is noted. Files of other names are left alone.
///
/// # Errors
/// The file system's. A directory that is not there holds nothing.
pub fn pending(dir: &Path) -> io::Result<Vec<AttachmentKey>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut keys = Vec::new();
    for entry in entries {
        keys.extend(entry?.file_name().to_str().and_then(key));
    }
    Ok(keys)
}

/// Forgets one, when it is taken away. One that is not noted is fine.
///
/// # Errors
/// The file system's.
pub fn remove(dir: &Path, key: &AttachmentKey) -> io::Result<()> {
    match fs::remove_file(path(dir, key)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn path(dir: &Path, key: &AttachmentKey) -> PathBuf {
    dir.join(format!("{}{SEPARATOR}{}", key.container, key.ifname))
}

fn key(name: &str) -> Option<AttachmentKey> {
    let (container, ifname) = name.split_once(SEPARATOR)?;
    let is_name = !ifname.is_empty() && ifname.len() <= IFNAME_BYTES_MAX;
    Some(AttachmentKey { container: container.parse().ok().filter(|_| is_name)?, ifname: ifname.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(container: &str, ifname: &str) -> AttachmentKey {
        AttachmentKey { container: container.parse().unwrap(), ifname: ifname.to_owned() }
    }

    #[test]
    fn what_is_noted_is_pending_until_it_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state/spool");
        assert_eq!(pending(&dir).unwrap(), []);
        let (a, b) = (attachment("a.b_c-1", "eth0"), attachment("a.b_c-1", "net@1"));
        for key in [&a, &b, &a] {
            add(&dir, key).unwrap();
        }
        fs::write(dir.join("README"), "not ours").unwrap();
        fs::write(dir.join("-x@eth0"), "").unwrap();
        let mut found = pending(&dir).unwrap();
        found.sort();
        assert_eq!(found, [a.clone(), b.clone()]);
        remove(&dir, &a).unwrap();
        remove(&dir, &a).unwrap();
        assert_eq!(pending(&dir).unwrap(), [b]);
        assert!(add(&dir, &attachment("c", "../../out")).is_err());
    }
}
