//! The sockets: addresses, each used once.

use std::net::SocketAddr;

use super::Context;
use crate::config::reader::{Table, Value};
use crate::config::{AdminListen, Listen};

/// `sun_path` of unix(7), with its final zero.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// Where the admin listener stands unless the file says otherwise.
pub(super) struct AdminAddress(pub(super) Option<AdminListen>);

impl Default for AdminAddress {
    fn default() -> Self {
        Self(Some(AdminListen::Tcp(SocketAddr::from(([127, 0, 0, 1], 9180)))))
    }
}

/// The table `[listen]`.
pub(super) fn listen(
    table: &Table<'_>,
    context: &Context<'_>,
    default: AdminAddress,
) -> (Listen, AdminAddress) {
    let mut seen = Vec::new();
    let mut addresses = |key: &str| {
        let list = table.value(key).and_then(|value| value.list(address));
        let list = list.unwrap_or_default();
        for address in &list {
            note_duplicate(table, key, *address, &mut seen);
        }
        list
    };
    let (https, http, plain) = (addresses("https"), addresses("http"), addresses("plain"));
    let admin = table
        .read("admin", |value| admin(value, context))
        .unwrap_or(default.0);
    if let Some(AdminListen::Tcp(address)) = admin {
        note_duplicate(table, "admin", address, &mut seen);
    }
    let port = table.read("https_port", |value| value.integer(1, 65_535));
    let port = port.and_then(|port| u16::try_from(port).ok());
    if port.is_none() && https.is_empty() && !http.is_empty() {
        table.refuse(
            "http",
            "redirects to https, where nothing listens: set https, or https_port when something in front answers TLS",
        );
    }
    let https_port = port
        .or_else(|| https.first().map(SocketAddr::port))
        .unwrap_or(443);
    let listen = Listen {
        https,
        http,
        plain,
        https_port,
    };
    (listen, AdminAddress(admin))
}

fn address(value: &Value<'_>) -> Result<SocketAddr, String> {
    let text = value.string()?;
    text.parse().map_err(|_| {
        let example = match text.strip_prefix(':').filter(|port| port.parse::<u16>().is_ok()) {
            Some(port) => format!("\"[::]:{port}\" for every address"),
            None => "\"127.0.0.1:8080\" or \"[::]:8080\"".to_owned(),
        };
        format!("expected an IP address with a port, such as {example}, not {text:?}")
    })
}

fn admin(value: &Value<'_>, context: &Context<'_>) -> Result<Option<AdminListen>, String> {
    let text = value.text()?;
    match text.strip_prefix("unix:") {
        Some("") => Err("expected a path after `unix:`".into()),
        Some(path) => {
            let path = context.base.join(path);
            match path.as_os_str().len() > UNIX_PATH_BYTES_MAX {
                true => Err(format!(
                    "the path is longer than {UNIX_PATH_BYTES_MAX} bytes, the most for a Unix socket"
                )),
                false => Ok(Some(AdminListen::Unix(path))),
            }
        }
        None if text == "off" => Ok(None),
        None => address(value).map(|address| Some(AdminListen::Tcp(address))),
    }
}

/// Port 0 lets the system choose, so it can stand any number of times.
fn note_duplicate(table: &Table<'_>, key: &str, address: SocketAddr, seen: &mut Vec<SocketAddr>) {
    if address.port() != 0 && seen.contains(&address) {
        table.refuse(
            key,
            format!("{address} stands here and in another place of [listen]"),
        );
    }
    seen.push(address);
}
