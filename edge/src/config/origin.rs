//! Origins as they are configured: buckets, servers, and how long either may take.

use std::path::PathBuf;
use std::time::Duration;

/// An origin.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// The name that sites use.
    pub name: String,
    /// What it is.
    pub kind: OriginKind,
}

/// The kinds of origin.
#[derive(Clone, Debug, PartialEq)]
pub enum OriginKind {
    /// One or more servers that speak HTTP/1.1, in order of preference.
    Http(HttpOrigin),
    /// One or more buckets, in order of preference.
    S3(S3Origin),
}

/// Servers of the same application, in order of preference.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpOrigin {
    /// The servers, first choice first. Never empty.
    pub servers: Vec<HttpServer>,
    /// What `Host` says.
    pub host: OriginHost,
    /// Fields that every request carries, in place of any of the same name.
    pub fields: Vec<(http::HeaderName, http::HeaderValue)>,
    /// A PEM file with the only authorities that may vouch for the servers; those of the system where there is none.
    pub ca: Option<PathBuf>,
    /// A path that answers 2xx while the server is well, asked again and again.
    pub health: Option<String>,
    /// Connections to each server at once.
    pub connections: usize,
    /// Deadlines and retries.
    pub timeouts: OriginTimeouts,
}

/// One server, out of its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpServer {
    /// Whether TLS is spoken.
    pub secure: bool,
    /// A name or an address; an IPv6 address stands in brackets.
    pub host: String,
    /// The port, also where the URL leaves it out.
    pub port: u16,
    /// Put before every path: empty, or begins with a slash and does not end with one.
    pub prefix: String,
}

impl HttpServer {
    /// Host and port as `Host` has them: the port only where it is not the scheme's own.
    pub fn authority(&self) -> String {
        match (self.secure, self.port) {
            (true, 443) | (false, 80) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }

    /// The URL.
    pub fn url(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.prefix)
    }
}

/// What `Host` says to the servers of an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginHost {
    /// This.
    Fixed(String),
    /// The name under which the site's content is kept: the first of its hosts. Never the client's own words, which are
    /// no part of the key.
    Site,
    /// What stands in the server's URL.
    Url,
}

/// Buckets with the same content, in order of preference.
#[derive(Clone, Debug, PartialEq)]
pub struct S3Origin {
    /// Where credentials come from.
    pub credentials: Credentials,
    /// The buckets, first choice first. Never empty.
    pub buckets: Vec<Bucket>,
    /// Deadlines and retries.
    pub timeouts: OriginTimeouts,
}

/// Where S3 credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Requests are not signed.
    Anonymous,
    /// The standard chain: AWS_* variables, profile, web identity, ECS, IMDSv2.
    Environment,
    /// Fixed keys, the secret read from a file: for the demo, for tests, and for S3-compatible stores.
    Static {
        /// The access key's id.
        access_key_id: String,
        /// The secret key.
        secret_access_key: Secret,
    },
}

/// A text that never shows in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// One bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The bucket's name; with the region it is the bucket's id.
    pub name: String,
    /// The region.
    pub region: String,
    /// Put before every key; empty, or ends with a slash.
    pub prefix: String,
    /// An S3-compatible endpoint instead of AWS.
    pub endpoint: Option<String>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
    /// A key that always exists, by which a 403 for a missing key is told from bad credentials.
    pub canary: Option<String>,
}

/// How long an origin may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginTimeouts {
    /// TCP and TLS to the origin.
    pub connect: Duration,
    /// Between bytes of an answer.
    pub read: Duration,
    /// One attempt, up to the answer's head.
    pub attempt: Duration,
    /// All attempts, up to the answer's head.
    pub operation: Duration,
    /// Attempts in all.
    pub attempts: u32,
    /// How long an unused connection is kept.
    pub pool_idle: Duration,
}

impl OriginTimeouts {
    /// For servers that compute their answers. Many close an idle connection after five seconds, so it is left first.
    pub const HTTP: Self = Self {
        connect: Duration::from_secs(2),
        read: Duration::from_secs(10),
        attempt: Duration::from_secs(15),
        operation: Duration::from_secs(20),
        attempts: 2,
        pool_idle: Duration::from_secs(4),
    };
}

impl Default for OriginTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            read: Duration::from_secs(2),
            attempt: Duration::from_secs(4),
            operation: Duration::from_secs(8),
            attempts: 3,
            pool_idle: Duration::from_secs(20),
        }
    }
}
