//! Network namespaces: open one by its path, know it again, and do something inside it.
//!
//! A thread that has entered another namespace is never reused: [`in_netns`] makes one for the purpose and ends it. Where many
//! are entered, [`visit_from_here`] saves that.
//! Which paths are allowed at all is the daemon's decision, not made here.

use std::cell::Cell;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};

use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

/// What can go wrong with a namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The path can not be opened.
    #[error("cannot open network namespace {}: {source}; check that the path exists and is readable", path.display())]
    Open {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The path is something else.
    #[error("{} is no network namespace: give a path as in /run/netns/NAME or /proc/PID/ns/net", path.display())]
    NotANamespace {
        /// The path.
        path: PathBuf,
    },
    /// The path is the namespace the switch or the node runs in.
    #[error("{} is the network namespace of the switch or of the node itself: give a pod's", path.display())]
    Own {
        /// The path.
        path: PathBuf,
    },
    /// Entering failed.
    #[error("cannot enter network namespace {}: {source}; the process needs CAP_SYS_ADMIN", path.display())]
    Enter {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No thread could be made.
    #[error("cannot start a thread to enter network namespace {}: {source}; raise the process limit", path.display())]
    Thread {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What makes a namespace the same one, whatever path leads to it. Numbers are reused only after it is gone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NetnsId {
    /// Device number of nsfs.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

impl From<Metadata> for NetnsId {
    /// Of a file of nsfs.
    fn from(file: Metadata) -> Self {
        Self { dev: file.dev(), ino: file.ino() }
    }
}

/// An open namespace. It stays alive while this is held, also when its path is gone.
#[derive(Debug)]
pub struct NetnsHandle {
    file: File,
    path: PathBuf,
    id: NetnsId,
}

impl NetnsHandle {
    /// Opens the namespace of a pod.
    ///
    /// # Errors
    /// When the path can not be opened, is no network namespace, or is the switch's or the node's own.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let handle = Self::open_any(path)?;
        // /proc/1 may be hidden or unreadable; then the switch's own namespace is all that can be compared.
        let own = [Path::new("/proc/thread-self/ns/net"), Path::new("/proc/1/ns/net")];
        if own.iter().any(|own| identity_of(own) == Some(handle.id)) {
            return Err(NetnsError::Own { path: path.to_owned() });
        }
        Ok(handle)
    }

    fn open_any(path: &Path) -> Result<Self, NetnsError> {
        let open_error = |source| NetnsError::Open { path: path.to_owned(), source };
        let not_a_namespace = || NetnsError::NotANamespace { path: path.to_owned() };
        // Looked at before it is opened: opening a pipe or a device node can block or do things.
        if !fs::metadata(path).map_err(open_error)?.is_file() {
            return Err(not_a_namespace());
        }
        let file = File::open(path).map_err(open_error)?;
        let system = fstatfs(&file).map_err(|errno| open_error(errno.into()))?;
        if system.filesystem_type() != NSFS_MAGIC || namespace_kind(&file) != Some(libc::CLONE_NEWNET) {
            return Err(not_a_namespace());
        }
        let id = file.metadata().map_err(open_error)?.into();
        Ok(Self { file, path: path.to_owned(), id })
    }

    /// Which namespace it is.
    #[must_use]
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for NetnsHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The kind of a namespace as its `CLONE_NEW` flag, or none when the file is no namespace (ioctl_ns(2)).
fn namespace_kind(file: &File) -> Option<i32> {
    // SAFETY: NS_GET_NSTYPE takes no argument and only reads the descriptor's kind.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), libc::NS_GET_NSTYPE) };
    (kind >= 0).then_some(kind)
}

/// The namespace a path leads to now, or none when it leads nowhere. After `ip netns del` and `add` of the same
/// name the path is there again, but the identity is another.
#[must_use]
pub fn identity_of(path: &Path) -> Option<NetnsId> {
    fs::metadata(path).ok().map(NetnsId::from)
}

/// Whether a path surely leads to a namespace no more: nowhere, or to another. What can not be looked at now, such as for want
/// of a permission, is not taken for gone.
#[must_use]
pub fn is_gone(path: &Path, id: NetnsId) -> bool {
    match fs::metadata(path) {
        Ok(metadata) => (NetnsId { dev: metadata.dev(), ino: metadata.ino() }) != id,
        Err(error) => matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    }
}

thread_local! {
    /// The own namespace of a thread that visits others, while it is there.
    static HOME: Cell<Option<NetnsHandle>> = const { Cell::new(None) };
}

/// Has the calling thread enter namespaces itself from now on, and come back, where [`in_netns`] makes a thread each time
/// otherwise. For short-lived threads that enter many.
///
/// # Errors
/// When its own namespace can not be opened; it makes threads then.
pub fn visit_from_here() -> Result<(), NetnsError> {
    let home = NetnsHandle::open_any(Path::new("/proc/thread-self/ns/net"))?;
    HOME.set(Some(home));
    Ok(())
}

/// Runs `work` inside the namespace, on a thread of its own that ends with it, and gives back its result.
/// Sockets and devices made there belong to the namespace for good.
///
/// # Errors
/// When the thread can not be made or may not enter. `work`'s own result is inside `Ok`.
///
/// # Panics
/// When `work` panics, or a visiting thread can not come back: in a namespace that is not its own it must do nothing more.
pub fn in_netns<T: Send>(netns: &NetnsHandle, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    let Some(home) = HOME.take() else { return on_thread_of_its_own(netns, work) };
    let done = enter(netns).map(|()| {
        let done = work();
        enter(&home).unwrap_or_else(|error| panic!("a visit does not end: {error}"));
        done
    });
    HOME.set(Some(home));
    done
}

fn on_thread_of_its_own<T: Send>(netns: &NetnsHandle, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("podwire-netns".into()).spawn_scoped(scope, || {
            enter(netns)?;
            Ok(work())
        });
        let thread = thread.map_err(|source| NetnsError::Thread { path: netns.path.clone(), source })?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

fn enter(netns: &NetnsHandle) -> Result<(), NetnsError> {
    let entered = setns(&netns.file, CloneFlags::CLONE_NEWNET);
    entered.map_err(|errno| NetnsError::Enter { path: netns.path.clone(), source: errno.into() })
}

/// The number of an interface of the calling thread's namespace, if there is one of that name. Asks less of the kernel than
/// netlink does.
#[must_use]
pub fn index_of(ifname: &str) -> Option<u32> {
    if_nametoindex(ifname).ok()
}

/// Sets one IPv6 setting of an interface of the calling thread's namespace, best effort: /proc/sys may be read-only,
/// or IPv6 not compiled in. Returns whether the kernel took it. There is no netlink message for these.
pub fn set_ipv6_conf(ifname: &str, key: &str, value: &str) -> bool {
    set_conf("ipv6", ifname, key, value)
}

/// Sets one IPv4 setting likewise.
pub fn set_ipv4_conf(ifname: &str, key: &str, value: &str) -> bool {
    set_conf("ipv4", ifname, key, value)
}

/// One IPv6 setting of an interface of the calling thread's namespace, where there are both.
#[must_use]
pub fn ipv6_conf(ifname: &str, key: &str) -> Option<String> {
    conf("ipv6", ifname, key)
}

/// One IPv4 setting likewise.
#[must_use]
pub fn ipv4_conf(ifname: &str, key: &str) -> Option<String> {
    conf("ipv4", ifname, key)
}

/// The interfaces of the calling thread's namespace that have IPv6 settings.
#[must_use]
pub fn ipv6_conf_interfaces() -> Vec<String> {
    let entries = fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name != "all" && name != "default").collect()
}

fn set_conf(family: &str, ifname: &str, key: &str, value: &str) -> bool {
    !ifname.contains('/') && fs::write(conf_path(family, ifname, key), value).is_ok()
}

fn conf(family: &str, ifname: &str, key: &str) -> Option<String> {
    let value = fs::read_to_string(conf_path(family, ifname, key)).ok()?;
    Some(value.trim_end().to_owned())
}

fn conf_path(family: &str, ifname: &str, key: &str) -> String {
    format!("/proc/sys/net/{family}/conf/{ifname}/{key}")
}

#[cfg(test)]
pub(crate) mod testing {
    //! A namespace for one test, gone with its guard.

    use std::path::PathBuf;
    use std::process::Command;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::{NetnsHandle, in_netns};

    /// A network namespace with a name of its own; removed when dropped.
    #[derive(Debug)]
    pub(crate) struct TestNetns {
        pub(crate) name: String,
    }

    impl TestNetns {
        pub(crate) fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces: run it as root");
            let name = format!("pwt-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            run("ip", &["netns", "add", &name]);
            Self { name }
        }

        pub(crate) fn path(&self) -> PathBuf {
            PathBuf::from("/run/netns").join(&self.name)
        }

        pub(crate) fn handle(&self) -> NetnsHandle {
            NetnsHandle::open(&self.path()).unwrap()
        }

        /// Runs `work` inside.
        pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
            in_netns(&self.handle(), work).unwrap()
        }

        /// `ip ARGS` inside; its standard output.
        pub(crate) fn ip(&self, args: &str) -> String {
            let mut all = vec!["-n", &self.name];
            all.extend(args.split_whitespace());
            run("ip", &all)
        }
    }

    impl Drop for TestNetns {
        fn drop(&mut self) {
            let _gone = Command::new("ip").args(["netns", "del", &self.name]).status();
        }
    }

    /// Two namespaces on one wire: `nic` ending in 1 in the first, `far` ending in 2 in the second, of both families.
    pub(crate) fn wire() -> (TestNetns, TestNetns) {
        let (near, far) = (TestNetns::new(), TestNetns::new());
        near.ip(&format!("link add nic type veth peer name far netns {}", far.name));
        for (netns, link, host) in [(&near, "nic", 1), (&far, "far", 2)] {
            netns.ip(&format!("addr add 10.9.0.{host}/24 dev {link}"));
            netns.ip(&format!("addr add fd00:9::{host}/64 dev {link} nodad"));
            netns.ip(&format!("link set {link} up"));
        }
        (near, far)
    }

    pub(crate) fn run(program: &str, args: &[&str]) -> String {
        let output = Command::new(program).args(args).output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{TestNetns, run};
    use super::*;

    fn refusal(path: &str) -> NetnsError {
        NetnsHandle::open(Path::new(path)).unwrap_err()
    }

    #[test]
    fn what_is_no_network_namespace_is_refused() {
        assert!(matches!(refusal("/run/netns/podwire-nowhere"), NetnsError::Open { .. }));
        assert!(matches!(refusal("/etc/passwd"), NetnsError::NotANamespace { .. }));
        assert!(matches!(refusal("/dev/zero"), NetnsError::NotANamespace { .. }));
        assert!(matches!(refusal("/proc/self/ns/mnt"), NetnsError::NotANamespace { .. }));
    }

    #[test]
    fn the_switchs_own_namespace_is_refused_whatever_the_path() {
        assert!(matches!(refusal("/proc/self/ns/net"), NetnsError::Own { .. }));
        assert!(matches!(refusal(&format!("/proc/{}/ns/net", std::process::id())), NetnsError::Own { .. }));
    }

    #[test]
    fn work_runs_inside_and_the_calling_thread_stays_outside() {
        let netns = TestNetns::new();
        let handle = netns.handle();
        let own = identity_of(Path::new("/proc/thread-self/ns/net"));
        let inside = in_netns(&handle, || identity_of(Path::new("/proc/thread-self/ns/net"))).unwrap();
        assert_eq!(inside, Some(handle.id()));
        assert_ne!(inside, own);
        assert_eq!(identity_of(Path::new("/proc/thread-self/ns/net")), own);
    }

    #[test]
    fn a_thread_that_visits_enters_itself_and_comes_back() {
        let pods = [TestNetns::new(), TestNetns::new()];
        let place = || (nix::unistd::gettid(), identity_of(Path::new("/proc/thread-self/ns/net")));
        std::thread::spawn(move || {
            visit_from_here().unwrap();
            let own = place();
            let [first, second] = [pods[0].handle(), pods[1].handle()];
            for netns in [&first, &second] {
                assert_eq!(in_netns(netns, place).unwrap(), (own.0, Some(netns.id())));
                assert_eq!(place(), own);
            }
            let nested = in_netns(&first, || (in_netns(&second, place).unwrap().1, place().1)).unwrap();
            assert_eq!(nested, (Some(second.id()), Some(first.id())));
            assert_eq!(place(), own);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_namespace_made_anew_under_the_same_path_is_another() {
        let netns = TestNetns::new();
        let first = netns.handle();
        assert_eq!(identity_of(&netns.path()), Some(first.id()));
        run("ip", &["netns", "del", &netns.name]);
        assert_ne!(identity_of(&netns.path()), Some(first.id()));
        run("ip", &["netns", "add", &netns.name]);
        assert_ne!(identity_of(&netns.path()), Some(first.id()));
        assert!(identity_of(&netns.path()).is_some());
    }
}
