//! `edge purge`, `edge warm`, `edge cache show` and `edge status`: the operator's end of the admin API, over TCP or a Unix socket.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 3 partly done (some of several requests failed).

mod connection;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use self::connection::Connection;
pub use self::connection::Error;

/// Members of one purge request, as the admin API allows; more go in several.
const MEMBERS_MAX: usize = 1_000;

/// URLs of one request to warm, likewise.
const WARMED_MAX: usize = 100;

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

/// The arguments of `edge warm`.
#[derive(Args, Clone, Debug, Default)]
pub struct WarmArgs {
    /// Which node, and who asks.
    #[command(flatten)]
    pub node: Node,
    /// What Accept-Encoding says
    #[arg(long, value_name = "CODINGS", default_value = "br, gzip")]
    pub codings: String,
    /// Ask for these URLs
    #[arg(value_name = "URL", required = true)]
    pub urls: Vec<String>,
}

/// The arguments of `edge cache show`.
#[derive(Args, Clone, Debug, Default)]
pub struct ShowArgs {
    /// Which node, and who asks.
    #[command(flatten)]
    pub node: Node,
    /// The URL to look at
    #[arg(value_name = "URL")]
    pub url: String,
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

/// Runs `edge warm`: prints what came of each URL.
pub async fn warm(args: &WarmArgs, out: &mut impl Write, err: &mut impl Write) -> Exit {
    let mut done = 0;
    match try_warm(args, out, &mut done).await {
        Ok(0) => Exit::Done,
        Ok(failed) if failed < args.urls.len() => Exit::Partly,
        Ok(_) => Exit::Failed,
        Err(error) => complain(&error, done > 0, err),
    }
}

/// Runs `edge cache show`: prints what is stored for a URL.
pub async fn show(args: &ShowArgs, out: &mut impl Write, err: &mut impl Write) -> Exit {
    match try_show(args, out).await {
        Ok(()) => Exit::Done,
        Err(error) => complain(&error, false, err),
    }
}

/// Runs `edge cache stats`: prints what is stored, by tier and site.
pub async fn stats(args: &StatusArgs, out: &mut impl Write, err: &mut impl Write) -> Exit {
    match try_stats(args, out).await {
        Ok(()) => Exit::Done,
        Err(error) => complain(&error, false, err),
    }
}

/// Runs `edge cache verify`: has everything in the disk tier read and proved, and waits for that. Damage is exit code 3.
pub async fn verify(args: &StatusArgs, out: &mut impl Write, err: &mut impl Write) -> Exit {
    match try_verify(args, out).await {
        Ok(0) => Exit::Done,
        Ok(_) => Exit::Partly,
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
        let answer = connection.ask(Method::POST, "/v1/purge", Some(&request)).await?;
        *done += 1;
        if args.node.json {
            writeln!(out, "{answer}")?;
            continue;
        }
        writeln!(out, "{}", purged_line(&answer))?;
        for warning in list(&answer, "warnings") {
            let text = |name: &str| {
                warning
                    .get(name)
                    .and_then(Value::as_str)
                    .map(printable)
                    .unwrap_or_default()
            };
            writeln!(err, "warning: {}: {}", text("value"), text("warning"))?;
        }
    }
    Ok(())
}

/// Warms the URLs; gives the number of those that failed.
async fn try_warm(args: &WarmArgs, out: &mut impl Write, done: &mut usize) -> Result<usize, Error> {
    let connection = Connection::new(&args.node)?;
    let mut failed = 0;
    for urls in args.urls.chunks(WARMED_MAX) {
        let body = json!({ "urls": urls, "codings": args.codings });
        let answer = connection.ask(Method::POST, "/v1/warm", Some(&body)).await?;
        *done += 1;
        if args.node.json {
            writeln!(out, "{answer}")?;
        }
        for result in list(&answer, "urls") {
            failed += usize::from(!is_true(result, "ok"));
            if !args.node.json {
                writeln!(out, "{}", warmed_line(result))?;
            }
        }
    }
    Ok(failed)
}

/// `https://cdn.example/a.js 200, 1234 bytes: portico; fwd=uri-miss; ...`.
fn warmed_line(result: &Value) -> String {
    let member = |name: &str| result.get(name).map(scalar).unwrap_or_default();
    match result.get("error") {
        Some(error) => format!("{} failed: {}", member("url"), scalar(error)),
        None => format!(
            "{} {}, {} bytes: {}",
            member("url"),
            member("status"),
            member("bytes"),
            member("cache_status")
        ),
    }
}

async fn try_show(args: &ShowArgs, out: &mut impl Write) -> Result<(), Error> {
    let connection = Connection::new(&args.node)?;
    let escaped: String = args.url.bytes().map(escape).collect();
    let path = format!("/v1/cache?url={escaped}");
    let shown = connection.ask(Method::GET, &path, None).await?;
    print(&shown, args.node.json, out)
}

async fn try_stats(args: &StatusArgs, out: &mut impl Write) -> Result<(), Error> {
    let connection = Connection::new(&args.node)?;
    let status = connection.ask(Method::GET, "/v1/status", None).await?;
    let cache = status.get("cache").cloned().unwrap_or_default();
    print(&cache, args.node.json, out)
}

/// How many were damaged.
async fn try_verify(args: &StatusArgs, out: &mut impl Write) -> Result<u64, Error> {
    let connection = Connection::new(&args.node)?;
    let mut path = "/v1/verify".to_owned();
    loop {
        let answer = connection.ask(Method::POST, &path, None).await?;
        let number = |name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or_default();
        if answer.get("done") != Some(&Value::Bool(false)) {
            print(&answer, args.node.json, out)?;
            return Ok(number("damaged"));
        }
        path = format!("/v1/verify?run={}", number("run"));
    }
}

/// A byte of a URL as it stands in a query.
fn escape(byte: u8) -> String {
    match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    }
}

async fn try_status(args: &StatusArgs, out: &mut impl Write) -> Result<(), Error> {
    let connection = Connection::new(&args.node)?;
    let status = connection.ask(Method::GET, "/v1/status", None).await?;
    print(&status, args.node.json, out)
}

/// Prints an answer, a member a line unless JSON is wanted.
fn print(answer: &Value, as_json: bool, out: &mut impl Write) -> Result<(), Error> {
    if as_json {
        writeln!(out, "{answer}")?;
        return Ok(());
    }
    let mut lines = Vec::new();
    flatten(String::new(), answer, &mut lines);
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
    if is_true(answer, "everything") {
        parts.push("everything".into());
    }
    for (member, one, many) in kinds {
        match list(answer, member).len() {
            0 => {}
            1 => parts.push(format!("1 {one}")),
            n => parts.push(format!("{n} {many}")),
        }
    }
    let position = answer.get("position").unwrap_or(&Value::Null);
    let how = if is_true(answer, "soft") {
        "softly purged"
    } else {
        "purged"
    };
    format!("{how} at position {}: {}", position, parts.join(", "))
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value
        .get(name)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn is_true(value: &Value, name: &str) -> bool {
    value.get(name) == Some(&Value::Bool(true))
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

#[cfg(test)]
mod tests {
    use super::*;

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
                (
                    count("files"),
                    count("tags"),
                    body["everything"] == true,
                    body["soft"] == true,
                )
            })
            .collect();
        assert_eq!(
            counts,
            [
                (1000, 0, true, true),
                (500, 500, false, true),
                (0, 100, false, true)
            ]
        );
        assert!(PurgeArgs::default().requests().is_empty());
    }

    #[test]
    fn a_warmed_url_is_a_line() {
        let check = |result: Value, expected: &str| assert_eq!(warmed_line(&result), expected);
        check(
            json!({"url": "http://a/", "ok": true, "status": 200, "bytes": 5, "cache_status": "portico; hit"}),
            "http://a/ 200, 5 bytes: portico; hit",
        );
        check(json!({"url": "x", "ok": false, "error": "no"}), "x failed: no");
        let escaped: String = "http://a/b?c%".bytes().map(escape).collect();
        assert_eq!(escaped, "http%3A%2F%2Fa%2Fb%3Fc%25");
    }

    #[test]
    fn what_is_printed_moves_no_cursor() {
        let mut lines = Vec::new();
        let status = json!({"a": {"b": "x\u{1b}[2J"}, "c": [1, "y"], "d": [{"e": null}], "f": []});
        flatten(String::new(), &status, &mut lines);
        let lines: Vec<_> = lines
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(lines, ["a.b=x\\u{1b}[2J", "c=1, y", "d[0].e=null", "f="]);
    }
}
