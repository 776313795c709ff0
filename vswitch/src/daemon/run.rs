//! The process: command line, signals, the control service, and the clock that ticks the controller.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Parser, Subcommand};
use podwire_control::service;
use tokio::signal::unix::{SignalKind, signal};

use super::backend::Daemon;
use super::config::{Config, ConfigError, DEFAULT_PATH};
use super::controller::{Controller, TICK_MS};
use super::events::EventBus;
use super::install::{Install, Places};
use super::supervised::{Pulse, StatusLine, tell, tell_alive};
use super::verbs;
use crate::sys::clock::unix_ms;
use crate::sys::notify::{self, State, alive_interval};

/// The exit status of a daemon whose configuration is refused (sysexits.h): nothing is gained by another try.
const EX_CONFIG: u8 = 78;

/// How long a daemon that can not start keeps its service manager from trying again, which otherwise does that at once.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// podwire's node daemon: a userspace virtual switch for the pods of this node.
#[derive(Parser, Debug)]
#[command(name = "podwired", version, about)]
struct Args {
    /// Configuration file.
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Verb>,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Checks the configuration and exits.
    Check,
    /// Takes away whatever podwired left on this node: interfaces of pods and host, steering program,
    /// nftables table, socket, store.
    Cleanup {
        /// Leaves the store, so that a podwired that is started later makes it all again.
        #[arg(long)]
        keep_store: bool,
    },
    /// Puts the CNI plugin and, once podwired can attach pods, its network configuration where runtimes look.
    InstallCni(Install),
    /// Takes the network configuration and the plugin away from there.
    UninstallCni(Places),
}

/// Runs the daemon until SIGTERM or SIGINT.
#[must_use]
pub fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("PODWIRE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
    let args = Args::parse();
    match args.command {
        Some(Verb::Check) => return verbs::check(&args.config),
        Some(Verb::Cleanup { keep_store }) => return verbs::cleanup(&args.config, keep_store),
        Some(Verb::InstallCni(what)) => return verbs::install_cni(&args.config, &what),
        Some(Verb::UninstallCni(places)) => return verbs::uninstall_cni(&places),
        None => {}
    }
    let (error, code): (anyhow::Error, _) = match Config::load(&args.config) {
        Err(error @ ConfigError::Faults { .. }) => (error.into(), ExitCode::from(EX_CONFIG)),
        Err(error) => (error.into(), ExitCode::FAILURE),
        Ok(config) => match serve(config, args.config) {
            Err(error) => (error, ExitCode::FAILURE),
            Ok(()) => return ExitCode::SUCCESS,
        },
    };
    // Each error's own sentence names its cause already.
    tracing::error!("{error}");
    tell(State::Status(&error.to_string().replace('\n', "; ")));
    if notify::is_there() {
        std::thread::sleep(TRY_AGAIN_AFTER);
    }
    code
}

fn serve(config: Config, path: PathBuf) -> anyhow::Result<()> {
    let socket = config.control.socket.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| anyhow!("the runtime can not start: {error}"))?;
    runtime.block_on(async {
        let listener = service::bind(&socket)?;
        let events = EventBus::new(unix_ms);
        let controller = Controller::start(config, events.clone()).inspect_err(|_| remove(&socket))?;
        let daemon = Daemon::new(controller, events);
        tracing::info!(socket = %socket.display(), "podwired is ready");
        let stop = run_until_stopped(daemon.clone(), path);
        service::serve(listener, Arc::new(daemon), stop).await?;
        tracing::info!("podwired stops; pods keep their interfaces");
        remove(&socket);
        Ok(())
    })
}

/// Removes the socket. One that stays is replaced by the next start.
fn remove(socket: &std::path::Path) {
    let _ = std::fs::remove_file(socket);
}

/// Ticks the controller, reloads on SIGHUP, and tells the service manager so, until SIGTERM or SIGINT. All of it in one
/// loop, so that a control side that hangs is not told to be alive.
async fn run_until_stopped(daemon: Daemon, path: PathBuf) {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else {
        tracing::error!("signals can not be handled; podwired stops");
        return;
    };
    let mut tick = tokio::time::interval(Duration::from_millis(TICK_MS));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut pulse = Pulse::new(alive_interval());
    let mut status = StatusLine::default();
    status.ready(daemon.controller().summary());
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                tell(State::Reloading);
                let path = path.clone();
                let done = on_control_thread(&daemon, move |daemon| {
                    reload(daemon, &path);
                    daemon.controller().summary()
                });
                status.ready(done.await.unwrap_or_default());
            }
            _ = tick.tick() => {
                let done = on_control_thread(&daemon, |daemon| {
                    let mut controller = daemon.controller();
                    controller.tick();
                    controller.summary()
                });
                if let Some(line) = done.await {
                    status.update(line);
                }
            }
            () = pulse.due() => drop(on_control_thread(&daemon, tell_alive).await),
        }
    }
    tell(State::Stopping);
}

/// Runs control work beside the runtime, which has one thread only; none when it panicked.
async fn on_control_thread<T: Send + 'static>(
    daemon: &Daemon,
    work: impl FnOnce(&Daemon) -> T + Send + 'static,
) -> Option<T> {
    let daemon = daemon.clone();
    let done = tokio::task::spawn_blocking(move || work(&daemon)).await;
    done.inspect_err(|error| tracing::error!(%error, "the control side failed; forwarding goes on")).ok()
}

fn reload(daemon: &Daemon, path: &std::path::Path) {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => return tracing::error!("not reloaded: {error}"),
    };
    match daemon.controller().reload(config) {
        Ok(changed) if changed.is_empty() => tracing::info!("reloaded: nothing changed"),
        Ok(changed) => tracing::info!("reloaded: {}", changed.join(", ")),
        Err(reason) => tracing::error!("not reloaded: {reason}"),
    }
}
