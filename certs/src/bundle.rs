//! One certificate chain with its key: read, checked, ready to sign handshakes.
//!
//! What would break a handshake or hide an operator's mistake is an [`Error`]; what still serves, if badly, is a
//! [`Warning`]: an expired certificate that is served tells a client more than a closed port.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::SignatureAlgorithm;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::pem;

/// A chain and its key, checked.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// DNS names of the leaf, lowercase, in its order; `*.example.com` stands for one label.
    pub names: Vec<String>,
    /// The serial number of the leaf, in hex.
    pub serial: String,
    /// Valid from then on.
    pub not_before: SystemTime,
    /// Valid until then.
    pub not_after: SystemTime,
    /// What rustls signs with.
    pub certified_key: Arc<CertifiedKey>,
    /// SHA-256 of the leaf.
    pub fingerprint: Fingerprint,
    /// What an operator should hear of.
    pub warnings: Vec<Warning>,
}

impl Bundle {
    /// How long the certificate is still valid; zero once it has expired.
    pub fn remaining(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or(Duration::ZERO)
    }

    /// The kind of the key.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.certified_key.key.algorithm()
    }

    /// Whether the certificate is for `name`, itself or by a wildcard of one label (RFC 6125 section 6.4.3).
    pub fn covers(&self, name: &str) -> bool {
        let wildcard = name
            .split_once('.')
            .map(|(_, parent)| format!("*.{parent}"))
            .filter(|_| !name.starts_with("*."));
        self.names
            .iter()
            .any(|own| own == name || Some(own) == wildcard.as_ref())
    }
}

/// Reads a chain (leaf first) and its key, and checks that they can serve.
pub fn load(chain: &Path, key: &Path, now: SystemTime) -> Result<Bundle, Error> {
    let mut bundle = assemble(chain, pem::read_chain(chain)?, key, &pem::read_key(key)?, now)?;
    bundle.warnings.extend(pem::key_file_warning(key));
    Ok(bundle)
}

/// As [`load`], of a chain and a key that are in memory; errors call both of them `name`.
pub fn parse(name: &Path, chain: &str, key: &str, now: SystemTime) -> Result<Bundle, Error> {
    let certificates = pem::parse_chain(name, chain.as_bytes())?;
    assemble(
        name,
        certificates,
        name,
        &pem::parse_key(name, key.as_bytes())?,
        now,
    )
}

fn assemble(
    chain: &Path,
    certificates: Vec<CertificateDer<'static>>,
    key: &Path,
    private_key: &PrivateKeyDer<'static>,
    now: SystemTime,
) -> Result<Bundle, Error> {
    let signing_key = aws_lc_rs::sign::any_supported_type(private_key).map_err(|source| Error::BadKey {
        file: key.into(),
        source,
    })?;
    let parsed = parse_all(chain, &certificates)?;
    let leaf = Leaf::read(chain, &parsed)?;
    let mut warnings = leaf.warnings(chain, now);
    warnings.extend(order_warning(chain, &parsed));
    let fingerprint = certificates.first().map(Fingerprint::of).unwrap_or_default();
    let certified_key = CertifiedKey::new(certificates, signing_key);
    check_key(chain, key, &certified_key)?;
    Ok(Bundle {
        names: leaf.names,
        serial: leaf.serial,
        not_before: leaf.not_before,
        not_after: leaf.not_after,
        certified_key: Arc::new(certified_key),
        fingerprint,
        warnings,
    })
}

/// SHA-256 of a certificate.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        let digest = ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, certificate);
        Self(digest.as_ref().try_into().unwrap_or_default())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Why a chain and its key cannot serve.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its variant means")]
pub enum Error {
    #[error("{}: certificate {position} is not a certificate: {reason}", file.display())]
    BadCertificate {
        file: PathBuf,
        position: usize,
        reason: String,
    },
    #[error("{}: this kind of private key is not supported", file.display())]
    BadKey { file: PathBuf, source: rustls::Error },
    #[error("{}: the private key is encrypted; only a key without a passphrase can be read", file.display())]
    EncryptedKey { file: PathBuf },
    #[error("{}: does not fit the certificate in {}", key.display(), chain.display())]
    KeyDoesNotFit { chain: PathBuf, key: PathBuf },
    #[error("{}: certificate {position} is the one the key fits; the leaf must come first", file.display())]
    LeafNotFirst { file: PathBuf, position: usize },
    #[error("{}: holds no certificate", file.display())]
    NoCertificate { file: PathBuf },
    #[error("{}: holds no private key", file.display())]
    NoKey { file: PathBuf },
    #[error("{}: the certificate names no host (no DNS name among its subject alternative names)", file.display())]
    NoNames { file: PathBuf },
    #[error("{}: is not a file", file.display())]
    NotAFile { file: PathBuf },
    #[error("{}: is not PEM: {reason}", file.display())]
    NotPem { file: PathBuf, reason: String },
    #[error("{}: cannot be read", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{}: is too large for a certificate or a key (more than 1 MiB)", file.display())]
    TooLarge { file: PathBuf },
}

impl Error {
    /// Whether the file at `path` is the one at fault.
    pub fn is_about(&self, path: &Path) -> bool {
        let file = match self {
            Self::KeyDoesNotFit { key, .. } => key,
            Self::BadCertificate { file, .. }
            | Self::BadKey { file, .. }
            | Self::EncryptedKey { file }
            | Self::LeafNotFirst { file, .. }
            | Self::NoCertificate { file }
            | Self::NoKey { file }
            | Self::NoNames { file }
            | Self::NotAFile { file }
            | Self::NotPem { file, .. }
            | Self::Read { file, .. }
            | Self::TooLarge { file } => file,
        };
        file == path
    }
}

/// What serves, and yet needs an operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its variant means")]
pub enum Warning {
    #[error("{}: the chain is out of order: certificate {position} was not issued by the next one", file.display())]
    ChainOrder { file: PathBuf, position: usize },
    #[error("{}: the certificate has expired", file.display())]
    Expired { file: PathBuf },
    #[error("{}: everybody on this machine may read the key; chmod 600 it", file.display())]
    KeyOpenToAll { file: PathBuf },
    #[error("{}: the certificate is not valid yet; is the clock right?", file.display())]
    NotYetValid { file: PathBuf },
}

struct Leaf {
    names: Vec<String>,
    serial: String,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Leaf {
    fn read(file: &Path, chain: &[X509Certificate<'_>]) -> Result<Self, Error> {
        let leaf = chain
            .first()
            .ok_or_else(|| Error::NoCertificate { file: file.into() })?;
        let names = dns_names(leaf);
        if names.is_empty() {
            return Err(Error::NoNames { file: file.into() });
        }
        let validity = leaf.validity();
        Ok(Self {
            names,
            serial: hex::encode(leaf.raw_serial()),
            not_before: system_time(validity.not_before.timestamp()),
            not_after: system_time(validity.not_after.timestamp()),
        })
    }

    fn warnings(&self, file: &Path, now: SystemTime) -> Vec<Warning> {
        let mut warnings = Vec::new();
        if now > self.not_after {
            warnings.push(Warning::Expired { file: file.into() });
        }
        if now < self.not_before {
            warnings.push(Warning::NotYetValid { file: file.into() });
        }
        warnings
    }
}

fn parse_all<'a>(
    file: &Path,
    chain: &'a [CertificateDer<'static>],
) -> Result<Vec<X509Certificate<'a>>, Error> {
    chain
        .iter()
        .enumerate()
        .map(|(at, der)| {
            let bad = |reason: String| Error::BadCertificate {
                file: file.into(),
                position: at + 1,
                reason,
            };
            match X509Certificate::from_der(der) {
                Ok(([], certificate)) => Ok(certificate),
                Ok(_) => Err(bad("bytes follow its end".into())),
                Err(error) => Err(bad(error.to_string())),
            }
        })
        .collect()
}

/// RFC 6125: names are the DNS names of the subject alternative names; the common name does not count.
fn dns_names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = leaf.subject_alternative_name() else {
        return Vec::new();
    };
    extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
            _ => None,
        })
        .filter(|name| !name.is_empty())
        .collect()
}

fn check_key(chain: &Path, key: &Path, certified: &CertifiedKey) -> Result<(), Error> {
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => return Ok(()),
        Err(_) => {}
    }
    let fits = |at: &usize| {
        let rest = certified.cert.get(*at..).unwrap_or_default().to_vec();
        CertifiedKey::new(rest, Arc::clone(&certified.key))
            .keys_match()
            .is_ok()
    };
    Err(match (1..certified.cert.len()).find(fits) {
        Some(at) => Error::LeafNotFirst {
            file: chain.into(),
            position: at + 1,
        },
        None => Error::KeyDoesNotFit {
            chain: chain.into(),
            key: key.into(),
        },
    })
}

/// RFC 8446 section 4.4.2 asks that each certificate certify the one before it; clients forgive it, mostly.
fn order_warning(file: &Path, chain: &[X509Certificate<'_>]) -> Option<Warning> {
    let broken = chain
        .iter()
        .zip(chain.iter().skip(1))
        .position(|(issued, issuer)| issued.issuer().as_raw() != issuer.subject().as_raw())?;
    Some(Warning::ChainOrder {
        file: file.into(),
        position: broken + 1,
    })
}

pub(crate) fn system_time(unix_seconds: i64) -> SystemTime {
    let magnitude = Duration::from_secs(unix_seconds.unsigned_abs());
    let time = if unix_seconds < 0 {
        UNIX_EPOCH.checked_sub(magnitude)
    } else {
        UNIX_EPOCH.checked_add(magnitude)
    };
    time.unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::Pair;
    use crate::testing::{make, make_with, now};

    fn load_pair(pair: &Pair) -> Result<Bundle, Error> {
        load(&pair.chain, &pair.key, now())
    }

    #[test]
    fn a_good_pair_says_its_names_and_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let pair = make(&["CDN.example.com", "*.example.com", "127.0.0.1"]).write(folder.path(), "a");
        let bundle = load_pair(&pair).unwrap();
        assert_eq!(bundle.names, ["cdn.example.com", "*.example.com"]);
        assert_eq!(bundle.remaining(now()), Duration::from_secs(90 * 86_400));
        assert_eq!(bundle.warnings, []);
        assert_eq!(bundle.fingerprint.to_string().len(), 64);
    }

    #[test]
    fn what_cannot_serve_is_refused_and_names_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let check = |chain: &str, key: &str, expected: &str| {
            let pair = make(&["unused.example"]).write(folder.path(), "b");
            fs::write(&pair.chain, chain).unwrap();
            fs::write(&pair.key, key).unwrap();
            let error = load_pair(&pair).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(
                error.is_about(&pair.chain) || error.is_about(&pair.key),
                "{error}"
            );
        };
        let (a, b) = (make(&["a.example"]), make(&["b.example"]));
        let torn = |text: &str| text.get(..text.len() / 2).unwrap().to_owned();
        check("", &a.key, "b.pem: holds no certificate");
        check("hello", &a.key, "b.pem: holds no certificate");
        check(&torn(&a.chain), &a.key, "b.pem: is not PEM");
        check(&a.key, &a.key, "b.pem: holds no certificate");
        check(&a.chain, "", "b.key: holds no private key");
        check(&a.chain, &torn(&a.key), "b.key: is not PEM");
        check(&a.chain, &b.key, "b.key: does not fit the certificate");
        check(
            &format!("{}{}", b.chain, a.chain),
            &a.key,
            "certificate 2 is the one the key fits",
        );
        check(&make(&[]).chain, &a.key, "names no host");
        check(&make(&["192.0.2.1"]).chain, &a.key, "names no host");
        let encrypted = a.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        check(&a.chain, &encrypted, "b.key: the private key is encrypted");
        let not_der = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        check(not_der, &a.key, "b.pem: certificate 1 is not a certificate");
        check(
            &format!("{}{not_der}", a.chain),
            &a.key,
            "b.pem: certificate 2 is not a certificate",
        );
        check(&"x".repeat(1024 * 1024 + 1), &a.key, "b.pem: is too large");
    }

    #[test]
    fn a_missing_file_and_a_folder_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let pair = make(&["a.example"]).write(folder.path(), "a");
        let gone = load(&folder.path().join("no.pem"), &pair.key, now()).unwrap_err();
        assert!(gone.to_string().contains("no.pem: cannot be read"), "{gone}");
        let not_a_file = load(folder.path(), &pair.key, now()).unwrap_err();
        assert!(not_a_file.to_string().contains("is not a file"), "{not_a_file}");
    }

    #[test]
    fn what_still_serves_is_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let (day, year) = (Duration::from_secs(86_400), Duration::from_secs(365 * 86_400));
        let expired = make_with(&["a.example"], false, now() - year, day).write(folder.path(), "old");
        assert!(matches!(
            *load_pair(&expired).unwrap().warnings,
            [Warning::Expired { .. }]
        ));
        let early = make_with(&["a.example"], false, now() + day, year).write(folder.path(), "new");
        assert!(matches!(
            *load_pair(&early).unwrap().warnings,
            [Warning::NotYetValid { .. }]
        ));

        let open = make(&["a.example"]).write(folder.path(), "open");
        fs::set_permissions(&open.key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            *load_pair(&open).unwrap().warnings,
            [Warning::KeyOpenToAll { .. }]
        ));
    }
}
