//! Where the programs under test are: given by `PODWIRE_BIN_DIR` (the Makefile sets it), else built on demand.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use nix::fcntl::{Flock, FlockArg};

/// Names the folder that holds `podwired`, `podwire`, `podwire-cni` and `podwire-perf`.
pub const BIN_DIR_VARIABLE: &str = "PODWIRE_BIN_DIR";

/// Path of a built program of this workspace, such as `podwired`.
///
/// # Panics
/// When it cannot be built, or is not where `PODWIRE_BIN_DIR` says.
#[must_use]
#[track_caller]
pub fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| match std::env::var_os(BIN_DIR_VARIABLE) {
        Some(folder) => PathBuf::from(folder),
        None => build(),
    });
    let path = folder.join(name);
    assert!(path.is_file(), "{} is missing: run `make build`, or unset {BIN_DIR_VARIABLE}", path.display());
    path
}

/// Root of the workspace.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate lies inside the workspace")
}

/// Builds the programs in the test executable's own profile, one process at a time.
fn build() -> PathBuf {
    let executable = std::env::current_exe().expect("a test knows its own path");
    let folder = executable.ancestors().nth(2).expect("cargo puts tests into target/PROFILE/deps").to_owned();
    let lock = File::create(folder.join(".podwire-build.lock")).expect("the target folder is writable");
    let _held = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).expect("files can be locked");
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command.args(["build", "--quiet", "-p", "podwire-vswitch", "--bin", "podwired"]);
    command.args(["-p", "podwire-control", "--features", "podwire-control/cli", "--bin", "podwire"]);
    command.args(["-p", "podwire-perf", "--bin", "podwire-perf", "-p", "podwire-cni", "--bin", "podwire-cni"]);
    if folder.ends_with("release") {
        command.arg("--release");
    }
    command.arg("--target-dir").arg(folder.parent().expect("a profile folder lies in target"));
    let status = command.current_dir(workspace()).stdin(Stdio::null()).status().expect("cargo runs");
    assert!(
        status.success(),
        "podwired, podwire, podwire-cni and podwire-perf do not build: run `make build` to see why"
    );
    folder
}
