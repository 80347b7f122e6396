//! What a configuration needs from the machine: certificates that can serve, folders that exist, memory that is there.
//!
//! This is for `edge check`. A node that starts or reloads takes [`load`](super::load) instead: it serves with the
//! certificates that are good, and says which are not, rather than not at all.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use certs::settings::Challenge;
use toml::de::DeTable;

use super::file::{self, folder_of};
use super::reader::{Notes, Table};
use super::resolve::Secrets;
use super::{Config, Errors};

/// What an idle TLS connection costs, roughly, with the kernel's part.
const CONNECTION_BYTES: u64 = 32 * 1024;

/// A configuration that can be started with.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The configuration.
    pub config: Config,
    /// What works and yet needs an operator, a line each.
    pub warnings: Vec<String>,
}

/// As [`load`](super::load), and looks at the files and the memory that the configuration needs.
pub fn check(path: &Path, now: SystemTime) -> Result<Checked, Errors> {
    let name = path.display().to_string();
    let text = file::read(path).map_err(|message| Errors::of_file(&name, message))?;
    let config = file::parse_with(&text, &name, folder_of(path), Secrets::Read)?;
    let notes = Notes::new(&name, &text);
    let (document, _) = DeTable::parse_recoverable(&text);
    let warnings = check_machine(&config, &Table::root(&notes, document.get_ref()), now);
    match Errors::collect(notes.into_errors()) {
        None => Ok(Checked { config, warnings }),
        Some(errors) => Err(errors),
    }
}

fn check_machine(config: &Config, root: &Table<'_>, now: SystemTime) -> Vec<String> {
    let mut warnings = check_certificates(config, root, now);
    let log = config.log.access.as_ref().and_then(|log| log.path.as_deref());
    if let Some(folder) = log.map(folder_of).filter(|folder| !folder.is_dir())
        && let Some(table) = root.table("log").and_then(|log| log.table("access"))
    {
        table.refuse("path", format!("{}: there is no such folder", folder.display()));
    }
    let connections = u64::try_from(config.limits.connections).unwrap_or(u64::MAX);
    let wanted = connections
        .saturating_mul(CONNECTION_BYTES)
        .saturating_add(config.cache.memory_bytes);
    if let Some(memory) = memory_bytes().filter(|memory| wanted > *memory) {
        let mib = |bytes: u64| bytes / (1024 * 1024);
        warnings.push(format!(
            "cache.memory and limits.connections together may take {} MiB, and this machine has {} MiB",
            mib(wanted),
            mib(memory)
        ));
    }
    warnings
}

fn check_certificates(config: &Config, root: &Table<'_>, now: SystemTime) -> Vec<String> {
    let tables = root.table("tls").map(|tls| tls.tables("certificate"));
    let (mut warnings, mut good) = (Vec::new(), Vec::new());
    for (files, table) in config.certificates.iter().zip(tables.unwrap_or_default()) {
        match certs::load(&files.chain, &files.key, now) {
            Ok(bundle) => {
                warnings.extend(bundle.warnings.iter().map(ToString::to_string));
                good.push((Arc::new(bundle), files.default));
            }
            Err(error) => {
                let key = if error.is_about(&files.key) {
                    "key"
                } else {
                    "chain"
                };
                table.refuse(key, with_causes(&error));
            }
        }
    }
    warnings.extend(check_orders(config, root));
    if !config.listen.https.is_empty() {
        warnings.extend(uncovered_hosts(config, &certs::Resolver::new(good)));
    }
    warnings
}

/// What keeps certificates from being ordered as far as this machine shows.
fn check_orders(config: &Config, root: &Table<'_>) -> Vec<String> {
    let tables = root
        .table("tls")
        .map(|tls| tls.tables("acme"))
        .unwrap_or_default();
    let managed = config.managed.iter().flat_map(|settings| &settings.managed);
    let mut warnings = Vec::new();
    for (managed, table) in managed.zip(tables) {
        if let Some(Err(error)) = managed.acme.roots.as_deref().map(certs::acme::roots) {
            table.refuse("roots", with_causes(&error));
        }
        let (listens, key) = match managed.acme.challenge {
            Challenge::Dns01(_) => continue,
            Challenge::Http01 => (!config.listen.http.is_empty(), "listen.http"),
            Challenge::TlsAlpn01 => (!config.listen.https.is_empty(), "listen.https"),
        };
        if !listens {
            let (name, challenge) = (managed.name(), managed.acme.challenge.token());
            warnings.push(format!(
                "{name}: {challenge} is answered on {key}, which is not set"
            ));
        }
    }
    warnings
}

/// Hosts that no certificate names: browsers cannot reach them by https. Addresses are not asked for by name at all.
fn uncovered_hosts(config: &Config, resolver: &certs::Resolver) -> Vec<String> {
    let hosts = config.sites.iter().flat_map(|site| &site.hosts);
    let uncovered = hosts.filter(|host| {
        let is_address = host.starts_with('[') || host.parse::<IpAddr>().is_ok();
        let named = host.replacen('*', "any", 1);
        !is_address && resolver.admit(Some(&named)).is_err() && !is_ordered(config, &named)
    });
    uncovered
        .map(|host| format!("{host}: no certificate names this host of a site"))
        .collect()
}

/// Whether a certificate for `host` is ordered from a CA.
fn is_ordered(config: &Config, host: &str) -> bool {
    let managed = config.managed.iter().flat_map(|settings| &settings.managed);
    managed
        .flat_map(|managed| &managed.names)
        .any(|name| match name.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest == parent),
            None => name == host,
        })
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The machine's memory; `None` where it cannot be told.
fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
