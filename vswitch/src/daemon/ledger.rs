//! The ledger: what each owner has stated, and the one view of it the switch works by.
//!
//! Pure: no device, no file, no clock. A request yields a [`Plan`] with the ledger as it would be, or refusals;
//! the caller compiles and stores the plan first and then takes [`Plan::next`] as its ledger, so a request
//! is taken over as a whole or not at all. What a single object may be is the model's matter; how objects fit
//! together is checked here, in `check`.

mod check;
mod effective;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use podwire_control::model::{Key, Object, Owner};

pub use effective::{Effective, Shadowed};

/// The node's pod segment, which is always there and which no bridge object can be named after.
pub const POD_SEGMENT: &str = "pods";
/// Ports that are always there and that no port object can be named after.
pub const RESERVED_PORTS: [&str; 2] = ["host", "uplink"];

type Objects = BTreeMap<Key, Object>;

/// Everything every owner has stated. Cloning shares the objects of owners.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    owners: BTreeMap<Owner, Arc<Objects>>,
}

/// Why an object was refused, in one sentence or two that say what to do.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct Refusal {
    /// The object.
    pub key: Key,
    /// Why, and the remedy.
    pub reason: String,
}

/// Keys in order, each in one of the three lists.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Not there before.
    pub added: Vec<Key>,
    /// There before with other content (or, in the effective view, another owner).
    pub changed: Vec<Key>,
    /// Not there any more.
    pub removed: Vec<Key>,
}

/// An accepted request, not in force yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The ledger once the request is in force.
    pub next: Ledger,
    /// Who asked.
    pub owner: Owner,
    /// What changes among the owner's own objects: what the store needs to know.
    pub own: Changes,
    /// What changes in the effective view: what the switch needs to do.
    pub effective: Changes,
}

/// A request to change some of an owner's objects.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// Objects to add, or to put in the place of those with the same keys.
    pub upserts: Vec<Object>,
    /// Objects to take away.
    pub deletes: Vec<Key>,
    /// Whether deleting what is not there is fine.
    pub ignore_missing: bool,
}

impl Ledger {
    /// The ledger of objects read back from the store. They are not checked: what a stored object refers to may be
    /// stated by an owner that has not spoken yet. [`Ledger::faults`] tells what does not fit at the moment.
    #[must_use]
    pub fn restore(objects: impl IntoIterator<Item = (Owner, Object)>) -> Self {
        let mut owners: BTreeMap<Owner, Objects> = BTreeMap::new();
        for (owner, object) in objects {
            owners.entry(owner).or_default().insert(object.key(), object);
        }
        Self { owners: owners.into_iter().map(|(owner, objects)| (owner, Arc::new(objects))).collect() }
    }

    /// Puts `objects` in the place of all the owner has stated. Stating the same again is an empty plan.
    ///
    /// # Errors
    /// One refusal for each object at fault; then nothing of the request may be used.
    pub fn apply(&self, owner: Owner, objects: Vec<Object>) -> Result<Plan, Vec<Refusal>> {
        let mut refusals = Vec::new();
        let wanted = by_key(objects, &mut refusals);
        self.plan(owner, wanted, refusals)
    }

    /// Changes some of what the owner has stated.
    ///
    /// # Errors
    /// One refusal for each object at fault, as for [`Ledger::apply`]; a missing object to delete is one, unless
    /// the request says otherwise.
    pub fn change(&self, owner: Owner, change: Change) -> Result<Plan, Vec<Refusal>> {
        let mut refusals = Vec::new();
        let upserts = by_key(change.upserts, &mut refusals);
        let mut wanted = self.owners.get(&owner).map(|own| Objects::clone(own)).unwrap_or_default();
        for key in change.deletes.into_iter().collect::<BTreeSet<_>>() {
            if upserts.contains_key(&key) {
                let reason = "the request both states and deletes it; ask for one of the two".to_owned();
                refusals.push(Refusal { key, reason });
            } else if wanted.remove(&key).is_none() && !change.ignore_missing {
                refusals.push(self.missing(owner, key));
            }
        }
        wanted.extend(upserts);
        self.plan(owner, wanted, refusals)
    }

    fn missing(&self, owner: Owner, key: Key) -> Refusal {
        let other = self.owners.iter().find(|(_, objects)| objects.contains_key(&key)).map(|(other, _)| other);
        let reason = match other {
            Some(other) => format!("it was stated by {other}, not by {owner}; have {other} take it back"),
            None => "there is none; see the list for what there is".to_owned(),
        };
        Refusal { key, reason }
    }

    /// Checks what the ledger would be. Faults it already has (see [`Ledger::restore`]) are not this request's.
    fn plan(&self, owner: Owner, wanted: Objects, mut refusals: Vec<Refusal>) -> Result<Plan, Vec<Refusal>> {
        let empty = Objects::new();
        let current = self.owners.get(&owner).map_or(&empty, |own| own);
        let own = Changes::between(current, &wanted);
        let mut next = self.clone();
        if wanted.is_empty() {
            next.owners.remove(&owner);
        } else {
            next.owners.insert(owner, Arc::new(wanted));
        }
        let (before, after) = (self.effective(), next.effective());
        let effective = Changes::between(before.entries(), after.entries());
        if !effective.is_empty() {
            let mut faults = check::faults(&after);
            if !faults.is_empty() {
                let known: HashSet<_> = check::faults(&before).into_iter().collect();
                faults.retain(|fault| !known.contains(fault));
            }
            refusals.extend(faults.into_iter().map(|fault| fault.into_refusal(&effective)));
            refusals.extend(check::limits(&after, effective.added.iter()));
        }
        if !refusals.is_empty() {
            refusals.sort();
            refusals.dedup();
            return Err(refusals);
        }
        Ok(Plan { next, owner, own, effective })
    }

    /// What one owner has stated, by key.
    pub fn objects(&self, owner: Owner) -> impl Iterator<Item = (&Key, &Object)> {
        self.owners.get(&owner).into_iter().flat_map(|objects| objects.iter())
    }

    /// The merged view: of objects with the same key, the one whose owner takes precedence.
    #[must_use]
    pub fn effective(&self) -> Effective<'_> {
        Effective::new(self.owners.iter().map(|(&owner, objects)| (owner, &**objects)))
    }

    /// Objects that another owner's object of the same key hides.
    #[must_use]
    pub fn shadowed(&self) -> Vec<Shadowed> {
        let effective = self.effective();
        let all = self.owners.iter().flat_map(|(&owner, objects)| objects.keys().map(move |key| (owner, key)));
        all.filter_map(|(owner, key)| {
            let (by, _) = effective.get(key).filter(|&(by, _)| by != owner)?;
            Some(Shadowed { key: key.clone(), owner, by })
        })
        .collect()
    }

    /// What does not fit at the moment: after [`Ledger::restore`] only. Such objects are not to be compiled.
    #[must_use]
    pub fn faults(&self) -> Vec<Refusal> {
        let view = self.effective();
        let nothing = Changes::default();
        let mut refusals = check::limits(&view, view.entries().keys().copied());
        refusals.extend(check::faults(&view).into_iter().map(|fault| fault.into_refusal(&nothing)));
        refusals
    }
}

impl Changes {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    /// Whether an object is added or changed.
    #[must_use]
    pub fn touches(&self, key: &Key) -> bool {
        self.added.binary_search(key).is_ok() || self.changed.binary_search(key).is_ok()
    }

    fn between<K: Ord + ToKey, V: PartialEq>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> Self {
        let mut changes = Self::default();
        for (key, value) in new {
            match old.get(key) {
                None => changes.added.push(key.to_key()),
                Some(before) if before != value => changes.changed.push(key.to_key()),
                Some(_) => {}
            }
        }
        changes.removed = old.keys().filter(|&key| !new.contains_key(key)).map(ToKey::to_key).collect();
        changes
    }
}

/// A key or a reference to one.
trait ToKey {
    fn to_key(&self) -> Key;
}

impl ToKey for Key {
    fn to_key(&self) -> Key {
        self.clone()
    }
}

impl ToKey for &Key {
    fn to_key(&self) -> Key {
        Key::clone(self)
    }
}

fn by_key(objects: Vec<Object>, refusals: &mut Vec<Refusal>) -> Objects {
    let mut map = Objects::new();
    for object in objects {
        match map.entry(object.key()) {
            Entry::Vacant(free) => {
                free.insert(object);
            }
            Entry::Occupied(taken) => {
                let reason = "the request states it more than once; state it once".to_owned();
                refusals.push(Refusal { key: taken.key().clone(), reason });
            }
        }
    }
    map
}

#[cfg(test)]
pub(super) mod any;
#[cfg(test)]
mod tests;
