//! What `podwired` does at a person's word instead of running: each verb's answer, printed.
#![allow(clippy::print_stdout, reason = "a person reads it, so it goes to no log")]

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

use super::cleanup;
use super::config::Config;
use super::install::{Install, Places, install, uninstall};

/// Says what is wrong with the configuration, all of it at once.
pub(super) fn check(path: &Path) -> ExitCode {
    answer(Config::load(path).map(|_| vec![format!("{} is fine", path.display())]))
}

/// Takes away what is left of podwired.
pub(super) fn cleanup(path: &Path, keep_store: bool) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => return failed(&error),
    };
    match cleanup::cleanup(&config, keep_store) {
        Ok(cleaned) => {
            cleaned.removed.iter().for_each(|what| println!("removed {what}"));
            cleaned.failed.iter().for_each(|what| eprintln!("could not remove {what}"));
            if cleaned.removed.is_empty() && cleaned.failed.is_empty() {
                println!("nothing of podwired is left");
            }
            if cleaned.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => failed(&error),
    }
}

/// Puts the CNI plugin where runtimes look.
pub(super) fn install_cni(path: &Path, what: &Install) -> ExitCode {
    match Config::load(path) {
        Ok(config) => answer(install(&config, what)),
        Err(error) => failed(&error),
    }
}

/// Takes the CNI plugin away again.
pub(super) fn uninstall_cni(places: &Places) -> ExitCode {
    answer(uninstall(places))
}

fn answer(done: Result<Vec<String>, impl Display>) -> ExitCode {
    match done {
        Ok(said) => {
            said.iter().for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &impl Display) -> ExitCode {
    eprintln!("{error}");
    ExitCode::FAILURE
}
