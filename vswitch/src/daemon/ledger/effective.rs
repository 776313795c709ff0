//! The merged view of all owners' objects, borrowed from a ledger.

use std::collections::BTreeMap;

use podwire_control::model::{
    Bridge, BridgeName, Key, Object, Owner, Port, PortName, Route, StaticMac, Vtep, VtepName,
};

/// One object a key, from the owner that takes precedence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Effective<'a> {
    entries: BTreeMap<&'a Key, (Owner, &'a Object)>,
}

/// An object that has no effect, because an owner that takes precedence states the same one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shadowed {
    /// The object.
    pub key: Key,
    /// Whose object has no effect.
    pub owner: Owner,
    /// Whose object is in force.
    pub by: Owner,
}

impl<'a> Effective<'a> {
    /// Merges owners given in order of precedence.
    pub(super) fn new(owners: impl DoubleEndedIterator<Item = (Owner, &'a BTreeMap<Key, Object>)>) -> Self {
        let mut entries = BTreeMap::new();
        for (owner, objects) in owners.rev() {
            entries.extend(objects.iter().map(|(key, object)| (key, (owner, object))));
        }
        Self { entries }
    }

    pub(super) fn entries(&self) -> &BTreeMap<&'a Key, (Owner, &'a Object)> {
        &self.entries
    }

    /// All objects in key order: bridges, VTEPs, ports, MACs, routes.
    pub fn iter(&self) -> impl Iterator<Item = (&'a Key, Owner, &'a Object)> {
        self.entries.iter().map(|(&key, &(owner, object))| (key, owner, object))
    }

    /// One object and whose it is.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<(Owner, &'a Object)> {
        self.entries.get(key).copied()
    }

    /// Number of objects.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A port by name.
    #[must_use]
    pub fn port(&self, name: &PortName) -> Option<&'a Port> {
        match self.get(&Key::Port(name.clone())) {
            Some((_, Object::Port(port))) => Some(port),
            _ => None,
        }
    }

    /// A bridge by name.
    #[must_use]
    pub fn bridge(&self, name: &BridgeName) -> Option<&'a Bridge> {
        match self.get(&Key::Bridge(name.clone())) {
            Some((_, Object::Bridge(bridge))) => Some(bridge),
            _ => None,
        }
    }

    /// A VTEP by name.
    #[must_use]
    pub fn vtep(&self, name: &VtepName) -> Option<&'a Vtep> {
        match self.get(&Key::Vtep(name.clone())) {
            Some((_, Object::Vtep(vtep))) => Some(vtep),
            _ => None,
        }
    }

    /// All ports, by name.
    pub fn ports(&self) -> impl Iterator<Item = (Owner, &'a Port)> {
        self.of(|object| if let Object::Port(port) = object { Some(port) } else { None })
    }

    /// All bridges, by name.
    pub fn bridges(&self) -> impl Iterator<Item = (Owner, &'a Bridge)> {
        self.of(|object| if let Object::Bridge(bridge) = object { Some(bridge) } else { None })
    }

    /// All VTEPs, by name.
    pub fn vteps(&self) -> impl Iterator<Item = (Owner, &'a Vtep)> {
        self.of(|object| if let Object::Vtep(vtep) = object { Some(vtep) } else { None })
    }

    /// All static MACs, by bridge and address.
    pub fn macs(&self) -> impl Iterator<Item = (Owner, &'a StaticMac)> {
        self.of(|object| if let Object::Mac(mac) = object { Some(mac) } else { None })
    }

    /// All routes, by prefix.
    pub fn routes(&self) -> impl Iterator<Item = (Owner, &'a Route)> {
        self.of(|object| if let Object::Route(route) = object { Some(route) } else { None })
    }

    fn of<T: 'a>(&self, pick: fn(&'a Object) -> Option<&'a T>) -> impl Iterator<Item = (Owner, &'a T)> {
        self.entries.values().filter_map(move |&(owner, object)| Some((owner, pick(object)?)))
    }
}
