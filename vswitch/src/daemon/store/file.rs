//! One file of the store: a database with a table for each kind of record, of one node.

use std::fs::{self, OpenOptions};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use podwire_control::model::{IpRange, Object, Owner, read};
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableHandle, Value,
    WriteTransaction,
};

use super::attachment::{self, StoredAttachment};
use super::batch::{self, Encoded};
use super::layout::{ATTACHMENTS, CACHE_BYTES, META, OBJECTS, RANGES, RELEASES, SCHEMA};
use super::probe::{self, Unusable};
use super::{Remembered, StoreError, record};

/// A file of the store; while it is open no other process can open it.
#[derive(Debug)]
pub(super) struct StoreFile {
    pub(super) path: PathBuf,
    /// None before its first use, and after an I/O error, until the next use opens the file.
    pub(super) database: Option<Database>,
}

impl StoreFile {
    /// The file at a path, opened when it is used.
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path, database: None }
    }

    /// Opens the file of a node; an empty one is made a store of it.
    ///
    /// # Errors
    /// [`StoreError`]; the file is as it was then.
    pub(super) fn open_or_make(path: PathBuf, node: &str) -> Result<Self, StoreError> {
        let mut file = Self::at(path);
        file.check_meta(node)?;
        file.add_tables()?;
        Ok(file)
    }

    /// Opens the file of a node, which is not to be empty.
    ///
    /// # Errors
    /// [`StoreError`]; the file is as it was then.
    pub(super) fn open(path: PathBuf, node: &str) -> Result<Self, StoreError> {
        match fs::metadata(&path) {
            Ok(found) if found.is_file() && found.len() == 0 => {
                Err(StoreError::Damaged { path, reason: "it is empty".to_owned() })
            }
            Ok(_) => Self::open_or_make(path, node),
            Err(source) => Err(StoreError::Open { path, source }),
        }
    }

    /// All that is in it.
    ///
    /// # Errors
    /// [`StoreError`]: it is damaged, or something in it is not understood.
    pub(super) fn load(&mut self) -> Result<Remembered, StoreError> {
        Ok(Remembered {
            objects: self.objects()?,
            attachments: self.attachments()?,
            ranges: self.ranges()?,
            releases: self.releases()?,
        })
    }

    /// How many batches were written into it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn commits(&mut self) -> Result<u64, StoreError> {
        self.attempt(|database| batch::commits(&database.begin_read()?.open_table(META)?))
    }

    /// Writes a batch: all of it, durably, or nothing. Gives the number of batches written so far.
    ///
    /// # Errors
    /// [`StoreError::Failed`], as when the disk is full; what was stored before stays.
    pub(super) fn commit(&mut self, batch: &Encoded<'_>) -> Result<u64, StoreError> {
        self.attempt(|database| batch.write(database))
    }

    /// Writes something that changes nothing, to see whether it can be written.
    ///
    /// # Errors
    /// [`StoreError`], as of a batch.
    pub(super) fn try_writing(&mut self) -> Result<(), StoreError> {
        self.attempt(|database| {
            let write = database.begin_write()?;
            write.open_table(META)?.insert("schema", SCHEMA.to_be_bytes().as_slice())?;
            Ok(write.commit()?)
        })
    }

    pub(super) fn objects(&mut self) -> Result<Vec<(Owner, Object)>, StoreError> {
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

    pub(super) fn attachments(&mut self) -> Result<Vec<StoredAttachment>, StoreError> {
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

    pub(super) fn ranges(&mut self) -> Result<Vec<IpRange>, StoreError> {
        let rows = self.rows(RANGES, |_, range| range.to_owned())?;
        let refused = |text| self.unread(format!("the range {text}"), "it is no range of addresses".to_owned());
        rows.into_iter().map(|text| read(&text).map_err(|_| refused(text))).collect()
    }

    pub(super) fn releases(&mut self) -> Result<Vec<(IpAddr, u64)>, StoreError> {
        let rows = self.rows(RELEASES, |octets, when| (octets.to_owned(), when))?;
        let refused = |octets| self.unread(format!("the release {octets:02x?}"), "it is of no address".to_owned());
        rows.into_iter()
            .map(|(octets, when)| Ok((batch::address(&octets).ok_or_else(|| refused(octets))?, when)))
            .collect()
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

    pub(super) fn unread(&self, object: String, reason: String) -> StoreError {
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
    let file = OpenOptions::new().read(true).write(true).open(path);
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
