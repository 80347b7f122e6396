//! The configuration as the node uses it: every default filled in, every name resolved, every limit a number.
//!
//! Which keys a file may hold is in `keys`, how it is read with every error noticed is in `file`, and how it becomes this
//! is in `resolve`. Nothing here changes after a start or a reload: a new configuration is a new value.

mod check;
mod error;
mod file;
mod keys;
mod origin;
mod reader;
mod resolve;
mod units;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use check::{Checked, check};
pub use error::{ConfigError, Errors};
pub use file::{load, parse};
pub use keys::{KEYS, KeyDoc, markdown};
pub use origin::{
    Bucket, Credentials, HttpOrigin, HttpServer, Origin, OriginHost, OriginKind, OriginTimeouts, S3Origin,
    Secret,
};

/// A whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The cache's name in Cache-Status and Via.
    pub name: String,
    /// Data-plane threads.
    pub workers: usize,
    /// Where clients come in.
    pub listen: Listen,
    /// The operator's side.
    pub admin: Admin,
    /// Certificates from files, in the order of the file.
    pub certificates: Vec<CertificateFiles>,
    /// Certificates that are ordered from a CA and shared by a fleet.
    pub managed: Option<certs::Settings>,
    /// What session tickets are sealed with, a key a line, so that any node resumes them.
    pub tickets: Option<certs::settings::Secret>,
    /// Whether clients that come back may send their first request before the handshake is over.
    pub early_data: bool,
    /// How much may be kept.
    pub cache: Cache,
    /// Every origin, by name, in the order of the file.
    pub origins: Vec<Origin>,
    /// Every site, in the order of the file.
    pub sites: Vec<Site>,
    /// How releases are followed.
    pub releases: Releases,
    /// The limits towards clients.
    pub limits: Limits,
    /// Where logs go.
    pub log: Log,
    /// How a drain goes.
    pub drain: Drain,
}

/// The sockets that clients reach.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listen {
    /// TLS.
    pub https: Vec<SocketAddr>,
    /// Redirects to https, and answers the readiness path.
    pub http: Vec<SocketAddr>,
    /// The whole site without TLS.
    pub plain: Vec<SocketAddr>,
    /// The port that redirects name; the port of the first https address unless set.
    pub https_port: u16,
}

/// The admin listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// TCP or a Unix socket; `None` switches it off.
    pub listen: Option<AdminListen>,
    /// Who may do what.
    pub tokens: Vec<Token>,
    /// Names, lowercase, under which the listener is reached without a token, besides addresses and localhost.
    pub hosts: Vec<String>,
    /// Whether livez, readyz and metrics ask for a token too.
    pub protect_health: bool,
    /// Purge requests per second and token; more are answered 429.
    pub purges_per_second: u32,
}

/// The address of the admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminListen {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket's path.
    Unix(PathBuf),
}

/// A bearer token: only its SHA-256 is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The name that audit lines show.
    pub name: String,
    /// SHA-256 of the token.
    pub sha256: [u8; 32],
    /// What it allows.
    pub scopes: Vec<Scope>,
}

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Admin,
    /// Purge.
    Purge,
    /// Status, inspection, metrics.
    Read,
}

/// One certificate chain and its key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// Whether clients that name no host are answered with it.
    pub default: bool,
}

/// How much may be kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Cache {
    /// A second, larger store on disk.
    pub disk: Option<Disk>,
    /// Bytes for stored responses and bodies in flight together.
    pub memory_bytes: u64,
    /// The largest body that is kept in memory; larger ones stream past.
    pub object_bytes_max: u64,
    /// CPU-seconds per second (0.0 to 1.0) that the background may spend on better codings.
    pub recode_budget: f64,
    /// How long a request waits for the origin where something stale may be served instead.
    pub stale_after: Duration,
    /// How long an answer waits for room in memory.
    pub room_patience: Duration,
}

/// The disk tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its folder.
    pub path: PathBuf,
    /// Bytes that its files may take.
    pub size_bytes: u64,
    /// How long an answer waits for it.
    pub patience: Duration,
}

/// One site: the names it answers to and how it behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    /// Names, lowercase; `*.example.com` matches one label. The first is the site's own name in keys.
    pub hosts: Vec<String>,
    /// The origin's name.
    pub origin: String,
    /// Whether the origin is one of kind `http`, to which requests with any method are relayed.
    pub relays: bool,
    /// The set of fields that responses carry.
    pub preset: Preset,
    /// How it reads the law where the law leaves a choice.
    pub terms: Terms,
    /// The fields by which its origin speaks to this cache, the strongest first (RFC 9213).
    pub targeted: Vec<http::HeaderName>,
    /// How the query takes part in the key.
    pub query: Query,
    /// The lifetimes of the site, used where no rule says otherwise.
    pub lifetimes: Lifetimes,
    /// Rules by path; the first match wins.
    pub rules: Vec<Rule>,
    /// `Strict-Transport-Security: max-age=`, in seconds; `None` sends none.
    pub hsts: Option<Duration>,
    /// Shown for a path that ends with a slash, such as `index.html`.
    pub index: Option<String>,
    /// Whether `X-Cache` is sent beside Cache-Status.
    pub x_cache: bool,
    /// Whether Cache-Status shows the cache key.
    pub cache_status_key: bool,
    /// Whether the `PURGE` method is answered on the public port, for holders of a purge token.
    pub purge_method: bool,
    /// What it serves of releases; then it serves nothing else.
    pub releases: Option<SiteReleases>,
}

/// What a site serves that was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteReleases {
    /// What is released: the first segment of its URLs.
    pub names: Vec<origin_sync::release::Name>,
    /// Whose word counts.
    pub trust: origin_sync::release::Trust,
}

/// How releases are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Releases {
    /// Where what was last good is kept; set where any site has releases.
    pub state: Option<PathBuf>,
    /// How often the bucket is asked for channels.
    pub poll: Duration,
}

/// How a site reads RFC 9111 where it leaves a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Without our defaults: nothing is kept or served stale but by the word of the origin or of the configuration.
    pub strict: bool,
    /// Whether the cache directives of requests are heeded (section 5.2.1), beyond `only-if-cached` and
    /// `stale-if-error`.
    pub request_directives: bool,
    /// Whether a response with Set-Cookie is stored like any other (section 7.3).
    pub store_set_cookie: bool,
}

impl Terms {
    /// What holds unless the configuration says otherwise: the RFC to the letter, or a browser that may not steer and
    /// cookies that are nobody's by mistake.
    pub const fn new(strict: bool) -> Self {
        Self {
            strict,
            request_directives: strict,
            store_set_cookie: strict,
        }
    }
}

/// A set of fields that responses of a site carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// For scripts that other people's pages load.
    Embed,
    /// Nothing but what the origin says.
    Plain,
}

/// How the query takes part in the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// Not at all: `?x` is the same as without.
    Ignore,
    /// As it came.
    Keep,
    /// With its parameters in order of name.
    Sort,
    /// Only these parameters, in order of name.
    Allow(Vec<String>),
}

/// How long responses stay fresh, and how long they may be served stale.
///
/// A `None` leaves the matter to the response's own fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// The freshness lifetime, whatever the response says.
    pub ttl: Option<Duration>,
    /// The freshness lifetime for a response that says nothing.
    pub ttl_default: Option<Duration>,
    /// At least this.
    pub ttl_min: Option<Duration>,
    /// At most this.
    pub ttl_max: Option<Duration>,
    /// How long a 404 or 410 without a lifetime of its own is kept.
    pub ttl_negative: Duration,
    /// RFC 5861 section 3.
    pub stale_while_revalidate: Option<Duration>,
    /// RFC 5861 section 4.
    pub stale_if_error: Option<Duration>,
    /// Whether a tenth of the time since Last-Modified is a lifetime (RFC 9111 section 4.2.2).
    pub heuristic: bool,
}

/// What differs below one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// An exact path, or a prefix that ends with `*`.
    pub path: String,
    /// The lifetimes: the site's, with what the rule sets.
    pub lifetimes: Lifetimes,
    /// Fields set on every response, after the preset.
    pub fields: Vec<(http::HeaderName, http::HeaderValue)>,
    /// Fields of the origin that go no further.
    pub remove: Vec<http::HeaderName>,
    /// How the query takes part in the key: the site's way, unless the rule has its own.
    pub query: Query,
    /// Whether bodies are coded here.
    pub coding: bool,
}

/// The limits towards clients; each has its answer where it is enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections per client address (IPv4 address, IPv6 /64).
    pub connections_per_address: usize,
    /// Bytes of a request's header block.
    pub header_bytes: usize,
    /// Fields in a request's header block.
    pub header_count: usize,
    /// Bytes of a request target.
    pub uri_bytes: usize,
    /// Bytes of a request's content, where it is relayed.
    pub content_bytes: u64,
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// From a request's first byte to the end of its header block.
    pub header: Duration,
    /// A connection without a request.
    pub idle: Duration,
    /// A response of which the client takes nothing.
    pub write_stall: Duration,
    /// HTTP/2 streams at once.
    pub h2_streams: u32,
    /// HTTP/2 streams reset before they were answered, at once.
    pub h2_resets: usize,
    /// Bytes received without any request coming of them, before the connection is closed.
    pub unproductive_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_address: 1_000,
            header_bytes: 16 * 1024,
            header_count: 100,
            uri_bytes: 8 * 1024,
            content_bytes: 64 * 1024 * 1024,
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            write_stall: Duration::from_secs(30),
            h2_streams: 128,
            h2_resets: 64,
            unproductive_bytes: 64 * 1024,
        }
    }
}

/// Where logs go.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// The access log; `None` writes none.
    pub access: Option<AccessLog>,
}

/// The access log.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    /// How a line looks.
    pub format: LogFormat,
    /// A file, or `None` for standard output.
    pub path: Option<PathBuf>,
    /// The share of exchanges that are written, 0.0 to 1.0. Errors (5xx) are always written.
    pub sample: f64,
    /// Whether the last octet (IPv4) or the last 80 bits (IPv6) of client addresses are zeroed.
    pub truncate_address: bool,
}

/// How an access log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// The combined format that every log tool reads.
    Combined,
    /// One JSON value a line.
    Json,
}

/// How a drain goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Between readiness turning red and the sockets closing: at least 90 s behind DNS.
    pub delay: Duration,
    /// From the sockets closing to the end of everything.
    pub deadline: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            delay: Duration::from_secs(5),
            deadline: Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The least that is accepted.
    pub(crate) const MINIMAL: &str = r#"
[listen]
plain = ["127.0.0.1:8081"]

[origin.assets]
kind = "s3"
credentials = "anonymous"
buckets = [{ name = "widgets", region = "eu-west-1" }]

[[site]]
hosts = ["cdn.example.com"]
origin = "assets"
"#;

    pub(crate) fn minimal() -> Config {
        parse(MINIMAL, "edge.toml", std::path::Path::new("/etc/portico")).unwrap()
    }
}
