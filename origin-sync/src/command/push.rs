//! `origin-sync push`: a folder becomes a release.

use std::path::PathBuf;

use super::options::{OutputArgs, REQUESTS, ReleaseKeyArgs, ToArgs, TrustArgs};
use super::output::{self, Table, grouped, optional};
use super::{Code, Failure};
use crate::now;
use crate::push::{self, Cache, Keys, Options, Outcome, Report, Rules};
use crate::release::{Name, Version};

/// What to push.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folder with the files
    dir: PathBuf,
    /// What is released: the first segment of its URLs
    #[arg(long)]
    name: Name,
    /// Which version of it
    #[arg(long, value_name = "VERSION")]
    release: Version,
    #[command(flatten)]
    bucket: ToArgs,
    #[command(flatten)]
    key: ReleaseKeyArgs,
    #[command(flatten)]
    trust: TrustArgs,
    /// The rule file [default: origin-sync.toml here, if there is one]
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// How many releases before it deltas are made against
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    dictionaries: usize,
    /// Coders at once [default: as many as there are cores]
    #[arg(long, value_name = "COUNT")]
    jobs: Option<usize>,
    /// Requests at once to the bucket
    #[arg(long, value_name = "COUNT", default_value_t = REQUESTS)]
    requests: usize,
    /// Where coded forms are kept between runs [default: ~/.cache/origin-sync]
    #[arg(long, value_name = "DIR", env = "ORIGIN_SYNC_CACHE")]
    cache: Option<PathBuf>,
    /// Keep no coded forms
    #[arg(long, conflicts_with = "cache")]
    no_cache: bool,
    /// Plan and code, and write nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(arguments: Arguments) -> Result<Code, Failure> {
    let rules = Rules::read(arguments.rules.as_deref()).map_err(|error| Failure::usage_of(&error))?;
    let (key, also) = arguments.key.read()?;
    let trust = arguments.trust.trust(&[&key])?;
    let remote = arguments.bucket.connect().await?;
    let options = Options {
        dir: arguments.dir,
        name: arguments.name,
        version: arguments.release,
        dictionaries: arguments.dictionaries,
        dry_run: arguments.dry_run,
        jobs: arguments.jobs.unwrap_or_else(super::cores),
        requests: arguments.requests,
        cache: Cache::new(match arguments.no_cache {
            true => None,
            false => arguments.cache.or_else(Cache::default_dir),
        }),
        progress: arguments.output.progress(),
        now: now::seconds(),
    };
    let keys = Keys {
        release: &key,
        also: &also,
        trust: &trust,
    };
    let report = push::push(&remote, &options, &rules, &keys).await?;
    match arguments.output.json {
        true => output::json(&report)?,
        false => output::print(&shown(&report))?,
    }
    Ok(Code::Done)
}

fn shown(report: &Report) -> String {
    let mut table = Table::new(&["file", "bytes", "gzip", "br", "dcb"]);
    for file in &report.files {
        let deltas = file.dcb.iter().map(|delta| match &delta.from {
            Some(from) => format!("{} from {from}", grouped(delta.bytes)),
            None => grouped(delta.bytes),
        });
        let deltas: Vec<String> = deltas.collect();
        let deltas = if deltas.is_empty() {
            "-".to_owned()
        } else {
            deltas.join(", ")
        };
        table.row([
            file.path.clone(),
            grouped(file.identity),
            optional(file.gzip),
            optional(file.br),
            deltas,
        ]);
    }
    let Report {
        name,
        version,
        blobs_stored,
        blobs_stored_bytes,
        blobs_there,
        ..
    } = report;
    let bytes = grouped(*blobs_stored_bytes);
    let result = match report.outcome {
        Outcome::Already => {
            format!("{name} {version} was released already, as it is here; {blobs_stored} blobs were missing")
        }
        Outcome::Planned => format!(
            "{name} {version} would store {blobs_stored} blobs ({bytes} bytes); {blobs_there} are there"
        ),
        Outcome::Pushed => {
            format!(
                "{name} {version} is released: {blobs_stored} blobs ({bytes} bytes) stored, {blobs_there} were there"
            )
        }
    };
    format!("{table}{result}\n")
}
