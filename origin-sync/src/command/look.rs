//! `origin-sync status`, `diff` and `sri`: what is released, and how pages load it. Nothing is written.

use std::collections::BTreeSet;

use serde::Serialize;

use super::options::{BucketArgs, EdgeArgs, OutputArgs, TrustArgs};
use super::output::{self, Table, date, grouped, optional};
use super::{Code, Failure};
use crate::now;
use crate::promote::edges::Edge;
use crate::promote::flip::{self, InForce};
use crate::promote::manifest;
use crate::push::media::pinnable;
use crate::release::integrity;
use crate::release::{Alias, Channel, CodingName, File, Manifest, Name, Role, Trust, Version, layout};
use crate::remote::{Listed, Remote};

/// What to say.
#[derive(Debug, clap::Args)]
pub(super) struct StatusArguments {
    /// Only of this name
    name: Option<Name>,
    #[command(flatten)]
    bucket: BucketArgs,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    edges: EdgeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What to compare.
#[derive(Debug, clap::Args)]
pub(super) struct DiffArguments {
    /// What is released
    name: Name,
    /// The version before
    before: Version,
    /// The version after
    after: Version,
    #[command(flatten)]
    bucket: BucketArgs,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What to load.
#[derive(Debug, clap::Args)]
pub(super) struct SriArguments {
    /// What is released
    name: Name,
    /// A version, or an alias
    version: Version,
    /// Only this file
    path: Option<String>,
    /// Where browsers ask
    #[arg(long, value_name = "https://HOST", default_value = "https://cdn.example.com")]
    site: String,
    #[command(flatten)]
    bucket: BucketArgs,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Serialize)]
struct Status {
    name: Name,
    channel: Option<Channel>,
    expired: bool,
    releases: Vec<Version>,
    edges: Vec<EdgeStatus>,
}

#[derive(Debug, Serialize)]
struct EdgeStatus {
    edge: String,
    node: String,
    serial: Option<u64>,
    note: Option<String>,
}

pub(super) async fn status(arguments: StatusArguments) -> Result<Code, Failure> {
    let trust = arguments.trust.trust(&[])?;
    let remote = arguments.bucket.connect().await?;
    let names: BTreeSet<Name> = match arguments.name {
        Some(name) => BTreeSet::from([name]),
        None => {
            let channels = remote.list(layout::CHANNELS).await?;
            let releases = remote.list(layout::RELEASES).await?;
            let of_channels = channels
                .iter()
                .filter_map(|listed| layout::channel_of(&listed.key));
            let of_releases = releases
                .iter()
                .filter_map(|listed| Some(layout::manifest_of(&listed.key)?.0));
            of_channels.chain(of_releases).collect()
        }
    };
    let token = arguments.edges.token()?;
    let mut all = Vec::new();
    for name in names {
        let in_force = flip::read(&remote, &name, &trust).await?;
        let channel = in_force.map(|in_force| in_force.opened.document);
        let listed = remote.list(&layout::manifests(&name)).await?;
        let mut edges = Vec::new();
        for named in arguments.edges.all() {
            let edge = Edge::new(named, token.clone())?;
            edges.push(ask(&edge, &name, channel.as_ref()).await);
        }
        all.push(Status {
            expired: channel
                .as_ref()
                .is_some_and(|channel| channel.expired(now::seconds())),
            releases: Listed::newest_first(&listed)
                .into_iter()
                .map(|(version, _)| version)
                .collect(),
            name,
            channel,
            edges,
        });
    }
    match arguments.output.json {
        true => output::json(&all)?,
        false => output::print(&all.iter().map(status_shown).collect::<Vec<String>>().join("\n"))?,
    }
    let behind = all
        .iter()
        .flat_map(|status| &status.edges)
        .any(|edge| edge.note.is_some());
    Ok(if behind { Code::Partly } else { Code::Done })
}

async fn ask(edge: &Edge, name: &Name, channel: Option<&Channel>) -> EdgeStatus {
    let mut status = EdgeStatus {
        edge: edge.named.admin.clone(),
        node: String::new(),
        serial: None,
        note: None,
    };
    match edge.releases(name).await {
        Err(error) => status.note = Some(super::chain(&error)),
        Ok(answer) => {
            status.node = answer.node;
            match answer.releases.into_iter().find(|state| state.name == *name) {
                None => status.note = Some("no site of it releases this name".into()),
                Some(state) => {
                    status.serial = state.serial;
                    let differs = state.serial != channel.map(|channel| channel.serial);
                    let behind = differs.then(|| "not the serial of the bucket".to_owned());
                    status.note = state.degraded.or(behind);
                }
            }
        }
    }
    status
}

fn status_shown(status: &Status) -> String {
    let mut text = format!("{}: {} releases", status.name, status.releases.len());
    let newest: Vec<&str> = status.releases.iter().take(5).map(Version::as_str).collect();
    text.push_str(&format!(" ({})\n", newest.join(", ")));
    match &status.channel {
        None => text.push_str("no alias\n"),
        Some(channel) => {
            let expired = if status.expired { "EXPIRED" } else { "good until" };
            let (made, expires) = (date(channel.created), date(channel.expires));
            text.push_str(&format!(
                "serial {} of {made}, {expired} {expires}\n",
                channel.serial
            ));
            let mut table = Table::new(&["alias", "version", "before"]);
            for (alias, pointer) in &channel.aliases {
                let before = pointer.previous.as_ref().map_or("-", Version::as_str);
                table.row([alias.to_string(), pointer.version.to_string(), before.to_owned()]);
            }
            text.push_str(&table.to_string());
        }
    }
    if !status.edges.is_empty() {
        let mut table = Table::new(&["edge", "node", "serial", "note"]);
        for edge in &status.edges {
            let note = edge.note.clone().unwrap_or_default();
            table.row([edge.edge.clone(), edge.node.clone(), optional(edge.serial), note]);
        }
        text.push_str(&table.to_string());
    }
    text
}

#[derive(Debug, Serialize)]
struct Change {
    path: String,
    change: &'static str,
    before: Option<u64>,
    after: Option<u64>,
    br: Option<u64>,
    /// What a browser fetches that holds the file of the version before.
    dcb: Option<u64>,
}

pub(super) async fn diff(arguments: DiffArguments) -> Result<Code, Failure> {
    let trust = arguments.trust.trust(&[])?;
    let remote = arguments.bucket.connect().await?;
    let before = manifest(&remote, &arguments.name, &arguments.before, &trust)
        .await?
        .document;
    let after = manifest(&remote, &arguments.name, &arguments.after, &trust)
        .await?
        .document;
    let changes = changes(&before, &after);
    if arguments.output.json {
        output::json(&changes)?;
        return Ok(Code::Done);
    }
    let mut table = Table::new(&["file", "change", "before", "after", "br", "dcb"]);
    for change in &changes {
        let sizes = [change.before, change.after, change.br, change.dcb].map(optional);
        table.row(
            [change.path.clone(), change.change.to_owned()]
                .into_iter()
                .chain(sizes),
        );
    }
    let same = after.files.len() - changes.iter().filter(|change| change.after.is_some()).count();
    output::print(&format!("{table}{} files are the same\n", grouped(same as u64)))?;
    Ok(Code::Done)
}

fn changes(before: &Manifest, after: &Manifest) -> Vec<Change> {
    let paths: BTreeSet<&str> = before
        .files
        .iter()
        .chain(&after.files)
        .map(|file| file.path.as_str())
        .collect();
    let change = |path: &str| {
        let (old, new) = (before.file(path), after.file(path));
        let change = match (old, new) {
            (Some(old), Some(new)) if old.sha256 == new.sha256 => return None,
            (Some(_), Some(_)) => "changed",
            (None, _) => "added",
            (_, None) => "removed",
        };
        let size = |file: &File, name, dictionary| file.coding(name, dictionary).map(|coding| coding.size);
        Some(Change {
            path: path.to_owned(),
            change,
            before: old.map(|file| file.size),
            after: new.map(|file| file.size),
            br: new.and_then(|new| size(new, CodingName::Br, None)),
            dcb: new
                .zip(old)
                .and_then(|(new, old)| size(new, CodingName::Dcb, Some(&old.sha256))),
        })
    };
    paths.into_iter().filter_map(change).collect()
}

#[derive(Debug, Serialize)]
struct Sri {
    path: String,
    url: String,
    integrity: String,
    tag: String,
}

pub(super) async fn sri(arguments: SriArguments) -> Result<Code, Failure> {
    let trust = arguments.trust.trust(&[])?;
    let remote = arguments.bucket.connect().await?;
    let (version, channel) = resolve(&remote, &arguments.name, &arguments.version, &trust).await?;
    let manifest = manifest(&remote, &arguments.name, &version, &trust)
        .await?
        .document;
    let named = |file: &&File| match &arguments.path {
        Some(path) => file.path.as_str() == path,
        None => pinnable(&file.media_type),
    };
    let site = arguments.site.trim_end_matches('/');
    let mut lines = Vec::new();
    for file in manifest.files.iter().filter(named) {
        let url = format!("{site}/{}/{}/{}", arguments.name, arguments.version, file.path);
        let integrity = match &channel {
            // Under a name that moves the bytes change, and only the key stays.
            Some(_) => integrity::attribute(None, &trust.of(Role::Channel).copied().collect::<Vec<_>>()),
            None => integrity::attribute(
                Some(&file.sha384),
                &trust.of(Role::Release).copied().collect::<Vec<_>>(),
            ),
        };
        if let Some(channel) = &channel
            && !channel.opened.document.integrity.contains_key(&file.sha256)
        {
            return Err(Failure::partly(format!(
                "the channel signs nothing for {}: promote it again",
                file.path
            )));
        }
        let tag = match file.media_type.starts_with("text/css") {
            true => format!(
                r#"<link rel="stylesheet" href="{url}" integrity="{integrity}" crossorigin="anonymous">"#
            ),
            false => {
                format!(r#"<script src="{url}" integrity="{integrity}" crossorigin="anonymous"></script>"#)
            }
        };
        let path = file.path.to_string();
        lines.push(Sri {
            path,
            url,
            integrity,
            tag,
        });
    }
    if lines.is_empty() {
        return Err(Failure::usage("the release has no such file"));
    }
    match arguments.output.json {
        true => output::json(&lines)?,
        false => output::print(
            &lines
                .iter()
                .map(|line| format!("{}\n", line.tag))
                .collect::<String>(),
        )?,
    }
    Ok(Code::Done)
}

/// The version that is meant, and the channel if an alias was named.
async fn resolve(
    remote: &Remote,
    name: &Name,
    named: &Version,
    trust: &Trust,
) -> Result<(Version, Option<InForce>), Failure> {
    if trust.of(Role::Channel).next().is_none() {
        return Ok((named.clone(), None));
    }
    let in_force = flip::read(remote, name, trust).await?;
    let alias: Option<Alias> = named.as_str().parse().ok();
    let pointer = in_force
        .as_ref()
        .zip(alias)
        .and_then(|(in_force, alias)| in_force.opened.document.aliases.get(&alias).cloned());
    Ok(match pointer {
        Some(pointer) => (pointer.version, in_force),
        None => (named.clone(), None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::Sha256;
    use crate::release::manifest::tests::manifest;

    #[test]
    fn differences_are_found_by_path_and_digest() {
        let before = manifest();
        let mut after = manifest();
        after.files[0].sha256 = Sha256::of(b"new");
        after.files[0].codings[0].dictionary = Some(before.files[0].sha256);
        after.files[1].path = "a/d.js".parse().unwrap();
        let shown: Vec<(String, &str, Option<u64>)> = changes(&before, &after)
            .into_iter()
            .map(|change| (change.path, change.change, change.dcb))
            .collect();
        let expected = [
            ("a/b.js", "changed", Some(1)),
            ("a/c.js", "removed", None),
            ("a/d.js", "added", None),
        ];
        assert_eq!(
            shown,
            expected.map(|(path, change, dcb)| (path.to_owned(), change, dcb))
        );
    }
}
