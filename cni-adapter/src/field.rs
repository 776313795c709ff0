//! Reading the network configuration key by key, so that an error names the key as it is written there.

use serde_json::Value;

use crate::failure::{Code, Failure};

/// A place in the configuration, and what stands there. `null` is the same as nothing.
#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    name: String,
    pub(crate) value: Option<&'a Value>,
}

impl<'a> Field<'a> {
    /// The whole, whose keys are named without a prefix.
    pub(crate) fn root(value: &'a Value) -> Self {
        Self { name: String::new(), value: Some(value) }
    }

    /// A key of an object, in whatever case where nothing has it exactly so: runtimes in Go write `HostPort` for `hostPort`
    /// (containerd does), since Go's decoder takes one for the other.
    pub(crate) fn get(&self, key: &str) -> Result<Self, Failure> {
        let name = if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) };
        let value = match self.value {
            None => None,
            Some(Value::Object(object)) => {
                let alike = || object.iter().find(|(other, _)| other.eq_ignore_ascii_case(key)).map(|(_, value)| value);
                object.get(key).or_else(alike).filter(|value| !value.is_null())
            }
            Some(_) => return Err(self.wrong("an object is needed")),
        };
        Ok(Self { name, value })
    }

    /// What stands there, if `read` understands it.
    pub(crate) fn read<T>(
        &self,
        remedy: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        self.value.map(|value| read(value).ok_or_else(|| self.wrong(remedy))).transpose()
    }

    /// A text.
    pub(crate) fn text(&self) -> Result<Option<&'a str>, Failure> {
        self.read("write a text", Value::as_str)
    }

    /// The elements of a list; none where there is no list.
    pub(crate) fn items(&self) -> Result<Vec<Self>, Failure> {
        let items = self.read("write a list", Value::as_array)?.map(Vec::as_slice).unwrap_or_default();
        let named = items.iter().enumerate();
        Ok(named.map(|(at, value)| Self { name: format!("{}[{at}]", self.name), value: Some(value) }).collect())
    }

    /// What stands there is wrong.
    pub(crate) fn wrong(&self, remedy: &str) -> Failure {
        let shown = self.value.map_or_else(|| "missing".into(), |value| format!("{value}, which is wrong"));
        let name = if self.name.is_empty() { "the network configuration" } else { &self.name };
        Failure::new(Code::INVALID_CONFIG, format!("{name} is {shown}"), remedy)
    }
}
