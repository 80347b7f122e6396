//! Which earlier releases deltas are made against, and their files: what returning browsers hold.

use std::collections::HashSet;

use super::make::Dictionaries;
use super::plan::Plan;
use super::{Options, manifest_bytes_max};
use crate::lanes::each;
use crate::release::channel::Channel;
use crate::release::coding::DICTIONARY_BYTES_MAX;
use crate::release::envelope::Document;
use crate::release::{Manifest, Role, Sha256, Trust, Version, layout};
use crate::remote::{Error, Listed, Remote};

/// The manifests of the releases before: those that aliases point to, then the last ones pushed. One that cannot be
/// believed is left out, and said: it costs bytes on the wire, not the release.
pub(super) async fn sources(
    remote: &Remote,
    options: &Options,
    trust: &Trust,
) -> Result<Vec<Manifest>, Error> {
    if options.dictionaries == 0 {
        return Ok(Vec::new());
    }
    let listed = remote.list(&layout::manifests(&options.name)).await?;
    let pushed = Listed::newest_first(&listed)
        .into_iter()
        .map(|(version, _)| version);
    let mut versions: Vec<Version> = pointed_to(remote, options, trust).await?;
    versions.extend(pushed);
    let mut seen = HashSet::from([options.version.clone()]);
    versions.retain(|version| seen.insert(version.clone()));
    let mut sources = Vec::new();
    for version in versions {
        if sources.len() == options.dictionaries {
            break;
        }
        let key = layout::manifest(&options.name, &version);
        let Some(object) = remote.get(&key, manifest_bytes_max()).await? else {
            continue;
        };
        match Manifest::open(&object.bytes, trust, &options.name, &version) {
            Ok(opened) => sources.push(opened.document),
            Err(error) => options
                .progress
                .say(&format!("no deltas against {version}: {key}: {error}")),
        }
    }
    Ok(sources)
}

/// The versions that aliases point to, if the channel's key is among the trusted ones.
async fn pointed_to(remote: &Remote, options: &Options, trust: &Trust) -> Result<Vec<Version>, Error> {
    if trust.of(Role::Channel).next().is_none() {
        return Ok(Vec::new());
    }
    let object = remote
        .get(&layout::channel(&options.name), Channel::BYTES_MAX as u64)
        .await?;
    let opened = object.and_then(|object| Channel::open(&object.bytes, trust, &options.name).ok());
    let aliases = opened.map(|opened| opened.document.aliases).unwrap_or_default();
    Ok(aliases.into_values().map(|pointer| pointer.version).collect())
}

/// The files of these releases at the paths of the plan that get coded forms.
pub(super) async fn fetch(
    remote: &Remote,
    options: &Options,
    plan: &Plan,
    sources: &[Manifest],
) -> Result<Dictionaries, Error> {
    let mut dictionaries = Dictionaries::default();
    for file in plan.files.iter().filter(|file| file.coded) {
        let earlier = sources
            .iter()
            .filter_map(|manifest| manifest.file(file.path.as_str()));
        let mut digests: Vec<Sha256> = Vec::new();
        for earlier in earlier {
            let fits = (1..=DICTIONARY_BYTES_MAX as u64).contains(&earlier.size);
            if fits && earlier.sha256 != file.sha256 && !digests.contains(&earlier.sha256) {
                digests.push(earlier.sha256);
            }
        }
        dictionaries.by_path.insert(file.path.to_string(), digests);
    }
    load(remote, options, &mut dictionaries).await?;
    Ok(dictionaries)
}

/// The dictionaries that a manifest names.
pub(super) async fn of(
    remote: &Remote,
    options: &Options,
    manifest: &Manifest,
) -> Result<Dictionaries, Error> {
    let mut dictionaries = Dictionaries::default();
    for file in &manifest.files {
        let digests = file
            .codings
            .iter()
            .filter_map(|coding| coding.dictionary)
            .collect();
        dictionaries.by_path.insert(file.path.to_string(), digests);
    }
    load(remote, options, &mut dictionaries).await?;
    Ok(dictionaries)
}

async fn load(remote: &Remote, options: &Options, dictionaries: &mut Dictionaries) -> Result<(), Error> {
    let wanted: HashSet<Sha256> = dictionaries.by_path.values().flatten().copied().collect();
    let count = wanted.len();
    let part = options.progress.part("fetch", count);
    let (cache, step) = (&options.cache, part.clone());
    let loaded = each(wanted, options.requests, |digest| {
        let (remote, cache, step) = (remote.clone(), cache.clone(), step.clone());
        async move {
            let bytes = match cache.dictionary(&digest) {
                Some(bytes) => Some(bytes.into()),
                None => remote.blob(&digest, DICTIONARY_BYTES_MAX as u64).await?,
            };
            if let Some(bytes) = &bytes {
                cache.keep_dictionary(&digest, bytes);
            }
            step.step();
            Ok::<_, Error>((digest, bytes))
        }
    })
    .await?;
    let there = loaded
        .into_iter()
        .filter_map(|(digest, bytes)| Some((digest, bytes?)));
    dictionaries.bytes = there.collect();
    part.done(&format!("{count} earlier files to make deltas against"));
    Ok(())
}
