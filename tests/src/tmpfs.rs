//! A small file system of its own, to fill up.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::command;

/// A file system in memory at a directory, until the value is gone.
#[derive(Debug)]
pub struct Tmpfs {
    dir: PathBuf,
}

impl Tmpfs {
    /// Mounts one at a directory, which is made; options as for mount(8), such as `size=6m`.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    #[track_caller]
    pub fn mount(dir: &Path, options: &str) -> Self {
        fs::create_dir_all(dir).expect("the directory can be made");
        command::must(&format!("mount -t tmpfs -o {options} none {}", dir.display()));
        Self { dir: dir.to_owned() }
    }

    /// Changes its options, such as to `ro`.
    #[track_caller]
    pub fn remount(&self, options: &str) {
        command::must(&format!("mount -o remount,{options} {}", self.dir.display()));
    }

    /// Fills it to the last byte.
    ///
    /// # Panics
    /// When something else is in the way.
    #[track_caller]
    pub fn fill(&self) {
        let mut filler = File::create(self.filler()).expect("a file can be made");
        let full = io::copy(&mut io::repeat(0), &mut filler).expect_err("it is small");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull, "{full}");
    }

    /// Makes files until it has no room for another.
    #[track_caller]
    pub fn fill_with_files(&self) {
        fs::create_dir(self.filler()).expect("a directory can be made");
        let full = (0..).find_map(|n: u32| File::create(self.filler().join(n.to_string())).err());
        assert_eq!(full.map(|error| error.kind()), Some(io::ErrorKind::StorageFull));
    }

    /// Takes away what filled it.
    ///
    /// # Panics
    /// When it was not filled.
    #[track_caller]
    pub fn make_room(&self) {
        let filler = self.filler();
        let removed = if filler.is_dir() { fs::remove_dir_all(filler) } else { fs::remove_file(filler) };
        removed.expect("it was filled");
    }

    fn filler(&self) -> PathBuf {
        self.dir.join("filler")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = command::run("umount", &["--lazy".to_owned(), self.dir.display().to_string()]);
    }
}
