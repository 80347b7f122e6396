//! Which certificate a handshake gets: by the name that the client asks for, then by the signatures it can check.
//!
//! A name is looked up exactly, then as a wildcard of one label (RFC 6125 section 6.4.3). A client that names a host we have no
//! certificate for is refused, so no tenant's certificate is shown under another tenant's name. One that names
//! none gets the default certificate, or is refused when there is none. The table is swapped whole, and read without a
//! lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

use crate::bundle::Bundle;

/// Chooses certificates for handshakes.
#[derive(Debug, Default)]
pub struct Resolver {
    table: ArcSwap<Table>,
    refusals: [AtomicU64; Refusal::ALL.len()],
}

impl Resolver {
    /// A resolver of `bundles`, each with whether it is the default.
    pub fn new(bundles: impl IntoIterator<Item = (Arc<Bundle>, bool)>) -> Self {
        let resolver = Self::default();
        resolver.replace(bundles);
        resolver
    }

    /// Swaps all certificates at once. Handshakes that run go on with those they have.
    pub fn replace(&self, bundles: impl IntoIterator<Item = (Arc<Bundle>, bool)>) {
        self.table.store(Arc::new(Table::new(bundles)));
    }

    /// Whether a client that names `server_name` has a certificate waiting, whatever signatures it can check.
    /// A refusal is counted.
    pub fn admit(&self, server_name: Option<&str>) -> Result<(), Refusal> {
        match self.table.load().candidates(server_name) {
            Ok(_) => Ok(()),
            Err(refusal) => Err(self.count(refusal)),
        }
    }

    /// How many handshakes were refused for this reason.
    pub fn refusals(&self, reason: Refusal) -> u64 {
        self.refusals
            .get(reason as usize)
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// The bundles that serve now, in the order of the configuration.
    pub fn bundles(&self) -> Vec<Arc<Bundle>> {
        self.table.load().bundles.clone()
    }

    /// When the first of the served certificates expires; `None` when there is none.
    pub fn soonest_expiry(&self) -> Option<SystemTime> {
        self.table
            .load()
            .bundles
            .iter()
            .map(|bundle| bundle.not_after)
            .min()
    }

    fn choose(
        &self,
        server_name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Result<Arc<CertifiedKey>, Refusal> {
        let table = self.table.load();
        let chosen = table
            .candidates(server_name)?
            .find(|bundle| bundle.certified_key.key.choose_scheme(schemes).is_some());
        match chosen {
            Some(bundle) => Ok(Arc::clone(&bundle.certified_key)),
            None => Err(Refusal::NoCompatibleKey),
        }
    }

    fn count(&self, refusal: Refusal) -> Refusal {
        if let Some(count) = self.refusals.get(refusal as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        refusal
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(client_hello.server_name(), client_hello.signature_schemes())
            .map_err(|refusal| self.count(refusal))
            .ok()
    }
}

/// Why a handshake got no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The client can check none of the signatures that the keys for this name make.
    NoCompatibleKey,
    /// The client named no host, and there is no default certificate.
    NoServerName,
    /// There is no certificate for the name.
    UnknownName,
}

impl Refusal {
    /// All reasons, in order.
    pub const ALL: [Self; 3] = [Self::NoCompatibleKey, Self::NoServerName, Self::UnknownName];
}

#[derive(Debug, Default)]
struct Table {
    exact: HashMap<Box<str>, Vec<Arc<Bundle>>>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Vec<Arc<Bundle>>>,
    default: Vec<Arc<Bundle>>,
    bundles: Vec<Arc<Bundle>>,
}

impl Table {
    fn new(bundles: impl IntoIterator<Item = (Arc<Bundle>, bool)>) -> Self {
        let mut table = Self::default();
        for (bundle, default) in bundles {
            table.insert(bundle, default);
        }
        let lists = table.exact.values_mut().chain(table.wildcard.values_mut());
        for list in lists.chain([&mut table.default]) {
            list.sort_by_key(|bundle| (cost(bundle.algorithm()), std::cmp::Reverse(bundle.not_after)));
        }
        table
    }

    fn insert(&mut self, bundle: Arc<Bundle>, default: bool) {
        for name in &bundle.names {
            let list = match name.strip_prefix("*.") {
                Some(parent) => self.wildcard.entry(parent.into()),
                None => self.exact.entry(name.as_str().into()),
            };
            list.or_default().push(Arc::clone(&bundle));
        }
        if default {
            self.default.push(Arc::clone(&bundle));
        }
        self.bundles.push(bundle);
    }

    /// All bundles for a name, best first: exact before wildcard. rustls hands names over in lowercase.
    fn candidates(&self, server_name: Option<&str>) -> Result<impl Iterator<Item = &Arc<Bundle>>, Refusal> {
        let (first, second): (&[_], &[_]) = match server_name {
            Some(name) => {
                let name = name.trim_end_matches('.');
                let wildcard = name
                    .split_once('.')
                    .and_then(|(_, parent)| self.wildcard.get(parent));
                (
                    self.exact.get(name).map_or(&[], Vec::as_slice),
                    wildcard.map_or(&[], Vec::as_slice),
                )
            }
            None if self.default.is_empty() => return Err(Refusal::NoServerName),
            None => (&self.default, &[]),
        };
        if first.is_empty() && second.is_empty() {
            return Err(Refusal::UnknownName);
        }
        Ok(first.iter().chain(second))
    }
}

/// The order of preference among keys for the same name: what is cheapest to sign with first.
fn cost(algorithm: SignatureAlgorithm) -> u8 {
    match algorithm {
        SignatureAlgorithm::ECDSA => 0,
        SignatureAlgorithm::ED25519 => 1,
        _ => 2,
    }
}
