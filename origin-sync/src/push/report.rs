//! What a push did, for people and for machines.

use serde::Serialize;

use super::store::Tally;
use crate::release::{CodingName, File, Manifest, Name, Sha256, Version};

/// What became of the release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was there, as it is here.
    Already,
    /// It would be pushed.
    Planned,
    /// It is there now.
    Pushed,
}

/// The result of a push.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What is released.
    pub name: Name,
    /// Which version.
    pub version: Version,
    /// What became of it.
    pub outcome: Outcome,
    /// The digest of the manifest's bytes, once it is there.
    pub manifest: Option<Sha256>,
    /// Blobs that were written, or would be.
    pub blobs_stored: usize,
    /// Their bytes.
    pub blobs_stored_bytes: u64,
    /// Blobs that were there.
    pub blobs_there: usize,
    /// The files.
    pub files: Vec<Row>,
    /// What was left out.
    pub left_out: Vec<String>,
}

/// A file, and how many bytes each form of it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its path.
    pub path: String,
    /// As it is.
    pub identity: u64,
    /// By gzip.
    pub gzip: Option<u64>,
    /// By br.
    pub br: Option<u64>,
    /// Against earlier releases, the nearest first.
    pub dcb: Vec<Delta>,
}

/// A delta.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delta {
    /// The release whose file it is against; absent if it is not known.
    pub from: Option<Version>,
    /// The digest of that file.
    pub dictionary: Sha256,
    /// How many bytes.
    pub bytes: u64,
}

impl Report {
    pub(super) fn new(manifest: &Manifest, sources: &[Manifest], left_out: &[String]) -> Self {
        Self {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            outcome: Outcome::Planned,
            manifest: None,
            blobs_stored: 0,
            blobs_stored_bytes: 0,
            blobs_there: 0,
            files: manifest.files.iter().map(|file| row(file, sources)).collect(),
            left_out: left_out.to_vec(),
        }
    }

    pub(super) fn with(mut self, outcome: Outcome, tally: Tally, manifest: Option<Sha256>) -> Self {
        self.outcome = outcome;
        self.manifest = manifest;
        self.blobs_stored = tally.stored;
        self.blobs_stored_bytes = tally.stored_bytes;
        self.blobs_there = tally.there;
        self
    }
}

fn row(file: &File, sources: &[Manifest]) -> Row {
    let size = |name: CodingName| file.coding(name, None).map(|coding| coding.size);
    let order = |digest: &Sha256| sources.iter().position(|manifest| holds(manifest, file, digest));
    let mut dcb: Vec<(Option<usize>, Delta)> = file
        .codings
        .iter()
        .filter_map(|coding| {
            let dictionary = coding.dictionary?;
            let place = order(&dictionary);
            let from = place
                .and_then(|place| sources.get(place))
                .map(|manifest| manifest.version.clone());
            let bytes = coding.size;
            Some((
                place,
                Delta {
                    from,
                    dictionary,
                    bytes,
                },
            ))
        })
        .collect();
    dcb.sort_by_key(|(place, delta)| (place.unwrap_or(usize::MAX), delta.bytes));
    Row {
        path: file.path.to_string(),
        identity: file.size,
        gzip: size(CodingName::Gzip),
        br: size(CodingName::Br),
        dcb: dcb.into_iter().map(|(_, delta)| delta).collect(),
    }
}

fn holds(manifest: &Manifest, file: &File, digest: &Sha256) -> bool {
    manifest
        .file(file.path.as_str())
        .is_some_and(|earlier| earlier.sha256 == *digest)
}
