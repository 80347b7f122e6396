//! A certificate authority for development, kept in a folder: so a newcomer's first page is https without an account.
//!
//! It can only vouch for names and addresses that never leave a machine or a private network (RFC 5280 section
//! 4.2.1.10), so one who trusts it risks little when its key is lost. It is no substitute for a real one.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::bundle::{self, Bundle};
use crate::bundles::Pair;
use crate::{pem, private_file};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
const LEAF_LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// What the authority may vouch for: names reserved for local use, and private addresses.
const NAMES: [&str; 6] = ["localhost", "local", "test", "internal", "home.arpa", "example"];
const NETWORKS: [(&str, u8); 7] = [
    ("127.0.0.0", 8),
    ("10.0.0.0", 8),
    ("172.16.0.0", 12),
    ("192.168.0.0", 16),
    ("::1", 128),
    ("fc00::", 7),
    ("fe80::", 10),
];

/// A certificate authority for development.
#[derive(Debug)]
pub struct DevCa {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl DevCa {
    /// Opens the authority that is kept in `folder`, or makes one. A key that cannot be read is an error: replacing it
    /// would silently end a trust that somebody set up.
    pub fn open_or_create(folder: &Path, now: SystemTime) -> Result<Self, Error> {
        private_file::create_folder(folder).map_err(|error| Error::file(folder, error))?;
        let (certificate, key) = (folder.join("ca.pem"), folder.join("ca.key"));
        let ca = match fs::read_to_string(&key) {
            Ok(text) => Self::open(folder, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(folder)?,
            Err(error) => return Err(Error::file(&key, error)),
        };
        // The key is written first: a start that was cut short in between finds it, and certifies it again.
        if !ca.is_certified(now) {
            let pem = ca_params(ca.issuer.key(), now)
                .self_signed(ca.issuer.key())?
                .pem();
            private_file::write(&certificate, &pem).map_err(|error| Error::file(&certificate, error))?;
        }
        Ok(ca)
    }

    /// The authority's certificate, for a client's `--cacert`.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Issues a certificate for `names` and `addresses` into `leaf.pem` and `leaf.key`, valid for 90 days. One that is
    /// there, is for just these names, and has more than a third of its life left, stays.
    pub fn issue(&self, names: &[String], addresses: &[IpAddr], now: SystemTime) -> Result<Pair, Error> {
        let pair = Pair {
            chain: self.folder.join("leaf.pem"),
            key: self.folder.join("leaf.key"),
            default: true,
        };
        for name in names {
            if !may_vouch_for(name) {
                return Err(Error::PublicName { name: name.clone() });
            }
        }
        let params = self.leaf_params(names, addresses, now)?;
        let good = |bundle: &Bundle| bundle.remaining(now) > LEAF_LIFE / 3 && self.is_for(bundle, &params);
        if bundle::load(&pair.chain, &pair.key, now).is_ok_and(|bundle| good(&bundle)) {
            return Ok(pair);
        }
        let key = KeyPair::generate()?;
        let mut chain = params.signed_by(&key, &self.issuer)?.pem();
        let ca = self.certificate();
        chain.push_str(&fs::read_to_string(&ca).map_err(|error| Error::file(&ca, error))?);
        private_file::write(&pair.key, key.serialize_pem()).map_err(|error| Error::file(&pair.key, error))?;
        private_file::write(&pair.chain, &chain).map_err(|error| Error::file(&pair.chain, error))?;
        Ok(pair)
    }

    fn create(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("ca.key");
        let key = KeyPair::generate()?;
        private_file::write(&path, key.serialize_pem()).map_err(|error| Error::file(&path, error))?;
        Ok(Self::with_key(folder, key))
    }

    fn open(folder: &Path, key: &str) -> Result<Self, Error> {
        Ok(Self::with_key(folder, KeyPair::from_pem(key)?))
    }

    fn with_key(folder: &Path, key: KeyPair) -> Self {
        // Name and key identifier follow from the key alone, so the certificate need not be read to sign with it.
        let params = ca_params(&key, UNIX_EPOCH);
        Self {
            folder: folder.into(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Whether the certificate in the folder is of this key, and outlives the next leaf.
    fn is_certified(&self, now: SystemTime) -> bool {
        let chain = pem::read_chain(&self.certificate()).unwrap_or_default();
        let Some(Ok((_, ca))) = chain.first().map(|der| X509Certificate::from_der(der)) else {
            return false;
        };
        let leaf_end = now + LEAF_LIFE;
        ca.public_key().subject_public_key.data.as_ref() == self.issuer.key().public_key_raw()
            && bundle::system_time(ca.validity().not_after.timestamp()) > leaf_end
    }

    fn leaf_params(
        &self,
        names: &[String],
        addresses: &[IpAddr],
        now: SystemTime,
    ) -> Result<CertificateParams, Error> {
        let mut params = CertificateParams::new(names.to_vec())?;
        params
            .subject_alt_names
            .extend(addresses.iter().copied().map(SanType::IpAddress));
        params.distinguished_name = DistinguishedName::new();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, LEAF_LIFE);
        Ok(params)
    }

    /// Whether `bundle` was issued by this authority, for just the names and addresses of `params`.
    fn is_for(&self, bundle: &Bundle, params: &CertificateParams) -> bool {
        let Ok(ca) = pem::read_chain(&self.certificate()) else {
            return false;
        };
        let Some((leaf, issuers)) = bundle.certified_key.cert.split_first() else {
            return false;
        };
        issuers == ca && subject_names(leaf) == wanted_names(params)
    }
}

/// Why the authority could not be opened or could not issue.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its variant means")]
pub enum Error {
    #[error("{}: cannot be read or written", file.display())]
    File { file: PathBuf, source: io::Error },
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    #[error("{name}: a development certificate is only for local names ({})", NAMES.join(", "))]
    PublicName { name: String },
}

impl Error {
    fn file(file: &Path, source: io::Error) -> Self {
        Self::File {
            file: file.into(),
            source,
        }
    }
}

fn ca_params(key: &KeyPair, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    let id = hex::encode(params.key_identifier(key));
    let name = format!("Portico development CA {}", id.get(..8).unwrap_or_default());
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let names = NAMES
        .iter()
        .map(|name| GeneralSubtree::DnsName((*name).to_owned()));
    let networks = NETWORKS.iter().filter_map(|(address, prefix)| {
        let subnet = CidrSubnet::from_addr_prefix(address.parse().ok()?, *prefix);
        Some(GeneralSubtree::IpAddress(subnet))
    });
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: names.chain(networks).collect(),
        excluded_subtrees: Vec::new(),
    });
    set_validity(&mut params, now, CA_LIFE);
    params
}

/// From a day before `now`, for clients whose clock is behind.
fn set_validity(params: &mut CertificateParams, now: SystemTime, life: Duration) {
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch.saturating_sub(DAY);
    params.not_after = epoch + since_epoch + life;
}

fn may_vouch_for(name: &str) -> bool {
    NAMES.iter().any(|allowed| {
        name.strip_suffix(allowed)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// Names and addresses as bytes, in order, so that they can be compared.
fn wanted_names(params: &CertificateParams) -> Vec<Vec<u8>> {
    let mut names: Vec<_> = params
        .subject_alt_names
        .iter()
        .map(|name| match name {
            SanType::IpAddress(IpAddr::V4(address)) => address.octets().to_vec(),
            SanType::IpAddress(IpAddr::V6(address)) => address.octets().to_vec(),
            SanType::DnsName(name) => name.as_str().as_bytes().to_vec(),
            _ => Vec::new(),
        })
        .collect();
    names.sort();
    names
}

fn subject_names(leaf: &CertificateDer<'_>) -> Vec<Vec<u8>> {
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else {
        return Vec::new();
    };
    let Ok(Some(extension)) = leaf.subject_alternative_name() else {
        return Vec::new();
    };
    let mut names: Vec<_> = extension
        .value
        .general_names
        .iter()
        .map(|name| match name {
            GeneralName::IPAddress(address) => address.to_vec(),
            GeneralName::DNSName(name) => name.as_bytes().to_vec(),
            _ => Vec::new(),
        })
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::testing::now;

    fn issue(folder: &Path, names: &[&str], now: SystemTime) -> Result<Bundle, Error> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let addresses = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        let pair = DevCa::open_or_create(folder, now)?.issue(&names, &addresses, now)?;
        Ok(bundle::load(&pair.chain, &pair.key, now).unwrap())
    }

    #[test]
    fn a_leaf_stays_until_less_than_a_third_is_left_or_the_names_change() {
        let folder = tempfile::tempdir().unwrap();
        let first = issue(folder.path(), &["localhost"], now()).unwrap();
        assert_eq!(first.names, ["localhost"]);
        assert_eq!(first.warnings, []);
        let later = |days: u32, names: &[&str]| {
            issue(folder.path(), names, now() + DAY * days)
                .unwrap()
                .fingerprint
        };
        assert_eq!(later(59, &["localhost"]), first.fingerprint);
        let renewed = later(61, &["localhost"]);
        assert_ne!(renewed, first.fingerprint);
        assert_eq!(later(62, &["localhost"]), renewed);
        assert_ne!(later(62, &["localhost", "a.test"]), renewed);
    }

    #[test]
    fn the_authority_is_kept_and_its_files_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("state/ca");
        issue(&folder, &["localhost"], now()).unwrap();
        let ca = fs::read(folder.join("ca.pem")).unwrap();
        issue(&folder, &["a.test"], now() + DAY).unwrap();
        assert_eq!(fs::read(folder.join("ca.pem")).unwrap(), ca);
        for file in ["ca.key", "leaf.key", "ca.pem", "leaf.pem"] {
            let mode = fs::metadata(folder.join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 4);
    }

    #[test]
    fn a_lost_key_makes_another_authority_and_a_torn_key_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let first = issue(folder.path(), &["localhost"], now()).unwrap();
        fs::remove_file(folder.path().join("ca.key")).unwrap();
        let second = issue(folder.path(), &["localhost"], now()).unwrap();
        assert_ne!(first.fingerprint, second.fingerprint);
        assert_eq!(second.warnings, [], "the chain is of the new authority");
        fs::write(folder.path().join("ca.key"), "half").unwrap();
        assert!(issue(folder.path(), &["localhost"], now()).is_err());
    }

    #[test]
    fn a_name_that_others_own_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (name, allowed) in [
            ("localhost", true),
            ("a.localhost", true),
            ("*.test", true),
            ("example.com", false),
            ("notlocalhost", false),
            ("localhost.example.com", false),
        ] {
            assert_eq!(issue(folder.path(), &[name], now()).is_ok(), allowed, "{name}");
        }
    }
}
