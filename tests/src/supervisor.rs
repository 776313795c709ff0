//! A service manager, as far as podwired needs one: hears what it is told (sd_notify(3)), keeps descriptors, and hands
//! them to the next process it starts.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;

use crate::netns::Netns;

/// First descriptor that is handed over.
const LISTEN_FDS_START: i32 = 3;
/// How often it looks whether it is to end.
const TICK: Duration = Duration::from_millis(20);

/// What was heard of one process after the other.
#[derive(Debug, Default)]
struct Heard {
    said: Vec<String>,
    kept: Vec<(String, OwnedFd)>,
}

/// A service manager with one service.
#[derive(Debug)]
pub struct Supervisor {
    folder: TempDir,
    /// After how much silence it would take the service for dead; it only tells, and does not kill.
    watchdog: Option<Duration>,
    heard: Arc<Mutex<Heard>>,
    ends: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// One that listens.
    ///
    /// # Panics
    /// When its socket cannot be made.
    #[must_use]
    pub fn new(watchdog: Option<Duration>) -> Self {
        let folder = tempfile::Builder::new().prefix("podwire-supervisor-").tempdir().expect("a temporary folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket can be made");
        socket.set_read_timeout(Some(TICK)).expect("a socket takes a timeout");
        let (heard, ends) = (Arc::<Mutex<Heard>>::default(), Arc::<AtomicBool>::default());
        let (to, until) = (Arc::clone(&heard), Arc::clone(&ends));
        let listener = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                if let Some((said, descriptors)) = receive(&socket) {
                    to.lock().unwrap_or_else(PoisonError::into_inner).take(said, descriptors);
                }
            }
        });
        Self { folder, watchdog, heard, ends, listener: Some(listener) }
    }

    /// A command that runs a program inside a namespace as this manager's service, with what is kept.
    ///
    /// # Panics
    /// When a descriptor cannot be copied.
    #[must_use]
    pub fn command(&self, netns: &Netns, program: &Path) -> Command {
        let mut command = netns.command(Path::new("/bin/sh"));
        // Only the process itself knows its number.
        command.args(["-c", "export LISTEN_PID=$$ WATCHDOG_PID=$$; exec \"$@\"", "sh"]).arg(program);
        command.env("NOTIFY_SOCKET", self.folder.path().join("notify"));
        if let Some(watchdog) = self.watchdog {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        let heard = self.heard();
        let names: Vec<&str> = heard.kept.iter().map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        }
        let copies = heard.kept.iter().map(|(_, kept)| kept.try_clone().expect("a descriptor can be copied"));
        let mapped = (LISTEN_FDS_START..).zip(copies).map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd });
        command.fd_mappings(mapped.collect()).expect("no number is given twice");
        command
    }

    /// Names of what is kept, sorted.
    #[must_use]
    pub fn kept(&self) -> Vec<String> {
        let mut names: Vec<String> = self.heard().kept.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }

    /// Keeps a descriptor under a name, as if the service had asked for it.
    pub fn keep(&self, name: &str, descriptor: OwnedFd) {
        self.heard().kept.push((name.to_owned(), descriptor));
    }

    /// Lines said since the last call, such as `READY=1`.
    #[must_use]
    pub fn said(&self) -> Vec<String> {
        std::mem::take(&mut self.heard().said)
    }

    /// Waits until a line comes that starts so, and gives all lines up to now.
    ///
    /// # Panics
    /// When it does not come in time.
    #[track_caller]
    pub fn wait_for(&self, start: &str, longest: Duration) -> Vec<String> {
        let (began, mut said) = (Instant::now(), self.said());
        while !said.iter().any(|line| line.starts_with(start)) {
            assert!(began.elapsed() < longest, "no {start} in {longest:?}, only {said:?}");
            thread::sleep(TICK);
            said.extend(self.said());
        }
        said
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

impl Heard {
    fn take(&mut self, said: String, descriptors: Vec<OwnedFd>) {
        let lines: Vec<&str> = said.lines().collect();
        let name = lines.iter().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored").to_owned();
        if lines.contains(&"FDSTORE=1") {
            assert!(lines.contains(&"FDPOLL=0"), "a manager that polls a TAP is woken by each frame: {said}");
            self.kept.extend(descriptors.into_iter().map(|descriptor| (name.clone(), descriptor)));
        } else if lines.contains(&"FDSTOREREMOVE=1") {
            self.kept.retain(|(kept, _)| *kept != name);
        }
        self.said.extend(lines.into_iter().map(str::to_owned));
    }
}

fn receive(socket: &UnixDatagram) -> Option<(String, Vec<OwnedFd>)> {
    let (mut text, mut space) = ([0; 4096], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))]);
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut ancillary, RecvFlags::CMSG_CLOEXEC).ok()?;
    let rights = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = rights.flatten().collect();
    Some((String::from_utf8_lossy(&text[..received.bytes]).into_owned(), descriptors))
}
