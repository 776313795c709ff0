//! How a result is printed.

use clap::ValueEnum;

/// Shape of a printed result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}
