//! What is known of one release: the channel in force, the one before it, and the manifests that were opened.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use origin_sync::release::{Channel, File, Manifest, Opened, Sha256, Version};

use crate::clock::Timestamp;

/// Manifests that are kept besides those that aliases lead to; the one that was opened first goes first.
const RELEASES_MAX: usize = 64;

/// A version whose manifest was believed.
#[derive(Debug)]
pub struct Release {
    /// The digest of the manifest's bytes.
    pub digest: Sha256,
    /// The version.
    pub version: Version,
    files: Vec<Arc<File>>,
}

impl Release {
    pub(super) fn new(opened: Opened<Manifest>) -> Self {
        Self {
            digest: opened.digest,
            version: opened.document.version,
            files: opened.document.files.into_iter().map(Arc::new).collect(),
        }
    }

    /// The file at this path.
    pub fn file(&self, path: &str) -> Option<&Arc<File>> {
        let place = self.files.binary_search_by(|file| file.path.as_str().cmp(path));
        self.files.get(place.ok()?)
    }

    /// All files, in the order of their paths.
    pub fn files(&self) -> &[Arc<File>] {
        &self.files
    }
}

/// A channel in force, with every release that its aliases lead to.
#[derive(Debug)]
pub struct InForce {
    /// The channel.
    pub opened: Opened<Channel>,
    /// By version.
    pub releases: HashMap<Version, Arc<Release>>,
}

impl InForce {
    /// Whether everything that its aliases lead to is here.
    pub fn is_whole(&self) -> bool {
        let mut pointers = self.opened.document.aliases.values();
        pointers.all(|pointer| self.releases.contains_key(&pointer.version))
    }

    /// What an alias leads to.
    pub fn alias(&self, alias: &str) -> Option<&Arc<Release>> {
        let pointer = self.opened.document.aliases.get(alias)?;
        self.releases.get(&pointer.version)
    }
}

/// All of it. Swapped whole.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// The channel in force.
    pub(super) channel: Option<Arc<InForce>>,
    /// The one before it, and until when it may stand in.
    pub(super) before: Option<(Arc<InForce>, Timestamp)>,
    /// Whether a bucket has said since the start what it has, be it nothing.
    pub(super) asked: bool,
    /// Why what the bucket has is not in force.
    pub(super) degraded: Option<String>,
    opened: HashMap<Version, Arc<Release>>,
    order: VecDeque<Version>,
}

impl State {
    /// The release of a version, if its manifest was opened.
    pub(super) fn release(&self, version: &str) -> Option<&Arc<Release>> {
        let in_force = self
            .channel
            .as_ref()
            .and_then(|channel| channel.releases.get(version));
        in_force.or_else(|| self.opened.get(version))
    }

    /// Remembers a release. Which was there first stays: a version is written once.
    pub(super) fn learn(&mut self, release: Arc<Release>) {
        let version = release.version.clone();
        if self.opened.contains_key(&version) {
            return;
        }
        self.opened.insert(version.clone(), release);
        self.order.push_back(version);
        if self.order.len() > RELEASES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.opened.remove(&oldest);
        }
    }

    /// The file at `path` of this digest, in any release that is known: what a client may hold as a dictionary.
    pub(super) fn holder(&self, path: &str, digest: &Sha256) -> Option<Arc<File>> {
        let before = self.before.as_ref().map(|(before, _)| before);
        let pinned = self.channel.iter().chain(before);
        let pinned = pinned.flat_map(|channel| channel.releases.values());
        pinned
            .chain(self.opened.values())
            .filter_map(|release| release.file(path))
            .find(|file| file.sha256 == *digest)
            .cloned()
    }
}
