//! A file that is there whole or not at all, whoever reads it meanwhile.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Has `path` hold `bytes`, durably; false when it does already, and then nothing is touched. The file is made beside its
/// place under a name that no runtime reads, and moved there.
pub(super) fn place(path: &Path, bytes: &[u8], mode: u32) -> io::Result<bool> {
    let unchanged = fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o7777 == mode)
        && fs::read(path).is_ok_and(|found| found == bytes);
    if unchanged {
        return Ok(false);
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let made = folder.join(format!(".{name}.new"));
    let written = write(&made, bytes, mode).and_then(|()| fs::rename(&made, path));
    if written.is_err() {
        let _ = fs::remove_file(&made); // what failed is told already
    }
    written?;
    File::open(folder)?.sync_all()?;
    Ok(true)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_when_it_differs_and_left_alone_when_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/file");
        let inode = || fs::metadata(&path).unwrap().ino();
        assert!(place(&path, b"one", 0o755).unwrap());
        let first = inode();
        assert!(!place(&path, b"one", 0o755).unwrap());
        assert_eq!(inode(), first);
        assert!(place(&path, b"two", 0o755).unwrap());
        assert!(place(&path, b"two", 0o644).unwrap(), "another mode is another file");
        assert_eq!((fs::read(&path).unwrap(), fs::metadata(&path).unwrap().mode() & 0o7777), (b"two".to_vec(), 0o644));
        assert_eq!(fs::read_dir(folder.path().join("deep")).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn what_can_not_be_placed_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(place(&path, b"one", 0o644).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
