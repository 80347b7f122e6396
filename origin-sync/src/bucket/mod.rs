//! A small S3, kept in a folder and served over HTTP/1.1: for the demo, for tests, and for trying things out.
//!
//! What it does it does as S3 does it: signatures are verified, conditional writes are atomic, checksums are
//! checked, listings are in order. What it does not do: versions, access lists, encryption, TLS, regions,
//! virtual-hosted names. And it fails on demand: see [`Faults`].
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use origin_sync::bucket::{Options, Server};
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let mut options = Options::new("/var/lib/bucket");
//! options.buckets = vec!["assets".into()];
//! let server = Server::start(options, listener).await?;
//! println!("http://{}/assets", server.address());
//! # Ok(()) }
//! ```

mod access;
mod checksum;
mod condition;
mod control;
mod convert;
mod fault;
mod listing;
mod log;
mod multipart;
mod naming;
mod raw;
mod reading;
mod serve;
mod service;
mod store;
mod writing;

use std::path::PathBuf;

pub use checksum::{Algorithm, Checksums};
pub use condition::{Expect, Preconditions, Refusal, Verdict};
pub use fault::{Barrier, Fault, Faults, Rule, RuleId};
pub use listing::{After, Page, Query};
pub use log::Seen;
pub use serve::Server;
pub use store::{
    Body, Draft, Meta, PartFault, PartRecord, Record, Store, StoreError, Upload, UploadId, Written,
};

/// How a bucket is served.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder; made if it is missing.
    pub dir: PathBuf,
    /// Who may do everything.
    pub access_key_id: String,
    /// The secret that goes with it.
    pub secret_access_key: String,
    /// Whether objects may be read without a signature.
    pub anonymous_read: bool,
    /// Whether keys may be listed. If not, a missing key is answered with 403 instead of 404, as S3 answers
    /// those who lack the right to list.
    pub list_allowed: bool,
    /// Buckets that are made if they are missing.
    pub buckets: Vec<String>,
    /// Whether a write is synchronised to disk before it is answered.
    pub durable: bool,
    /// Whether `/__faults` and `/__log` are served: to everyone, so only where everyone may break things.
    pub control: bool,
}

impl Options {
    /// The access key id unless another is given.
    pub const ACCESS_KEY_ID: &'static str = "portico";
    /// The secret access key unless another is given.
    pub const SECRET_ACCESS_KEY: &'static str = "portico-secret";

    /// Signed access only, listing allowed, no buckets, durable, no control.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            access_key_id: Self::ACCESS_KEY_ID.to_owned(),
            secret_access_key: Self::SECRET_ACCESS_KEY.to_owned(),
            anonymous_read: false,
            list_allowed: true,
            buckets: Vec::new(),
            durable: true,
            control: false,
        }
    }
}

/// Why a bucket could not be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder could not be opened, or a bucket could not be made in it.
    #[error("cannot open the store")]
    Store(#[from] StoreError),
    /// The listener did not say where it listens.
    #[error("cannot use the listener")]
    Listener(#[source] std::io::Error),
}
