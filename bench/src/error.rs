//! Why there is no figure, and what to do about it.

use std::io;
use std::path::Path;

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{what} is missing; to install it: {install}")]
    Missing { what: String, install: String },
    #[error("cannot {what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("{name} did not start: {why}\n{log}")]
    Start { name: String, why: String, log: String },
    #[error("{name} answers {path} wrongly: {why}")]
    Wrong { name: String, path: String, why: String },
    #[error("the load on {name}: {why}")]
    Load { name: String, why: String },
    #[error("{0}")]
    Said(String),
}

impl Error {
    /// Something that cannot be done with a file.
    pub(crate) fn file(what: &str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            what: format!("{what} {}", path.display()),
            source,
        }
    }

    /// Something that cannot be done.
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }
}

/// What comes of most things here.
pub(crate) type Result<T> = std::result::Result<T, Error>;
