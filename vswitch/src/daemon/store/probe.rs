//! Looks whether a store's file is whole, on a copy in memory, before it is opened in earnest.
//!
//! Opening a database may repair, and so write to, its file; and redb (4.4) trusts the pages it reads and panics on
//! some damaged ones. So damage is found here, where it harms neither the file nor the daemon.

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::backends::InMemoryBackend;
use redb::{Database, DatabaseError, StorageBackend};

use super::layout::CACHE_BYTES;

/// Why a file can not be used.
pub(super) enum Unusable {
    /// Another process has it open.
    InUse,
    /// It can not be read.
    Unreadable(io::Error),
    /// Another version of redb wrote it: the file format's version.
    Format(u8),
    /// It is no database, or a damaged one.
    Damaged(String),
}

/// Looks at a whole file; an empty one is fine, it is a store about to be made.
pub(super) fn look(mut file: &File) -> Result<(), Unusable> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Unusable::InUse),
        Err(TryLockError::Error(error)) => return Err(Unusable::Unreadable(error)),
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).and_then(|_| file.unlock()).map_err(Unusable::Unreadable)?;
    if bytes.is_empty() {
        return Ok(());
    }
    // Nothing that the closure touches is used after a panic.
    match catch_unwind(AssertUnwindSafe(|| check(&bytes))) {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(Unusable::Damaged("its checksums do not match its content".to_owned())),
        Ok(Err(DatabaseError::UpgradeRequired(version))) => Err(Unusable::Format(version)),
        Ok(Err(error)) => Err(Unusable::Damaged(error.to_string())),
        Err(_) => Err(Unusable::Damaged("it contradicts itself".to_owned())),
    }
}

/// Opens a copy as the file would be opened, and checks every page of it.
fn check(bytes: &[u8]) -> Result<bool, DatabaseError> {
    let copy = InMemoryBackend::new();
    copy.set_len(bytes.len() as u64)?;
    copy.write(0, bytes)?;
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder.create_with_backend(copy)?.check_integrity()
}
