//! A program that runs beside a measurement: stopped while another side is measured, ended with its side.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Missing, Netns, Spender};

/// How long it may take to end after SIGTERM.
const END_MAX: Duration = Duration::from_secs(3);
const STEP: Duration = Duration::from_millis(10);

/// A running program, its output in a log file.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command inside a namespace.
    pub(crate) fn start(netns: &Netns, mut command: Command, log: &Path) -> Result<Self> {
        let program = command.get_program().to_owned();
        let name = Path::new(&program).file_name().unwrap_or(&program).to_string_lossy().into_owned();
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let other = file.try_clone().with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file).stderr(other);
        let child = match netns.enter(|| command.spawn())? {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Missing::new(&name).into()),
            spawned => spawned.with_context(|| format!("cannot start {name}"))?,
        };
        Ok(Self { name, child, log: log.to_owned() })
    }

    /// Whose CPU time counts for the side.
    pub(crate) fn spender(&self) -> Spender {
        Spender::Process(self.pid().as_raw())
    }

    /// Lets nothing of it run, so that it takes no core from somebody else who is measured.
    pub(crate) fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it run again.
    pub(crate) fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// An error with the last lines of its log when it has ended.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait().with_context(|| format!("cannot look after {}", self.name))? {
            bail!("{} ended with {status}; its last words:\n{}", self.name, self.last_words());
        }
        Ok(())
    }

    /// The last lines of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    fn signal(&self, signal: Signal) {
        // One that has ended already is told so by `must_run`.
        let _ = kill(self.pid(), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        self.signal(Signal::SIGCONT);
        let mut waited = Duration::ZERO;
        while waited < END_MAX {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(STEP);
            waited += STEP;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
