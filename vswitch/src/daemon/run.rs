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
use super::cleanup::cleanup;
use super::config::{Config, DEFAULT_PATH};
use super::controller::{Controller, TICK_MS};
use super::events::EventBus;
use super::install::{Install, InstallError, Places, install, uninstall};
use crate::sys::clock::unix_ms;

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
    Cleanup,
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
        Some(Verb::Check) => return check(&args.config),
        Some(Verb::Cleanup) => return clean(&args.config),
        Some(Verb::InstallCni(arguments)) => return install_cni(&args.config, &arguments),
        Some(Verb::UninstallCni(places)) => return tell(uninstall(&places)),
        None => {}
    }
    match serve(args.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Each error's own sentence names its cause already.
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong with the configuration, all of it at once; a person reads it, so it goes to no log.
#[allow(clippy::print_stdout, reason = "the answer of `podwired check`")]
fn check(path: &std::path::Path) -> ExitCode {
    match Config::load(path) {
        Ok(_) => {
            println!("{} is fine", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Takes away what is left of podwired, and says what that was; a person reads it, so it goes to no log.
#[allow(clippy::print_stdout, reason = "the answer of `podwired cleanup`")]
fn clean(path: &std::path::Path) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    match cleanup(&config) {
        Ok(cleaned) => {
            cleaned.removed.iter().for_each(|what| println!("removed {what}"));
            cleaned.failed.iter().for_each(|what| eprintln!("could not remove {what}"));
            if cleaned.removed.is_empty() && cleaned.failed.is_empty() {
                println!("nothing of podwired is left");
            }
            if cleaned.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn install_cni(path: &std::path::Path, arguments: &Install) -> ExitCode {
    match Config::load(path) {
        Ok(config) => tell(install(&config, arguments)),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Says what was done, to a person.
#[allow(clippy::print_stdout, reason = "the answer of `podwired install-cni` and `podwired uninstall-cni`")]
fn tell(done: Result<Vec<String>, InstallError>) -> ExitCode {
    match done {
        Ok(said) => {
            said.iter().for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(path: PathBuf) -> anyhow::Result<()> {
    let config = Config::load(&path)?;
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

/// Ticks the controller and reloads on SIGHUP, until SIGTERM or SIGINT.
async fn run_until_stopped(daemon: Daemon, path: PathBuf) {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else {
        tracing::error!("signals can not be handled; podwired stops");
        return;
    };
    let mut tick = tokio::time::interval(Duration::from_millis(TICK_MS));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = terminate.recv() => return,
            _ = interrupt.recv() => return,
            _ = hangup.recv() => on_control_thread(&daemon, { let path = path.clone(); move |daemon| reload(daemon, &path) }).await,
            _ = tick.tick() => on_control_thread(&daemon, |daemon| daemon.controller().tick()).await,
        }
    }
}

/// Runs control work beside the runtime, which has one thread only.
async fn on_control_thread(daemon: &Daemon, work: impl FnOnce(&Daemon) + Send + 'static) {
    let daemon = daemon.clone();
    if let Err(error) = tokio::task::spawn_blocking(move || work(&daemon)).await {
        tracing::error!(%error, "the control side failed; forwarding goes on");
    }
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
