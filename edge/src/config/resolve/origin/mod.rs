//! Origins: buckets with the same content, where their credentials come from, and how long they may take.

mod http;

use std::time::Duration;

use super::secret::secret;
use super::{Context, HOUR, SECOND};
use crate::config::reader::{Table, Value};
use crate::config::{Bucket, Credentials, Origin, OriginKind, OriginTimeouts, S3Origin, Secret};

/// The tables `[origin.<name>]`, in the order of the file.
pub(super) fn origins(root: &Table<'_>, context: &Context<'_>) -> Vec<Origin> {
    let Some(table) = root.table("origin") else {
        return Vec::new();
    };
    table
        .entries()
        .into_iter()
        .filter_map(|(name, value)| {
            if name.is_empty() {
                value.refuse("an origin needs a name");
            }
            let table = value.table()?;
            let kind = table.require("kind", |value| value.one_of(&KINDS));
            Some(Origin {
                name: name.to_owned(),
                kind: match kind.unwrap_or(Kind::S3) {
                    Kind::Http => OriginKind::Http(http::http(&table, context)),
                    Kind::S3 => OriginKind::S3(s3(&table, context)),
                },
            })
        })
        .collect()
}

#[derive(Clone, Copy)]
enum Kind {
    Http,
    S3,
}

const KINDS: [(&str, Kind); 2] = [("s3", Kind::S3), ("http", Kind::Http)];

/// Notes each of `keys` that is set although it belongs to origins of another kind.
fn refuse_foreign(table: &Table<'_>, keys: &[&str], kind: &str) {
    for key in keys.iter().filter(|key| table.value(key).is_some()) {
        table.refuse(key, format!("belongs to an origin of kind \"{kind}\""));
    }
}

fn s3(table: &Table<'_>, context: &Context<'_>) -> S3Origin {
    refuse_foreign(table, &http::KEYS, "http");
    let credentials = table
        .value("credentials")
        .and_then(|value| credentials(&value, context));
    S3Origin {
        credentials: credentials.unwrap_or(Credentials::Environment),
        buckets: buckets(table),
        timeouts: table
            .table("timeouts")
            .map_or_else(OriginTimeouts::default, |table| {
                timeouts(&table, OriginTimeouts::default())
            }),
    }
}

fn buckets(origin: &Table<'_>) -> Vec<Bucket> {
    let mut buckets: Vec<Bucket> = Vec::new();
    for table in origin.tables("buckets") {
        let bucket = bucket(&table);
        if buckets.contains(&bucket) {
            table.refuse("name", "this bucket stands in the list already");
        }
        buckets.push(bucket);
    }
    let is_empty = origin.value("buckets").is_none_or(|value| value.is_array()) && buckets.is_empty();
    if is_empty {
        origin.refuse(
            "buckets",
            "needs at least one bucket: { name = \"..\", region = \"..\" }",
        );
    }
    buckets
}

fn bucket(table: &Table<'_>) -> Bucket {
    Bucket {
        name: table.require("name", bucket_name).unwrap_or_default(),
        region: table.require("region", region).unwrap_or_default(),
        prefix: table.read("prefix", prefix).unwrap_or_default(),
        endpoint: table.read("endpoint", endpoint),
        path_style: table.read("path_style", Value::boolean).unwrap_or(false),
        canary: table.read("canary", Value::text),
    }
}

/// S3-compatible stores allow more than AWS does, so only what cannot be part of a URL or a host is refused.
pub(super) fn bucket_name(value: &Value<'_>) -> Result<String, String> {
    let name = value.text()?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if (3..=255).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(name);
    }
    Err("expected a bucket's name: 3 or more letters, digits, `-`, `.` and `_`".into())
}

pub(super) fn region(value: &Value<'_>) -> Result<String, String> {
    let region = value.text()?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if region.bytes().all(allowed) {
        return Ok(region);
    }
    Err("expected a region such as \"eu-west-1\"".into())
}

pub(super) fn prefix(value: &Value<'_>) -> Result<String, String> {
    match value.string()? {
        text if text.starts_with('/') => Err("must not begin with a slash: keys do not".into()),
        text if !text.is_empty() && !text.ends_with('/') => {
            Err(format!("must end with a slash: \"{text}/\""))
        }
        text => Ok(text.into()),
    }
}

pub(super) fn endpoint(value: &Value<'_>) -> Result<String, String> {
    let text = value.string()?;
    let uri = text.parse::<::http::Uri>().ok();
    let is_good = uri.is_some_and(|uri| {
        let host = uri.authority().is_some_and(|authority| {
            !authority.host().is_empty()
                && !authority.as_str().contains('@')
                && !authority.as_str().ends_with(':')
        });
        matches!(uri.scheme_str(), Some("http" | "https"))
            && host
            && uri.path() == "/"
            && uri.query().is_none()
    });
    if is_good {
        return Ok(text.trim_end_matches('/').into());
    }
    Err(
        "expected a URL without a path, such as \"https://s3.example.com\" or \"http://127.0.0.1:9000\""
            .into(),
    )
}

fn credentials(value: &Value<'_>, context: &Context<'_>) -> Option<Credentials> {
    if value.is_table() {
        return fixed_credentials(&value.table()?, context);
    }
    let named = match value.string() {
        Ok("anonymous") => return Some(Credentials::Anonymous),
        Ok("environment") => return Some(Credentials::Environment),
        Ok(other) => format!("{other:?}"),
        Err(message) => message,
    };
    value.refuse(format!(
        "expected \"environment\", \"anonymous\", or {{ access_key_id, secret_access_key_file }}: {named}"
    ));
    None
}

fn fixed_credentials(table: &Table<'_>, context: &Context<'_>) -> Option<Credentials> {
    let access_key_id = table.require("access_key_id", Value::text);
    let secret_access_key = secret(table, "secret_access_key", context);
    Some(Credentials::Static {
        access_key_id: access_key_id?,
        secret_access_key: Secret(secret_access_key?),
    })
}

fn timeouts(table: &Table<'_>, default: OriginTimeouts) -> OriginTimeouts {
    let mut timeouts = default;
    let set = |field: &mut Duration, key: &str| {
        if let Some(read) = table.read(key, |value| value.duration(SECOND / 100, HOUR)) {
            *field = read;
        }
    };
    set(&mut timeouts.connect, "connect");
    set(&mut timeouts.read, "read");
    set(&mut timeouts.attempt, "attempt");
    set(&mut timeouts.operation, "operation");
    set(&mut timeouts.pool_idle, "pool_idle");
    if let Some(attempts) = table.read("attempts", |value| value.integer(1, 10)) {
        timeouts.attempts = u32::try_from(attempts).unwrap_or(1);
    }
    if timeouts.attempt > timeouts.operation {
        table.refuse(
            "attempt",
            "is longer than operation, which is for all attempts together",
        );
    }
    timeouts
}
