//! From the file as written to the configuration as used: defaults filled in, names resolved, contradictions refused.
//!
//! Each function reads one table, notes every mistake in it, and goes on with a default in its place; the result counts
//! only when nothing was noted.

mod certificates;
mod listen;
mod origin;
mod secret;
mod site;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::reader::{Table, Value};
use super::{
    AccessLog, Admin, Cache, Config, Disk, Drain, Limits, Listen, Log, LogFormat, Releases, Scope, Site,
    Token,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const MIB: u64 = 1024 * 1024;

/// What a file is read against.
pub(super) struct Context<'a> {
    /// Where relative paths start.
    pub(super) base: &'a Path,
    pub(super) secrets: Secrets,
}

impl Context<'_> {
    fn path(&self, value: &Value<'_>) -> Result<PathBuf, String> {
        value.text().map(|text| self.base.join(text))
    }
}

/// What becomes of secrets that a file names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrets {
    LeaveEmpty,
    Read,
}

/// The whole configuration. `None`, or any note, means that it cannot be used.
pub(super) fn config(root: &Table<'_>, context: &Context<'_>) -> Option<Config> {
    let admin_listen = listen::AdminAddress::default();
    let (listen, admin_listen) = match root.table("listen") {
        Some(table) => listen::listen(&table, context, admin_listen),
        None => (Listen::default(), admin_listen),
    };
    let certificates = certificates::files(root, context);
    let managed = certificates::managed(root, context);
    check_listen(
        root,
        &listen,
        certificates.is_empty() && !certificates::orders(root),
    );

    let origins = origin::origins(root, context);
    let admin = admin(root, admin_listen);
    let sites = site::sites(root, &origins, &admin.tokens);
    let cache = cache(root, context);
    Some(Config {
        name: root.read("name", name).unwrap_or_else(|| "portico".into()),
        workers: root
            .read("workers", |value| count(value, 1, 1024))
            .unwrap_or_else(workers_default),
        listen,
        admin,
        certificates,
        managed,
        tickets: certificates::tickets(root, context),
        early_data: certificates::early_data(root),
        cache,
        origins,
        releases: releases(root, context, &sites),
        sites,
        limits: limits(root),
        log: log(root, context),
        drain: drain(root),
    })
}

/// RFC 9110 section 7.6.3 and RFC 9211 section 2: a token in Via, and a token of structured fields in Cache-Status.
fn name(value: &Value<'_>) -> Result<String, String> {
    let text = value.text()?;
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let token = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if starts && token && text.len() <= 64 {
        return Ok(text);
    }
    Err("must begin with a letter and hold only letters, digits, `-`, `.` and `_`, 64 of them at most".into())
}

fn workers_default() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn check_listen(root: &Table<'_>, listen: &Listen, no_certificate: bool) {
    if listen.https.is_empty() && listen.http.is_empty() && listen.plain.is_empty() {
        root.refuse("listen", "opens no port: set https, http or plain");
    }
    if !listen.https.is_empty() && no_certificate {
        root.refuse(
            "listen",
            "https needs a certificate: add [[tls.certificate]] with chain and key, or [[tls.acme]]",
        );
    }
}

fn admin(root: &Table<'_>, address: listen::AdminAddress) -> Admin {
    let mut admin = Admin {
        listen: address.0,
        tokens: Vec::new(),
        hosts: Vec::new(),
        protect_health: false,
        purges_per_second: 20,
    };
    let Some(table) = root.table("admin") else {
        return admin;
    };
    for entry in table.tables("tokens") {
        let token = token(&entry);
        if admin.tokens.iter().any(|other| other.name == token.name) {
            entry.refuse("name", "is the name of another token");
        }
        admin.tokens.push(token);
    }
    if let Some(hosts) = table.value("hosts") {
        let hosts = hosts.list(Value::text).unwrap_or_default();
        admin.hosts = hosts.iter().map(|host| host.to_lowercase()).collect();
    }
    admin.protect_health = table.read("protect_health", Value::boolean).unwrap_or(false);
    if let Some(rate) = table.read("purges_per_second", |value| value.integer(1, 100_000)) {
        admin.purges_per_second = u32::try_from(rate).unwrap_or(u32::MAX);
    }
    if admin.protect_health && admin.tokens.is_empty() {
        table.refuse(
            "protect_health",
            "asks for a token, and there is none: add admin.tokens",
        );
    }
    admin
}

fn token(table: &Table<'_>) -> Token {
    const SCOPES: [(&str, Scope); 3] = [
        ("admin", Scope::Admin),
        ("purge", Scope::Purge),
        ("read", Scope::Read),
    ];
    let scopes = table.require("scopes", |value| {
        let scopes = value.list(|item| item.one_of(&SCOPES)).unwrap_or_default();
        match value.array_is_empty() {
            true => Err("allows nothing: give at least one of \"admin\", \"purge\", \"read\"".to_owned()),
            false => Ok(scopes),
        }
    });
    Token {
        name: table.require("name", Value::text).unwrap_or_default(),
        sha256: table.require("sha256", sha256).unwrap_or_default(),
        scopes: scopes.unwrap_or_default(),
    }
}

fn sha256(value: &Value<'_>) -> Result<[u8; 32], String> {
    let mut digest = [0; 32];
    match hex::decode_to_slice(value.string()?, &mut digest) {
        Ok(()) => Ok(digest),
        Err(_) => {
            Err("expected 64 hex digits, the SHA-256 of a token: printf %s \"$TOKEN\" | sha256sum".into())
        }
    }
}

/// Less has no room for a body from S3 on its way, so that every large one would be refused.
const MEMORY_MIN: u64 = 4 * MIB;

/// How long an answer waits for room in memory, and for the disk, before it does without.
const CACHE_PATIENCE: Duration = Duration::from_secs(2);

fn cache(root: &Table<'_>, context: &Context<'_>) -> Cache {
    let table = root.table("cache");
    let memory = table
        .as_ref()
        .and_then(|table| table.read("memory", |value| value.size(MEMORY_MIN, i64::MAX.unsigned_abs())));
    let memory_bytes = memory.unwrap_or(512 * MIB);
    let object_max = |value: &Value<'_>| match value.size(1, i64::MAX.unsigned_abs())? {
        bytes if bytes > memory_bytes => Err("is more than cache.memory".into()),
        bytes => Ok(bytes),
    };
    Cache {
        disk: table.as_ref().and_then(|table| disk(table, context)),
        memory_bytes,
        object_bytes_max: table
            .as_ref()
            .and_then(|table| table.read("object_max", object_max))
            .unwrap_or((memory_bytes / 4).min(64 * MIB)),
        stale_after: table
            .as_ref()
            .and_then(|table| table.read("stale_after", |value| value.duration(Duration::ZERO, HOUR)))
            .unwrap_or(SECOND),
        room_patience: CACHE_PATIENCE,
        recode_budget: table
            .and_then(|table| table.read("recode_budget", Value::share))
            .unwrap_or(0.25),
    }
}

fn disk(cache: &Table<'_>, context: &Context<'_>) -> Option<Disk> {
    let table = cache.table("disk")?;
    let path = table.require("path", |value| context.path(value));
    let size = table.require("size", |value| value.size(16 * MIB, i64::MAX.unsigned_abs()));
    Some(Disk {
        path: path?,
        size_bytes: size?,
        patience: CACHE_PATIENCE,
    })
}

fn releases(root: &Table<'_>, context: &Context<'_>, sites: &[Site]) -> Releases {
    let table = root.table("releases");
    let state = table
        .as_ref()
        .and_then(|table| table.read("state", |value| context.path(value)));
    let poll = table
        .as_ref()
        .and_then(|table| table.read("poll", |value| value.duration(SECOND, HOUR)));
    let has_releases = sites.iter().any(|site| site.releases.is_some());
    let is_set = table.as_ref().is_some_and(|table| table.value("state").is_some());
    if has_releases && !is_set {
        let why = "must be set where a site has releases: a folder of this node alone, where the last good channels are kept";
        match &table {
            Some(table) => table.refuse("state", why),
            None => root.refuse("releases", format!("releases.state {why}")),
        }
    }
    Releases {
        state,
        poll: poll.unwrap_or(5 * SECOND),
    }
}

fn limits(root: &Table<'_>) -> Limits {
    let mut limits = Limits::default();
    let Some(table) = root.table("limits") else {
        return limits;
    };
    let set_count = |field: &mut usize, key: &str, least, most| {
        if let Some(read) = table.read(key, |value| count(value, least, most)) {
            *field = read;
        }
    };
    // The least are what browsers need, and what the HTTP/1 parser's buffer needs at all; the most keep a slip from
    // switching a limit off.
    set_count(&mut limits.connections, "connections", 1, 10_000_000);
    set_count(
        &mut limits.connections_per_address,
        "connections_per_address",
        1,
        10_000_000,
    );
    set_count(&mut limits.header_count, "header_count", 16, 1024);
    set_count(&mut limits.h2_resets, "h2_resets", 1, 100_000);
    let set_size = |field: &mut usize, key: &str, least, most| {
        if let Some(read) = table.read(key, |value| value.size(least, most)) {
            *field = usize::try_from(read).unwrap_or(usize::MAX);
        }
    };
    set_size(&mut limits.header_bytes, "header_bytes", 8 * 1024, MIB);
    set_size(&mut limits.uri_bytes, "uri_bytes", 256, 64 * 1024);
    let set_time = |field: &mut Duration, key: &str| {
        if let Some(read) = table.read(key, |value| value.duration(SECOND / 10, HOUR)) {
            *field = read;
        }
    };
    set_time(&mut limits.handshake, "handshake");
    set_time(&mut limits.header, "header");
    set_time(&mut limits.idle, "idle");
    set_time(&mut limits.write_stall, "write_stall");
    if let Some(read) = table.read("h2_streams", |value| value.integer(1, 10_000)) {
        limits.h2_streams = u32::try_from(read).unwrap_or(u32::MAX);
    }
    if let Some(read) = table.read("content_bytes", |value| value.size(0, i64::MAX.unsigned_abs())) {
        limits.content_bytes = read;
    }
    if let Some(read) = table.read("unproductive_bytes", |value| value.size(1024, 1024 * MIB)) {
        limits.unproductive_bytes = read;
    }
    check_limits(&table, &limits);
    limits
}

fn check_limits(table: &Table<'_>, limits: &Limits) {
    if limits.connections_per_address > limits.connections && table.value("connections_per_address").is_some()
    {
        table.refuse("connections_per_address", "is more than limits.connections");
    }
    if limits.uri_bytes > limits.header_bytes {
        table.refuse(
            "uri_bytes",
            "is more than limits.header_bytes, of which it is a part",
        );
    }
}

fn log(root: &Table<'_>, context: &Context<'_>) -> Log {
    const FORMATS: [(&str, LogFormat); 2] = [("json", LogFormat::Json), ("combined", LogFormat::Combined)];
    let access = root.table("log").and_then(|log| log.table("access"));
    let path = |value: &Value<'_>| match value.text()?.as_str() {
        "-" => Ok(None),
        _ => context.path(value).map(Some),
    };
    Log {
        access: access.map(|table| AccessLog {
            format: table
                .read("format", |value| value.one_of(&FORMATS))
                .unwrap_or(LogFormat::Json),
            path: table.read("path", path).flatten(),
            sample: table.read("sample", Value::share).unwrap_or(1.0),
            truncate_address: table.read("truncate_address", Value::boolean).unwrap_or(true),
        }),
    }
}

fn drain(root: &Table<'_>) -> Drain {
    let mut drain = Drain::default();
    let Some(table) = root.table("drain") else {
        return drain;
    };
    if let Some(delay) = table.read("delay", |value| value.duration(Duration::ZERO, HOUR)) {
        drain.delay = delay;
    }
    if let Some(deadline) = table.read("deadline", |value| value.duration(SECOND, 24 * HOUR)) {
        drain.deadline = deadline;
    }
    drain
}

fn count(value: &Value<'_>, least: u64, most: u64) -> Result<usize, String> {
    let number = value.integer(least, most)?;
    usize::try_from(number).map_err(|_| "is too large".into())
}

#[cfg(test)]
mod tests;
