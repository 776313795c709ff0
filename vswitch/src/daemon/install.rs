//! `podwired install-cni` and `podwired uninstall-cni`: the CNI plugin and its configuration, where runtimes look for them.
//!
//! The configuration comes last, when podwired can attach pods, since a runtime starts pods as soon as it sees it; and it
//! goes first. What is there already as it should be is left untouched, so that runtimes notice nothing.

mod conflist;
mod place;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, value_parser};
use podwire_control::client::Client;
use podwire_control::model::NetworkName;

use self::conflist::Conflist;
use self::place::place;
use super::config::Config;

/// The plugin's file name, which is also the `type` in the configuration.
const PLUGIN: &str = "podwire-cni";
/// What the plugin's file holds and no other's: the calls it makes.
const PLUGIN_MARK: &[u8] = b"/podwire.v1.Podwire/";
const PLUGIN_MODE: u32 = 0o755;
const CONFLIST_MODE: u32 = 0o644;
/// How often podwired is asked whether it can attach pods.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How long one such answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Endings of the files that runtimes read.
const CONFIG_ENDINGS: [&str; 3] = ["conf", "conflist", "json"];

/// Where runtimes look.
#[derive(Args, Clone, Debug)]
pub(super) struct Places {
    /// Where runtimes look for plugins.
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    bin_dir: PathBuf,
    /// Where runtimes look for network configurations.
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
    /// Name of the network configuration; runtimes take the first by name.
    #[arg(long, value_name = "NAME", default_value = "10-podwire.conflist", value_parser = conf_name)]
    conf_name: String,
}

/// What `install-cni` does.
#[derive(Args, Clone, Debug)]
pub(super) struct Install {
    #[command(flatten)]
    places: Places,
    /// Name of the CNI network; the one it has, or podwire, when not given.
    #[arg(long, value_name = "NAME")]
    network: Option<NetworkName>,
    /// The plugin's file; the one beside podwired when not given.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// How long to wait until podwired can attach pods.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = value_parser!(u64).range(1..=3600))]
    wait: u64,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum InstallError {
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}; check that the directory exists and is writable", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The plugin that is to be copied is none.
    #[error("{} is no podwire-cni: build it, or name it with --from", .0.display())]
    NoPlugin(PathBuf),
    /// A file of that name is another's.
    #[error("{} is not podwire's: move it away, or use other directories or another name", .0.display())]
    Foreign(PathBuf),
    /// podwired can not attach pods.
    #[error("podwired could not attach pods within {seconds} s, so runtimes are not told of it: {why}")]
    NotReady {
        /// The time given.
        seconds: u64,
        /// What it or its socket said last.
        why: String,
    },
}

impl Places {
    fn plugin(&self) -> PathBuf {
        self.bin_dir.join(PLUGIN)
    }

    fn conflist(&self) -> PathBuf {
        self.conf_dir.join(&self.conf_name)
    }

    /// The network configurations that runtimes would take instead of ours.
    fn sorted_before(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.conf_dir).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let is_config = |name: &String| CONFIG_ENDINGS.iter().any(|ending| has_ending(name, ending));
        let mut before: Vec<String> = names.filter(|name| *name < self.conf_name && is_config(name)).collect();
        before.sort();
        before
    }
}

/// Installs; says in sentences what it did and what is to be looked at.
///
/// # Errors
/// [`InstallError`]. What was done before it stays: the plugin without its configuration does nothing.
pub(super) fn install(config: &Config, install: &Install) -> Result<Vec<String>, InstallError> {
    let places = &install.places;
    let source = match &install.from {
        Some(file) => file.clone(),
        None => std::env::current_exe().map_err(failed("find", Path::new("podwired")))?.with_file_name(PLUGIN),
    };
    let plugin = fs::read(&source).map_err(failed("read", &source))?;
    if !is_plugin(&plugin) {
        return Err(InstallError::NoPlugin(source));
    }
    read_ours(&places.plugin(), is_plugin)?;
    let before = read_ours(&places.conflist(), conflist::is_ours)?;
    let conflist = Conflist { network: install.network.as_ref(), config }.text(before.as_deref());
    let mut said = Vec::new();
    said.push(put(&places.plugin(), &plugin, PLUGIN_MODE)?);
    // Runtimes that know it already are told nothing new.
    if before.as_ref() != Some(&conflist) {
        wait_until_ready(&config.control.socket, install.wait)?;
    }
    said.push(put(&places.conflist(), &conflist, CONFLIST_MODE)?);
    said.extend(places.sorted_before().into_iter().map(|other| {
        format!(
            "warning: {other} comes before {} in {}, and most runtimes take the first only",
            places.conf_name,
            places.conf_dir.display()
        )
    }));
    Ok(said)
}

/// Takes both away; says in sentences what was there.
///
/// # Errors
/// [`InstallError`], also for a file of that name that is another's.
pub(super) fn uninstall(places: &Places) -> Result<Vec<String>, InstallError> {
    let mut said = Vec::new();
    let ours = [(places.conflist(), conflist::is_ours as fn(&[u8]) -> bool), (places.plugin(), is_plugin)];
    for (path, is_ours) in ours {
        if read_ours(&path, is_ours)?.is_some() {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
            said.push(format!("removed {}", path.display()));
        }
    }
    Ok(said)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::File { action, path, source }
}

/// What a file of ours holds; none when there is no file.
fn read_ours(path: &Path, is_ours: fn(&[u8]) -> bool) -> Result<Option<Vec<u8>>, InstallError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
        Ok(bytes) if is_ours(&bytes) => Ok(Some(bytes)),
        Ok(_) => Err(InstallError::Foreign(path.to_owned())),
    }
}

fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<String, InstallError> {
    let changed = place(path, bytes, mode).map_err(failed("write", path))?;
    Ok(if changed { format!("wrote {}", path.display()) } else { format!("{} is as it should be", path.display()) })
}

fn is_plugin(bytes: &[u8]) -> bool {
    bytes.windows(PLUGIN_MARK.len()).any(|window| window == PLUGIN_MARK)
}

fn conf_name(text: &str) -> Result<String, String> {
    let is_plain = !text.contains('/') && !text.starts_with('.') && has_ending(text, "conflist");
    if is_plain { Ok(text.to_owned()) } else { Err("use a file name that ends in .conflist".into()) }
}

fn has_ending(name: &str, ending: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == ending)
}

/// Asks podwired until it can attach pods.
fn wait_until_ready(socket: &Path, seconds: u64) -> Result<(), InstallError> {
    let not_ready = |why: String| InstallError::NotReady { seconds, why };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| not_ready(error.to_string()))?;
    runtime
        .block_on(async {
            let mut why = "it did not answer".to_owned();
            let asking = async {
                while let Err(still) = cannot_attach(socket).await {
                    why = still;
                    tokio::time::sleep(ASK_EVERY).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(seconds), asking).await.map_err(|_| why)
        })
        .map_err(not_ready)
}

/// Why no pod can be attached at the moment.
async fn cannot_attach(socket: &Path) -> Result<(), String> {
    let client = Client::connect(socket, ANSWER_MAX).await.map_err(|error| error.to_string())?;
    let readiness = client.readiness().await.map_err(|error| error.to_string())?;
    readiness.cannot_attach.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(folder: &Path) -> Places {
        Places { bin_dir: folder.join("bin"), conf_dir: folder.to_owned(), conf_name: "10-podwire.conflist".into() }
    }

    #[test]
    fn only_configurations_that_sort_before_ours_are_told() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["05-a.conf", "06-b.json", "00-c.conflist", "07-d.txt", "10-podwire.conflist", "20-e.conflist"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(places(folder.path()).sorted_before(), ["00-c.conflist", "05-a.conf", "06-b.json"]);
        assert!(places(&folder.path().join("none")).sorted_before().is_empty());
    }

    #[test]
    fn a_foreign_file_is_refused_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path());
        assert!(uninstall(&places).unwrap().is_empty(), "nothing is there");
        fs::create_dir(&places.bin_dir).unwrap();
        fs::write(places.plugin(), "#!/bin/sh").unwrap();
        assert!(uninstall(&places).unwrap_err().to_string().contains("not podwire's"));
        assert!(places.plugin().exists());
        fs::write(places.conflist(), r#"{"plugins": [{"type": "bridge"}]}"#).unwrap();
        assert!(uninstall(&places).unwrap_err().to_string().contains("10-podwire.conflist"));
    }

    #[test]
    fn a_configurations_name_is_a_plain_file_name() {
        assert_eq!(conf_name("05-x.conflist").as_deref(), Ok("05-x.conflist"));
        for bad in ["x.conf", "a/b.conflist", ".hidden.conflist", ""] {
            assert!(conf_name(bad).is_err(), "{bad}");
        }
    }
}
