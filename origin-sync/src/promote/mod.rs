//! Promotion: everything is looked at, the edges fetch, then one write moves all aliases, then the edges are asked what
//! they serve. Rolling back is the same with an earlier version, so it takes seconds and sends nothing.
//!
//! Until the flip nothing has changed, and each error says so. After it, what is wrong is said by edge, and undone if that
//! was asked for.

pub mod door;
pub mod edges;
pub mod flip;
pub mod line;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use edges::{Edge, Named};
use flip::{InForce, Move, Terms};
use line::Place;

use crate::progress::Progress;
use crate::push::manifest_bytes_max;
use crate::release::coding::DICTIONARY_BYTES_MAX;
use crate::release::envelope::OpenError;
use crate::release::fleet::PrewarmRequest;
use crate::release::{
    Alias, Channel, Invalid, Manifest, Name, Opened, Pointer, SecretKey, Sha256, Trust, Version, layout,
};
use crate::remote::{self, Remote};

/// How long an edge may take to follow a flip that it was told of.
const FOLLOW: Duration = Duration::from_secs(20);
const FOLLOW_PAUSE: Duration = Duration::from_millis(200);
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

/// What was read before anything is changed.
struct Known {
    in_force: Option<InForce>,
    /// The manifests of every version that an alias points to, or will.
    manifests: BTreeMap<Version, Opened<Manifest>>,
}

/// Promotes.
pub async fn promote(remote: &Remote, options: &Options, keys: &Keys<'_>) -> Result<Report, Error> {
    let known = look(remote, options, keys).await?;
    let edges: Result<Vec<Edge>, line::Error> = options
        .edges
        .iter()
        .map(|named| Edge::new(named.clone(), options.token.clone()))
        .collect();
    let edges = edges?;
    let mut nodes = prewarm(remote, options, &known, &edges).await?;
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
    verify(remote, options, &known, &edges, &channel, &moved, &mut nodes).await;
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

impl Known {
    fn pointers(&self, moves: &BTreeMap<Alias, Version>) -> BTreeMap<Alias, Pointer> {
        let pointer = |version: &Version| {
            self.manifests.get(version).map(|opened| Pointer {
                version: version.clone(),
                manifest: opened.digest,
                previous: None,
            })
        };
        moves
            .iter()
            .filter_map(|(alias, version)| Some((alias.clone(), pointer(version)?)))
            .collect()
    }

    fn manifests_of(&self, channel: &Channel) -> Vec<Manifest> {
        let versions: BTreeSet<&Version> = channel.aliases.values().map(|pointer| &pointer.version).collect();
        let opened = versions
            .into_iter()
            .filter_map(|version| self.manifests.get(version));
        opened.map(|opened| opened.document.clone()).collect()
    }
}

/// Reads the manifest of a version, and believes it if it should.
pub async fn manifest(
    remote: &Remote,
    name: &Name,
    version: &Version,
    trust: &Trust,
) -> Result<Opened<Manifest>, Error> {
    let key = layout::manifest(name, version);
    let Some(object) = remote.get(&key, manifest_bytes_max()).await? else {
        return Err(Error::Unreleased { key });
    };
    Manifest::open(&object.bytes, trust, name, version).map_err(|source| Error::Open { key, source })
}

/// Reads and checks everything that the flip will stand on.
async fn look(remote: &Remote, options: &Options, keys: &Keys<'_>) -> Result<Known, Error> {
    let in_force = flip::read(remote, &options.name, keys.trust).await?;
    let mut manifests = BTreeMap::new();
    for version in options.moves.values() {
        if manifests.contains_key(version) {
            continue;
        }
        let opened = manifest(remote, &options.name, version, keys.trust).await?;
        check(remote, options, &opened.document).await?;
        manifests.insert(version.clone(), opened);
    }
    let current = in_force.as_ref().map(|in_force| &in_force.opened.document);
    for pointer in current.into_iter().flat_map(|channel| channel.aliases.values()) {
        if !manifests.contains_key(&pointer.version) {
            let opened = manifest(remote, &options.name, &pointer.version, keys.trust).await?;
            manifests.insert(pointer.version.clone(), opened);
        }
    }
    for alias in options.moves.keys() {
        if let Ok(version) = alias.as_str().parse::<Version>()
            && remote
                .stat(&layout::manifest(&options.name, &version))
                .await?
                .is_some()
        {
            return Err(Error::AliasIsVersion { alias: alias.clone() });
        }
    }
    Ok(Known { in_force, manifests })
}

/// Fields that browsers would refuse, and blobs that are missing, are found before anybody meets them.
async fn check(remote: &Remote, options: &Options, manifest: &Manifest) -> Result<(), Error> {
    for file in &manifest.files {
        let verified = file
            .integrity
            .as_ref()
            .map(|fields| fields.verify(&file.sha256, options.now));
        if let Some(Err(why)) = verified {
            return Err(Error::Integrity {
                name: manifest.name.clone(),
                version: manifest.version.clone(),
                path: file.path.to_string(),
                why,
            });
        }
    }
    let wanted: Vec<(Sha256, u64)> = manifest.blobs().collect();
    let missing = crate::push::missing(remote, &wanted, options.requests, options.progress).await?;
    match missing.first() {
        None => Ok(()),
        Some(first) => Err(Error::Blobs {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            missing: missing.len(),
            first: *first,
        }),
    }
}

/// Tells the edges to fetch what the aliases will lead to: the canaries first, and the others when they are well.
async fn prewarm(
    remote: &Remote,
    options: &Options,
    known: &Known,
    edges: &[Edge],
) -> Result<Vec<Node>, Error> {
    let (first, rest) = edges.split_at_checked(options.canaries).unwrap_or((edges, &[]));
    let mut nodes = Vec::new();
    for (group, canary) in [(first, true), (rest, false)] {
        let part = options.progress.part("prewarm", group.len());
        for edge in group {
            let mut node = prewarm_one(options, known, edge).await;
            // A version can be asked for before any alias leads to it: what a canary is for.
            if canary && node.wrong.is_empty() {
                for (version, opened) in known.wanted(options) {
                    let dictionaries = dictionaries(remote, &opened.document).await;
                    serve(
                        options,
                        edge,
                        &opened.document,
                        version.as_str(),
                        None,
                        &dictionaries,
                        &mut node,
                    )
                    .await;
                }
                node.served = 0;
            }
            part.step();
            nodes.push(node);
        }
        if !group.is_empty() {
            part.done(&format!("{} edges", group.len()));
        }
        if nodes.iter().any(|node| !node.wrong.is_empty()) {
            return Err(Error::Prewarm(nodes));
        }
    }
    Ok(nodes)
}

impl Known {
    fn wanted<'a>(
        &'a self,
        options: &'a Options,
    ) -> impl Iterator<Item = (&'a Version, &'a Opened<Manifest>)> {
        let versions: BTreeSet<&Version> = options.moves.values().collect();
        self.manifests
            .iter()
            .filter(move |(version, _)| versions.contains(version))
    }
}

async fn prewarm_one(options: &Options, known: &Known, edge: &Edge) -> Node {
    let mut node = Node {
        edge: edge.named.admin.clone(),
        ..Node::default()
    };
    for (version, opened) in known.wanted(options) {
        let request = PrewarmRequest {
            name: options.name.clone(),
            version: version.clone(),
            manifest: opened.digest,
        };
        match edge.prewarm(&request).await {
            Ok(answer) => {
                let (right, wrong) = edges::compare(&opened.document, &opened.digest, &answer);
                node.node = answer.node;
                node.prewarmed += right;
                node.wrong.extend(wrong);
            }
            Err(error) => node.wrong.push(chain(&error)),
        }
    }
    if node.wrong.is_empty() {
        match edge.releases(&options.name).await {
            Ok(answer) => {
                let state = answer
                    .releases
                    .into_iter()
                    .find(|state| state.name == options.name);
                node.node = answer.node;
                node.serial = state.and_then(|state| state.serial);
            }
            Err(error) => node.wrong.push(chain(&error)),
        }
    }
    node
}

/// After the flip: each edge follows, forgets, and is asked what it serves.
async fn verify(
    remote: &Remote,
    options: &Options,
    known: &Known,
    edges: &[Edge],
    channel: &Channel,
    moved: &[Move],
    nodes: &mut [Node],
) {
    let changed = moved.iter().map(|moved| &moved.alias).chain(&options.gone);
    let tags: BTreeSet<String> = changed
        .map(|alias| Manifest::alias_tag(&options.name, alias.as_str()))
        .collect();
    let mut dictionaries_of: HashMap<Version, HashMap<Sha256, Bytes>> = HashMap::new();
    let part = options.progress.part("verify", edges.len());
    for (edge, node) in edges.iter().zip(nodes) {
        follow(options, edge, channel, node).await;
        if !tags.is_empty()
            && let Err(error) = edge.purge_softly(&tags).await
        {
            node.wrong.push(chain(&error));
        }
        for (alias, pointer) in &channel.aliases {
            let asked = options.moves.is_empty() || options.moves.contains_key(alias);
            if let (true, true, Some(opened)) = (
                asked,
                options.site.is_some(),
                known.manifests.get(&pointer.version),
            ) {
                if !dictionaries_of.contains_key(&pointer.version) {
                    let read = dictionaries(remote, &opened.document).await;
                    dictionaries_of.insert(pointer.version.clone(), read);
                }
                let none = HashMap::new();
                let dictionaries = dictionaries_of.get(&pointer.version).unwrap_or(&none);
                serve(
                    options,
                    edge,
                    &opened.document,
                    alias.as_str(),
                    Some(channel),
                    dictionaries,
                    node,
                )
                .await;
            }
        }
        part.step();
    }
    if !edges.is_empty() {
        part.done(&format!("{} edges", edges.len()));
    }
}

/// Waits until an edge has the channel in force.
async fn follow(options: &Options, edge: &Edge, channel: &Channel, node: &mut Node) {
    let followed = tokio::time::timeout(FOLLOW, async {
        loop {
            let answer = edge.releases(&options.name).await?;
            let state = answer
                .releases
                .into_iter()
                .find(|state| state.name == options.name);
            node.serial = state.as_ref().and_then(|state| state.serial);
            if node.serial >= Some(channel.serial) {
                return Ok::<(), edges::Error>(());
            }
            tokio::time::sleep(FOLLOW_PAUSE).await;
        }
    })
    .await;
    match followed {
        Ok(Ok(())) => {}
        Ok(Err(error)) => node.wrong.push(chain(&error)),
        Err(_) => {
            let found = node
                .serial
                .map_or_else(|| "none".to_owned(), |serial| serial.to_string());
            let seconds = FOLLOW.as_secs();
            let wanted = channel.serial;
            node.wrong.push(format!(
                "it has serial {found} in force, not {wanted}, {seconds} s after the flip"
            ));
        }
    }
}

async fn serve(
    options: &Options,
    edge: &Edge,
    manifest: &Manifest,
    segment: &str,
    channel: Option<&Channel>,
    dictionaries: &HashMap<Sha256, Bytes>,
    node: &mut Node,
) {
    match options.door(&edge.named) {
        None => {}
        Some(Err(error)) => node.wrong.push(chain(&error)),
        Some(Ok(door)) => {
            let (right, wrong) =
                door::check(&door, manifest, segment, channel, dictionaries, options.now).await;
            node.served += right;
            node.wrong.extend(wrong);
        }
    }
}

/// The dictionaries that a manifest's deltas need; those that cannot be read are missed when a delta is checked.
pub async fn dictionaries(remote: &Remote, manifest: &Manifest) -> HashMap<Sha256, Bytes> {
    let named = manifest
        .files
        .iter()
        .flat_map(|file| &file.codings)
        .filter_map(|coding| coding.dictionary);
    let named: BTreeSet<Sha256> = named.collect();
    let mut read = HashMap::new();
    for digest in named {
        if let Ok(Some(bytes)) = remote.blob(&digest, DICTIONARY_BYTES_MAX as u64).await {
            read.insert(digest, bytes);
        }
    }
    read
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
            verify(remote, &back, known, edges, &channel, &moved, &mut report.nodes).await;
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
