//! What a file of the store consists of.

use redb::TableDefinition;

/// Version of the tables. Of records, see `record`.
pub(super) const SCHEMA: u64 = 1;
/// Bytes of the file kept in memory at most.
pub(super) const CACHE_BYTES: usize = 4 << 20;

/// What is true of the file: `schema`, `node`, and `commits`, how many batches were written into it.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// (owner, key as shown) to record.
pub(super) const OBJECTS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("objects");
/// (container, interface) to record.
pub(super) const ATTACHMENTS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("attachments");
/// Place in the order they are tried to range of the CLI, as shown.
pub(super) const RANGES: TableDefinition<'_, u64, &str> = TableDefinition::new("ipam_ranges");
/// Address to when it was released, in numbers of releases.
pub(super) const RELEASES: TableDefinition<'_, &[u8], u64> = TableDefinition::new("ipam_releases");

/// The key in [`META`] of how many batches were written.
pub(super) const COMMITS: &str = "commits";
