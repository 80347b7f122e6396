//! Origins of kind `http`: their servers out of URLs, what they are told, and how long they may take.

use http::Uri;
use http::uri::Authority;

use super::{Context, refuse_foreign, timeouts};
use crate::config::reader::{Table, Value};
use crate::config::{HttpOrigin, HttpServer, OriginHost, OriginTimeouts};

/// The keys of this kind alone.
pub(super) const KEYS: [&str; 7] = ["url", "urls", "host", "fields", "ca", "health", "connections"];

/// Connections to each server at once, unless the file says otherwise.
const CONNECTIONS: usize = 1024;

pub(super) fn http(table: &Table<'_>, context: &Context<'_>) -> HttpOrigin {
    refuse_foreign(table, &["credentials", "buckets"], "s3");
    HttpOrigin {
        servers: servers(table),
        host: table.read("host", host).unwrap_or(OriginHost::Url),
        fields: table
            .table("fields")
            .map(|table| super::super::site::fields(&table))
            .unwrap_or_default(),
        ca: table.read("ca", |value| context.path(value)),
        health: table.read("health", health),
        connections: table
            .read("connections", |value| super::super::count(value, 1, 100_000))
            .unwrap_or(CONNECTIONS),
        timeouts: table.table("timeouts").map_or(OriginTimeouts::HTTP, |table| {
            timeouts(&table, OriginTimeouts::HTTP)
        }),
    }
}

fn servers(table: &Table<'_>) -> Vec<HttpServer> {
    let several = table.value("urls");
    if several.is_some() && table.value("url").is_some() {
        table.refuse("urls", "stands beside url: give one of them");
    }
    let Some(several) = several else {
        return table.require("url", server).into_iter().collect();
    };
    if several.array_is_empty() {
        several.refuse("needs at least one URL");
    }
    let servers = several.list(server).unwrap_or_default();
    let repeated = |(at, server): (usize, &HttpServer)| servers.iter().take(at).any(|other| other == server);
    if servers.iter().enumerate().any(repeated) {
        several.refuse("has the same URL twice");
    }
    servers
}

fn server(value: &Value<'_>) -> Result<HttpServer, String> {
    let text = value.text()?;
    let example = || {
        format!(
            "expected a URL such as \"http://127.0.0.1:8000\" or \"https://app.example.com/prefix\", not {text:?}"
        )
    };
    let uri: Uri = text.parse().map_err(|_| example())?;
    let secure = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(example()),
    };
    let authority = uri.authority().ok_or_else(example)?;
    let named = !authority.host().is_empty() && !authority.as_str().ends_with(':');
    if !named || authority.port_u16() == Some(0) {
        return Err(example());
    }
    if authority.as_str().contains('@') {
        return Err("must hold no user and password: put an Authorization into fields".into());
    }
    if uri.query().is_some() || text.contains('#') {
        return Err("must end with its path: a query or a fragment has no meaning here".into());
    }
    Ok(HttpServer {
        secure,
        host: authority.host().to_ascii_lowercase(),
        port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
        prefix: uri.path().trim_end_matches('/').to_owned(),
    })
}

fn host(value: &Value<'_>) -> Result<OriginHost, String> {
    let text = value.text()?;
    if text == "preserve" {
        return Ok(OriginHost::Site);
    }
    match text.parse::<Authority>() {
        Ok(host) if !host.host().is_empty() && !text.contains('@') => Ok(OriginHost::Fixed(text)),
        _ => Err("expected a host, with a port if need be, or \"preserve\"".into()),
    }
}

fn health(value: &Value<'_>) -> Result<String, String> {
    let text = value.text()?;
    let is_target = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    match is_target {
        true => Ok(text),
        false => Err("expected a path as it stands in a URL, such as \"/healthz\"".into()),
    }
}
