//! What a configuration says about certificates that are ordered and shared: names, CAs, the store.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::acme;

/// A text that never shows in a log.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Certificates that this node orders and shares, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The store.
    pub store: StoreSettings,
    /// The certificates.
    pub managed: Vec<Managed>,
}

/// Where a fleet keeps its certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// The place.
    pub place: StorePlace,
    /// The keys that bundles are sealed with, a line each, the one that seals first.
    pub keys: Secret,
    /// A folder of this node alone: copies to start with while the store is down.
    pub state: PathBuf,
    /// How this node calls itself in leases.
    pub owner: String,
    /// How often the store is looked at.
    pub poll: Duration,
    /// How long a lease lasts that is not refreshed.
    pub lease: Duration,
}

/// A store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorePlace {
    /// In S3.
    Bucket(BucketSettings),
    /// In a folder.
    Folder(PathBuf),
}

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketSettings {
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Put before every key; empty, or ends with a slash.
    pub prefix: String,
    /// An S3-compatible endpoint instead of AWS.
    pub endpoint: Option<String>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
    /// Who asks.
    pub credentials: Credentials,
}

/// Where credentials of AWS come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// The standard chain.
    #[default]
    Environment,
    /// A fixed key.
    Static {
        /// The access key's id.
        id: String,
        /// The secret key.
        secret: Secret,
    },
}

/// A certificate that is ordered, of one or more kinds of key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Managed {
    /// Its names, lowercase; the first is what it is called by. Never empty.
    pub names: Vec<String>,
    /// Whether clients that name no host are answered with it.
    pub default: bool,
    /// The kinds of key, each a certificate of its own. Never empty.
    pub keys: Vec<KeyKind>,
    /// By whom.
    pub acme: Acme,
}

impl Managed {
    /// What the certificate of one kind of key is called in the store.
    pub fn id(&self, kind: KeyKind) -> String {
        let name = self.names.first().map(String::as_str).unwrap_or_default();
        format!("{}/{}", name.replace('*', "_"), kind.token())
    }
}

/// A kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// P-256.
    Ecdsa,
    /// RSA of 2048 bits.
    Rsa,
}

impl KeyKind {
    /// The word for it.
    pub fn token(self) -> &'static str {
        match self {
            Self::Ecdsa => "ecdsa",
            Self::Rsa => "rsa",
        }
    }
}

/// How long an order may take, if nothing else is said.
pub const ORDER_PATIENCE: Duration = Duration::from_secs(300);

/// A CA, and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// The URL of its directory.
    pub directory: String,
    /// Whom it may write to, as `mailto:` URLs.
    pub contact: Vec<String>,
    /// How names are proved.
    pub challenge: Challenge,
    /// The profile to ask for, such as `shortlived`.
    pub profile: Option<String>,
    /// The common name of the issuer that the chain should end with, where the CA offers several.
    pub preferred_chain: Option<String>,
    /// How long an order may take. One that is not over by then is left for the next holder of the lease.
    pub patience: Duration,
    /// External account binding (RFC 8555 section 7.3.4).
    pub binding: Option<Binding>,
    /// PEM with the roots of the CA's own https, instead of the machine's.
    pub roots: Option<PathBuf>,
}

/// External account binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The key's id.
    pub id: String,
    /// The HMAC key, base64url as CAs hand it out.
    pub key: Secret,
}

impl Binding {
    /// Whether the key reads as what CAs hand out. What it is worth only the CA knows.
    pub fn has_readable_key(&self) -> bool {
        acme::account::decode(&self.key.0).is_some_and(|key| !key.is_empty())
    }
}

/// How a name is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// A record in the DNS: the one that proves wildcards.
    Dns01(Dns),
    /// A file on port 80; any node answers.
    Http01,
    /// A certificate on port 443: only where the CA reaches the node that orders.
    TlsAlpn01,
}

impl Challenge {
    /// Its name in RFC 8555 and RFC 8737.
    pub fn token(&self) -> &'static str {
        match self {
            Self::Dns01(_) => "dns-01",
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

/// Who holds the zone, and how it is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dns {
    /// Dynamic update (RFC 2136), signed (RFC 8945).
    Rfc2136(Rfc2136Settings),
    /// Amazon Route 53.
    Route53(Route53Settings),
}

/// A server that takes dynamic updates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rfc2136Settings {
    /// The primary server.
    pub server: SocketAddr,
    /// The zone.
    pub zone: String,
    /// The name of the key.
    pub key_name: String,
    /// Its algorithm.
    pub algorithm: TsigAlgorithm,
    /// The key, in base64.
    pub secret: Secret,
    /// How long the secondaries may take to have it too.
    pub wait: Duration,
}

impl Rfc2136Settings {
    /// Whether the key is base64.
    pub fn has_readable_secret(&self) -> bool {
        STANDARD
            .decode(self.secret.0.trim())
            .is_ok_and(|key| !key.is_empty())
    }
}

/// The algorithms of RFC 8945 that are worth using.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the RFC")]
pub enum TsigAlgorithm {
    HmacSha256,
    HmacSha384,
    HmacSha512,
}

/// A zone in Route 53.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route53Settings {
    /// The hosted zone's id; looked up by the name unless given.
    pub zone_id: Option<String>,
    /// An endpoint instead of AWS.
    pub endpoint: Option<String>,
    /// Who asks.
    pub credentials: Credentials,
}
