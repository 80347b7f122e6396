//! Which certificate a handshake gets: by the name that the client asks for, then by the signatures it can check.
//!
//! A name is looked up exactly, then as a wildcard of one label (RFC 6125 section 6.4.3). A client that names a host
//! we have no certificate for is refused, so no tenant's certificate is shown under another tenant's name. One that
//! names none gets the default certificate, or is refused when there is none. The table is swapped whole, and read
//! without a lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs::DEFAULT_CIPHER_SUITES;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, SignatureAlgorithm, SignatureScheme};

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

    /// As [`Resolver::admit`], and whether the client can check what any of the keys for the name would sign.
    pub fn admit_hello(&self, hello: &ClientHello<'_>) -> Result<(), Refusal> {
        self.admit(hello.server_name())?;
        // Clients that share no suite are often old ones: what they are told is up to rustls, which knows their version.
        let Some(schemes) = usable(hello.signature_schemes(), hello.cipher_suites()) else {
            return Ok(());
        };
        match self.choose(hello.server_name(), &schemes) {
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

    /// When the first of the served names is left without a valid certificate; `None` when there is none. A name lasts as
    /// long as the best of its certificates.
    pub fn soonest_expiry(&self) -> Option<SystemTime> {
        let table = self.table.load();
        let lists = table.exact.values().chain(table.wildcard.values());
        let lists = lists.chain([&table.default]);
        lists
            .filter_map(|list| list.iter().map(|bundle| bundle.not_after).max())
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

    /// Any key for the name.
    fn first(&self, server_name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let table = self.table.load();
        let first = table.candidates(server_name).ok()?.next()?;
        Some(Arc::clone(&first.certified_key))
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
        let name = client_hello.server_name();
        // Without a key rustls says access_denied. With one that does not suit it finds out what is wrong by itself, the
        // version first, and says that (RFC 8446 section 4.1.1).
        self.choose(name, client_hello.signature_schemes())
            .ok()
            .or_else(|| self.first(name))
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

/// The schemes that go with one of the suites that are spoken here: those of TLS 1.2 name the kind of key, those of TLS 1.3
/// do not. `None` without such a suite.
fn usable(schemes: &[SignatureScheme], suites: &[CipherSuite]) -> Option<Vec<SignatureScheme>> {
    let spoken = |suite: &&CipherSuite| DEFAULT_CIPHER_SUITES.iter().any(|ours| ours.suite() == **suite);
    let offers = |begin: &str| {
        let mut names = suites.iter().filter(spoken).filter_map(|suite| suite.as_str());
        names.any(|name| name.starts_with(begin))
    };
    let (any, ecdsa, rsa) = (
        offers("TLS13_"),
        offers("TLS_ECDHE_ECDSA_"),
        offers("TLS_ECDHE_RSA_"),
    );
    if !(any || ecdsa || rsa) {
        return None;
    }
    let goes = |scheme: &SignatureScheme| {
        let is_rsa = scheme.as_str().is_some_and(|name| name.starts_with("RSA_"));
        any || if is_rsa { rsa } else { ecdsa }
    };
    Some(schemes.iter().copied().filter(goes).collect())
}

/// The order of preference among keys for the same name: what is cheapest to sign with first.
fn cost(algorithm: SignatureAlgorithm) -> u8 {
    match algorithm {
        SignatureAlgorithm::ECDSA => 0,
        SignatureAlgorithm::ED25519 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::{make_with, now};

    const ECDSA: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];
    const RSA: &[SignatureScheme] = &[SignatureScheme::RSA_PSS_SHA256];
    const BOTH: &[SignatureScheme] = &[
        SignatureScheme::RSA_PSS_SHA256,
        SignatureScheme::ECDSA_NISTP256_SHA256,
    ];
    const NEITHER: &[SignatureScheme] = &[SignatureScheme::ED25519];

    fn bundle(names: &[&str], rsa: bool, days: u64) -> Arc<Bundle> {
        let folder = tempfile::tempdir().unwrap();
        let life = Duration::from_secs(days * 86_400);
        let pair = make_with(names, rsa, now(), life).write(folder.path(), "a");
        Arc::new(crate::load(&pair.chain, &pair.key, now()).unwrap())
    }

    fn chosen(
        resolver: &Resolver,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Result<usize, Refusal> {
        let key = resolver.choose(name, schemes)?;
        let place = resolver
            .bundles()
            .iter()
            .position(|bundle| Arc::ptr_eq(&bundle.certified_key, &key));
        Ok(place.unwrap())
    }

    #[test]
    fn the_name_decides_then_the_signatures_do() {
        let resolver = Resolver::new([
            (bundle(&["a.example"], true, 90), false),
            (bundle(&["a.example"], false, 90), false),
            (bundle(&["*.example", "b.example"], false, 90), false),
            (bundle(&["rsa.example"], true, 90), false),
            (bundle(&["a.example"], false, 91), false),
        ]);
        let check = |name: &str, schemes, expected: Result<usize, Refusal>| {
            assert_eq!(
                chosen(&resolver, Some(name), schemes),
                expected,
                "{name} {schemes:?}"
            );
        };
        check("a.example", ECDSA, Ok(4));
        check("a.example", RSA, Ok(0));
        check("a.example", BOTH, Ok(4));
        check("a.example", NEITHER, Err(Refusal::NoCompatibleKey));
        check("a.example.", ECDSA, Ok(4));
        check("b.example", ECDSA, Ok(2));
        check("c.example", ECDSA, Ok(2));
        check("c.example", RSA, Err(Refusal::NoCompatibleKey));
        check("rsa.example", RSA, Ok(3));
        // The exact name has no key that fits, and the wildcard has.
        check("rsa.example", ECDSA, Ok(2));
        check("x.c.example", ECDSA, Err(Refusal::UnknownName));
        check("example", ECDSA, Err(Refusal::UnknownName));
        check("a.invalid", ECDSA, Err(Refusal::UnknownName));
        assert_eq!(chosen(&resolver, None, ECDSA), Err(Refusal::NoServerName));
    }

    #[test]
    fn suites_of_the_older_version_name_the_kind_of_key() {
        let check = |suites: &[CipherSuite], expected: Option<&[SignatureScheme]>| {
            assert_eq!(usable(BOTH, suites).as_deref(), expected, "{suites:?}");
        };
        check(&[CipherSuite::TLS13_AES_128_GCM_SHA256], Some(BOTH));
        check(&[CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256], Some(RSA));
        check(
            &[CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256],
            Some(ECDSA),
        );
        check(&[CipherSuite::TLS_RSA_WITH_AES_128_CBC_SHA], None);
        // The right kind of key, and a suite that nobody should speak any more.
        check(&[CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA], None);
        check(&[CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384], None);
    }

    #[test]
    fn the_default_is_for_clients_that_name_no_host_and_for_no_others() {
        let resolver = Resolver::new([
            (bundle(&["a.example"], false, 90), false),
            (bundle(&["b.example"], false, 90), true),
        ]);
        assert_eq!(chosen(&resolver, None, ECDSA), Ok(1));
        assert_eq!(resolver.admit(None), Ok(()));
        assert_eq!(resolver.admit(Some("c.example")), Err(Refusal::UnknownName));
        assert_eq!(resolver.refusals(Refusal::UnknownName), 1);
        assert_eq!(resolver.refusals(Refusal::NoServerName), 0);
    }

    #[test]
    fn the_table_is_swapped_whole() {
        let resolver = Resolver::new([(bundle(&["a.example"], false, 90), false)]);
        assert_eq!(
            resolver.soonest_expiry(),
            Some(now() + Duration::from_secs(90 * 86_400))
        );
        resolver.replace([
            (bundle(&["b.example"], false, 20), false),
            (bundle(&["c.example"], false, 10), false),
        ]);
        assert_eq!(resolver.admit(Some("a.example")), Err(Refusal::UnknownName));
        assert_eq!(resolver.admit(Some("b.example")), Ok(()));
        assert_eq!(
            resolver.soonest_expiry(),
            Some(now() + Duration::from_secs(10 * 86_400))
        );
        resolver.replace([]);
        assert_eq!(resolver.soonest_expiry(), None);
    }
}
