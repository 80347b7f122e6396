//! The store that a fleet shares: objects in a bucket or in a folder, written under conditions.
//!
//! Conditional writes are the only ordering there is: see [`slot`] for what is built on them. What an object means is not
//! known to the backends.

pub mod folder;
pub mod s3;
pub mod seal;
pub mod shared;
pub mod slot;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

pub use folder::Folder;
pub use s3::Bucket;
pub use seal::Keyring;
pub use shared::{Lease, Seen, Shared, Taken};
pub use slot::{Current, Failure, Slot};

/// What an asynchronous method of a trait object returns.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// No object of ours comes near it; what is larger is not ours.
pub(crate) const OBJECT_BYTES_MAX: usize = 1024 * 1024;

/// Objects by key, each with a tag that changes with its bytes.
pub trait Objects: fmt::Debug + Send + Sync + 'static {
    /// The object at `key`, if there is one.
    fn get<'a>(&'a self, key: &'a str) -> Boxed<'a, Result<Option<Object>, Error>>;

    /// Writes the object at `key` if `only_if` holds, in one step that no other writer can come between.
    fn put<'a>(&'a self, key: &'a str, body: Vec<u8>, only_if: OnlyIf) -> Boxed<'a, Result<Tag, Error>>;

    /// Removes the object at `key`; one that is not there is removed already.
    fn delete<'a>(&'a self, key: &'a str) -> Boxed<'a, Result<(), Error>>;

    /// The keys that begin with `prefix`, in order.
    fn list<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Result<Vec<String>, Error>>;
}

/// An object as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its bytes.
    pub body: Vec<u8>,
    /// What a conditional write names it by.
    pub tag: Tag,
}

/// Names one state of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(pub String);

/// Under which condition an object is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnlyIf {
    /// There is none.
    Absent,
    /// It is still this one.
    Unchanged(Tag),
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else wrote in between, or was there first.
    #[error("{key}: somebody else wrote it")]
    Conflict {
        /// The object.
        key: String,
    },
    /// What is there cannot be read as what it should be.
    #[error("{key}: {reason}")]
    Damaged {
        /// The object.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// What is there cannot be opened.
    #[error("{key}: cannot be opened")]
    Sealed {
        /// The object.
        key: String,
        /// Why.
        source: seal::SealError,
    },
    /// The store does not answer, or refuses.
    #[error("{key}: the store cannot be asked")]
    Unavailable {
        /// The object.
        key: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    pub(crate) fn unavailable(
        key: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unavailable {
            key: key.to_owned(),
            source: source.into(),
        }
    }

    pub(crate) fn conflict(key: &str) -> Self {
        Self::Conflict { key: key.to_owned() }
    }

    pub(crate) fn damaged(key: &str, reason: impl Into<String>) -> Self {
        Self::Damaged {
            key: key.to_owned(),
            reason: reason.into(),
        }
    }

    /// Whether somebody else was faster.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }
}
