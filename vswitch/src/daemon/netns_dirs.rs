//! Where the namespaces of pods may be: who may state ports shall not make podwired enter just any namespace.
//!
//! Judges paths only. That there is a network namespace, and not the node's own, is seen when it is opened.

use std::fs;
use std::path::{Path, PathBuf};

/// Where they are when the configuration says nothing: `ip netns`, processes, Docker, containerd, and containers
/// without root.
pub const DEFAULT: &[&str] = &[
    "/run/netns",
    "/var/run/netns",
    "/proc",
    "/run/docker/netns",
    "/var/run/docker/netns",
    "/run/containerd",
    "/run/user",
];

/// Symbolic links that are followed one after the other: as many as the kernel does (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// A path leads out of the directories where namespaces may be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "network namespace {} is not below {}; give a path there, or add its directory to node.netns_dirs",
    shown(path, resolved),
    list(dirs)
)]
pub struct OutsideNetnsDirs {
    path: PathBuf,
    /// Where it leads.
    resolved: PathBuf,
    dirs: Vec<PathBuf>,
}

/// Checks where a path leads.
///
/// # Errors
/// [`OutsideNetnsDirs`] when that is below none of the directories.
pub fn check(path: &Path, dirs: &[PathBuf]) -> Result<(), OutsideNetnsDirs> {
    // A path that leads nowhere is taken as it stands; opening it will say so.
    let resolved = resolve(path).unwrap_or_else(|| path.to_owned());
    let below = |dir: &PathBuf| resolved.starts_with(fs::canonicalize(dir).as_deref().unwrap_or(dir));
    if dirs.iter().any(below) {
        return Ok(());
    }
    Err(OutsideNetnsDirs { path: path.to_owned(), resolved, dirs: dirs.to_vec() })
}

/// The path without symbolic links. A link of /proc is where the way ends: `/proc/7/ns/net` reads as
/// `net:[4026531840]`, which is no path.
fn resolve(path: &Path) -> Option<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let parent = fs::canonicalize(path.parent()?).ok()?;
        let here = parent.join(path.file_name()?);
        match fs::read_link(&here) {
            Ok(target) if !parent.starts_with("/proc") => path = parent.join(target),
            _ => return Some(here),
        }
    }
    None
}

fn shown(path: &Path, resolved: &Path) -> String {
    if path == resolved {
        return path.display().to_string();
    }
    format!("{} (which leads to {})", path.display(), resolved.display())
}

fn list(dirs: &[PathBuf]) -> String {
    let dirs: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    dirs.join(", ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_counts_is_where_a_path_leads() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for dir in ["netns", "netns/deep", "else", "netns-not"] {
            fs::create_dir(at(dir)).unwrap();
        }
        for file in ["netns/pod", "netns/deep/pod", "else/pod", "netns-not/pod"] {
            fs::write(at(file), "").unwrap();
        }
        let links =
            [("else/in", "../netns/pod"), ("netns/out", "../else/pod"), ("netns/twice", "out"), ("dir", "netns")];
        for (link, target) in links {
            symlink(target, at(link)).unwrap();
        }
        symlink(at("netns/loop"), at("netns/loop")).unwrap();
        symlink("/proc/self/ns/net", at("netns/process")).unwrap();
        symlink("/proc/self/ns/net", at("else/process")).unwrap();
        let dirs = [at("dir"), at("nowhere"), PathBuf::from("/proc")];
        for (path, allowed) in [
            ("netns/pod", true),
            ("netns/deep/pod", true),
            ("dir/pod", true),
            ("else/../netns/pod", true),
            ("else/in", true),
            ("else/process", true),
            ("netns/process", true),
            ("nowhere/pod", true),
            ("else/pod", false),
            ("netns-not/pod", false),
            ("netns/../else/pod", false),
            ("netns/out", false),
            ("netns/twice", false),
        ] {
            assert_eq!(check(&at(path), &dirs).is_ok(), allowed, "{path}: {:?}", check(&at(path), &dirs));
        }
        for process in ["/proc/self/ns/net", "/proc/1/ns/net", "/proc/1/root/proc/1/ns/net"] {
            assert_eq!(check(Path::new(process), &dirs), Ok(()), "{process}");
        }
        // Out of another process' root into this one's.
        let through = PathBuf::from(format!("/proc/self/root{}", at("else/pod").display()));
        assert!(check(&through, &dirs).is_err());
    }

    #[test]
    fn a_refusal_names_the_path_where_it_leads_and_what_to_do() {
        let dirs = ["/run/netns".into(), "/proc".into()];
        let error = check(Path::new("/etc/../etc/hostname"), &dirs).unwrap_err().to_string();
        for part in ["/etc/../etc/hostname (which leads to /etc/hostname)", "/run/netns, /proc", "node.netns_dirs"] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }
}
