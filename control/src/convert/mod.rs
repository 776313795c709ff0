//! Protocol <-> model. Parse, don't validate: what comes out of here is a model type that passed its own rules.
//!
//! Names come from the protocol as text, so an error can always say which object it is about, even when the name
//! itself is what is wrong with it.

mod attachment;
pub(crate) mod ipam;
mod object;
mod observe;
pub(crate) mod refusals;
mod report;
mod status;
#[cfg(test)]
mod tests;

use crate::model::{Invalid, Refusal, Text, read};
pub(crate) use attachment::key as attachment_key;

/// A message does not say something podwire can understand.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConvertError {
    /// A field says something impossible.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A field that is needed is not there.
    #[error("{object}: {field} is missing; {remedy}")]
    Missing {
        /// Object or message.
        object: String,
        /// The field.
        field: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// An enumeration's number means nothing here.
    #[error("{object}: {field} has the unknown value {number}; use podwire and podwired of one version")]
    Unknown {
        /// Object or message.
        object: String,
        /// The field.
        field: &'static str,
        /// The number.
        number: i32,
    },
}

impl ConvertError {
    /// The same as a refusal of the object.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Invalid(invalid) => invalid.refusal(),
            Self::Missing { object, field, remedy } => Refusal::new(object, format!("{field} is missing; {remedy}")),
            Self::Unknown { object, field, number } => {
                let reason = format!("{field} has the unknown value {number}; use podwire and podwired of one version");
                Refusal::new(object, reason)
            }
        }
    }
}

type Result<T> = std::result::Result<T, ConvertError>;

/// Reads the text of `field`.
pub(crate) fn text<T: Text>(object: &str, field: &'static str, text: &str) -> Result<T> {
    read(text).map_err(|error| error.of(object, field).into())
}

/// Reads the text of `field` where there is one.
pub(crate) fn optional<T: Text>(object: &str, field: &'static str, given: Option<&String>) -> Result<Option<T>> {
    given.map(|given| text(object, field, given)).transpose()
}

/// Reads each text of `field`.
pub(crate) fn texts<T: Text>(object: &str, field: &'static str, given: &[String]) -> Result<Vec<T>> {
    given.iter().map(|given| text(object, field, given)).collect()
}

/// Fits a number into the model's narrower type.
fn number<N, T: TryFrom<N>>(object: &str, field: &'static str, given: N, remedy: &str) -> Result<T>
where
    N: Copy + std::fmt::Display,
{
    T::try_from(given).map_err(|_| {
        let problem = format!("{given} is out of range");
        Invalid { object: object.to_owned(), field, problem, remedy: remedy.to_owned() }.into()
    })
}

/// A part of a message that has to be there.
fn needed<T>(object: &str, field: &'static str, given: Option<T>, remedy: &'static str) -> Result<T> {
    given.ok_or_else(|| ConvertError::Missing { object: object.to_owned(), field, remedy })
}

/// Converts each row, stopping at the first that can not be.
pub(crate) fn rows<A, B: TryFrom<A, Error = ConvertError>>(rows: Vec<A>) -> Result<Vec<B>> {
    rows.into_iter().map(B::try_from).collect()
}

/// Converts each row where every row can be.
pub(crate) fn each<A, B: From<A>>(rows: Vec<A>) -> Vec<B> {
    rows.into_iter().map(B::from).collect()
}

/// Each as text.
pub(crate) fn shown<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

/// Conversions both ways between two structs whose fields have the same names and plain types.
macro_rules! same {
    ($($model:ty, $proto:ty { $($field:ident),+ };)+) => {
        $(
            impl From<$model> for $proto {
                fn from(given: $model) -> Self {
                    Self { $($field: given.$field),+ }
                }
            }
            impl From<$proto> for $model {
                fn from(given: $proto) -> Self {
                    Self { $($field: given.$field),+ }
                }
            }
        )+
    };
}
use same;

/// Conversions both ways between two enums; the unspecified number converts to nothing.
macro_rules! numbers {
    ($($model:ident, $proto:ident { $($variant:ident),+ };)+) => {
        $(
            impl From<model::$model> for pb::$proto {
                fn from(given: model::$model) -> Self {
                    match given { $(model::$model::$variant => Self::$variant),+ }
                }
            }
            impl Number for model::$model {
                const REMEDY: &'static str = concat!("give one of:" $(, " ", stringify!($variant))+);

                fn of(number: i32) -> Option<Self> {
                    match pb::$proto::try_from(number) {
                        $(Ok(pb::$proto::$variant) => Some(Self::$variant),)+
                        _ => None,
                    }
                }
            }
        )+
    };
}
use numbers;

/// A model enum with numbers in the protocol.
pub(crate) trait Number: Sized {
    /// What to do when it is missing.
    const REMEDY: &'static str;

    /// The value of a number, if it has one.
    fn of(number: i32) -> Option<Self>;
}

/// Reads an enumeration's number; 0 means that it is missing.
pub(crate) fn enumeration<M: Number>(object: &str, field: &'static str, number: i32) -> Result<M> {
    M::of(number).ok_or_else(|| match number {
        0 => ConvertError::Missing { object: object.to_owned(), field, remedy: M::REMEDY },
        _ => ConvertError::Unknown { object: object.to_owned(), field, number },
    })
}
