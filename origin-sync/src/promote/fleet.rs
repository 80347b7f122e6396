//! The edges: told to fetch before the flip, and followed, purged and asked after it. What goes wrong stands with the edge.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;

use super::edges::{self, Edge};
use super::flip::Move;
use super::known::Known;
use super::{Error, Node, Options, chain, door};
use crate::release::coding::DICTIONARY_BYTES_MAX;
use crate::release::fleet::PrewarmRequest;
use crate::release::{Channel, Manifest, Sha256, Version};
use crate::remote::Remote;

/// How long an edge may take to follow a flip that it was told of.
const FOLLOW: Duration = Duration::from_secs(20);
const FOLLOW_PAUSE: Duration = Duration::from_millis(200);

/// Tells the edges to fetch what the aliases will lead to: the canaries first, and the others when they are well.
pub(super) async fn prewarm(
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
pub(super) async fn verify(
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
