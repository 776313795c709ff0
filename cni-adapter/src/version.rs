//! The versions of the specification that are spoken, and in what they differ.

use serde_json::{Value, json};

use crate::failure::{Code, Failure};

/// A version of the specification.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Version {
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl Version {
    /// All of them, oldest first.
    pub(crate) const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// What is spoken to a runtime that names no version that is understood.
    pub(crate) const NEWEST: Self = Self::V1_1_0;

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Whether addresses in results say their family.
    pub(crate) fn names_families(self) -> bool {
        self < Self::V1_0_0
    }

    /// Whether interfaces in results say their MTU.
    pub(crate) fn names_mtus(self) -> bool {
        self >= Self::V1_1_0
    }

    pub(crate) fn read(name: &str) -> Result<Self, Failure> {
        Self::ALL.into_iter().find(|version| version.name() == name).ok_or_else(|| {
            let remedy = format!("write one of {} into the network configuration", names().join(", "));
            Failure::new(Code::INCOMPATIBLE_VERSION, format!("cniVersion {name} is not supported"), remedy)
        })
    }
}

fn names() -> [&'static str; 4] {
    Version::ALL.map(Version::name)
}

/// The answer to `VERSION`, to a request in whatever version.
pub(crate) fn supported(asked: &str) -> Value {
    json!({"cniVersion": asked, "supportedVersions": names()})
}
