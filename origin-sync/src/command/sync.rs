//! `origin-sync sync`: plain files into a bucket, with media type, Cache-Control and tags by rule. For what is no release:
//! tenants' configuration, robots.txt. What is there already as it should be is not sent.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;

use super::options::{OutputArgs, REQUESTS, S3Args};
use super::output::{self, grouped};
use super::{Code, Failure};
use crate::lanes::each;
use crate::push::plan::Planned;
use crate::push::{Plan, Rules};
use crate::release::{Class, layout};
use crate::remote::{Body, Error, Expect, Remote};

/// What to copy, and where to.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folder
    dir: PathBuf,
    /// The bucket and a prefix in it
    #[arg(value_name = "s3://BUCKET/PREFIX")]
    to: String,
    #[command(flatten)]
    s3: S3Args,
    /// The rule file [default: origin-sync.toml here, if there is one]
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Delete what is below the prefix and not in the folder
    #[arg(long)]
    delete: bool,
    /// Say what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Requests at once to the bucket
    #[arg(long, value_name = "COUNT", default_value_t = REQUESTS)]
    requests: usize,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    written: Vec<String>,
    written_bytes: u64,
    same: usize,
    deleted: Vec<String>,
    dry_run: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<Code, Failure> {
    let rules = Rules::read(arguments.rules.as_deref()).map_err(|error| Failure::usage_of(&error))?;
    let remote = arguments.s3.connect(&arguments.to).await?;
    let plan = Plan::read(&arguments.dir, &rules, Class::Config)?;
    let reserved = [layout::BLOBS, layout::RELEASES, layout::CHANNELS];
    if let Some(file) = plan
        .files
        .iter()
        .find(|file| reserved.iter().any(|place| file.path.as_str().starts_with(place)))
    {
        return Err(Failure::usage(format!(
            "{}: releases live there, and are pushed",
            file.path
        )));
    }
    let part = arguments.output.progress().part("sync", plan.files.len());
    let dry_run = arguments.dry_run;
    let done = each(plan.files.clone(), arguments.requests, |file| {
        let (remote, step) = (remote.clone(), part.clone());
        async move {
            let written = one(&remote, &file, dry_run).await?;
            step.step();
            Ok::<_, Error>((file, written))
        }
    })
    .await?;
    let mut report = Report {
        dry_run,
        ..Report::default()
    };
    for (file, written) in done {
        match written {
            true => {
                report.written_bytes += file.size;
                report.written.push(file.path.to_string());
            }
            false => report.same += 1,
        }
    }
    if arguments.delete {
        report.deleted = strange(&remote, &plan).await?;
        if !dry_run {
            remote.delete(&report.deleted).await?;
        }
    }
    part.done(&format!("{} files", plan.files.len()));
    match arguments.output.json {
        true => output::json(&report)?,
        false => output::print(&shown(&report))?,
    }
    Ok(Code::Done)
}

/// Writes a file if it is not there as it should be.
async fn one(remote: &Remote, file: &Planned, dry_run: bool) -> Result<bool, Error> {
    let tags = (!file.tags.is_empty()).then(|| file.tags.join(" "));
    let there = remote.stat(file.path.as_str()).await?;
    let same = there.is_some_and(|there| {
        there.size == file.size
            && there.sha256 == Some(file.sha256.base64())
            && there.media_type.as_ref() == Some(&file.media_type)
            && there.cache_control.as_ref() == Some(&file.cache_control)
            && there.tags == tags
    });
    if same || dry_run {
        return Ok(!same);
    }
    let odd = |why: String| Error::odd(remote, "sync", file.path.as_str(), why);
    let body = Body {
        bytes: file.bytes().map_err(|error| odd(error.to_string()))?.into(),
        sha256: file.sha256,
        media_type: file.media_type.clone(),
        cache_control: file.cache_control.clone(),
        tags,
    };
    remote.put(file.path.as_str(), &body, &Expect::Anything).await?;
    Ok(true)
}

/// What is below the prefix and not in the plan; what belongs to releases is never among it.
async fn strange(remote: &Remote, plan: &Plan) -> Result<Vec<String>, Failure> {
    let known: BTreeSet<&str> = plan.files.iter().map(|file| file.path.as_str()).collect();
    let reserved = [layout::BLOBS, layout::RELEASES, layout::CHANNELS, "control/"];
    let listed = remote.list("").await?.into_iter().map(|listed| listed.key);
    let strange = listed
        .filter(|key| !known.contains(key.as_str()) && !reserved.iter().any(|place| key.starts_with(place)));
    Ok(strange.collect())
}

fn shown(report: &Report) -> String {
    let mut text: String = report.written.iter().map(|path| format!("+ {path}\n")).collect();
    text.extend(report.deleted.iter().map(|path| format!("- {path}\n")));
    let done = if report.dry_run {
        "would be written"
    } else {
        "written"
    };
    let (written, bytes) = (
        grouped(report.written.len() as u64),
        grouped(report.written_bytes),
    );
    let (same, deleted) = (grouped(report.same as u64), grouped(report.deleted.len() as u64));
    text.push_str(&format!(
        "{written} files ({bytes} bytes) {done}, {deleted} deleted, {same} are as they should be\n"
    ));
    text
}
