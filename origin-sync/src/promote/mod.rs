//! Promotion: everything is looked at, the edges fetch, then one write moves all aliases, then the edges are asked what
//! they serve. Rolling back is the same with an earlier version, so it takes seconds and sends nothing.
//!
//! Until the flip nothing has changed, and each error says so. After it, what is wrong is said by edge, and undone if that
//! was asked for.

pub mod door;
pub mod edges;
mod fleet;
pub mod flip;
mod known;
pub mod line;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;

use edges::{Edge, Named};
pub use fleet::dictionaries;
use flip::{Move, Terms};
use known::Known;
pub use known::manifest;
use line::Place;

use crate::progress::Progress;
use crate::release::envelope::OpenError;
use crate::release::{Alias, Invalid, Manifest, Name, SecretKey, Sha256, Trust, Version, layout};
use crate::remote::{self, Remote};

/// Failures of one edge that are shown.
const SHOWN_MAX: usize = 20;

/// What to promote, where to, and who is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is released.
    pub name: Name,
    /// Where aliases go: each to its version. None: the channel is signed again as it is, for another lifetime.
    pub moves: BTreeMap<Alias, Version>,
    /// Aliases that are let go.
    pub gone: BTreeSet<Alias>,
    /// The edges, those to be tried first at the front.
    pub edges: Vec<Named>,
    /// How many of them are tried first, alone.
    pub canaries: usize,
    /// What is shown to edges' admin listeners.
    pub token: Option<String>,
    /// Where browsers ask: `https://cdn.example.com`. Absent: the edges' answers are not looked at.
    pub site: Option<String>,
    /// What the site's certificate is checked against, instead of the system's.
    pub ca: Option<PathBuf>,
    /// Whether a mismatch moves the aliases back.
    pub auto_rollback: bool,
    /// How long the channel is good, in seconds.
    pub lifetime: u64,
    /// Seconds since 1970.
    pub now: u64,
    /// Requests at once to the bucket.
    pub requests: usize,
    /// Where progress is shown.
    pub progress: Progress,
}

/// Who signs, and whose word counts.
#[derive(Debug)]
pub struct Keys<'a> {
    /// Signs the channel, and the fields that browsers check.
    pub channel: &'a SecretKey,
    /// Sign these fields too, while pages change from one key to the next.
    pub also: &'a [SecretKey],
    /// Whose manifests and channels are believed.
    pub trust: &'a Trust,
}

/// What a promotion did.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What is released.
    pub name: Name,
    /// The channel's serial now.
    pub serial: u64,
    /// When it expires, in seconds since 1970.
    pub expires: u64,
    /// The aliases that moved.
    pub moved: Vec<Move>,
    /// The edges.
    pub nodes: Vec<Node>,
    /// Whether the aliases were moved back.
    pub rolled_back: bool,
}

/// What an edge did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Node {
    /// As it was named.
    pub edge: String,
    /// Its own name.
    pub node: String,
    /// Forms that it holds as the manifest says.
    pub prewarmed: usize,
    /// The serial that it has in force.
    pub serial: Option<u64>,
    /// Forms that its public door served as they should be.
    pub served: usize,
    /// What was wrong.
    pub wrong: Vec<String>,
}

/// Why nothing, or not all, was promoted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An alias would hide a version.
    #[error(
        "{alias} is a version that is released: an alias of that name would hide it; nothing was changed"
    )]
    AliasIsVersion {
        /// The alias.
        alias: Alias,
    },
    /// Blobs of the release are missing.
    #[error(
        "{missing} blobs of {name} {version} are not in the bucket, such as {first}; nothing was changed: push it again"
    )]
    Blobs {
        /// The name.
        name: Name,
        /// The version.
        version: Version,
        /// How many.
        missing: usize,
        /// One of them.
        first: Sha256,
    },
    /// A browser would refuse what the release says of itself.
    #[error(
        "{name} {version}: {path}: {why}; every browser that knows such fields would refuse the file; nothing was changed"
    )]
    Integrity {
        /// The name.
        name: Name,
        /// The version.
        version: Version,
        /// The file.
        path: String,
        /// What is wrong.
        why: Invalid,
    },
    /// An edge could not be used.
    #[error("nothing was changed")]
    Edge(#[from] line::Error),
    /// The flip was done, and an edge does not serve it.
    #[error("{}", mismatch(.0))]
    Mismatch(Box<Report>),
    /// The manifest is not to be believed.
    #[error("{key} cannot be believed; nothing was changed")]
    Open {
        /// The manifest.
        key: String,
        /// Why.
        source: OpenError,
    },
    /// An edge does not hold the release.
    #[error("not every edge holds the release; nothing was changed")]
    Prewarm(Vec<Node>),
    /// The channel could not be read.
    #[error(transparent)]
    Read(#[from] flip::ReadError),
    /// The bucket could not be read.
    #[error("nothing was changed")]
    Remote(#[from] remote::Error),
    /// The version is not released.
    #[error("{key} is not there: push it first; nothing was changed")]
    Unreleased {
        /// Where its manifest would be.
        key: String,
    },
    /// The channel was not flipped, or nobody knows.
    #[error(transparent)]
    Write(#[from] flip::WriteError),
}

/// Promotes.
pub async fn promote(remote: &Remote, options: &Options, keys: &Keys<'_>) -> Result<Report, Error> {
    let known = known::look(remote, options, keys).await?;
    let edges: Result<Vec<Edge>, line::Error> = options
        .edges
        .iter()
        .map(|named| Edge::new(named.clone(), options.token.clone()))
        .collect();
    let edges = edges?;
    let mut nodes = fleet::prewarm(remote, options, &known, &edges).await?;
    let pointers = known.pointers(&options.moves);
    let seen = nodes
        .iter()
        .filter_map(|node| node.serial)
        .max()
        .unwrap_or_default();
    let in_force = known.in_force.as_ref();
    let current = in_force.map(|in_force| &in_force.opened.document);
    let terms = options.terms(seen);
    let (mut channel, moved) = flip::next(&options.name, current, &pointers, &options.gone, terms);
    let pinned: Vec<Manifest> = known.manifests_of(&channel);
    flip::fill(&mut channel, &pinned, &keys.signers());
    flip::write(remote, &channel, in_force, keys.channel, keys.trust).await?;
    options
        .progress
        .part("flip", 0)
        .done(&flip::shown(Some(&channel)));
    fleet::verify(remote, options, &known, &edges, &channel, &moved, &mut nodes).await;
    let report = Report {
        name: options.name.clone(),
        serial: channel.serial,
        expires: channel.expires,
        moved,
        nodes,
        rolled_back: false,
    };
    if report.nodes.iter().all(|node| node.wrong.is_empty()) {
        return Ok(report);
    }
    if options.auto_rollback {
        return Err(undo(remote, options, keys, &known, &edges, report).await);
    }
    Err(Error::Mismatch(Box::new(report)))
}

impl Keys<'_> {
    fn signers(&self) -> Vec<&SecretKey> {
        std::iter::once(self.channel).chain(self.also).collect()
    }
}

impl Options {
    fn terms(&self, serial_seen: u64) -> Terms {
        Terms {
            serial_seen,
            now: self.now,
            lifetime: self.lifetime,
        }
    }

    fn door(&self, named: &Named) -> Option<Result<Place, line::Error>> {
        let site = self.site.as_ref()?;
        Some(Place::new(site, named.door.as_deref(), self.ca.as_deref()))
    }
}

/// Moves the aliases back to where they were, with a new serial.
async fn undo(
    remote: &Remote,
    options: &Options,
    keys: &Keys<'_>,
    known: &Known,
    edges: &[Edge],
    mut report: Report,
) -> Error {
    let mut back = options.clone();
    back.moves = BTreeMap::new();
    for moved in &report.moved {
        match &moved.from {
            Some(from) => drop(back.moves.insert(moved.alias.clone(), from.clone())),
            None => drop(back.gone.insert(moved.alias.clone())),
        }
    }
    let undone = async {
        let over = flip::read(remote, &options.name, keys.trust).await?;
        let current = over.as_ref().map(|over| &over.opened.document);
        // Somebody went on from here: what they did is not ours to undo.
        if current.map(|channel| channel.serial) != Some(report.serial) {
            let winner = current.cloned().map(Box::new);
            let key = layout::channel(&options.name);
            return Err(flip::WriteError::Lost { key, winner });
        }
        let terms = options.terms(report.serial);
        let pointers = known.pointers(&back.moves);
        let (mut channel, moved) = flip::next(&options.name, current, &pointers, &back.gone, terms);
        let pinned = known.manifests_of(&channel);
        flip::fill(&mut channel, &pinned, &keys.signers());
        flip::write(remote, &channel, over.as_ref(), keys.channel, keys.trust).await?;
        Ok((channel, moved))
    };
    match undone.await {
        Ok((channel, moved)) => {
            report.serial = channel.serial;
            report.rolled_back = true;
            back.site = None;
            fleet::verify(remote, &back, known, edges, &channel, &moved, &mut report.nodes).await;
        }
        Err(error) => options
            .progress
            .say(&format!("the aliases were not moved back: {}", chain(&error))),
    }
    Error::Mismatch(Box::new(report))
}

/// What was wrong, edge by edge.
pub fn wrong(nodes: &[Node]) -> String {
    let lines = nodes.iter().filter(|node| !node.wrong.is_empty()).map(|node| {
        let mut lines: Vec<String> = node
            .wrong
            .iter()
            .take(SHOWN_MAX)
            .map(|wrong| format!("\n    {wrong}"))
            .collect();
        if node.wrong.len() > SHOWN_MAX {
            lines.push(format!("\n    and {} more", node.wrong.len() - SHOWN_MAX));
        }
        format!("\n  {}{}", node.edge, lines.concat())
    });
    lines.collect()
}

fn mismatch(report: &Report) -> String {
    let state = match report.rolled_back {
        true => "the aliases were moved back",
        false => "the aliases have moved, and were not moved back",
    };
    format!(
        "not every edge serves the release; {state} (serial {})",
        report.serial
    )
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
