//! `edge purge` and `edge status`: the operator's end of the admin API, over TCP or a Unix socket.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 3 partly done (some of several requests failed).

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::{self, AdminListen};

/// Where an edge's admin listener is unless something says otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:9180";

/// The environment variable that holds the token.
const TOKEN_VARIABLE: &str = "EDGE_ADMIN_TOKEN";

/// Members of one purge request, as the admin API allows; more go in several.
const MEMBERS_MAX: usize = 1_000;

/// From the first packet to the answer's last byte.
const DEADLINE: Duration = Duration::from_secs(30);

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Which node, and who asks.
#[derive(Args, Clone, Debug, Default)]
pub struct Node {
    /// The admin listener's URL [default: the one in --config, else http://127.0.0.1:9180]
    #[arg(long, value_name = "URL", conflicts_with = "socket")]
    pub url: Option<String>,
    /// The admin listener's Unix socket
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The edge's configuration file, to find the admin listener by
    #[arg(long, value_name = "FILE", env = "EDGE_CONFIG")]
    pub config: Option<PathBuf>,
    /// A file that holds the token; else the environment variable EDGE_ADMIN_TOKEN
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `edge purge`.
#[derive(Args, Clone, Debug, Default)]
pub struct PurgeArgs {
    /// Which node, and who asks.
    #[command(flatten)]
    pub node: Node,
    /// Mark stale instead of removing
    #[arg(long)]
    pub soft: bool,
    /// Purge what carries this tag
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Purge what begins with this host and path
    #[arg(long = "prefix", value_name = "HOST/PATH")]
    pub prefixes: Vec<String>,
    /// Purge a host
    #[arg(long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,
    /// Purge everything
    #[arg(long)]
    pub everything: bool,
    /// Purge these URLs; without a query, every query of the path
    #[arg(value_name = "URL")]
    pub urls: Vec<String>,
}

/// The arguments of `edge status`.
#[derive(Args, Clone, Debug, Default)]
pub struct StatusArgs {
    /// Which node, and who asks.
    #[command(flatten)]
    pub node: Node,
}

/// Why nothing, or not all, was done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments make no sense.
    #[error("{0}")]
    Usage(String),
    /// The token cannot be read.
    #[error("the token file {path} cannot be read")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody answers at the address.
    #[error("no edge answers at {address}: is it running, and is this its listen.admin?")]
    Connect {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("{address} did not answer as an admin listener does")]
    Exchange {
        /// The address.
        address: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long.
    #[error("{address} did not answer within {seconds} s", seconds = DEADLINE.as_secs())]
    Deadline {
        /// The address.
        address: String,
    },
    /// The node refused.
    #[error("the edge refused ({status}): {detail}")]
    Refused {
        /// The status code.
        status: StatusCode,
        /// What it said.
        detail: String,
    },
    /// Nobody takes what is printed.
    #[error("the output cannot be written")]
    Output(#[from] io::Error),
}

/// How it went, for the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All done.
    Done = 0,
    /// Nothing done.
    Failed = 1,
    /// The arguments make no sense.
    Usage = 2,
    /// Some of it done.
    Partly = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Runs `edge purge`: prints what was purged, or why not.
pub async fn purge(args: &PurgeArgs, out: &mut impl Write, err: &mut impl Write) -> Exit {
    let mut done = 0;
    match try_purge(args, out, err, &mut done).await {
        Ok(()) => Exit::Done,
        Err(error) => complain(&error, done > 0, err),
    }
}

/// Runs `edge status`: prints the node's status, or why not.
pub async fn status(args: &StatusArgs, out: &mut impl Write, err: &mut impl Write) -> Exit {
    match try_status(args, out).await {
        Ok(()) => Exit::Done,
        Err(error) => complain(&error, false, err),
    }
}

/// Prints an error with its causes; nobody may be there to read it.
fn complain(error: &Error, partly: bool, err: &mut impl Write) -> Exit {
    let mut text = format!("error: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    let _ = writeln!(err, "{text}");
    match error {
        Error::Usage(_) | Error::TokenFile { .. } => Exit::Usage,
        _ if partly => Exit::Partly,
        _ => Exit::Failed,
    }
}

async fn try_purge(
    args: &PurgeArgs,
    out: &mut impl Write,
    err: &mut impl Write,
    done: &mut usize,
) -> Result<(), Error> {
    let requests = args.requests();
    if requests.is_empty() {
        let message = "nothing to purge: give URLs, --tag, --prefix, --host or --everything";
        return Err(Error::Usage(message.into()));
    }
    let connection = Connection::new(&args.node)?;
    for request in requests {
        let answer = connection
            .ask(Method::POST, "/v1/purge", Some(&request))
            .await?;
        *done += 1;
        if args.node.json {
            writeln!(out, "{answer}")?;
            continue;
        }
        writeln!(out, "{}", purged_line(&answer))?;
        for warning in answer["warnings"].as_array().into_iter().flatten() {
            let text = |name: &str| printable(warning[name].as_str().unwrap_or_default());
            writeln!(err, "warning: {}: {}", text("value"), text("warning"))?;
        }
    }
    Ok(())
}

async fn try_status(args: &StatusArgs, out: &mut impl Write) -> Result<(), Error> {
    let connection = Connection::new(&args.node)?;
    let status = connection.ask(Method::GET, "/v1/status", None).await?;
    if args.node.json {
        writeln!(out, "{status}")?;
        return Ok(());
    }
    let mut lines = Vec::new();
    flatten(String::new(), &status, &mut lines);
    for (name, value) in lines {
        writeln!(out, "{name}: {value}")?;
    }
    Ok(())
}

impl PurgeArgs {
    /// The bodies to send: one, or several where one may not hold so many members.
    fn requests(&self) -> Vec<Value> {
        let kinds = [
            ("files", &self.urls),
            ("tags", &self.tags),
            ("prefixes", &self.prefixes),
            ("hosts", &self.hosts),
        ];
        let members: Vec<_> = kinds
            .iter()
            .flat_map(|(kind, values)| values.iter().map(move |value| (*kind, value)))
            .collect();
        let mut requests: Vec<Value> = members
            .chunks(MEMBERS_MAX)
            .map(|members| {
                let mut body = serde_json::Map::new();
                for (kind, value) in members {
                    let list = body.entry(*kind).or_insert_with(|| json!([]));
                    list.as_array_mut()
                        .into_iter()
                        .for_each(|list| list.push(json!(value)));
                }
                Value::Object(body)
            })
            .collect();
        if self.everything && requests.is_empty() {
            requests.push(json!({}));
        }
        for (at, request) in requests.iter_mut().enumerate() {
            if let Some(body) = request.as_object_mut() {
                body.insert("soft".into(), json!(self.soft));
                body.insert("everything".into(), json!(self.everything && at == 0));
            }
        }
        requests
    }
}

/// `purged at position 12: 3 files, 1 tag`.
fn purged_line(answer: &Value) -> String {
    let kinds = [
        ("files", "file", "files"),
        ("tags", "tag", "tags"),
        ("prefixes", "prefix", "prefixes"),
        ("hosts", "host", "hosts"),
    ];
    let mut parts: Vec<String> = Vec::new();
    if answer["everything"] == true {
        parts.push("everything".into());
    }
    for (member, one, many) in kinds {
        match answer[member].as_array().map_or(0, Vec::len) {
            0 => {}
            1 => parts.push(format!("1 {one}")),
            n => parts.push(format!("{n} {many}")),
        }
    }
    let how = if answer["soft"] == true { "softly purged" } else { "purged" };
    format!("{how} at position {}: {}", answer["position"], parts.join(", "))
}

/// Nested members as `outer.inner` and `list[0]`, a line each.
fn flatten(name: String, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) => {
            for (member, value) in members {
                let dot = if name.is_empty() { "" } else { "." };
                flatten(format!("{name}{dot}{}", printable(member)), value, lines);
            }
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            for (at, item) in items.iter().enumerate() {
                flatten(format!("{name}[{at}]"), item, lines);
            }
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(scalar).collect();
            lines.push((name, items.join(", ")));
        }
        _ => lines.push((name, scalar(value))),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text),
        other => other.to_string(),
    }
}

/// Text without what could move a terminal's cursor.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

/// An admin listener, and the token for it.
struct Connection {
    address: Address,
    token: Option<HeaderValue>,
}

enum Address {
    /// Host and port.
    Tcp(String),
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    fn of(node: &Node) -> Result<Self, Error> {
        if let Some(path) = &node.socket {
            return Ok(Self::Unix(path.clone()));
        }
        if let Some(url) = &node.url {
            return Self::parse(url);
        }
        match &node.config {
            Some(path) => Self::of_config(path),
            None => Self::parse(DEFAULT_URL),
        }
    }

    fn parse(url: &str) -> Result<Self, Error> {
        if let Some(path) = url.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let usage = |why: &str| Error::Usage(format!("--url {url}: {why}"));
        let uri: Uri = url.parse().map_err(|_| usage("this is not a URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(usage(
                "the admin listener speaks plain http; from elsewhere, go through a tunnel",
            ));
        }
        let plain = matches!(uri.path_and_query().map(|path| path.as_str()), None | Some("/" | ""));
        match uri.authority() {
            Some(authority) if plain && !authority.as_str().contains('@') => {
                let port = authority.port_u16().unwrap_or(80);
                Ok(Self::Tcp(format!("{}:{port}", authority.host())))
            }
            _ => Err(usage("only host and port are wanted, such as http://127.0.0.1:9180")),
        }
    }

    fn of_config(path: &Path) -> Result<Self, Error> {
        let usage = |why: String| Error::Usage(format!("--config {}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| usage(error.to_string()))?;
        let base = path.parent().unwrap_or(Path::new("."));
        let config = config::parse(&text, &path.display().to_string(), base)
            .map_err(|errors| usage(errors.to_string()))?;
        match config.admin.listen {
            Some(AdminListen::Unix(path)) => Ok(Self::Unix(path)),
            Some(AdminListen::Tcp(mut address)) => {
                // An edge that listens everywhere listens here.
                if address.ip().is_unspecified() {
                    let loopback: std::net::IpAddr = match address {
                        std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                        std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
                    };
                    address.set_ip(loopback);
                }
                Ok(Self::Tcp(address.to_string()))
            }
            None => Err(usage("listen.admin is off".into())),
        }
    }
}

impl Connection {
    fn new(node: &Node) -> Result<Self, Error> {
        let address = Address::of(node)?;
        let token = match &node.token_file {
            Some(path) => Some(std::fs::read_to_string(path).map_err(|source| Error::TokenFile {
                path: path.clone(),
                source,
            })?),
            None => std::env::var(TOKEN_VARIABLE).ok(),
        };
        let token = token.map(|token| bearer(&token)).transpose()?;
        Ok(Self { address, token })
    }

    /// Asks, and gives the answer's JSON.
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        let asked = tokio::time::timeout(DEADLINE, async {
            match &self.address {
                Address::Tcp(authority) => {
                    let stream = tokio::net::TcpStream::connect(authority).await;
                    let stream = stream.map_err(|source| self.unreachable(source))?;
                    self.exchange(stream, method, path, body).await
                }
                Address::Unix(socket) => {
                    let stream = tokio::net::UnixStream::connect(socket).await;
                    let stream = stream.map_err(|source| self.unreachable(source))?;
                    self.exchange(stream, method, path, body).await
                }
            }
        });
        let address = || self.address.to_string();
        asked.await.map_err(|_| Error::Deadline { address: address() })?
    }

    async fn exchange<S>(
        &self,
        stream: S,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let request = self.request(method, path, body)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        let conversation = async {
            let answer = sender.send_request(request).await.map_err(|error| self.broken(error))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| self.broken(error))?.to_bytes();
            self.judge(head.status, &body)
        };
        // The connection works while it is polled; it ends with the conversation.
        tokio::pin!(conversation, connection);
        tokio::select! {
            answer = &mut conversation => answer,
            ended = &mut connection => match ended {
                Ok(()) => conversation.await,
                Err(error) => Err(self.broken(error)),
            },
        }
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Request<Full<Bytes>>, Error> {
        let host = match &self.address {
            Address::Tcp(authority) => authority.as_str(),
            Address::Unix(_) => "localhost",
        };
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        request
            .body(Full::new(body.into()))
            .map_err(|error| self.broken(error))
    }

    fn judge(&self, status: StatusCode, body: &[u8]) -> Result<Value, Error> {
        let value = serde_json::from_slice::<Value>(body);
        if status.is_success() {
            return value.map_err(|error| self.broken(error));
        }
        let detail = value
            .ok()
            .and_then(|problem| problem["detail"].as_str().map(printable))
            .unwrap_or_else(|| "without a reason".into());
        Err(Error::Refused { status, detail })
    }

    fn unreachable(&self, source: io::Error) -> Error {
        let address = self.address.to_string();
        Error::Connect { address, source }
    }

    fn broken(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Exchange {
            address: self.address.to_string(),
            source: source.into(),
        }
    }
}

fn bearer(token: &str) -> Result<HeaderValue, Error> {
    let token = token.trim();
    if token.is_empty() {
        return Err(Error::Usage("the token is empty".into()));
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| Error::Usage("the token holds characters that no token has".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found() {
        let check = |url: &str, expected: Option<&str>| {
            let found = Address::parse(url).ok().map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{url}");
        };
        check("http://127.0.0.1:9180", Some("http://127.0.0.1:9180"));
        check("http://[::1]:9180/", Some("http://[::1]:9180"));
        check("http://edge.internal", Some("http://edge.internal:80"));
        check("unix:/run/edge.sock", Some("unix:/run/edge.sock"));
        check("https://127.0.0.1:9180", None);
        check("http://me@127.0.0.1:9180", None);
        check("http://127.0.0.1:9180/v1/purge", None);
        check("127.0.0.1:9180", None);
        check("nonsense url", None);
    }

    #[test]
    fn many_members_go_in_several_requests() {
        let args = PurgeArgs {
            urls: vec!["cdn.example/a".into(); 1_500],
            tags: vec!["t".into(); 600],
            everything: true,
            soft: true,
            ..PurgeArgs::default()
        };
        let requests = args.requests();
        let counts: Vec<_> = requests
            .iter()
            .map(|body| {
                let count = |name: &str| body[name].as_array().map_or(0, Vec::len);
                (count("files"), count("tags"), body["everything"] == true, body["soft"] == true)
            })
            .collect();
        assert_eq!(
            counts,
            [(1000, 0, true, true), (500, 500, false, true), (0, 100, false, true)]
        );
        assert!(PurgeArgs::default().requests().is_empty());
    }

    #[test]
    fn what_is_printed_moves_no_cursor() {
        let mut lines = Vec::new();
        let status = json!({"a": {"b": "x\u{1b}[2J"}, "c": [1, "y"], "d": [{"e": null}], "f": []});
        flatten(String::new(), &status, &mut lines);
        let lines: Vec<_> = lines.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(lines, ["a.b=x\\u{1b}[2J", "c=1, y", "d[0].e=null", "f="]);
    }
}
