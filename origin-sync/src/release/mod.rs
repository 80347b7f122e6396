//! Releases: what a bucket holds of them, and who may say so.
//!
//! A *blob* is bytes under their own SHA-256. A *manifest* lists the files of one version, by digest, and is signed by the
//! release key; it is written once. A *channel* says to which version each alias points, and is signed by the channel key;
//! it is the only thing that ever changes. Whoever holds the bucket but no key can withhold all of this, and alter none
//! of it: a reader opens documents with [`Trust`], asks for blobs by digest, and hashes what comes.
//!
//! Most of it is pure: no file, no socket, no clock. Keys come from text, time is an argument in seconds since 1970.
//!
//! | module | what it holds |
//! |---|---|
//! | [`names`], [`digest`] | text that was checked: names, versions, paths, digests |
//! | [`manifest`], [`channel`] | the two documents |
//! | [`envelope`] | how a document is signed, and opened again |
//! | [`keys`] | keys, their roles, their files |
//! | [`integrity`] | the fields by which a browser checks a response against a pinned key |
//! | [`coding`] | gzip, br, dcb: made, and decoded again |
//! | [`layout`] | where in the bucket each of them is |
//! | [`fleet`] | what is said between a promotion and the edges |

pub mod channel;
pub mod coding;
pub mod digest;
pub mod envelope;
pub mod fleet;
pub mod integrity;
pub mod keys;
pub mod layout;
pub mod manifest;
pub mod names;

pub use channel::{Channel, Pointer};
pub use coding::CodingName;
pub use digest::{Sha256, Sha384};
pub use envelope::Opened;
pub use keys::{PublicKey, Role, SecretKey, Trust, TrustedKey};
pub use manifest::{Class, Coding, File, Manifest};
pub use names::{Alias, FilePath, Name, Version};

/// The largest number in a document: RFC 8785 writes numbers as ECMAScript does, and no larger integer is exact there.
pub const NUMBER_MAX: u64 = (1 << 53) - 1;

/// What is wrong with the content of a document, or with a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Invalid {
    /// An error with this text.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}
