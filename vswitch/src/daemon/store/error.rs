//! Why the store can not be used.

use std::io;
use std::path::PathBuf;

use super::layout::SCHEMA;

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
    /// It is damaged, and could not be made anew.
    #[error(
        "the store {} is damaged ({reason}) and can not be made anew from its copy: {source}; see that its directory can be \
         written and has space",
        path.display()
    )]
    Mend {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
        /// Why it is still so.
        source: io::Error,
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
    /// It could not be used for a while, and is not what it was.
    #[error("the store {} is back and holds something else than what is in use; restart podwired to have it used", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
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

impl StoreError {
    /// Whether the disk is at fault: the content is as it was, and can be used once the disk works.
    pub(super) fn is_of_disk(&self) -> bool {
        match self {
            Self::Open { .. } => true,
            Self::Failed { source, .. } => matches!(**source, redb::Error::Io(_)),
            _ => false,
        }
    }
}
