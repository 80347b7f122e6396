//! Purging: what a request names becomes a [`Purge`] in the spelling of keys, and the epochs move.
//!
//! Names are exact: no wildcard, no expression. Doing it twice does no harm. The same is reached by `POST /v1/purge`
//! and, where a site allows it, by the PURGE method on the public port.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::auth::Known;
use super::refusal::Refusal;
use super::{Admin, Reply, json_reply};
use crate::cache::epoch::{Position, Prefix, Purge, Url};
use crate::cache::key::{canonical_path, canonical_query};
use crate::cache::tag::Tag;
use crate::config::{Query, Scope};
use crate::site::Router;
use crate::telemetry::metrics::Label;

/// Members of one request, all kinds together; more are refused with 400.
const MEMBERS_MAX: usize = 1_000;

/// Bytes of a body; more are refused with 413.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of an audit line's list of what was purged; the rest is cut off.
const AUDIT_BYTES: usize = 4 * 1024;

/// A kind of thing that a purge names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Everything,
    File,
    Host,
    Prefix,
    Tag,
}

impl Label for Kind {
    const NAME: &'static str = "kind";
    const VALUES: &'static [&'static str] = &["everything", "file", "host", "prefix", "tag"];
    fn index(self) -> usize {
        self as usize
    }
}

/// The body of a purge request. A member that is not here is a mistake: what the operator meant would not happen.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Body {
    files: Vec<String>,
    tags: Vec<String>,
    prefixes: Vec<String>,
    hosts: Vec<String>,
    everything: bool,
    soft: bool,
}

/// The answer to a purge: what was understood, in the spelling of keys.
#[derive(Debug, Serialize)]
struct Report<'a> {
    /// The purge's place in the sequence of purges.
    position: u64,
    soft: bool,
    everything: bool,
    files: Vec<String>,
    tags: Vec<&'a str>,
    prefixes: Vec<String>,
    hosts: &'a [String],
    warnings: &'a [Warning],
}

/// Something that was done, and may not be what was meant.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Warning {
    value: String,
    warning: &'static str,
}

const NO_SITE: &str = "no site answers to this host";
const NO_WILDCARD: &str = "the * stands for itself: names are exact, and prefixes need no *";

/// A purge by the PURGE method on the public port.
#[derive(Clone, Copy, Debug)]
pub struct PurgeMethod<'a> {
    /// The host of the target URI.
    pub host: &'a str,
    /// Path and query as they came.
    pub target: &'a PathAndQuery,
    /// The request's fields: Authorization, Surrogate-Key, Fastly-Soft-Purge.
    pub headers: &'a HeaderMap,
    /// The client's address, for the audit line.
    pub client: std::net::IpAddr,
}

impl Admin {
    /// Answers the PURGE method for a site that allows it; the caller has looked at that. It purges the target, or the
    /// tags in Surrogate-Key if there are any; `Fastly-Soft-Purge: 1` makes it soft.
    pub async fn purge_method(&self, request: &PurgeMethod<'_>) -> Response<Bytes> {
        let settings = self.settings();
        let peer = request.client.to_string();
        let asked = settings.tokens.identify(request.headers).and_then(|known| {
            let known = known.ok_or(Refusal::NoToken)?;
            known.require(Scope::Purge)?;
            known.take(self.0.handles.clock.now())?;
            let understood = understand(request.body(), &settings.router).map_err(Refusal::Purge)?;
            Ok((understood, known))
        });
        let purged = match asked {
            Ok((understood, known)) => self.purge_now(&understood, known, &peer).await,
            Err(refusal) => Err(refusal),
        };
        let reply = purged.unwrap_or_else(|refusal| {
            refusal.tell(&peer);
            refusal.reply()
        });
        self.0.metrics.requests.inc(super::Answer::of(reply.status()));
        reply
    }

    /// Answers `POST /v1/purge`.
    pub(super) async fn purge(
        &self,
        known: &Known,
        headers: &HeaderMap,
        body: Incoming,
        peer: &str,
    ) -> Result<Reply, Refusal> {
        known.take(self.0.handles.clock.now())?;
        let body = read(headers, body, self.0.limits.body).await?;
        let router = std::sync::Arc::clone(&self.settings().router);
        let understood = parse(&body, &router).map_err(Refusal::Purge)?;
        self.purge_now(&understood, known, peer).await
    }

    async fn purge_now(&self, understood: &Understood, known: &Known, peer: &str) -> Result<Reply, Refusal> {
        let purge = &understood.purge;
        let position = self.put_on_record(purge).await?.number();
        let report = Report {
            position,
            soft: purge.soft,
            everything: purge.everything,
            files: purge.urls.iter().map(shown_url).collect(),
            tags: purge.tags.iter().map(Tag::as_str).collect(),
            prefixes: purge
                .prefixes
                .iter()
                .map(|prefix| format!("{}{}", prefix.host, prefix.path))
                .collect(),
            hosts: &purge.hosts,
            warnings: &understood.warnings,
        };
        let purges = &self.0.metrics.purges;
        purges.add(Kind::Everything, u64::from(purge.everything));
        purges.add(Kind::File, purge.urls.len() as u64);
        purges.add(Kind::Host, purge.hosts.len() as u64);
        purges.add(Kind::Prefix, purge.prefixes.len() as u64);
        purges.add(Kind::Tag, purge.tags.len() as u64);
        let report = serde_json::to_value(report).unwrap_or_default();
        let what = audited(&report);
        tracing::info!(target: "audit", token = known.name(), peer, position, soft = purge.soft, what, "purged");
        Ok(json_reply(StatusCode::OK, &report))
    }

    /// Moves the epochs; where that takes a file, on a thread that may wait for it.
    async fn put_on_record(&self, purge: &Purge) -> Result<Position, Refusal> {
        let epochs = &self.0.handles.epochs;
        if !epochs.has_journal() {
            return Ok(epochs.purge(purge));
        }
        let (epochs, purge) = (std::sync::Arc::clone(epochs), purge.clone());
        let noted = tokio::task::spawn_blocking(move || epochs.purge_on_record(&purge)).await;
        match noted {
            Ok(Ok(position)) => Ok(position),
            Ok(Err(error)) => {
                tracing::error!(%error, cause = %error.source, "a purge could not be put on record");
                Err(Refusal::NotOnRecord(error.to_string()))
            }
            Err(error) => Err(Refusal::NotOnRecord(error.to_string())),
        }
    }
}

impl PurgeMethod<'_> {
    fn body(&self) -> Body {
        let soft = self
            .headers
            .get("fastly-soft-purge")
            .is_some_and(|value| value == "1");
        let tags: Vec<String> = self
            .headers
            .get_all("surrogate-key")
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b' '))
            .filter(|tag| !tag.is_empty())
            .map(|tag| String::from_utf8_lossy(tag).into_owned())
            .collect();
        let files = if tags.is_empty() {
            vec![format!("{}{}", self.host, self.target)]
        } else {
            Vec::new()
        };
        Body {
            files,
            tags,
            soft,
            ..Body::default()
        }
    }
}

/// A request as it was understood.
#[derive(Debug)]
struct Understood {
    purge: Purge,
    warnings: Vec<Warning>,
}

/// What the JSON body of a purge request names under the sites of `router`.
///
/// # Errors
///
/// What is wrong with it, for whoever wrote it.
pub fn purge_of(body: &[u8], router: &Router) -> Result<Purge, String> {
    parse(body, router).map(|understood| understood.purge)
}

fn parse(body: &[u8], router: &Router) -> Result<Understood, String> {
    let body = serde_json::from_slice(body).map_err(|error| format!("the body cannot be used: {error}"))?;
    understand(body, router)
}

/// What the body names, in the spelling of keys; or the first mistake in it, and then nothing is purged.
fn understand(body: Body, router: &Router) -> Result<Understood, String> {
    let members = [&body.files, &body.tags, &body.prefixes, &body.hosts];
    let count: usize = members.iter().map(|members| members.len()).sum();
    if count > MEMBERS_MAX {
        return Err(format!(
            "{count} members are more than {MEMBERS_MAX} in one request"
        ));
    }
    if count == 0 && !body.everything {
        return Err("nothing is named: give files, tags, prefixes, hosts or everything".into());
    }
    let mut reader = Reader {
        router,
        warnings: Vec::new(),
    };
    let purge = Purge {
        urls: reader.each(&body.files, "files", Reader::url)?,
        prefixes: reader.each(&body.prefixes, "prefixes", Reader::prefix)?,
        hosts: reader.each(&body.hosts, "hosts", Reader::host)?,
        tags: reader.each(&body.tags, "tags", Reader::tag)?,
        everything: body.everything,
        soft: body.soft,
    };
    Ok(Understood {
        purge,
        warnings: reader.warnings,
    })
}

/// Reads members, and notes what may not be what was meant.
struct Reader<'a> {
    router: &'a Router,
    warnings: Vec<Warning>,
}

impl Reader<'_> {
    fn each<T>(
        &mut self,
        members: &[String],
        kind: &str,
        read: impl Fn(&mut Self, &str) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let read = |(at, text): (usize, &String)| {
            read(self, text).map_err(|message| format!("{kind}[{at}]: {message}"))
        };
        members.iter().enumerate().map(read).collect()
    }

    fn url(&mut self, text: &str) -> Result<Url, String> {
        let (host, rest) = split_host(text)?;
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        if query.is_some_and(|query| query.contains('#')) {
            return Err("a URL without its fragment is needed".into());
        }
        if path.ends_with('*') {
            self.warn(text, NO_WILDCARD);
        }
        let site = self.site(text, &host);
        let path = if path.is_empty() { "/" } else { path };
        let path = site
            .as_ref()
            .map_or_else(|| canonical_path(path), |site| site.path(path));
        let path = path.map_err(|error| error.to_string())?.into_owned();
        let rule = site
            .as_ref()
            .map_or(Query::Keep, |site| site.rule(&path).query.clone());
        Ok(Url {
            host: self.own_name(host),
            path,
            query: canonical_query(query, &rule).map(std::borrow::Cow::into_owned),
        })
    }

    fn prefix(&mut self, text: &str) -> Result<Prefix, String> {
        let (host, path) = split_host(text)?;
        if path.ends_with('*') {
            self.warn(text, NO_WILDCARD);
        }
        self.site(text, &host);
        Ok(Prefix {
            host: self.own_name(host),
            path: canonical(path)?,
        })
    }

    fn host(&mut self, text: &str) -> Result<String, String> {
        let host = host_of(text)?;
        self.site(text, &host);
        Ok(self.own_name(host))
    }

    fn tag(&mut self, text: &str) -> Result<Tag, String> {
        Tag::new(text).ok_or_else(|| "a tag has 1 to 256 bytes".to_owned())
    }

    /// The site of `host`; none is worth a warning, no more: a site may have been taken away before its content.
    fn site(&mut self, text: &str, host: &str) -> Option<std::sync::Arc<crate::site::Site>> {
        let site = self.router.route(host).cloned();
        if site.is_none() {
            self.warn(text, NO_SITE);
        }
        site
    }

    /// The name under which keys hold what `host` serves.
    fn own_name(&self, host: String) -> String {
        self.router
            .route(&host)
            .map_or(host, |site| site.name().to_owned())
    }

    fn warn(&mut self, value: &str, warning: &'static str) {
        let value = value.to_owned();
        self.warnings.push(Warning { value, warning });
    }
}

/// The host of a URL, lowercase and without its port, and what follows it. The scheme may be left out.
fn split_host(text: &str) -> Result<(String, &str), String> {
    let after_scheme = match text.split_once("://") {
        Some((scheme, rest))
            if scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http") =>
        {
            rest
        }
        // A `://` later on is part of a path or query.
        Some((scheme, _)) if !scheme.contains(['/', '?']) => {
            return Err("the scheme must be http or https".into());
        }
        Some(_) | None => text,
    };
    let end = after_scheme.find(['/', '?', '#']).unwrap_or(after_scheme.len());
    let (authority, rest) = after_scheme.split_at_checked(end).unwrap_or((after_scheme, ""));
    if authority.is_empty() {
        return Err("the host is missing: such as cdn.example.com/path".into());
    }
    let rest = if rest.is_empty() { "/" } else { rest };
    Ok((host_of(authority)?, rest))
}

/// A host, lowercase and without its port.
fn host_of(text: &str) -> Result<String, String> {
    let authority: Authority = text.parse().map_err(|_| "this is not a host".to_owned())?;
    if text.contains('@') || authority.host().is_empty() {
        return Err("this is not a host".into());
    }
    Ok(authority.host().to_ascii_lowercase())
}

fn canonical(path: &str) -> Result<String, String> {
    // `host?query` means the root.
    let path = if path.is_empty() { "/" } else { path };
    canonical_path(path)
        .map(std::borrow::Cow::into_owned)
        .map_err(|error| error.to_string())
}

fn shown_url(url: &Url) -> String {
    match &url.query {
        Some(query) => format!("{}{}?{query}", url.host, url.path),
        None => format!("{}{}", url.host, url.path),
    }
}

/// What an audit line shows of a purge: the report without its empty members, up to a length.
fn audited(report: &serde_json::Value) -> String {
    let told = report.as_object().into_iter().flatten().filter(|(name, value)| {
        let empty = value.as_array().is_some_and(Vec::is_empty) || *value == &serde_json::Value::Bool(false);
        !empty && !matches!(name.as_str(), "position" | "soft" | "warnings")
    });
    let members: Vec<String> = told.map(|(name, value)| format!("{name}={value}")).collect();
    let mut text = members.join(" ");
    if text.len() > AUDIT_BYTES {
        let end = (0..=AUDIT_BYTES).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        text.push_str(" (cut off)");
    }
    text
}

/// The whole body, if it is JSON, small and in time. Its length is looked at first, so that a client which announces
/// too much is answered before it sends anything.
pub(super) async fn read(headers: &HeaderMap, body: Incoming, deadline: Duration) -> Result<Bytes, Refusal> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type
        .and_then(|value| value.split(';').next())
        .map(str::trim);
    if !media_type.is_some_and(|value| value.eq_ignore_ascii_case("application/json")) {
        return Err(Refusal::NotJson);
    }
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.is_some_and(|value| {
        value
            .parse::<usize>()
            .map_or(true, |length| length > BODY_BYTES_MAX)
    }) {
        return Err(Refusal::TooLarge);
    }
    let collected = tokio::time::timeout(deadline, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    match collected.map_err(|_| Refusal::Slow)? {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::TooLarge),
        Err(_) => Err(Refusal::Purge("the body broke off".into())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config;

    fn router() -> Arc<Router> {
        let mut config = config::tests::minimal();
        let mut site = config.sites.first().unwrap().clone();
        site.hosts = vec!["cdn.example".into(), "www.example".into()];
        site.query = Query::Sort;
        let mut wild = site.clone();
        wild.hosts = vec!["*.tenants.example".into()];
        wild.query = Query::Ignore;
        config.sites = vec![site, wild];
        Arc::new(Router::new(&config))
    }

    fn purge(body: &str) -> Result<Understood, String> {
        let body = serde_json::from_str(body).map_err(|error| error.to_string())?;
        understand(body, &router())
    }

    #[test]
    fn files_become_urls_in_the_spelling_of_keys() {
        let check = |file: &str, expected: &str| {
            let understood = purge(&serde_json::json!({ "files": [file] }).to_string());
            let shown = understood.map(|understood| shown_url(&understood.purge.urls[0]));
            assert_eq!(shown.as_deref().unwrap_or_else(|error| error), expected, "{file}");
        };
        check("https://cdn.example/a.js", "cdn.example/a.js");
        check("HTTP://CDN.Example:8443/A.js", "cdn.example/A.js");
        check("cdn.example/%7euser/%2a", "cdn.example/~user/%2A");
        check("www.example/a.js?b=2&a=1", "cdn.example/a.js?a=1&b=2");
        check("x.tenants.example/c.json?v=1", "*.tenants.example/c.json");
        check("cdn.example", "cdn.example/");
        check("cdn.example?a", "cdn.example/?a");
        check("nobody.example/a?b=2&a=1", "nobody.example/a?b=2&a=1");
        check("cdn.example/a?u=http://b/", "cdn.example/a?u=http://b/");
        check("[::1]:80/a", "[::1]/a");
        let host = "files[0]: the host is missing: such as cdn.example.com/path";
        check("/a.js", host);
        check("", host);
        check("https:///a.js", host);
        check(
            "ftp://cdn.example/a",
            "files[0]: the scheme must be http or https",
        );
        check("me@cdn.example/a", "files[0]: this is not a host");
        check("cdn example/a", "files[0]: this is not a host");
        check("cdn.example/../a", "files[0]: the path holds a dot segment");
        check("cdn.example/%2e%2e/a", "files[0]: the path holds a dot segment");
        check(
            "cdn.example/a#b",
            "files[0]: the path holds a character that ends it",
        );
        check(
            "cdn.example/a?b#c",
            "files[0]: a URL without its fragment is needed",
        );
        check("cdn.example/%zz", "files[0]: the path holds a broken escape");
    }

    #[test]
    fn every_kind_is_understood_and_slips_are_warned_of() {
        let understood = purge(
            r#"{"tags": ["release-1"], "prefixes": ["www.example/client/*", "gone.example/"],
                "hosts": ["WWW.example"], "everything": true, "soft": true}"#,
        )
        .unwrap();
        let purge = &understood.purge;
        assert!(purge.everything && purge.soft);
        assert_eq!(purge.tags[0].as_str(), "release-1");
        assert_eq!(purge.hosts, ["cdn.example"]);
        let prefix = |host: &str, path: &str| Prefix {
            host: host.into(),
            path: path.into(),
        };
        assert_eq!(
            purge.prefixes,
            [prefix("cdn.example", "/client/*"), prefix("gone.example", "/")]
        );
        let warning = |value: &str, warning| Warning {
            value: value.into(),
            warning,
        };
        assert_eq!(
            understood.warnings,
            [
                warning("www.example/client/*", NO_WILDCARD),
                warning("gone.example/", NO_SITE)
            ]
        );
    }

    #[test]
    fn what_is_not_understood_purges_nothing() {
        let check = |body: &str, expected: &str| {
            let error = purge(body).unwrap_err();
            assert!(error.contains(expected), "{body}: {error}");
        };
        check("{}", "nothing is named");
        check(r#"{"everything": false, "soft": true}"#, "nothing is named");
        check(r#"{"urls": ["cdn.example/"]}"#, "unknown field `urls`");
        check(r#"{"files": ["cdn.example/a"], "files": []}"#, "duplicate field");
        check(r#"{"files": "cdn.example/a"}"#, "expected a sequence");
        check(r#"{"files": [1]}"#, "expected a string");
        check(r#"{"everything": "yes"}"#, "expected a boolean");
        check(r#"{"tags": [""]}"#, "tags[0]: a tag has");
        check(
            r#"{"tags": ["a"], "hosts": ["a/b"]}"#,
            "hosts[0]: this is not a host",
        );
        check(
            r#"{"prefixes": ["cdn.example/a?b"]}"#,
            "prefixes[0]: the path holds",
        );
        check(r#"{"everything": true} {}"#, "trailing");
        let many = serde_json::json!({ "tags": vec!["a"; 501], "hosts": vec!["cdn.example"; 500] });
        check(&many.to_string(), "1001 members are more than 1000");
        let many = serde_json::json!({ "tags": vec!["a"; 500], "hosts": vec!["cdn.example"; 500] });
        assert!(purge(&many.to_string()).is_ok());
    }

    #[test]
    fn an_audit_line_has_an_end() {
        let report = serde_json::json!({ "position": 1, "tags": vec!["ä".repeat(100); 100], "hosts": [] });
        let text = audited(&report);
        assert!(text.starts_with("tags=[") && text.ends_with(" (cut off)"));
        assert!(text.len() < AUDIT_BYTES + 20);
    }
}
