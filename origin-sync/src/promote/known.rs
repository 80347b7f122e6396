//! What is read and checked before anything is changed: the channel, the manifests, and that every blob is there.

use std::collections::{BTreeMap, BTreeSet};

use super::flip::{self, InForce};
use super::{Error, Keys, Options};
use crate::push::manifest_bytes_max;
use crate::release::{Alias, Channel, Manifest, Name, Opened, Pointer, Sha256, Trust, Version, layout};
use crate::remote::Remote;

/// What was read before anything is changed.
pub(super) struct Known {
    pub(super) in_force: Option<InForce>,
    /// The manifests of every version that an alias points to, or will.
    pub(super) manifests: BTreeMap<Version, Opened<Manifest>>,
}

impl Known {
    pub(super) fn pointers(&self, moves: &BTreeMap<Alias, Version>) -> BTreeMap<Alias, Pointer> {
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

    pub(super) fn manifests_of(&self, channel: &Channel) -> Vec<Manifest> {
        let versions: BTreeSet<&Version> = channel.aliases.values().map(|pointer| &pointer.version).collect();
        let opened = versions
            .into_iter()
            .filter_map(|version| self.manifests.get(version));
        opened.map(|opened| opened.document.clone()).collect()
    }
}

impl Known {
    pub(super) fn wanted<'a>(
        &'a self,
        options: &'a Options,
    ) -> impl Iterator<Item = (&'a Version, &'a Opened<Manifest>)> {
        let versions: BTreeSet<&Version> = options.moves.values().collect();
        self.manifests
            .iter()
            .filter(move |(version, _)| versions.contains(version))
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
pub(super) async fn look(remote: &Remote, options: &Options, keys: &Keys<'_>) -> Result<Known, Error> {
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
