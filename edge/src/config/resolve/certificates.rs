//! Certificates: those in files, those that are ordered from a CA and shared, and the secret of session tickets.

use std::net::SocketAddr;
use std::time::Duration;

use certs::settings::{
    Acme, Binding, BucketSettings, Challenge, Credentials, Dns, KeyKind, Managed, ORDER_PATIENCE,
    Rfc2136Settings, Route53Settings, Secret, Settings, StorePlace, StoreSettings, TsigAlgorithm,
};
use certs::store::Keyring;

use super::origin::{bucket_name, endpoint, prefix, region};
use super::secret::secret;
use super::{Context, HOUR, SECOND, Secrets};
use crate::config::CertificateFiles;
use crate::config::reader::{Table, Value};

/// What the CAs that most people use are called by.
const DIRECTORIES: [(&str, &str); 2] = [
    ("letsencrypt", "https://acme-v02.api.letsencrypt.org/directory"),
    (
        "letsencrypt-staging",
        "https://acme-staging-v02.api.letsencrypt.org/directory",
    ),
];

/// The tables `[[tls.certificate]]`.
pub(super) fn files(root: &Table<'_>, context: &Context<'_>) -> Vec<CertificateFiles> {
    let Some(tls) = root.table("tls") else {
        return Vec::new();
    };
    tls.tables("certificate")
        .iter()
        .map(|table| CertificateFiles {
            chain: table
                .require("chain", |value| context.path(value))
                .unwrap_or_default(),
            key: table
                .require("key", |value| context.path(value))
                .unwrap_or_default(),
            default: table.read("default", Value::boolean).unwrap_or(false),
        })
        .collect()
}

/// The tables `[tls.store]` and `[[tls.acme]]`; `None` without the latter.
pub(super) fn managed(root: &Table<'_>, context: &Context<'_>) -> Option<Settings> {
    let tls = root.table("tls")?;
    let tables = tls.tables("acme");
    let store = tls.table("store").map(|store| store_settings(&store, context));
    if tables.is_empty() {
        return None;
    }
    if store.is_none() {
        tls.refuse(
            "store",
            "is missing: [[tls.acme]] needs a place that the nodes share",
        );
    }
    let mut managed: Vec<Managed> = Vec::new();
    for table in &tables {
        let next = certificate(table, context);
        let same = |other: &Managed| !other.names.is_empty() && other.name() == next.name();
        if managed.iter().any(same) {
            table.refuse("names", "begins with the same name as another [[tls.acme]]");
        }
        managed.push(next);
    }
    Some(Settings {
        store: store?,
        managed,
    })
}

/// Whether there is any `[[tls.acme]]`, good or not.
pub(super) fn orders(root: &Table<'_>) -> bool {
    root.table("tls")
        .is_some_and(|tls| !tls.tables("acme").is_empty())
}

/// The secrets of `[tls.tickets]`, a line each; `None` unless they are set.
pub(super) fn tickets(root: &Table<'_>, context: &Context<'_>) -> Option<Secret> {
    let table = root.table("tls")?.table("tickets")?;
    Some(keys(&table, "secret", context))
}

/// The key `tls.early_data`.
pub(super) fn early_data(root: &Table<'_>) -> bool {
    let tls = root.table("tls");
    let early_data = tls.and_then(|tls| tls.read("early_data", Value::boolean));
    early_data.unwrap_or(false)
}

fn store_settings(table: &Table<'_>, context: &Context<'_>) -> StoreSettings {
    let between = |value: &Value<'_>| value.duration(SECOND, HOUR);
    let poll = table.read("poll", between).unwrap_or(Duration::from_secs(60));
    let lease = table
        .read("lease", |value| value.duration(SECOND * 3, HOUR))
        .unwrap_or(Duration::from_secs(120));
    StoreSettings {
        place: place(table, context),
        keys: keys(table, "key", context),
        state: table
            .require("state", |value| context.path(value))
            .unwrap_or_default(),
        owner: table.read("node", Value::text).unwrap_or_else(node_name),
        poll,
        lease,
    }
}

fn place(table: &Table<'_>, context: &Context<'_>) -> StorePlace {
    let folder = table.read("folder", |value| context.path(value));
    let credentials = credentials(table, context);
    let bucket = table.table("bucket").map(|bucket| BucketSettings {
        name: bucket.require("name", bucket_name).unwrap_or_default(),
        region: bucket.require("region", region).unwrap_or_default(),
        prefix: bucket.read("prefix", prefix).unwrap_or_default(),
        endpoint: bucket.read("endpoint", endpoint),
        path_style: bucket.read("path_style", Value::boolean).unwrap_or(false),
        credentials,
    });
    match (folder, bucket) {
        (Some(folder), None) => StorePlace::Folder(folder),
        (None, Some(bucket)) => StorePlace::Bucket(bucket),
        _ => {
            table.refuse("bucket", "give one of bucket and folder");
            StorePlace::Folder(context.base.into())
        }
    }
}

/// A name by which operators know the node; the process tells two nodes on one machine apart.
fn node_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = if name.trim().is_empty() {
        "node"
    } else {
        name.trim()
    };
    format!("{name}-{}", std::process::id())
}

fn certificate(table: &Table<'_>, context: &Context<'_>) -> Managed {
    const KINDS: [(&str, KeyKind); 2] = [("ecdsa", KeyKind::Ecdsa), ("rsa", KeyKind::Rsa)];
    let names = table
        .require("names", |value| {
            let names = value.list(name).unwrap_or_default();
            match value.array_is_empty() {
                true => Err("needs at least one name".to_owned()),
                false => Ok(names),
            }
        })
        .unwrap_or_default();
    let kinds = table
        .value("keys")
        .and_then(|value| value.list(|item| item.one_of(&KINDS)));
    let mut keys = kinds.unwrap_or_else(|| vec![KeyKind::Ecdsa]);
    keys.dedup();
    if table.value("keys").is_some_and(|value| value.array_is_empty()) {
        table.refuse("keys", "needs \"ecdsa\", \"rsa\" or both");
    }
    let challenge = challenge(table, context);
    let is_wildcard = |name: &String| name.starts_with("*.");
    if names.iter().any(is_wildcard) && !matches!(challenge, Challenge::Dns01(_)) {
        table.refuse("challenge", "only \"dns-01\" proves a wildcard");
    }
    let accepts = table.require("accept_terms", Value::boolean);
    if accepts == Some(false) {
        table.refuse(
            "accept_terms",
            "the CA issues only to those who accept its terms of service",
        );
    }
    Managed {
        names,
        default: table.read("default", Value::boolean).unwrap_or(false),
        keys,
        acme: Acme {
            directory: table
                .read("directory", directory)
                .unwrap_or_else(|| default_directory().to_owned()),
            contact: table
                .value("contact")
                .and_then(|value| value.list(contact))
                .unwrap_or_default(),
            challenge,
            profile: table.read("profile", Value::text),
            preferred_chain: table.read("preferred_chain", Value::text),
            patience: ORDER_PATIENCE,
            binding: table.table("binding").map(|table| binding(&table, context)),
            roots: table.read("roots", |value| context.path(value)),
        },
    }
}

fn default_directory() -> &'static str {
    DIRECTORIES.first().map_or("", |(_, url)| url)
}

fn challenge(table: &Table<'_>, context: &Context<'_>) -> Challenge {
    let named = table.read("challenge", |value| {
        value.one_of(&[("http-01", 0), ("dns-01", 1), ("tls-alpn-01", 2)])
    });
    let dns = table.table("dns").map(|dns| provider(&dns, context));
    match (named.unwrap_or(0), dns) {
        (1, Some(dns)) => Challenge::Dns01(dns),
        (1, None) => {
            table.refuse("dns", "is missing: who holds the zone?");
            Challenge::Http01
        }
        (_, Some(_)) => {
            table.refuse("dns", "is for challenge = \"dns-01\"");
            Challenge::Http01
        }
        (2, None) => Challenge::TlsAlpn01,
        _ => Challenge::Http01,
    }
}

fn provider(table: &Table<'_>, context: &Context<'_>) -> Dns {
    const ALGORITHMS: [(&str, TsigAlgorithm); 3] = [
        ("hmac-sha256", TsigAlgorithm::HmacSha256),
        ("hmac-sha384", TsigAlgorithm::HmacSha384),
        ("hmac-sha512", TsigAlgorithm::HmacSha512),
    ];
    let is_route53 = table.require("provider", |value| {
        value.one_of(&[("route53", true), ("rfc2136", false)])
    });
    // Without a word about who it is, the keys of both are looked at.
    if is_route53 != Some(false) {
        let settings = Route53Settings {
            zone_id: table.read("zone_id", Value::text),
            endpoint: table.read("endpoint", endpoint),
            credentials: credentials(table, context),
        };
        if is_route53 == Some(true) {
            return Dns::Route53(settings);
        }
    }
    let settings = Rfc2136Settings {
        server: table
            .require("server", address)
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 53))),
        zone: table.require("zone", Value::text).unwrap_or_default(),
        key_name: table.require("key_name", Value::text).unwrap_or_default(),
        algorithm: table
            .read("algorithm", |value| value.one_of(&ALGORITHMS))
            .unwrap_or(TsigAlgorithm::HmacSha256),
        secret: hidden(table, "secret", context),
        wait: table
            .read("wait", |value| value.duration(Duration::ZERO, HOUR))
            .unwrap_or(Duration::from_secs(5)),
    };
    let is_read = context.secrets == Secrets::Read && !settings.secret.0.is_empty();
    if is_read && !settings.has_readable_secret() {
        table.refuse("secret_file", "is not a key in base64");
    }
    Dns::Rfc2136(settings)
}

fn binding(table: &Table<'_>, context: &Context<'_>) -> Binding {
    let binding = Binding {
        id: table.require("id", Value::text).unwrap_or_default(),
        key: hidden(table, "key", context),
    };
    let is_read = context.secrets == Secrets::Read && !binding.key.0.is_empty();
    if is_read && !binding.has_readable_key() {
        table.refuse("key_file", "is not a key in base64url");
    }
    binding
}

fn credentials(table: &Table<'_>, context: &Context<'_>) -> Credentials {
    let Some(value) = table
        .value("credentials")
        .filter(|value| value.string() != Ok("environment"))
    else {
        return Credentials::Environment;
    };
    let Some(table) = value.table() else {
        return Credentials::Environment;
    };
    Credentials::Static {
        id: table.require("access_key_id", Value::text).unwrap_or_default(),
        secret: hidden(&table, "secret_access_key", context),
    }
}

/// Keys that are 32 bytes each, a line each.
fn keys(table: &Table<'_>, what: &str, context: &Context<'_>) -> Secret {
    let secret = hidden(table, what, context);
    if context.secrets == Secrets::Read
        && !secret.0.is_empty()
        && let Err(error) = Keyring::parse(&secret.0)
    {
        table.refuse(&format!("{what}_file"), error.to_string());
    }
    secret
}

fn hidden(table: &Table<'_>, what: &str, context: &Context<'_>) -> Secret {
    Secret(secret(table, what, context).unwrap_or_default())
}

/// A DNS name, lowercase, perhaps a wildcard; nothing of it can leave a folder or a key of the store.
fn name(value: &Value<'_>) -> Result<String, String> {
    let name = value.text()?.trim_end_matches('.').to_lowercase();
    let label = |label: &str| {
        let inner = label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        !label.is_empty() && label.len() <= 63 && inner && !label.starts_with('-')
    };
    let plain = name.strip_prefix("*.").unwrap_or(&name);
    if plain.len() <= 250 && plain.contains('.') && plain.split('.').all(label) {
        return Ok(name);
    }
    Err("expected a name such as \"cdn.example.com\" or \"*.example.com\"".into())
}

fn contact(value: &Value<'_>) -> Result<String, String> {
    let text = value.text()?;
    match text.starts_with("mailto:") && text.contains('@') {
        true => Ok(text),
        false => Err("expected \"mailto:\" and an address".into()),
    }
}

fn directory(value: &Value<'_>) -> Result<String, String> {
    let text = value.text()?;
    if let Some((_, url)) = DIRECTORIES.iter().find(|(name, _)| *name == text) {
        return Ok((*url).to_owned());
    }
    let good = text
        .parse::<http::Uri>()
        .is_ok_and(|uri| uri.scheme_str() == Some("https") && uri.host().is_some());
    match good {
        true => Ok(text),
        false => Err("expected \"letsencrypt\", \"letsencrypt-staging\" or an https URL".into()),
    }
}

fn address(value: &Value<'_>) -> Result<SocketAddr, String> {
    let text = value.text()?;
    let with_port = text.parse().ok();
    with_port
        .or_else(|| text.parse().ok().map(|address| SocketAddr::new(address, 53)))
        .ok_or_else(|| "expected an address such as \"192.0.2.1\" or \"192.0.2.1:53\"".to_owned())
}
