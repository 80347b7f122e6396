//! Options that several commands share: the bucket, the keys, the edges.

use std::path::{Path, PathBuf};

use super::Failure;
use crate::progress::Progress;
use crate::promote::edges::Named;
use crate::release::{Role, SecretKey, Trust, TrustedKey};
use crate::remote::{Remote, Target};

/// The environment variable that holds the token of admin listeners.
const TOKEN_VARIABLE: &str = "EDGE_ADMIN_TOKEN";

/// Requests at once to the bucket.
pub(super) const REQUESTS: usize = 32;

/// The bucket.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct BucketArgs {
    /// The bucket and a prefix in it
    #[arg(long, value_name = "s3://BUCKET/PREFIX", env = "ORIGIN_SYNC_BUCKET")]
    bucket: String,
    #[command(flatten)]
    s3: S3Args,
}

/// The bucket that is written to.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ToArgs {
    /// The bucket and a prefix in it
    #[arg(
        long,
        alias = "bucket",
        value_name = "s3://BUCKET/PREFIX",
        env = "ORIGIN_SYNC_BUCKET"
    )]
    to: String,
    #[command(flatten)]
    s3: S3Args,
}

/// How S3 is reached.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct S3Args {
    /// Where S3 is, if not at AWS [env: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// The region [env: AWS_REGION]
    #[arg(long)]
    region: Option<String>,
    /// Whether the bucket stands in the path instead of the host [default: where there is an endpoint]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    path_style: Option<bool>,
}

impl BucketArgs {
    pub(super) async fn connect(&self) -> Result<Remote, Failure> {
        self.s3.connect(&self.bucket).await
    }
}

impl ToArgs {
    pub(super) async fn connect(&self) -> Result<Remote, Failure> {
        self.s3.connect(&self.to).await
    }
}

impl S3Args {
    pub(super) async fn connect(&self, url: &str) -> Result<Remote, Failure> {
        let target = Target {
            url: url.to_owned(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            path_style: self.path_style,
        };
        Ok(Remote::connect(&target).await?)
    }
}

/// Whose word counts.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct TrustArgs {
    /// A public key, as text or as the file that keygen wrote; may be given more than once
    #[arg(
        long = "trust",
        value_name = "KEY",
        env = "ORIGIN_SYNC_TRUST",
        value_delimiter = ','
    )]
    keys: Vec<String>,
}

impl TrustArgs {
    /// The keys that were named, and those that sign here.
    pub(super) fn trust(&self, own: &[&SecretKey]) -> Result<Trust, Failure> {
        let mut keys: Vec<TrustedKey> = own.iter().map(|key| key.public()).collect();
        for named in &self.keys {
            let text = match named.contains(":ed25519-") {
                true => named.clone(),
                false => std::fs::read_to_string(named)
                    .map_err(|error| Failure::usage(format!("--trust {named} cannot be read: {error}")))?,
            };
            keys.push(
                text.parse()
                    .map_err(|error| Failure::usage(format!("--trust {named}: {error}")))?,
            );
        }
        let trust = Trust::new(keys);
        if trust.of(Role::Release).next().is_none() {
            return Err(Failure::usage(
                "nobody's manifests are believed: name the release key's public part with --trust release.pub",
            ));
        }
        Ok(trust)
    }
}

/// The release key.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ReleaseKeyArgs {
    /// The release key [env: ORIGIN_SYNC_RELEASE_KEY holds the key itself, for where there is no file]
    #[arg(long, value_name = "FILE", env = "ORIGIN_SYNC_RELEASE_KEY_FILE")]
    release_key: Option<PathBuf>,
    /// Another release key that vouches for files in browsers, while pages go from one key to the next
    #[arg(long, value_name = "FILE")]
    also_sign_with: Vec<PathBuf>,
}

/// The channel key.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ChannelKeyArgs {
    /// The channel key [env: ORIGIN_SYNC_CHANNEL_KEY holds the key itself, for where there is no file]
    #[arg(long, value_name = "FILE", env = "ORIGIN_SYNC_CHANNEL_KEY_FILE")]
    channel_key: Option<PathBuf>,
    /// Another channel key that vouches for files in browsers, while pages go from one key to the next
    #[arg(long, value_name = "FILE")]
    also_sign_with: Vec<PathBuf>,
}

impl ReleaseKeyArgs {
    pub(super) fn read(&self) -> Result<(SecretKey, Vec<SecretKey>), Failure> {
        let key = secret(
            self.release_key.as_deref(),
            Role::Release,
            "--release-key",
            "ORIGIN_SYNC_RELEASE_KEY",
        )?;
        Ok((key, also(&self.also_sign_with, Role::Release)?))
    }
}

impl ChannelKeyArgs {
    pub(super) fn read(&self) -> Result<(SecretKey, Vec<SecretKey>), Failure> {
        let key = secret(
            self.channel_key.as_deref(),
            Role::Channel,
            "--channel-key",
            "ORIGIN_SYNC_CHANNEL_KEY",
        )?;
        Ok((key, also(&self.also_sign_with, Role::Channel)?))
    }
}

fn secret(file: Option<&Path>, role: Role, option: &str, variable: &str) -> Result<SecretKey, Failure> {
    match (file, std::env::var(variable)) {
        (Some(file), _) => Ok(SecretKey::read(file, role)?),
        (None, Ok(pem)) => Ok(SecretKey::for_role(&pem, role, variable)?),
        (None, Err(_)) => Err(Failure::usage(format!(
            "the {role} key is needed: {option} FILE, or {variable}"
        ))),
    }
}

fn also(files: &[PathBuf], role: Role) -> Result<Vec<SecretKey>, Failure> {
    let keys: Result<Vec<SecretKey>, _> = files.iter().map(|file| SecretKey::read(file, role)).collect();
    Ok(keys?)
}

/// The edges, and where browsers ask.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct EdgeArgs {
    /// An edge: the URL of its admin listener, and where its public door is if not at that host; may be given more than once
    #[arg(long = "edge", value_name = "ADMIN-URL[=HOST:PORT]")]
    pub(super) edges: Vec<Named>,
    /// An edge that is tried first, alone
    #[arg(long = "canary", value_name = "ADMIN-URL[=HOST:PORT]")]
    pub(super) canaries: Vec<Named>,
    /// Where browsers ask: with it, every form of every file is asked for at each edge, and compared
    #[arg(long, value_name = "https://HOST")]
    pub(super) site: Option<String>,
    /// What the site's certificate is checked against, instead of the system's certificates
    #[arg(long, value_name = "FILE", requires = "site")]
    pub(super) ca: Option<PathBuf>,
    /// A file that holds the token for admin listeners; else the environment variable EDGE_ADMIN_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl EdgeArgs {
    /// All edges, the canaries first; an edge that is named as both is a canary.
    pub(super) fn all(&self) -> Vec<Named> {
        let others = self
            .edges
            .iter()
            .filter(|edge| !self.canaries.iter().any(|canary| canary.admin == edge.admin));
        self.canaries
            .iter()
            .chain(others)
            .map(|edge| Named {
                admin: edge.admin.clone(),
                door: edge.door.clone().or_else(|| self.default_door(edge)),
            })
            .collect()
    }

    /// The host of the admin listener, at the port of the site.
    fn default_door(&self, edge: &Named) -> Option<String> {
        let site: http::Uri = self.site.as_deref()?.parse().ok()?;
        let admin: http::Uri = edge.admin.parse().ok()?;
        let port = site.port_u16().unwrap_or(if site.scheme_str() == Some("http") {
            80
        } else {
            443
        });
        Some(format!("{}:{port}", admin.host()?))
    }

    pub(super) fn token(&self) -> Result<Option<String>, Failure> {
        let text = match &self.token_file {
            Some(file) => Some(
                std::fs::read_to_string(file)
                    .map_err(|error| Failure::usage(format!("{} cannot be read: {error}", file.display())))?,
            ),
            None => std::env::var(TOKEN_VARIABLE).ok(),
        };
        Ok(text
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty()))
    }
}

/// How it is said.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct OutputArgs {
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Say nothing of how far it is
    #[arg(long, short)]
    quiet: bool,
}

impl OutputArgs {
    pub(super) fn progress(self) -> Progress {
        match self.quiet {
            true => Progress::None,
            false => Progress::detect(),
        }
    }
}
