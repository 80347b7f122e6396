//! What a bundle is made of, as text: it travels sealed through the store, and is checked before it serves.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::bundle::{self, Bundle};
use crate::store::slot::unix;

/// A chain and its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Material {
    /// The serial number of the leaf, in hex.
    pub serial: String,
    /// When the leaf ends, in seconds since 1970.
    pub not_after: u64,
    /// The chain as PEM, leaf first.
    pub chain: String,
    /// The private key as PEM.
    pub key: String,
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Material({})", self.serial)
    }
}

impl Material {
    /// What `chain` and `key` make, if they can serve `name` now.
    pub fn new(
        chain: String,
        key: String,
        name: &str,
        now: SystemTime,
    ) -> Result<(Self, Arc<Bundle>), Refused> {
        let bundle = bundle::parse(Path::new(name), &chain, &key, now).map_err(Refused::Broken)?;
        let material = Self {
            serial: bundle.serial.clone(),
            not_after: unix(bundle.not_after),
            chain,
            key,
        };
        check(&bundle, name, now)?;
        Ok((material, Arc::new(bundle)))
    }

    /// The bundle, if it is the one that `serial` names and can serve `name` now.
    pub fn bundle(&self, name: &str, serial: &str, now: SystemTime) -> Result<Arc<Bundle>, Refused> {
        let bundle = bundle::parse(Path::new(name), &self.chain, &self.key, now).map_err(Refused::Broken)?;
        if bundle.serial != serial {
            return Err(Refused::Swapped);
        }
        check(&bundle, name, now)?;
        Ok(Arc::new(bundle))
    }
}

fn check(bundle: &Bundle, name: &str, now: SystemTime) -> Result<(), Refused> {
    if !bundle.covers(name) {
        return Err(Refused::Foreign);
    }
    if bundle.not_after <= now {
        return Err(Refused::Expired);
    }
    if bundle.not_before > now + CLOCKS_APART {
        return Err(Refused::NotYet);
    }
    Ok(())
}

/// A CA's clock may be ahead of ours by that much.
const CLOCKS_APART: std::time::Duration = std::time::Duration::from_secs(300);

/// Why a bundle does not serve.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its variant means")]
pub enum Refused {
    #[error("cannot serve")]
    Broken(#[source] bundle::Error),
    #[error("has expired")]
    Expired,
    #[error("is for other names")]
    Foreign,
    #[error("is not valid yet; is the clock right?")]
    NotYet,
    #[error("cannot be had from the store")]
    Store(#[source] crate::store::Error),
    #[error("is not the certificate that the slot names")]
    Swapped,
}

impl Refused {
    /// As a label for metrics and logs.
    pub fn token(&self) -> &'static str {
        match self {
            Self::Broken(bundle::Error::KeyDoesNotFit { .. } | bundle::Error::LeafNotFirst { .. }) => {
                "mismatched"
            }
            Self::Broken(_) => "broken",
            Self::Expired => "expired",
            Self::Foreign => "foreign",
            Self::NotYet => "not-yet",
            Self::Store(_) => "unreadable",
            Self::Swapped => "swapped",
        }
    }
}
