//! Where the files of a store are, and how one is put in the place of another.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::daemon::config::Config;

/// The file in the state directory.
const FILE_NAME: &str = "podwired.redb";
/// What the socket's copy ends with.
const COPY_EXTENSION: &str = "copy.redb";

/// Where the store of a node is.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its file.
    pub main: PathBuf,
    /// The file's copy, which is of use until the next boot.
    pub copy: PathBuf,
    /// The node's name.
    pub node: String,
}

impl Place {
    /// The place that a configuration says. The copy is beside the socket: in memory, and there as long as pods are.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            main: config.control.state_dir.join(FILE_NAME),
            copy: config.control.socket.with_extension(COPY_EXTENSION),
            node: config.node.name.to_string(),
        }
    }

    /// What a damaged main file is kept as.
    #[must_use]
    pub fn damaged(&self) -> PathBuf {
        with(&self.main, ".damaged")
    }

    /// What the copy of a main file that is gone is kept as.
    fn copy_of_before(&self) -> PathBuf {
        with(&self.copy, ".old")
    }

    /// Every file that there may be.
    #[must_use]
    pub fn files(&self) -> [PathBuf; 6] {
        let (new_main, new_copy) = (unfinished(&self.main), unfinished(&self.copy));
        [self.main.clone(), self.copy.clone(), self.damaged(), self.copy_of_before(), new_main, new_copy]
    }

    /// Whether there is no store. An empty file is none; beside a copy it is a damaged one.
    pub(super) fn is_unused(&self) -> io::Result<bool> {
        match fs::metadata(&self.main) {
            Ok(found) => Ok(found.is_file() && found.len() == 0 && !self.copy.exists()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Makes an empty main file, and its directory. A copy that is there is of the file that was there before, and kept under
    /// another name, which is given.
    pub(super) fn make(&self) -> io::Result<Option<PathBuf>> {
        if let Some(dir) = self.main.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let aside = if_there(fs::rename(&self.copy, self.copy_of_before()))?.then(|| self.copy_of_before());
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.main)?;
        Ok(aside)
    }
}

/// Gives a file another name beside its own; what had that name before is gone.
pub(super) fn keep_as(path: &Path, name: &Path) -> io::Result<()> {
    if_there(fs::remove_file(name))?;
    fs::hard_link(path, name)
}

/// Puts the content of another file in the place of one, durably: whatever happens, one of the two is there whole.
pub(super) fn replace(path: &Path, from: &Path) -> io::Result<()> {
    let new = unfinished(path);
    let write = |bytes: &[u8]| {
        let mut file = create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    let written = fs::read(from).and_then(|bytes| write(&bytes));
    written.inspect_err(|_| _ = fs::remove_file(&new))?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// What a file is called while it is written.
fn unfinished(path: &Path) -> PathBuf {
    with(path, ".new")
}

fn with(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// Whether there was something to remove.
///
/// # Errors
/// What else went wrong.
pub fn if_there(removed: io::Result<()>) -> io::Result<bool> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        done => done.map(|()| true),
    }
}
