//! The store: what the CLI and the CNI plugin stated, kept over restarts in `state_dir/podwired.redb`, and beside it the
//! containers' attachments and what IPAM has to remember.
//!
//! Other owners state their objects anew when the daemon starts, so theirs are not kept. A commit is one ACID
//! transaction and durable when it returns. It is then made in a copy beside the control socket as well: from the copy a
//! damaged file is made anew, and the pods of before are served while the disk fails
//! ([0026](../../../docs/decisions/0026-the-stores-copy.md)). With neither the file is left as it is, for somebody to look at;
//! the daemon can run without a store, and then forgets.

mod attachment;
mod batch;
mod error;
mod file;
mod layout;
mod place;
mod probe;
mod record;

use std::fmt::Display;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use podwire_control::model::{IpRange, Object, Owner};

use self::batch::Encoded;
use self::file::StoreFile;
pub use attachment::StoredAttachment;
pub use batch::Batch;
pub use error::StoreError;
pub use place::{Place, if_there};

/// A store in use.
#[derive(Debug)]
pub struct Store {
    place: Place,
    main: StoreFile,
    /// Equal to the main file; none when it could not be written.
    copy: Option<StoreFile>,
    /// Batches in what is served, which is also what both files have to hold.
    commits: u64,
    /// Why the main file can not be used for now.
    unusable: Option<String>,
    /// What an operator should know, from the start on.
    warnings: Vec<String>,
}

/// What a store remembers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Remembered {
    /// The objects, each with its owner.
    pub objects: Vec<(Owner, Object)>,
    /// What containers have.
    pub attachments: Vec<StoredAttachment>,
    /// The CLI's ranges, in their order.
    pub ranges: Vec<IpRange>,
    /// The addresses that were released, and when.
    pub releases: Vec<(IpAddr, u64)>,
}

/// A file that was opened and read.
struct Opened {
    file: StoreFile,
    remembered: Remembered,
    commits: u64,
}

impl Opened {
    fn read(mut file: StoreFile) -> Result<Self, StoreError> {
        Ok(Self { remembered: file.load()?, commits: file.commits()?, file })
    }
}

impl Store {
    /// Opens the store at a place and makes one where there is none. A damaged file is made anew from the copy; while the disk
    /// fails, what is remembered is the copy's.
    ///
    /// # Errors
    /// [`StoreError`]; the file is as it was then.
    pub fn open(place: Place) -> Result<(Self, Remembered), StoreError> {
        let opened = main_file(&place).and_then(|(file, aside)| Ok((Opened::read(file)?, aside)));
        let error = match opened {
            Ok((Opened { file, remembered, commits }, aside)) => {
                let mut store = Self::new(place, file, commits);
                aside.into_iter().for_each(|aside| store.tell_of_before(&aside));
                store.make_copy();
                return Ok((store, remembered));
            }
            Err(error) => error,
        };
        let Opened { file: copy, remembered, commits } = copy_instead(&place, error)?;
        let main = StoreFile::at(place.main.clone());
        let mut store = Self { copy: Some(copy), ..Self::new(place, main, commits) };
        if let Err(error) = store.open_again() {
            store.lose(&error);
        }
        Ok((store, remembered))
    }

    /// What the store at a place remembers; none is made, and none is mended.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn peek(place: &Place) -> Result<Remembered, StoreError> {
        if place.is_unused().map_err(|source| StoreError::Open { path: place.main.clone(), source })? {
            return Ok(Remembered::default());
        }
        let opened = StoreFile::open(place.main.clone(), &place.node).and_then(Opened::read);
        let opened = opened.or_else(|error| copy_instead(place, error));
        opened.map(|opened| opened.remembered)
    }

    fn new(place: Place, main: StoreFile, commits: u64) -> Self {
        Self { place, main, copy: None, commits, unusable: None, warnings: Vec::new() }
    }

    /// Whether an owner's objects are kept.
    #[must_use]
    pub fn keeps(owner: Owner) -> bool {
        matches!(owner, Owner::Cli | Owner::Cni)
    }

    /// Why nothing can be stored for now.
    #[must_use]
    pub fn unusable(&self) -> Option<&str> {
        self.unusable.as_deref()
    }

    /// What an operator should know.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let unusable = self
            .unusable
            .iter()
            .map(|why| format!("{why}; what was stored holds, and nothing can be stored until then"));
        unusable.chain(self.warnings.iter().cloned())
    }

    /// Stores a batch: all of it, durably, or nothing.
    ///
    /// # Errors
    /// [`StoreError`], as when the disk is full; what was stored before stays.
    pub fn commit(&mut self, batch: &Batch<'_>) -> Result<(), StoreError> {
        let encoded = batch::encode(batch).map_err(|(object, reason)| self.main.unread(object, reason))?;
        let Some(encoded) = encoded else { return Ok(()) };
        self.commits = self.in_main(|main| main.commit(&encoded))?;
        self.follow(&encoded);
        Ok(())
    }

    /// Takes the main file into use again if it was not usable and can be written, and makes one that is damaged anew from
    /// the copy.
    ///
    /// # Errors
    /// Why it can not be used yet.
    pub fn look_again(&mut self) -> Result<(), StoreError> {
        if self.unusable.is_none() {
            return Ok(());
        }
        self.in_main(StoreFile::try_writing)
    }

    /// Writes into the main file. After a failure nobody knows what is in it, so it is first compared with what is in use.
    fn in_main<T>(&mut self, write: impl FnOnce(&mut StoreFile) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let opened = if self.unusable.is_none() { Ok(()) } else { self.open_again() };
        match opened.and_then(|()| write(&mut self.main)) {
            Ok(written) => {
                if self.unusable.take().is_some() {
                    tracing::info!(store = %self.place.main.display(), "the store is in use again");
                }
                Ok(written)
            }
            Err(error) => {
                self.lose(&error);
                Err(error)
            }
        }
    }

    fn open_again(&mut self) -> Result<(), StoreError> {
        self.main = StoreFile::at(self.place.main.clone());
        let open = |place: &Place| StoreFile::open(place.main.clone(), &place.node).and_then(Opened::read);
        let opened = match open(&self.place) {
            Err(StoreError::Damaged { reason, .. }) if self.copy.is_some() => {
                self.mend(reason)?;
                open(&self.place)?
            }
            opened => opened?,
        };
        if opened.commits != self.commits {
            return Err(StoreError::Changed { path: self.place.main.clone() });
        }
        self.main = opened.file;
        Ok(())
    }

    /// Puts the copy in the place of the damaged main file, which is kept beside it.
    fn mend(&mut self, reason: String) -> Result<(), StoreError> {
        let Place { main, copy, .. } = &self.place;
        let kept = self.place.damaged();
        let mended = place::keep_as(main, &kept).and_then(|()| place::replace(main, copy));
        mended.map_err(|source| StoreError::Mend { path: main.clone(), reason: reason.clone(), source })?;
        let [main, copy, kept] = [main, copy, &kept].map(|path| path.display());
        let warning = format!(
            "the store {main} was damaged ({reason}); it was made anew from its copy {copy}: see to the disk, and \
             remove the damaged one, {kept}, when nobody needs it"
        );
        self.warn(warning);
        Ok(())
    }

    /// Notes that the main file was missing, and where its content still is.
    fn tell_of_before(&mut self, aside: &Path) {
        let (main, aside) = (self.place.main.display(), aside.display());
        self.warn(format!(
            "the store {main} was missing, so podwired began with an empty one; what it held is in {aside} until the next \
             boot: if it is wanted back, stop podwired, move that to {main}, and start"
        ));
    }

    /// Notes that the main file can not be used.
    fn lose(&mut self, error: &StoreError) {
        let why = error.to_string();
        if self.unusable.as_ref() != Some(&why) {
            tracing::error!(why, "the store can not be used for now");
        }
        self.unusable = Some(why);
    }

    /// Makes the copy what the main file is.
    fn make_copy(&mut self) {
        let Place { main, copy, .. } = &self.place;
        match place::replace(copy, main) {
            Ok(()) => self.copy = Some(StoreFile::at(copy.clone())),
            Err(error) => self.give_up_copy(error),
        }
    }

    /// Makes in the copy what was made in the main file.
    fn follow(&mut self, batch: &Encoded<'_>) {
        let Some(copy) = &mut self.copy else { return };
        match copy.commit(batch) {
            Ok(commits) if commits == self.commits => {}
            Ok(_) => self.give_up_copy("it is not what the store was"),
            Err(error) => self.give_up_copy(error),
        }
    }

    /// A copy that is not equal to the main file must never be used.
    fn give_up_copy(&mut self, why: impl Display) {
        self.copy = None;
        let copy = &self.place.copy;
        let left = match if_there(fs::remove_file(copy)) {
            Ok(_) => String::new(),
            Err(error) => format!(", and has to be removed by hand ({error})"),
        };
        let warning = format!(
            "the store's copy {} can not be written ({why}){left}; until it is made again at the next start nothing can mend \
             the store: see that its file system has space",
            copy.display()
        );
        self.warn(warning);
    }

    fn warn(&mut self, warning: String) {
        tracing::warn!("{warning}");
        self.warnings.push(warning);
    }
}

/// The file at a place. If there is none one is made, and the copy of one that is gone is put aside.
fn main_file(place: &Place) -> Result<(StoreFile, Option<PathBuf>), StoreError> {
    let refused = |source| StoreError::Open { path: place.main.clone(), source };
    if place.is_unused().map_err(refused)? {
        let aside = place.make().map_err(refused)?;
        return Ok((StoreFile::open_or_make(place.main.clone(), &place.node)?, aside));
    }
    Ok((StoreFile::open(place.main.clone(), &place.node)?, None))
}

/// The copy, for a main file that failed so.
///
/// # Errors
/// That failure, where a copy is not what helps, or there is none.
fn copy_instead(place: &Place, error: StoreError) -> Result<Opened, StoreError> {
    if !matches!(error, StoreError::Damaged { .. }) && !error.is_of_disk() {
        return Err(error);
    }
    StoreFile::open(place.copy.clone(), &place.node).and_then(Opened::read).map_err(|of_copy| match of_copy {
        StoreError::InUse { .. } => of_copy,
        _ => error,
    })
}

#[cfg(test)]
mod tests;
