//! The store: what the CLI and the CNI plugin stated, kept over restarts in `state_dir/podwired.redb`.
//!
//! Other owners state their objects anew when the daemon starts, so theirs are not kept. A commit is one ACID
//! transaction and durable when it returns. A store that can not be used is left as it is, for somebody to look
//! at; the daemon can run without one, and then forgets.

mod probe;
mod record;

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use self::probe::Unusable;
use podwire_control::model::{Key, Object, Owner};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};

/// The file in the state directory.
pub const FILE_NAME: &str = "podwired.redb";
/// Version of the tables. Of records, see `record`.
const SCHEMA: u64 = 1;
/// Bytes of the file kept in memory at most.
const CACHE_BYTES: usize = 4 << 20;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// (owner, key as shown) to record.
const OBJECTS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("objects");

/// An open store; no other process can open it meanwhile.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// None after an I/O error, until the next use opens the file again.
    database: Option<Database>,
}

/// The store can not be used, or one commit failed. The file was not deleted, nor was anything in it lost.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or the file can not be made or opened.
    #[error("cannot open the store {}: {source}; see that control.state_dir can be written", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it open.
    #[error(
        "another podwired uses the store {}; stop it, or give this one a control.state_dir of its own",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is no store, or a damaged one.
    #[error(
        "the store {} is damaged ({reason}); it was left as it is: move it away to start with an empty one, and state \
         again what the CLI had stated",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// Another version of podwired wrote it.
    #[error(
        "the store {} is of {found}, and this podwired knows version {SCHEMA}; run the podwired that \
         wrote it, or move it away",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: String,
    },
    /// It belongs to another node.
    #[error(
        "the store {} is of node {found:?}, and node.name is {configured:?}; correct node.name, or move the store away",
        path.display()
    )]
    OtherNode {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who asks.
        configured: String,
    },
    /// An object in it is not understood.
    #[error(
        "the store {} holds {object}, which is not understood: {reason}; run the podwired that wrote \
         it, or move it away",
        path.display()
    )]
    Record {
        /// The file.
        path: PathBuf,
        /// Owner and key.
        object: String,
        /// Why.
        reason: String,
    },
    /// A transaction failed; nothing of it was stored.
    #[error(
        "the store {} failed: {source}; nothing of the request was stored: see that its file system works and has \
         space, and ask again",
        path.display()
    )]
    Failed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
}

impl Store {
    /// Opens the store of `node` in a directory, and makes both when there are none.
    ///
    /// # Errors
    /// [`StoreError`]; the file is as it was then.
    pub fn open(dir: &Path, node: &str) -> Result<Self, StoreError> {
        let path = dir.join(FILE_NAME);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| StoreError::Open { path: path.clone(), source })?;
        let mut store = Self { database: None, path };
        store.check_meta(node)?;
        Ok(store)
    }

    /// Whether an owner's objects are kept.
    #[must_use]
    pub fn keeps(owner: Owner) -> bool {
        matches!(owner, Owner::Cli | Owner::Cni)
    }

    /// All objects kept.
    ///
    /// # Errors
    /// [`StoreError`]: the file is damaged, or an object in it is not understood.
    pub fn load(&mut self) -> Result<Vec<(Owner, Object)>, StoreError> {
        let rows = self.attempt(|database| {
            let table = database.begin_read()?.open_table(OBJECTS)?;
            let mut rows = Vec::new();
            for row in table.iter()? {
                let (key, record) = row?;
                let (owner, key) = key.value();
                rows.push((owner.to_owned(), key.to_owned(), record.value().to_owned()));
            }
            Ok(rows)
        })?;
        let understood = rows.into_iter().map(|(owner, key, bytes)| {
            let refused = |reason| StoreError::Record {
                path: self.path.clone(),
                object: format!("{key} of owner {owner}"),
                reason,
            };
            let known: Owner = owner.parse().map_err(|error| refused(format!("{error}")))?;
            let object = record::decode(&bytes).map_err(refused)?;
            if object.key().to_string() == key {
                Ok((known, object))
            } else {
                Err(refused(format!("the record is of {}", object.key())))
            }
        });
        understood.collect()
    }

    /// Stores and deletes objects of one owner: all of it, durably, or nothing. Owners that are not kept are fine;
    /// nothing is written then. Deleting what is not there is fine too.
    ///
    /// # Errors
    /// [`StoreError::Failed`], as when the disk is full; what was stored before stays.
    pub fn commit(&mut self, owner: Owner, upserts: &[Object], deletes: &[Key]) -> Result<(), StoreError> {
        if !Self::keeps(owner) || (upserts.is_empty() && deletes.is_empty()) {
            return Ok(());
        }
        let mut records = Vec::with_capacity(upserts.len());
        for object in upserts {
            let key = object.key().to_string();
            let bytes = record::encode(object).map_err(|reason| StoreError::Record {
                path: self.path.clone(),
                object: key.clone(),
                reason,
            })?;
            records.push((key, bytes));
        }
        self.attempt(|database| {
            let write = database.begin_write()?;
            {
                let mut table = write.open_table(OBJECTS)?;
                for key in deletes {
                    table.remove((owner.name(), key.to_string().as_str()))?;
                }
                for (key, bytes) in &records {
                    table.insert((owner.name(), key.as_str()), bytes.as_slice())?;
                }
            }
            write.commit()?;
            Ok(())
        })
    }

    /// Writes schema and node into a new store, compares them in an old one.
    fn check_meta(&mut self, node: &str) -> Result<(), StoreError> {
        let found = self.attempt(|database| {
            let known = database.begin_read()?.list_tables()?.count() > 0;
            if known {
                let table = database.begin_read()?.open_table(META)?;
                let value = |key| Ok::<_, redb::Error>(table.get(key)?.map(|value| value.value().to_vec()));
                return Ok(Some((value("schema")?, value("node")?)));
            }
            let write = database.begin_write()?;
            {
                let mut meta = write.open_table(META)?;
                meta.insert("schema", SCHEMA.to_be_bytes().as_slice())?;
                meta.insert("node", node.as_bytes())?;
                write.open_table(OBJECTS)?;
            }
            write.commit()?;
            Ok(None)
        })?;
        let Some((schema, owner)) = found else { return Ok(()) };
        let path = self.path.clone();
        let schema = schema.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        match (schema, owner.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())) {
            (Some(SCHEMA), Some(found)) if found == node => Ok(()),
            (Some(SCHEMA), Some(found)) => Err(StoreError::OtherNode { path, found, configured: node.to_owned() }),
            (Some(SCHEMA), None) => Err(StoreError::Damaged { path, reason: "it names no node".to_owned() }),
            (Some(other), _) => Err(StoreError::Version { path, found: format!("version {other}") }),
            (None, _) => Err(StoreError::Version { path, found: "no version".to_owned() }),
        }
    }

    /// Runs one transaction. After an I/O error redb refuses everything, so the file is opened anew the next time.
    fn attempt<T>(&mut self, run: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open(&self.path)?,
        };
        match run(&database) {
            Ok(value) => {
                self.database = Some(database);
                Ok(value)
            }
            Err(redb::Error::Corrupted(reason)) => Err(StoreError::Damaged { path: self.path.clone(), reason }),
            Err(error) => Err(StoreError::Failed { path: self.path.clone(), source: Box::new(error) }),
        }
    }
}

fn open(path: &Path) -> Result<Database, StoreError> {
    let refused = |source| StoreError::Open { path: path.to_owned(), source };
    let damaged = |reason| StoreError::Damaged { path: path.to_owned(), reason };
    let in_use = || StoreError::InUse { path: path.to_owned() };
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(refused)?;
    probe::look(&file).map_err(|unusable| match unusable {
        Unusable::InUse => in_use(),
        Unusable::Unreadable(source) => refused(source),
        Unusable::Damaged(reason) => damaged(reason),
        Unusable::Format(version) => {
            StoreError::Version { path: path.to_owned(), found: format!("redb's file format {version}") }
        }
    })?;
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder.create_file(file).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => in_use(),
        DatabaseError::Storage(StorageError::Io(error)) => refused(error),
        other => damaged(other.to_string()),
    })
}

#[cfg(test)]
mod tests;
