//! `origin-sync gc`: old releases go, and then the blobs that no release names.
//!
//! What an alias points to, or pointed to before, stays whatever its age. Blobs that are young stay too: a push that is
//! under way has stored them, and its manifest comes last.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::Serialize;

use super::options::{BucketArgs, OutputArgs, REQUESTS, TrustArgs};
use super::output::{self, grouped};
use super::{Code, Failure};
use crate::lanes::each;
use crate::now;
use crate::promote::{flip, manifest};
use crate::release::{Name, Role, Sha256, Trust, Version, layout};
use crate::remote::{Listed, Remote};

/// What to keep.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Releases of each name that are kept, the last ones pushed
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    keep: u64,
    /// Only of this name: releases of others, and their blobs, stay
    #[arg(long)]
    name: Option<Name>,
    /// Blobs and releases that are younger are kept
    #[arg(long, value_name = "HOURS", default_value_t = 48)]
    min_age_hours: u64,
    /// Say what would go, and delete nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    bucket: BucketArgs,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    releases_kept: usize,
    releases: Vec<String>,
    blobs_kept: usize,
    blobs: usize,
    bytes: u64,
    dry_run: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<Code, Failure> {
    let trust = arguments.trust.trust(&[])?;
    if trust.of(Role::Channel).next().is_none() {
        return Err(Failure::usage(
            "the channel key's public part is needed, to know what aliases point to: --trust channel.pub",
        ));
    }
    let remote = arguments.bucket.connect().await?;
    let now = now::seconds();
    let old = |listed: &Listed| {
        let modified = u64::try_from(listed.modified).unwrap_or_default();
        now.saturating_sub(modified) >= arguments.min_age_hours * 3600
    };
    // Blobs before manifests: what a manifest names that comes in between was listed as unnamed, and is looked up below.
    let blobs = remote.list(layout::BLOBS).await?;
    let manifests = remote.list(layout::RELEASES).await?;
    let mut by_name: BTreeMap<Name, Vec<Listed>> = BTreeMap::new();
    for listed in manifests {
        if let Some((name, _)) = layout::manifest_of(&listed.key) {
            by_name.entry(name).or_default().push(listed);
        }
    }
    let mut kept: Vec<(Name, Version)> = Vec::new();
    let mut gone: Vec<String> = Vec::new();
    for (name, listed) in by_name {
        let pointed = pointed_to(&remote, &name, &trust).await?;
        let others = arguments.name.as_ref().is_some_and(|only| *only != name);
        for (place, (version, listed)) in Listed::newest_first(&listed).into_iter().enumerate() {
            let last = (place as u64) < arguments.keep;
            if others || last || pointed.contains(&version) || !old(listed) {
                kept.push((name.clone(), version));
            } else {
                gone.push(listed.key.clone());
            }
        }
    }
    let named = named(&remote, &kept, &trust).await?;
    let unnamed: Vec<Listed> = blobs
        .into_iter()
        .filter(|listed| {
            layout::blob_of(&listed.key).is_some_and(|digest| !named.contains(&digest)) && old(listed)
        })
        .collect();
    let report = Report {
        releases_kept: kept.len(),
        blobs_kept: named.len(),
        blobs: unnamed.len(),
        bytes: unnamed.iter().map(|listed| listed.size).sum(),
        releases: gone.clone(),
        dry_run: arguments.dry_run,
    };
    if !arguments.dry_run {
        // Releases first: if it ends in between, blobs are left that nothing names, and the next run takes them.
        remote.delete(&gone).await?;
        let keys: Vec<String> = unnamed.into_iter().map(|listed| listed.key).collect();
        remote.delete(&keys).await?;
    }
    match arguments.output.json {
        true => output::json(&report)?,
        false => output::print(&shown(&report))?,
    }
    Ok(Code::Done)
}

/// The versions that aliases point to, or pointed to before.
async fn pointed_to(remote: &Remote, name: &Name, trust: &Trust) -> Result<BTreeSet<Version>, Failure> {
    let in_force = flip::read(remote, name, trust).await?;
    let aliases = in_force
        .map(|in_force| in_force.opened.document.aliases)
        .unwrap_or_default();
    Ok(aliases
        .into_values()
        .flat_map(|pointer| std::iter::once(pointer.version).chain(pointer.previous))
        .collect())
}

/// Every blob that these releases name, and the earlier files that their deltas are against: without them no delta could be
/// checked. A manifest that cannot be read or believed ends the run: what it names is unknown.
async fn named(remote: &Remote, kept: &[(Name, Version)], trust: &Trust) -> Result<HashSet<Sha256>, Failure> {
    let read = each(kept.to_vec(), REQUESTS.min(8), |(name, version)| {
        let (remote, trust) = (remote.clone(), trust.clone());
        async move { manifest(&remote, &name, &version, &trust).await }
    })
    .await?;
    let mut named = HashSet::new();
    for opened in &read {
        named.extend(opened.document.blobs().map(|(digest, _)| digest));
        let codings = opened.document.files.iter().flat_map(|file| &file.codings);
        named.extend(codings.filter_map(|coding| coding.dictionary));
    }
    Ok(named)
}

fn shown(report: &Report) -> String {
    let mut text: String = report.releases.iter().map(|key| format!("{key}\n")).collect();
    let done = if report.dry_run {
        "would be deleted"
    } else {
        "deleted"
    };
    text.push_str(&format!(
        "{} releases and {} blobs ({} bytes) {done}; {} releases and {} blobs kept\n",
        grouped(report.releases.len() as u64),
        grouped(report.blobs as u64),
        grouped(report.bytes),
        grouped(report.releases_kept as u64),
        grouped(report.blobs_kept as u64),
    ));
    text
}
