//! What one transaction writes: all of it, durably, or nothing.

use std::net::IpAddr;

use podwire_control::model::{AttachmentKey, IpRange, Key, Object, Owner};
use redb::{Database, ReadableTable};

use super::Store;
use super::attachment::{self, StoredAttachment};
use super::layout::{ATTACHMENTS, COMMITS, META, OBJECTS, RANGES, RELEASES};
use super::record::{self, RecordError};
use crate::daemon::ipam::ReleaseRows;

/// Changes that are one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Batch<'a> {
    /// Objects of one owner to add or change, and keys of those to delete; one that is not there is fine. Those of an
    /// owner that is not kept are not written.
    pub objects: Option<(Owner, &'a [Object], &'a [Key])>,
    /// Attachments to add or change.
    pub attached: &'a [StoredAttachment],
    /// Attachments to delete; one that is not there is fine.
    pub detached: &'a [AttachmentKey],
    /// The CLI's ranges from now on, in their order.
    pub ranges: Option<&'a [IpRange]>,
    /// Releases to remember and to forget.
    pub releases: Option<&'a ReleaseRows>,
}

impl<'a> Batch<'a> {
    /// Objects of one owner, and nothing else.
    #[must_use]
    pub fn objects(owner: Owner, upserts: &'a [Object], deletes: &'a [Key]) -> Self {
        Self { objects: Some((owner, upserts, deletes)), ..Self::default() }
    }

    /// The objects that are written, if any.
    fn kept(&self) -> Option<(Owner, &'a [Object], &'a [Key])> {
        let written = |owner, upserts: &[Object], deletes: &[Key]| {
            Store::keeps(owner) && !(upserts.is_empty() && deletes.is_empty())
        };
        self.objects.filter(|&(owner, upserts, deletes)| written(owner, upserts, deletes))
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let of_attachments = self.attached.is_empty() && self.detached.is_empty();
        let of_ipam = self.ranges.is_none() && self.releases.is_none_or(|rows| *rows == ReleaseRows::default());
        self.kept().is_none() && of_attachments && of_ipam
    }
}

/// A batch with its records made; none of an empty one.
pub(super) struct Encoded<'a> {
    batch: &'a Batch<'a>,
    objects: Vec<(String, Vec<u8>)>,
    attachments: Vec<(&'a AttachmentKey, Vec<u8>)>,
}

/// Makes the records of a batch.
///
/// # Errors
/// What can not be written, and why.
pub(super) fn encode<'a>(batch: &'a Batch<'a>) -> Result<Option<Encoded<'a>>, (String, RecordError)> {
    if batch.is_empty() {
        return Ok(None);
    }
    let mut encoded = Encoded { batch, objects: Vec::new(), attachments: Vec::new() };
    for object in batch.kept().map_or(&[][..], |(_, upserts, _)| upserts) {
        let key = object.key().to_string();
        let bytes = record::encode(object).map_err(|reason| (key.clone(), reason))?;
        encoded.objects.push((key, bytes));
    }
    for stored in batch.attached {
        let key = &stored.attachment.key;
        let bytes = attachment::encode(stored).map_err(|reason| (key.to_string(), reason))?;
        encoded.attachments.push((key, bytes));
    }
    Ok(Some(encoded))
}

impl Encoded<'_> {
    /// Writes it in one transaction, and gives its number among those of this database.
    pub(super) fn write(&self, database: &Database) -> Result<u64, redb::Error> {
        let write = database.begin_write()?;
        if let Some((owner, _, deletes)) = self.batch.kept() {
            let mut table = write.open_table(OBJECTS)?;
            for key in deletes {
                table.remove((owner.name(), key.to_string().as_str()))?;
            }
            for (key, bytes) in &self.objects {
                table.insert((owner.name(), key.as_str()), bytes.as_slice())?;
            }
        }
        {
            let mut table = write.open_table(ATTACHMENTS)?;
            for key in self.batch.detached {
                table.remove((key.container.as_str(), key.ifname.as_str()))?;
            }
            for (key, bytes) in &self.attachments {
                table.insert((key.container.as_str(), key.ifname.as_str()), bytes.as_slice())?;
            }
        }
        if let Some(ranges) = self.batch.ranges {
            let mut table = write.open_table(RANGES)?;
            table.retain(|_, _| false)?;
            for (place, range) in (0u64..).zip(ranges) {
                table.insert(place, range.to_string().as_str())?;
            }
        }
        if let Some(rows) = self.batch.releases {
            let mut table = write.open_table(RELEASES)?;
            for &address in &rows.forgotten {
                table.remove(octets(address).as_slice())?;
            }
            for &(address, when) in &rows.released {
                table.insert(octets(address).as_slice(), when)?;
            }
        }
        let number = {
            let mut meta = write.open_table(META)?;
            let number = commits(&meta)? + 1;
            meta.insert(COMMITS, number.to_be_bytes().as_slice())?;
            number
        };
        write.commit()?;
        Ok(number)
    }
}

/// How many batches were written; none by a podwired that did not count them.
pub(super) fn commits(meta: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<u64, redb::Error> {
    let stored = meta.get(COMMITS)?;
    let number = stored.and_then(|bytes| bytes.value().try_into().ok());
    Ok(number.map_or(0, u64::from_be_bytes))
}

/// An address as a key: 4 or 16 bytes in network order.
fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The address of a key.
pub(super) fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}
