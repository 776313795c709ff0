//! The store: what the CLI and the CNI plugin stated, kept over restarts in `state_dir/podwired.redb`, with the containers'
//! attachments and what IPAM has to remember beside them.
//!
//! Other owners state their objects anew when the daemon starts, so theirs are not kept. A commit is one ACID
//! transaction and durable when it returns. A store that can not be used is left as it is, for somebody to look
//! at; the daemon can run without one, and then forgets.

mod attachment;
mod batch;
mod probe;
mod record;

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use self::probe::Unusable;
use podwire_control::model::{IpRange, Object, Owner, read};
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableHandle, Value,
    WriteTransaction,
};

pub use attachment::StoredAttachment;
pub use batch::Batch;

/// The file in the state directory.
pub const FILE_NAME: &str = "podwired.redb";
/// Version of the tables. Of records, see `record`.
const SCHEMA: u64 = 1;
/// Bytes of the file kept in memory at most.
const CACHE_BYTES: usize = 4 << 20;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// (owner, key as shown) to record.
const OBJECTS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("objects");
/// (container, interface) to record.
const ATTACHMENTS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("attachments");
/// Place in the order they are tried to range of the CLI, as shown.
const RANGES: TableDefinition<'_, u64, &str> = TableDefinition::new("ipam_ranges");
/// Address to when it was released, in numbers of releases.
const RELEASES: TableDefinition<'_, &[u8], u64> = TableDefinition::new("ipam_releases");

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
        store.add_tables()?;
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
        let rows = self.rows(OBJECTS, |(owner, key), record| (owner.to_owned(), key.to_owned(), record.to_owned()))?;
        let understood = rows.into_iter().map(|(owner, key, bytes)| {
            let refused = |reason| self.unread(format!("{key} of owner {owner}"), reason);
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

    /// All attachments.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn load_attachments(&mut self) -> Result<Vec<StoredAttachment>, StoreError> {
        let rows = self.rows(ATTACHMENTS, |(container, ifname), record| {
            (format!("{ifname} of container {container}"), record.to_owned())
        })?;
        let understood = rows.into_iter().map(|(key, bytes)| {
            let stored = attachment::decode(&bytes).map_err(|reason| self.unread(key.clone(), reason))?;
            match stored.attachment.key.to_string() {
                own if own == key => Ok(stored),
                other => Err(self.unread(key, format!("the record is of {other}"))),
            }
        });
        understood.collect()
    }

    /// The CLI's ranges, in their order.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn load_ranges(&mut self) -> Result<Vec<IpRange>, StoreError> {
        let rows = self.rows(RANGES, |_, range| range.to_owned())?;
        let refused = |text| self.unread(format!("the range {text}"), "it is no range of addresses".to_owned());
        rows.into_iter().map(|text| read(&text).map_err(|_| refused(text))).collect()
    }

    /// The releases remembered: each address, and when it was released.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn load_releases(&mut self) -> Result<Vec<(IpAddr, u64)>, StoreError> {
        let rows = self.rows(RELEASES, |octets, when| (octets.to_owned(), when))?;
        let refused = |octets| self.unread(format!("the release {octets:02x?}"), "it is of no address".to_owned());
        rows.into_iter()
            .map(|(octets, when)| Ok((batch::address(&octets).ok_or_else(|| refused(octets))?, when)))
            .collect()
    }

    /// Stores a batch: all of it, durably, or nothing.
    ///
    /// # Errors
    /// [`StoreError::Failed`], as when the disk is full; what was stored before stays.
    pub fn commit(&mut self, batch: &Batch<'_>) -> Result<(), StoreError> {
        match batch::encode(batch).map_err(|(object, reason)| self.unread(object, reason))? {
            Some(encoded) => self.attempt(|database| encoded.write(database)),
            None => Ok(()),
        }
    }

    /// Every row of a table.
    fn rows<K: redb::Key, V: Value, T>(
        &mut self,
        table: TableDefinition<'_, K, V>,
        row: impl for<'r> Fn(K::SelfType<'r>, V::SelfType<'r>) -> T,
    ) -> Result<Vec<T>, StoreError> {
        self.attempt(|database| {
            let table = database.begin_read()?.open_table(table)?;
            let mut rows = Vec::new();
            for found in table.iter()? {
                let (key, value) = found?;
                rows.push(row(key.value(), value.value()));
            }
            Ok(rows)
        })
    }

    fn unread(&self, object: String, reason: String) -> StoreError {
        StoreError::Record { path: self.path.clone(), object, reason }
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
            }
            open_tables(&write)?;
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

    /// Adds the tables that an earlier podwired did not have.
    fn add_tables(&mut self) -> Result<(), StoreError> {
        self.attempt(|database| {
            let there: Vec<String> =
                database.begin_read()?.list_tables()?.map(|table| table.name().to_owned()).collect();
            let missing = [ATTACHMENTS.name(), RANGES.name(), RELEASES.name()]
                .iter()
                .any(|name| !there.iter().any(|one| one == name));
            if missing {
                let write = database.begin_write()?;
                open_tables(&write)?;
                write.commit()?;
            }
            Ok(())
        })
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

/// Makes every table that is not there.
fn open_tables(write: &WriteTransaction) -> Result<(), redb::Error> {
    write.open_table(OBJECTS)?;
    write.open_table(ATTACHMENTS)?;
    write.open_table(RANGES)?;
    write.open_table(RELEASES)?;
    Ok(())
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
