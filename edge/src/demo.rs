//! The newcomer's first minute: an embedded bucket with a sample site, a certificate of a local development CA, and a
//! configuration file that shows how they hang together. Everything lives in one state folder.
//!
//! The node itself is an ordinary one, started from that file; nothing in it knows that it is a demo.

mod npm;
mod site;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use aws_lc_rs::{digest, rand};
use origin_sync::bucket;

use crate::clock::Clock;

/// The name of the embedded bucket.
const BUCKET: &str = "demo";

/// What `edge demo` may be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Where everything that the demo makes is kept
    #[arg(long, value_name = "DIR", default_value = ".state/demo")]
    pub state: PathBuf,
    /// Serve the files of this folder instead of the sample site
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Also fetch real login widgets with npm: several versions of auth0-js and @okta/okta-signin-widget
    #[arg(long)]
    pub widget: bool,
    /// The address for https
    #[arg(long, value_name = "ADDR", default_value = "[::]:8443")]
    pub https: SocketAddr,
    /// The address that redirects to https
    #[arg(long, value_name = "ADDR", default_value = "[::]:8080")]
    pub http: SocketAddr,
    /// The address for the operator
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9180")]
    pub admin: SocketAddr,
}

/// Why the demo could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The embedded bucket.
    #[error("cannot start the embedded bucket")]
    Bucket(#[from] bucket::Error),
    /// What the last demo left.
    #[error("cannot empty the embedded bucket")]
    Clear(#[source] bucket::StoreError),
    /// An object of the sample.
    #[error("cannot put {0} into the embedded bucket")]
    Put(String, #[source] bucket::StoreError),
    /// The development CA.
    #[error("cannot make the certificate")]
    Certificate(#[from] certs::dev_ca::Error),
    /// A file or folder.
    #[error("cannot use {0}")]
    File(PathBuf, #[source] io::Error),
    /// The bucket's socket.
    #[error("cannot listen on the loopback interface")]
    Listen(#[source] io::Error),
    /// npm is missing, or it failed.
    #[error("npm cannot fetch {package}: {reason}")]
    Npm {
        /// The package with its version.
        package: String,
        /// What npm said, or why it could not be asked.
        reason: String,
    },
    /// No random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// A demo that is ready to be served. The bucket ends when this is dropped.
#[derive(Debug)]
pub struct Demo {
    /// The configuration to start the node with.
    pub config: PathBuf,
    /// What to tell the newcomer once the node is up.
    pub welcome: String,
    _bucket: bucket::Server,
}

/// Makes everything that the demo needs, or finds it from the last time.
pub async fn prepare(arguments: &Arguments, clock: &Clock) -> Result<Demo, Error> {
    let state = &arguments.state;
    make_private(state)?;
    let token = token(&state.join("admin.token"))?;
    let ca = certs::dev_ca::DevCa::open_or_create(&state.join("ca"), clock.now().to_system_time())?;
    let names = ["localhost", "cdn.localhost"].map(String::from);
    let addresses = [[127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()];
    let pair = ca.issue(&names, &addresses, clock.now().to_system_time())?;
    let bucket = start_bucket(state).await?;
    site::clear(bucket.store()).await?;
    let port = arguments.https.port();
    let script = match &arguments.dir {
        Some(dir) => site::put_folder(bucket.store(), dir).await?,
        None => site::put_sample(bucket.store(), port).await?,
    };
    let fetched = if arguments.widget {
        npm::put_widgets(bucket.store(), &state.join("npm")).await?
    } else {
        Vec::new()
    };
    let script = fetched
        .iter()
        .rfind(|path| path.ends_with(".min.js"))
        .cloned()
        .unwrap_or(script);
    let config = state.join("edge.toml");
    let text = configuration(arguments, &pair, bucket.address(), &token);
    write(&config, text.as_bytes(), false)?;
    write(
        &state.join("bucket.secret"),
        bucket::Options::SECRET_ACCESS_KEY.as_bytes(),
        true,
    )?;
    Ok(Demo {
        config,
        welcome: welcome(arguments, &ca.certificate(), &script, &fetched),
        _bucket: bucket,
    })
}

async fn start_bucket(state: &Path) -> Result<bucket::Server, Error> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .map_err(Error::Listen)?;
    let mut options = bucket::Options::new(state.join("bucket"));
    options.buckets = vec![BUCKET.to_owned()];
    options.durable = false;
    Ok(bucket::Server::start(options, listener).await?)
}

/// The operator's token: made once, then kept. The configuration only holds its digest.
fn token(path: &Path) -> Result<String, Error> {
    if let Ok(token) = std::fs::read_to_string(path) {
        return Ok(token.trim().to_owned());
    }
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| Error::Random)?;
    let token = hex::encode(bytes);
    write(path, token.as_bytes(), true)?;
    Ok(token)
}

fn configuration(arguments: &Arguments, pair: &certs::Pair, bucket: SocketAddr, token: &str) -> String {
    let hash = hex::encode(digest::digest(&digest::SHA256, token.as_bytes()));
    let file = |path: &Path| {
        toml_text(
            &path
                .file_name()
                .map_or_else(|| path.into(), |_| absolute(path))
                .to_string_lossy(),
        )
    };
    let index = "index = \"index.html\"";
    format!(
        "# Made anew by each `edge demo`. To keep changes, copy it and use `edge run -c`.\n\n\
         [listen]\nhttps = [\"{https}\"]\nhttp = [\"{http}\"]\nadmin = \"{admin}\"\n\n\
         [admin]\ntokens = [{{ name = \"demo\", sha256 = \"{hash}\", scopes = [\"purge\", \"read\"] }}]\n\n\
         [[tls.certificate]]\nchain = {chain}\nkey = {key}\ndefault = true\n\n\
         [origin.demo]\nkind = \"s3\"\n\
         credentials = {{ access_key_id = \"{id}\", secret_access_key_file = \"bucket.secret\" }}\n\
         buckets = [{{ name = \"{BUCKET}\", region = \"us-east-1\", endpoint = \"http://{bucket}\", path_style = true }}]\n\n\
         [[site]]\nhosts = [\"localhost\", \"cdn.localhost\", \"127.0.0.1\", \"[::1]\"]\n\
         origin = \"demo\"\npreset = \"embed\"\n{index}\nttl_default = \"60s\"\n\n\
         [log.access]\nformat = \"combined\"\npath = \"access.log\"\n\n\
         [drain]\ndelay = \"0s\"\ndeadline = \"10s\"\n",
        https = arguments.https,
        http = arguments.http,
        admin = arguments.admin,
        chain = file(&pair.chain),
        key = file(&pair.key),
        id = bucket::Options::ACCESS_KEY_ID,
    )
}

fn welcome(arguments: &Arguments, ca: &Path, script: &str, fetched: &[String]) -> String {
    let (https, http) = (arguments.https.port(), arguments.http.port());
    let admin = arguments.admin;
    let ca = ca.display();
    let token = arguments.state.join("admin.token");
    let token = token.display();
    let mut text = format!(
        "\n  Portico is up.\n\n  \
         https://localhost:{https}/    the site (HTTP/1.1 and HTTP/2)\n  \
         http://localhost:{http}/     redirects there\n  \
         http://{admin}/     for the operator: /metrics, /readyz, /v1/status, /v1/purge\n\n  \
         Try:\n  \
         curl --cacert {ca} --compressed -sD- -o /dev/null https://localhost:{https}{script}\n  \
         curl -H \"Authorization: Bearer $(cat {token})\" --json '{{\"files\":[\"https://localhost:{https}{script}\"]}}' http://{admin}/v1/purge\n  \
         curl -s http://{admin}/metrics | grep edge_cache\n\n  \
         The certificate is from a CA made for this machine: {ca}\n  \
         Everything is in {}. Ctrl-C drains and ends.\n",
        arguments.state.display()
    );
    if !fetched.is_empty() {
        text.push_str("\n  Real widgets:\n");
        fetched
            .iter()
            .for_each(|path| text.extend(["  https://localhost:", &https.to_string(), path, "\n"]));
    }
    text
}

/// A folder that only we can look into.
fn make_private(dir: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| Error::File(dir.into(), error))
}

fn write(path: &Path, bytes: &[u8], secret: bool) -> Result<(), Error> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mode = if secret { 0o600 } else { 0o644 };
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path);
    file.and_then(|mut file| file.write_all(bytes))
        .map_err(|error| Error::File(path.into(), error))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}

/// A text as TOML writes it.
fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
