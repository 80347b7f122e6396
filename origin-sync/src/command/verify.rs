//! `origin-sync verify`: releases are read back, blob by blob, hashed, decoded and compared; and asked for at the edges.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::options::{BucketArgs, EdgeArgs, OutputArgs, REQUESTS, TrustArgs};
use super::output::{self, Table, grouped};
use super::{Code, Failure};
use crate::lanes::each;
use crate::now;
use crate::promote::line::Place;
use crate::promote::{door, flip, manifest};
use crate::push::plan::FILE_BYTES_MAX;
use crate::release::{Channel, File, Manifest, Name, Role, Sha256, Version, coding, layout};
use crate::remote::Remote;

/// What to verify.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What is released
    name: Name,
    /// The versions [default: those that aliases point to, or all where there is no alias]
    versions: Vec<Version>,
    #[command(flatten)]
    bucket: BucketArgs,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    edges: EdgeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Default, Serialize)]
struct Verified {
    /// A version in the bucket, or what was asked for at an edge.
    what: String,
    right: usize,
    wrong: Vec<String>,
}

pub(super) async fn run(arguments: Arguments) -> Result<Code, Failure> {
    let trust = arguments.trust.trust(&[])?;
    let remote = arguments.bucket.connect().await?;
    let channel = match trust.of(Role::Channel).next() {
        Some(_) => flip::read(&remote, &arguments.name, &trust)
            .await?
            .map(|in_force| in_force.opened.document),
        None => None,
    };
    let mut versions = arguments.versions.clone();
    if versions.is_empty() {
        versions = match &channel {
            Some(channel) => channel
                .aliases
                .values()
                .map(|pointer| pointer.version.clone())
                .collect(),
            None => {
                let listed = remote.list(&layout::manifests(&arguments.name)).await?;
                listed
                    .iter()
                    .filter_map(|object| Some(layout::manifest_of(&object.key)?.1))
                    .collect()
            }
        };
        versions.sort();
        versions.dedup();
    }
    let mut all = Vec::new();
    all.extend(channel.as_ref().map(channel_verified));
    for version in &versions {
        let opened = manifest(&remote, &arguments.name, version, &trust).await?;
        all.push(in_bucket(&remote, &opened.document, &arguments).await?);
        all.extend(at_edges(&remote, &opened.document, channel.as_ref(), &arguments).await?);
    }
    if all.is_empty() {
        return Err(Failure::usage(format!(
            "nothing of {} is released",
            arguments.name
        )));
    }
    match arguments.output.json {
        true => output::json(&all)?,
        false => output::print(&shown(&all))?,
    }
    match all.iter().map(|verified| verified.wrong.len()).sum() {
        0 => Ok(Code::Done),
        wrong => Err(Failure::partly(format!(
            "{wrong} forms are wrong; nothing was changed"
        ))),
    }
}

/// What browsers would be told under aliases must be good now.
fn channel_verified(channel: &Channel) -> Verified {
    let now = now::seconds();
    let mut verified = Verified {
        what: format!("{} serial {}", channel.name, channel.serial),
        ..Verified::default()
    };
    if channel.expired(now) {
        verified
            .wrong
            .push("the channel has expired: promote without a version signs it again".into());
    }
    for (digest, fields) in &channel.integrity {
        match fields.verify(digest, now) {
            Ok(_) => verified.right += 1,
            Err(why) => verified.wrong.push(format!("{digest}: {why}")),
        }
    }
    verified
}

async fn in_bucket(remote: &Remote, manifest: &Manifest, arguments: &Arguments) -> Result<Verified, Failure> {
    let part = arguments.output.progress().part("read", manifest.files.len());
    let checked = each(manifest.files.clone(), REQUESTS.min(8), |file| {
        let (remote, step) = (remote.clone(), part.clone());
        async move {
            let checked = file_verified(&remote, &file).await;
            step.step();
            Ok::<_, crate::remote::Error>(checked)
        }
    });
    let checked: Vec<(usize, Vec<String>)> = checked.await?;
    part.done(&format!("{} {}", manifest.name, manifest.version));
    Ok(Verified {
        what: format!("{} {}", manifest.name, manifest.version),
        right: checked.iter().map(|(right, _)| right).sum(),
        wrong: checked.into_iter().flat_map(|(_, wrong)| wrong).collect(),
    })
}

async fn file_verified(remote: &Remote, file: &File) -> (usize, Vec<String>) {
    let mut right = 0;
    let mut wrong = Vec::new();
    let path = &file.path;
    let mut judge = |form: &str, judged: Result<(), String>| match judged {
        Ok(()) => right += 1,
        Err(why) => wrong.push(format!("{path} {form}: {why}")),
    };
    let whole = read(remote, &file.sha256, file.size).await;
    judge("identity", whole.as_ref().map(|_| ()).map_err(Clone::clone));
    if let Some(fields) = &file.integrity {
        let verified = fields.verify(&file.sha256, now::seconds());
        judge("integrity", verified.map(|_| ()).map_err(|why| why.to_string()));
    }
    for coding in &file.codings {
        let judged = async {
            let coded = read(remote, &coding.sha256, coding.size).await?;
            let dictionary = match &coding.dictionary {
                Some(digest) => Some(read(remote, digest, coding::DICTIONARY_BYTES_MAX as u64).await?),
                None => None,
            };
            let (name, size, digest) = (coding.name, file.size, file.sha256);
            let decoded = tokio::task::spawn_blocking(move || {
                let decoded = coding::decode(name, &coded, dictionary.as_deref(), size);
                decoded.map(|bytes| Sha256::of(&bytes) == digest)
            });
            match decoded.await {
                Ok(Ok(true)) => Ok(()),
                Ok(Ok(false)) => Err("it decodes to something else".to_owned()),
                Ok(Err(error)) => Err(super::chain(&error)),
                Err(error) => Err(error.to_string()),
            }
        };
        judge(coding.name.as_str(), judged.await);
    }
    (right, wrong)
}

async fn read(remote: &Remote, digest: &Sha256, size: u64) -> Result<bytes::Bytes, String> {
    match remote.blob(digest, size.min(FILE_BYTES_MAX)).await {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(format!("{} is not in the bucket", layout::blob(digest))),
        Err(error) => Err(super::chain(&error)),
    }
}

async fn at_edges(
    remote: &Remote,
    manifest: &Manifest,
    channel: Option<&Channel>,
    arguments: &Arguments,
) -> Result<Vec<Verified>, Failure> {
    let Some(site) = &arguments.edges.site else {
        return Ok(Vec::new());
    };
    let mut segments: BTreeMap<String, Option<&Channel>> =
        BTreeMap::from([(manifest.version.to_string(), None)]);
    for (alias, pointer) in channel.into_iter().flat_map(|channel| &channel.aliases) {
        if pointer.version == manifest.version {
            segments.insert(alias.to_string(), channel);
        }
    }
    let dictionaries: HashMap<Sha256, bytes::Bytes> = crate::promote::dictionaries(remote, manifest).await;
    // Without an edge, whoever the site's name leads to is asked.
    let mut doors: Vec<(String, Option<String>)> = arguments
        .edges
        .all()
        .into_iter()
        .map(|edge| (edge.admin, edge.door))
        .collect();
    if doors.is_empty() {
        doors.push((site.clone(), None));
    }
    let mut all = Vec::new();
    for (shown, via) in doors {
        let place = Place::new(site, via.as_deref(), arguments.edges.ca.as_deref())?;
        for (segment, channel) in &segments {
            let now = now::seconds();
            let (right, wrong) = door::check(&place, manifest, segment, *channel, &dictionaries, now).await;
            let what = format!("{} {segment} at {shown}", manifest.name);
            all.push(Verified { what, right, wrong });
        }
    }
    Ok(all)
}

fn shown(all: &[Verified]) -> String {
    let mut table = Table::new(&["what", "right", "wrong"]);
    let mut lines = String::new();
    for verified in all {
        let counts = [verified.right, verified.wrong.len()].map(|count| grouped(count as u64));
        table.row([verified.what.clone()].into_iter().chain(counts));
        for wrong in &verified.wrong {
            lines.push_str(&format!("  {}: {wrong}\n", verified.what));
        }
    }
    format!("{table}{lines}")
}
