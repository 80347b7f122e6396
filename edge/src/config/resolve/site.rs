//! Sites and their rules: names that belong to one site each, and lifetimes with our defaults unless the site is strict.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderName, HeaderValue, header};
use origin_sync::release::{Name, Role, Trust, TrustedKey};

use super::HOUR;
use crate::config::reader::{Table, Value};
use crate::config::{
    HttpOrigin, Lifetimes, Origin, OriginHost, OriginKind, Preset, Query, Rule, Scope, Site, SiteReleases,
    Terms, Token,
};

/// The fields by which an origin speaks to this cache and to nobody behind it, the strongest first.
const TARGETED: [&str; 3] = ["portico-cache-control", "cdn-cache-control", "surrogate-control"];

const LIFETIME_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The tables `[[site]]`.
pub(super) fn sites(root: &Table<'_>, origins: &[Origin], tokens: &[Token]) -> Vec<Site> {
    let tables = root.tables("site");
    if tables.is_empty() && root.value("site").is_none_or(|value| value.is_array()) {
        root.refuse("site", "there is none: add [[site]] with hosts and origin");
    }
    if tables.len() > usize::from(u16::MAX) {
        root.refuse("site", "there are more than 65535");
    }
    let mut owners = HashMap::new();
    tables
        .iter()
        .enumerate()
        .map(|(at, table)| {
            let site = site(table, origins, tokens);
            for host in &site.hosts {
                match owners.insert(host.clone(), at) {
                    Some(owner) if owner == at => table.refuse("hosts", format!("{host} stands here twice")),
                    Some(owner) => table.refuse("hosts", format!("{host} belongs to site[{owner}] already")),
                    None => {}
                }
            }
            site
        })
        .collect()
}

fn site(table: &Table<'_>, origins: &[Origin], tokens: &[Token]) -> Site {
    const PRESETS: [(&str, Preset); 2] = [("plain", Preset::Plain), ("embed", Preset::Embed)];
    let name = table.require("origin", |value| origin(value, origins));
    let origin = origins.iter().find(|origin| Some(&origin.name) == name.as_ref());
    let http = origin.and_then(|origin| match &origin.kind {
        OriginKind::Http(http) => Some(http),
        OriginKind::S3(_) => None,
    });
    let hosts = hosts(table);
    check_preserved_host(table, &hosts, http);
    let strict = table.read("strict", Value::boolean).unwrap_or(http.is_some());
    let lifetimes = lifetimes(table, &lifetimes_default(strict));
    // An application's answers depend on the query; a bucket knows none.
    let site_query = table.read("query", query).unwrap_or(match http {
        Some(_) => Query::Keep,
        None => Query::Ignore,
    });
    Site {
        hosts,
        origin: name.unwrap_or_default(),
        relays: http.is_some(),
        preset: table
            .read("preset", |value| value.one_of(&PRESETS))
            .unwrap_or(Preset::Plain),
        terms: terms(table, strict),
        targeted: targeted(table),
        rules: rules(table, &lifetimes, &site_query),
        query: site_query,
        lifetimes,
        hsts: table.read("hsts", |value| value.duration(Duration::ZERO, LIFETIME_MAX)),
        index: table.read("index", index),
        x_cache: table.read("x_cache", Value::boolean).unwrap_or(false),
        cache_status_key: table.read("cache_status_key", Value::boolean).unwrap_or(false),
        purge_method: table
            .read("purge_method", |value| purge_method(value, tokens))
            .unwrap_or(false),
        releases: releases(table, http.is_some()),
    }
}

/// What is released, and whose word counts: neither without the other.
fn releases(table: &Table<'_>, of_application: bool) -> Option<SiteReleases> {
    let names = table.read("releases", |value| {
        Ok(value.list(parsed::<Name>).unwrap_or_default())
    });
    let Some(names) = names.filter(|names| !names.is_empty()) else {
        if table.value("trust").is_some() {
            table.refuse(
                "trust",
                "says whom to trust for nothing: add releases = [\"name\"]",
            );
        }
        return None;
    };
    if of_application {
        table.refuse("releases", "come from a bucket: the origin is of kind http");
    }
    if let Some(twice) = names
        .iter()
        .enumerate()
        .find(|(at, name)| names.iter().take(*at).any(|other| other == *name))
    {
        table.refuse("releases", format!("{} stands here twice", twice.1));
    }
    let keys = table.require("trust", |value| {
        Ok(value.list(parsed::<TrustedKey>).unwrap_or_default())
    })?;
    let trust = Trust::new(keys);
    for role in [Role::Release, Role::Channel] {
        if trust.of(role).next().is_none() {
            table.refuse(
                "trust",
                format!("holds no {role} key: origin-sync keygen makes one, and writes {role}.pub"),
            );
        }
    }
    Some(SiteReleases { names, trust })
}

fn parsed<T: std::str::FromStr<Err = origin_sync::release::Invalid>>(value: &Value<'_>) -> Result<T, String> {
    value
        .text()?
        .parse()
        .map_err(|error: origin_sync::release::Invalid| error.to_string())
}

fn terms(table: &Table<'_>, strict: bool) -> Terms {
    let default = Terms::new(strict);
    let read = |key: &str| table.read(key, Value::boolean);
    Terms {
        strict,
        request_directives: read("request_directives").unwrap_or(default.request_directives),
        store_set_cookie: read("store_set_cookie").unwrap_or(default.store_set_cookie),
    }
}

/// Field names as RFC 9213 section 3 allows any cache to choose its own.
fn targeted(table: &Table<'_>) -> Vec<HeaderName> {
    let read = table.read("targeted", |value| Ok(value.list(field_name).unwrap_or_default()));
    read.unwrap_or_else(|| TARGETED.map(HeaderName::from_static).to_vec())
}

fn field_name(value: &Value<'_>) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(value.text()?.as_bytes())
        .map_err(|_| "is no name of a header field".to_owned())?;
    match name == header::CACHE_CONTROL || is_ours(&name) {
        true => Err("this field has a meaning of its own".into()),
        false => Ok(name),
    }
}

/// What an origin is told of a site's host must be one name: content is kept under it.
fn check_preserved_host(table: &Table<'_>, hosts: &[String], origin: Option<&HttpOrigin>) {
    let preserves = origin.is_some_and(|origin| origin.host == OriginHost::Site);
    if preserves && hosts.first().is_some_and(|host| host.starts_with("*.")) {
        table.refuse(
            "hosts",
            "begins with a wildcard, which cannot be sent as Host: the origin says host = \"preserve\", so put one name first",
        );
    }
}

fn hosts(table: &Table<'_>) -> Vec<String> {
    let hosts = table.require("hosts", |value| {
        let hosts = value.list(host).unwrap_or_default();
        match value.array_is_empty() {
            true => Err("needs at least one name".to_owned()),
            false => Ok(hosts),
        }
    });
    hosts.unwrap_or_default()
}

/// A name as it stands in Host (RFC 9110 section 7.2), lowercase; an IPv6 address stands in brackets there.
fn host(value: &Value<'_>) -> Result<String, String> {
    let host = value.text()?.to_ascii_lowercase();
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return match address.parse::<std::net::Ipv6Addr>() {
            Ok(address) => Ok(format!("[{address}]")),
            Err(_) => Err("expected an IPv6 address in the brackets".into()),
        };
    }
    if let Ok(IpAddr::V6(address)) = host.parse() {
        return Err(format!("an IPv6 address stands in brackets: \"[{address}]\""));
    }
    let name = host.strip_prefix("*.").unwrap_or(&host);
    if name.contains('*') {
        return Err("a `*` stands for one whole label, the first: \"*.example.com\"".into());
    }
    if name.contains("://") || name.contains('/') {
        return Err("expected a name alone, without scheme and path".into());
    }
    if name.contains(':') {
        return Err("expected a name without a port: every port of the site is meant".into());
    }
    if !name.is_ascii() {
        return Err("write an international name in its ASCII form (xn--...)".into());
    }
    match name.len() <= 253 && name.split('.').all(is_label) {
        true => Ok(host),
        false => Err("is no host name: labels of letters, digits and hyphens, with dots between them".into()),
    }
}

/// RFC 1123 section 2.1, and the underscore that people use all the same.
fn is_label(label: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=63).contains(&label.len())
        && label.bytes().all(allowed)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn origin(value: &Value<'_>, origins: &[Origin]) -> Result<String, String> {
    let name = value.text()?;
    if origins.iter().any(|origin| origin.name == name) {
        return Ok(name);
    }
    let known: Vec<_> = origins.iter().map(|origin| origin.name.as_str()).collect();
    Err(match known.is_empty() {
        true => format!("there is no [origin.{name}]"),
        false => format!("there is no [origin.{name}]; there is {}", known.join(", ")),
    })
}

fn query(value: &Value<'_>) -> Result<Query, String> {
    if value.is_array() {
        let mut names = value.list(Value::text).unwrap_or_default();
        names.sort();
        names.dedup();
        return Ok(Query::Allow(names));
    }
    match value.string() {
        Ok("ignore") => Ok(Query::Ignore),
        Ok("keep") => Ok(Query::Keep),
        Ok("sort") => Ok(Query::Sort),
        _ => Err("expected \"ignore\", \"keep\", \"sort\", or a list of the parameters to keep".into()),
    }
}

fn index(value: &Value<'_>) -> Result<String, String> {
    let index = value.text()?;
    match index.contains(['/', '?', '#']) || index.chars().any(char::is_control) {
        true => Err("expected a file's name, such as \"index.html\"".into()),
        false => Ok(index),
    }
}

fn purge_method(value: &Value<'_>, tokens: &[Token]) -> Result<bool, String> {
    let wanted = value.boolean()?;
    let may_purge = |token: &Token| token.scopes.iter().any(|scope| *scope != Scope::Read);
    match wanted && !tokens.iter().any(may_purge) {
        true => Err("nobody may purge: add a token with the scope \"purge\" to admin.tokens".into()),
        false => Ok(wanted),
    }
}

fn lifetimes_default(strict: bool) -> Lifetimes {
    Lifetimes {
        ttl: None,
        ttl_default: None,
        ttl_min: None,
        ttl_max: None,
        ttl_negative: Duration::from_secs(10),
        stale_while_revalidate: (!strict).then_some(HOUR),
        stale_if_error: (!strict).then_some(24 * HOUR),
        heuristic: true,
    }
}

fn lifetimes(table: &Table<'_>, default: &Lifetimes) -> Lifetimes {
    let read = |key: &str| table.read(key, |value| value.duration(Duration::ZERO, LIFETIME_MAX));
    let lifetimes = Lifetimes {
        ttl: read("ttl").or(default.ttl),
        ttl_default: read("ttl_default").or(default.ttl_default),
        ttl_min: read("ttl_min").or(default.ttl_min),
        ttl_max: read("ttl_max").or(default.ttl_max),
        ttl_negative: read("ttl_negative").unwrap_or(default.ttl_negative),
        stale_while_revalidate: read("stale_while_revalidate").or(default.stale_while_revalidate),
        stale_if_error: read("stale_if_error").or(default.stale_if_error),
        heuristic: table
            .read("heuristic", Value::boolean)
            .unwrap_or(default.heuristic),
    };
    if let (Some(least), Some(most)) = (lifetimes.ttl_min, lifetimes.ttl_max)
        && least > most
    {
        table.refuse("ttl_min", "is more than ttl_max");
    }
    lifetimes
}

fn rules(site: &Table<'_>, lifetimes_of_site: &Lifetimes, query_of_site: &Query) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for table in site.tables("rule") {
        let rule = Rule {
            path: table.require("path", path).unwrap_or_default(),
            lifetimes: lifetimes(&table, lifetimes_of_site),
            fields: table
                .table("fields")
                .map(|table| fields(&table))
                .unwrap_or_default(),
            remove: table
                .read("remove", |value| Ok(value.list(field_name).unwrap_or_default()))
                .unwrap_or_default(),
            query: table
                .read("query", query)
                .unwrap_or_else(|| query_of_site.clone()),
            coding: table.read("coding", Value::boolean).unwrap_or(true),
        };
        if let Some(earlier) = rules.iter().position(|earlier| covers(&earlier.path, &rule.path)) {
            table.refuse(
                "path",
                format!("never matches: rule[{earlier}] matches all of it first"),
            );
        }
        rules.push(rule);
    }
    rules
}

fn path(value: &Value<'_>) -> Result<String, String> {
    let path = value.text()?;
    let before_star = path.strip_suffix('*').unwrap_or(&path);
    if !path.starts_with('/') {
        return Err(format!("must begin with a slash: \"/{path}\""));
    }
    if before_star.contains('*') {
        return Err("a `*` may stand at the end only, for whatever follows".into());
    }
    match path.contains(['?', '#']) || path.bytes().any(|byte| !byte.is_ascii_graphic()) {
        true => Err("expected a path as it stands in a URL, percent-encoded, without a query".into()),
        false => Ok(path),
    }
}

fn covers(earlier: &str, later: &str) -> bool {
    match earlier.strip_suffix('*') {
        Some(prefix) => later.starts_with(prefix),
        None => !earlier.is_empty() && earlier == later,
    }
}

pub(super) fn fields(table: &Table<'_>) -> Vec<(HeaderName, HeaderValue)> {
    table
        .entries()
        .into_iter()
        .filter_map(|(name, value)| field(name, &value).map_err(|message| value.refuse(message)).ok())
        .collect()
}

fn field(name: &str, value: &Value<'_>) -> Result<(HeaderName, HeaderValue), String> {
    let text = value.string()?;
    let name =
        HeaderName::from_bytes(name.as_bytes()).map_err(|_| "is no name of a header field".to_owned())?;
    if is_ours(&name) {
        return Err("this field describes the message itself and cannot be set".into());
    }
    // RFC 9110 section 5.5: visible ASCII, with spaces and tabs between.
    match HeaderValue::from_str(text) {
        Ok(value) if text.is_ascii() && text.trim() == text => Ok((name, value)),
        _ => Err("is no value of a header field: visible ASCII, with spaces inside only".into()),
    }
}

/// Fields that frame a message, belong to one hop, or state what only the cache knows.
fn is_ours(name: &HeaderName) -> bool {
    let ours = [
        header::AGE,
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::DATE,
        header::ETAG,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::VIA,
    ];
    ours.contains(name) || name == "cache-status" || name == "keep-alive" || name == "proxy-connection"
}
