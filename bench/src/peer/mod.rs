//! The servers that are measured: which there are, where their programs are, and which command installs what is missing.

mod find;
mod kinds;
mod server;

pub(crate) use find::{Programs, find_edge, on_path};
pub(crate) use kinds::{EDGE_DISK, KINDS, Kind, Way};

use kinds::{EDGE, EDGE_BEFORE, RAW};
pub(crate) use server::{Certificate, Ground, Server};

use std::path::PathBuf;

use crate::error::{Error, Result};

/// A server that is here.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) kind: &'static Kind,
    /// Its programs, in the order of its kind.
    pub(crate) programs: Vec<PathBuf>,
    pub(crate) version: String,
}

impl Peer {
    /// The edge and the peers whose names begin with one of `wanted`; of all peers that are here, if none is named. One
    /// that is named and not here is an error.
    pub(crate) fn choose(edge: PathBuf, wanted: &[String], programs: &Programs) -> Result<Vec<Self>> {
        let version = find::version(&edge, &["--version"]);
        let mut peers = vec![Self {
            kind: &EDGE,
            programs: vec![edge],
            version,
        }];
        for name in wanted {
            if !KINDS.iter().any(|kind| kind.is_named(name)) {
                let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
                return Err(Error::Said(format!(
                    "there is no peer {name:?}; there are {}",
                    known.join(", ")
                )));
            }
        }
        for kind in &KINDS {
            let named = wanted.iter().any(|name| kind.is_named(name));
            match programs.of(kind) {
                Ok(peer) if named || wanted.is_empty() => peers.push(peer),
                Err(error) if named => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(peers)
    }

    /// An earlier build of the edge.
    pub(crate) fn before(edge: PathBuf) -> Self {
        Self {
            kind: &EDGE_BEFORE,
            version: find::version(&edge, &["--version"]),
            programs: vec![edge],
        }
    }

    /// Whether it is a build of the edge.
    pub(crate) fn is_edge(kind: &Kind) -> bool {
        kind.name == EDGE.name || kind.name == EDGE_BEFORE.name
    }

    /// What no server can be faster than, over HTTP/1.1.
    pub(crate) fn raw() -> Result<Self> {
        let own = std::env::current_exe().map_err(|error| Error::io("find this program", error))?;
        Ok(Self {
            kind: &RAW,
            programs: vec![own],
            version: "tokio and rustls".to_owned(),
        })
    }

    /// Its name in figures.
    pub(crate) fn name(&self) -> &'static str {
        self.kind.name
    }
}
