//! The socket itself: for root's eyes from its first moment, replaced when stale, left alone when somebody listens.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// The socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody listens there.
    #[error("socket {0}: another podwired listens there; stop it, or configure another control.socket")]
    InUse(PathBuf),
    /// There is something else.
    #[error("socket {0}: there is a file of another kind; remove it, or configure another control.socket")]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("socket {path}: cannot {action}: {source}; check control.socket, its directory and who runs podwired")]
    Refused {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Makes the socket with mode 0600. Missing directories are created; a stale socket is replaced atomically.
/// Has to be called inside a tokio runtime.
///
/// # Errors
/// When somebody listens at `path`, something else is there, or the system refuses.
pub fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let refused = |action| move |source| BindError::Refused { path: path.to_owned(), action, source };
    refuse_unless_stale(path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(refused("create its directory"))?;

    // Made in a private directory and moved when its mode is right: at no time can another user connect. The name is
    // short because a socket's path may have 107 bytes.
    let private = parent.join(format!(".pw{}", std::process::id()));
    let made = private.join("s");
    let _ = fs::remove_dir_all(&private); // left by a process that died here
    fs::DirBuilder::new().mode(0o700).create(&private).map_err(refused("create a private directory beside it"))?;
    let moved = listen(&made).and_then(|listener| fs::rename(&made, path).map(|()| listener));
    let _ = fs::remove_dir_all(&private); // the outcome is in `moved`
    UnixListener::from_std(moved.map_err(refused("listen"))?).map_err(refused("watch"))
}

fn listen(path: &Path) -> io::Result<StdListener> {
    let listener = StdListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn refuse_unless_stale(path: &Path) -> Result<(), BindError> {
    let refused = |action| move |source| BindError::Refused { path: path.to_owned(), action, source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused("look at it")(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match StdStream::connect(path) {
        Ok(_) => Err(BindError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(BindError::InUse(path.to_owned())),
        Err(error) => Err(refused("find out whether somebody listens there")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/podwired.sock");
        let first = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let said = bind(&path).unwrap_err().to_string();
        assert!(said.contains("podwired.sock") && said.contains("stop it, or configure another"), "{said}");
        drop(first);
        let second = bind(&path).unwrap();
        StdStream::connect(&path).unwrap();
        drop(second);
        let left: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(left, ["podwired.sock"]);
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let said = bind(file.path()).unwrap_err().to_string();
        assert!(said.contains("a file of another kind; remove it"), "{said}");
        assert!(file.path().exists());
    }
}
