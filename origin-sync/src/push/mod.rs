//! Pushing a release: plan, code, store blobs, and write the manifest last. Until then nothing of it can be seen, so a push
//! may end at any moment, and the next one goes on: what is stored is not sent again.
//!
//! A version is pushed once. The same files again are no error and change nothing; other bytes under it are refused.

pub mod cache;
mod dictionaries;
pub mod make;
pub mod media;
pub mod plan;
pub mod report;
pub mod rules;
mod store;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use cache::Cache;
use make::Made;
pub use plan::Plan;
pub use report::{Outcome, Report};
pub use rules::Rules;
pub use store::missing;
use store::{Blob, Tally};

use crate::progress::Progress;
use crate::release::envelope::{OpenError, SealError, seal};
use crate::release::integrity::Fields;
use crate::release::{
    Class, Coding, File, FilePath, Manifest, Name, Opened, Role, SecretKey, Sha256, Trust, Version, layout,
};
use crate::remote::{self, Body, Expect, Remote, Stored};

/// What to push, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder.
    pub dir: PathBuf,
    /// What is released.
    pub name: Name,
    /// Which version.
    pub version: Version,
    /// How many releases before it deltas are made against.
    pub dictionaries: usize,
    /// Whether to stop when everything is known and nothing is written.
    pub dry_run: bool,
    /// Coders at once.
    pub jobs: usize,
    /// Requests at once.
    pub requests: usize,
    /// Where coded forms are kept between runs.
    pub cache: Cache,
    /// Where progress is shown.
    pub progress: Progress,
    /// Seconds since 1970.
    pub now: u64,
}

/// Who signs, and whose word counts.
#[derive(Debug)]
pub struct Keys<'a> {
    /// Signs the manifest, and the fields that browsers check.
    pub release: &'a SecretKey,
    /// Sign these fields too, while pages change from one key to the next.
    pub also: &'a [SecretKey],
    /// Whose manifests are believed.
    pub trust: &'a Trust,
}

/// Why a release was not pushed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is released, as something else.
    #[error("{key} is released already, and is something else; nothing was changed\n{}", listed(.differences))]
    Changed {
        /// The manifest.
        key: String,
        /// Where they differ.
        differences: Vec<Difference>,
    },
    /// Blobs of a release that is there are gone and could not be made again.
    #[error(
        "{key} names {missing} blobs that are not in the bucket, such as {first}, and they cannot be made again"
    )]
    Lost {
        /// The manifest.
        key: String,
        /// How many.
        missing: usize,
        /// One of them.
        first: Sha256,
    },
    /// The forms could not be made.
    #[error("nothing was sent")]
    Make(#[from] make::Error),
    /// The manifest that is there is not to be believed.
    #[error("{key} is there and cannot be believed; nothing was changed")]
    Open {
        /// The manifest.
        key: String,
        /// Why.
        source: OpenError,
    },
    /// There is no plan.
    #[error(transparent)]
    Plan(#[from] plan::PlanError),
    /// The bucket could not be read.
    #[error("nothing was written")]
    Read(#[source] remote::Error),
    /// The manifest could not be signed.
    #[error("the manifest could not be signed; it is not written, so nothing of the release can be seen")]
    Seal(#[from] SealError),
    /// Not all blobs were stored.
    #[error(
        "{stored} of {total} blobs are in the bucket, the manifest is not, so nothing of the release can be seen; \
         run again to go on"
    )]
    Store {
        /// Blobs that are there.
        stored: usize,
        /// Blobs of the release.
        total: usize,
        /// What went wrong.
        source: remote::Error,
    },
    /// The manifest was not written, or nobody knows.
    #[error("all blobs are in the bucket, and the manifest may not be; run again to go on")]
    Write(#[source] remote::Error),
}

/// A file that a release has otherwise than the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its path.
    pub path: FilePath,
    /// What is released; absent if nothing is.
    pub released: Option<Sha256>,
    /// What is here; absent if nothing is.
    pub here: Option<Sha256>,
}

/// Pushes a release.
pub async fn push(
    remote: &Remote,
    options: &Options,
    rules: &Rules,
    keys: &Keys<'_>,
) -> Result<Report, Error> {
    let plan = Plan::read(&options.dir, rules, Class::Immutable)?;
    plan.check_release(&options.dir)?;
    let line = format!(
        "{} files, {} bytes, {} left out",
        plan.files.len(),
        plan.bytes(),
        plan.left_out.len()
    );
    options.progress.part("plan", 0).done(&line);
    if let Some(released) = released(remote, options, keys.trust).await? {
        return again(remote, options, &plan, &released).await;
    }
    let sources = dictionaries::sources(remote, options, keys.trust)
        .await
        .map_err(Error::Read)?;
    let dictionaries = dictionaries::fetch(remote, options, &plan, &sources)
        .await
        .map_err(Error::Read)?;
    let made = make::make(
        &plan,
        &dictionaries,
        &options.cache,
        options.jobs,
        options.progress,
    )
    .await?;
    let manifest = manifest(&plan, &made, options, keys);
    let report = Report::new(&manifest, &sources, &plan.left_out);
    if options.dry_run {
        let tally = store::look(remote, options, &blobs(&plan, &made))
            .await
            .map_err(Error::Read)?;
        return Ok(report.with(Outcome::Planned, tally, None));
    }
    let sealed = seal(&manifest, keys.release)?;
    let (tally, there) = send(remote, options, &blobs(&plan, &made)).await?;
    let outcome = write(remote, options, keys, &plan, sealed.clone()).await?;
    // What had been stored by somebody else may have been swept away before the manifest that names it was there.
    let again: Vec<Blob> = blobs(&plan, &made)
        .into_iter()
        .filter(|blob| there.contains(&blob.digest))
        .collect();
    store::send(remote, options, &again)
        .await
        .map_err(|(_, source)| Error::Write(source))?;
    Ok(report.with(outcome, tally, Some(Sha256::of(&sealed))))
}

/// The manifest of this version, if there is one.
async fn released(
    remote: &Remote,
    options: &Options,
    trust: &Trust,
) -> Result<Option<Opened<Manifest>>, Error> {
    let key = layout::manifest(&options.name, &options.version);
    let read = remote
        .get(&key, manifest_bytes_max())
        .await
        .map_err(Error::Read)?;
    let Some(object) = read else {
        return Ok(None);
    };
    let opened = Manifest::open(&object.bytes, trust, &options.name, &options.version);
    opened.map(Some).map_err(|source| Error::Open { key, source })
}

/// The version is released: the same files are no error, and blobs that are gone are made again.
async fn again(
    remote: &Remote,
    options: &Options,
    plan: &Plan,
    released: &Opened<Manifest>,
) -> Result<Report, Error> {
    let key = layout::manifest(&options.name, &options.version);
    let differences = differences(&released.document, plan);
    if !differences.is_empty() {
        return Err(Error::Changed { key, differences });
    }
    let report = Report::new(&released.document, &[], &plan.left_out);
    let wanted: Vec<(Sha256, u64)> = released.document.blobs().collect();
    let missing = missing(remote, &wanted, options.requests, options.progress)
        .await
        .map_err(Error::Read)?;
    let mut tally = Tally {
        there: wanted.len() - missing.len(),
        ..Tally::default()
    };
    if !missing.is_empty() && !options.dry_run {
        let dictionaries = dictionaries::of(remote, options, &released.document)
            .await
            .map_err(Error::Read)?;
        let made = make::make(
            plan,
            &dictionaries,
            &options.cache,
            options.jobs,
            options.progress,
        )
        .await?;
        let mut blobs = blobs(plan, &made);
        blobs.retain(|blob| missing.contains(&blob.digest));
        if let Some(first) = missing
            .iter()
            .find(|digest| !blobs.iter().any(|blob| blob.digest == **digest))
        {
            return Err(Error::Lost {
                key,
                missing: missing.len() - blobs.len(),
                first: *first,
            });
        }
        tally.add(&send(remote, options, &blobs).await?.0);
    }
    Ok(report.with(Outcome::Already, tally, Some(released.digest)))
}

async fn send(remote: &Remote, options: &Options, blobs: &[Blob]) -> Result<(Tally, Vec<Sha256>), Error> {
    let sent = store::send(remote, options, blobs).await;
    sent.map_err(|(stored, source)| Error::Store {
        stored,
        total: blobs.len(),
        source,
    })
}

/// Writes the manifest: from here on the release is there.
async fn write(
    remote: &Remote,
    options: &Options,
    keys: &Keys<'_>,
    plan: &Plan,
    sealed: Vec<u8>,
) -> Result<Outcome, Error> {
    let key = layout::manifest(&options.name, &options.version);
    let body = Body {
        sha256: Sha256::of(&sealed),
        bytes: sealed.into(),
        media_type: "application/json".into(),
        cache_control: Class::Immutable.cache_control().into(),
        tags: None,
    };
    let stored = remote
        .put(&key, &body, &Expect::Absent)
        .await
        .map_err(Error::Write)?;
    if stored == Stored::Now {
        return Ok(Outcome::Pushed);
    }
    // Somebody was faster; or it was this very push, and the answer was lost on its way.
    let Some(winner) = released(remote, options, keys.trust).await? else {
        return Ok(Outcome::Pushed);
    };
    let differences = differences(&winner.document, plan);
    match (winner.digest == body.sha256, differences.is_empty()) {
        (true, _) => Ok(Outcome::Pushed),
        (false, true) => Ok(Outcome::Already),
        (false, false) => Err(Error::Changed { key, differences }),
    }
}

fn manifest(plan: &Plan, made: &BTreeMap<Sha256, Vec<Made>>, options: &Options, keys: &Keys<'_>) -> Manifest {
    let signers: Vec<&SecretKey> = std::iter::once(keys.release).chain(keys.also).collect();
    let files = plan.files.iter().map(|file| {
        let made = made.get(&file.sha256).map(Vec::as_slice).unwrap_or_default();
        let codings: Vec<Coding> = made
            .iter()
            .filter(|_| file.coded)
            .map(|made| made.coding.clone())
            .collect();
        File {
            path: file.path.clone(),
            sha256: file.sha256,
            sha384: file.sha384,
            size: file.size,
            media_type: file.media_type.clone(),
            class: file.class,
            tags: file.tags.clone(),
            codings,
            integrity: file.pinned.then(|| Fields::signed(&file.sha256, &signers, None)),
        }
    });
    Manifest {
        name: options.name.clone(),
        version: options.version.clone(),
        created: options.now,
        files: files.collect(),
    }
}

/// Every blob of a release, each once.
fn blobs(plan: &Plan, made: &BTreeMap<Sha256, Vec<Made>>) -> Vec<Blob> {
    let mut blobs: BTreeMap<Sha256, Blob> = BTreeMap::new();
    for file in &plan.files {
        blobs.entry(file.sha256).or_insert_with(|| Blob::of_file(file));
    }
    for made in made.values().flatten() {
        blobs
            .entry(made.coding.sha256)
            .or_insert_with(|| Blob::of_bytes(made.coding.sha256, &made.bytes));
    }
    blobs.into_values().collect()
}

/// Where a release differs from a folder.
fn differences(released: &Manifest, plan: &Plan) -> Vec<Difference> {
    let mut differences = Vec::new();
    for file in &plan.files {
        let other = released.file(file.path.as_str());
        let same = other.is_some_and(|other| {
            other.sha256 == file.sha256
                && other.media_type == file.media_type
                && other.class == file.class
                && other.tags == file.tags
        });
        if !same {
            differences.push(Difference {
                path: file.path.clone(),
                released: other.map(|other| other.sha256),
                here: Some(file.sha256),
            });
        }
    }
    for file in &released.files {
        if !plan.files.iter().any(|here| here.path == file.path) {
            differences.push(Difference {
                path: file.path.clone(),
                released: Some(file.sha256),
                here: None,
            });
        }
    }
    differences
}

fn listed(differences: &[Difference]) -> String {
    let shown =
        |digest: &Option<Sha256>| digest.map_or_else(|| "none".to_owned(), |digest| digest.to_string());
    let mut lines: Vec<String> = differences
        .iter()
        .take(20)
        .map(|difference| {
            let Difference { path, released, here } = difference;
            let what = if released == here {
                "; its type, class or tags differ"
            } else {
                ""
            };
            format!(
                "  {path}\n    released {}\n    here     {}{what}",
                shown(released),
                shown(here)
            )
        })
        .collect();
    if differences.len() > 20 {
        lines.push(format!("  and {} more", differences.len() - 20));
    }
    lines.join("\n")
}

pub(crate) fn manifest_bytes_max() -> u64 {
    <Manifest as crate::release::envelope::Document>::BYTES_MAX as u64
}

/// The keys that a manifest of `trust` may be signed with, and `key` itself.
pub fn trust_with(trust: &Trust, key: &SecretKey) -> Trust {
    debug_assert_eq!(key.role(), Role::Release);
    Trust::new(trust.keys().iter().copied().chain([key.public()]))
}
