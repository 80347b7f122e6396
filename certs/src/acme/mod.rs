//! ACME (RFC 8555): an account that the fleet shares, orders that can be taken up by another node, three kinds of proof.
//!
//! When to order is decided in [`renewal`](crate::renewal), who orders by a lease of the store; here is how.

pub mod account;
pub mod answers;
pub mod dns;
mod http;
mod order;
mod proof;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use account::AccountKey;
pub use answers::{Answers, HttpAnswer};
pub use http::roots;
pub(crate) use order::{Pending, ari, complete, connect, connect_elsewhere, open};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The account, or its key.
    #[error("the account cannot be used")]
    Account(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What the CA says, or that it says nothing.
    #[error("{ca} did not issue it")]
    Ca {
        /// The URL of its directory.
        ca: Arc<str>,
        /// What it said.
        source: Box<instant_acme::Error>,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
        /// Whether the order is over, so that another has to be placed.
        over: bool,
    },
    /// The key or the request for it.
    #[error("cannot make a key")]
    Key(#[from] rcgen::Error),
    /// The DNS.
    #[error("the proof cannot be put into the DNS")]
    Dns(#[from] dns::Error),
    /// The file with the roots of the CA's https.
    #[error("{}: cannot be used for the roots of the CA: {reason}", .file.display())]
    Roots {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The order was refused.
    #[error("the order is invalid: {0}")]
    Invalid(String),
    /// The CA offers no proof of the configured kind.
    #[error("the CA does not offer {challenge} for {name}")]
    NoChallenge {
        /// The name.
        name: String,
        /// The kind.
        challenge: &'static str,
    },
    /// It took too long.
    #[error("the order got stuck")]
    Stuck,
}

impl Error {
    /// How long the CA asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Ca { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the order that was under way can come to nothing more.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Ca { over, .. } => *over,
            Self::Invalid(_) | Self::NoChallenge { .. } => true,
            Self::Account(_) | Self::Key(_) | Self::Dns(_) | Self::Roots { .. } | Self::Stuck => false,
        }
    }

    /// Whether the CA only did not like the nonce (RFC 8555 section 6.5), so that the same may be asked again.
    fn is_bad_nonce(&self) -> bool {
        let Self::Ca { source, .. } = self else {
            return false;
        };
        match &**source {
            instant_acme::Error::Api(problem) => {
                problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:badNonce")
            }
            _ => false,
        }
    }

    fn ca(ca: &Arc<str>, error: instant_acme::Error, retry_after: Option<Duration>) -> Self {
        Self::Ca {
            ca: Arc::clone(ca),
            over: matches!(error, instant_acme::Error::Api(_)),
            source: Box::new(error),
            retry_after,
        }
    }
}
