//! `origin-sync promote` and `origin-sync rollback`: aliases move, all at once.

use std::collections::{BTreeMap, BTreeSet};

use super::options::{BucketArgs, ChannelKeyArgs, EdgeArgs, OutputArgs, REQUESTS, TrustArgs};
use super::output::{self, Table, date, grouped};
use super::{Code, Failure};
use crate::now;
use crate::promote::{self, Error, Keys, Node, Options, Report, flip};
use crate::release::{Alias, Name, SecretKey, Trust, Version};
use crate::remote::Remote;

/// What to promote.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What is released
    name: Name,
    /// The version; without one, the channel is signed again as it is, before it expires
    #[arg(requires = "alias")]
    version: Option<Version>,
    /// An alias that goes to the version; may be given more than once
    #[arg(long, requires = "version")]
    alias: Vec<Alias>,
    /// An alias that is let go; may be given more than once
    #[arg(long, value_name = "ALIAS")]
    remove: Vec<Alias>,
    /// Go back if an edge does not serve what it should
    #[arg(long)]
    auto_rollback: bool,
    #[command(flatten)]
    common: Common,
}

/// What to roll back.
#[derive(Debug, clap::Args)]
pub(super) struct RollbackArguments {
    /// What is released
    name: Name,
    /// An alias that goes back; may be given more than once
    #[arg(long, required = true)]
    alias: Vec<Alias>,
    /// The version it goes back to [default: where each of them pointed before]
    #[arg(long, value_name = "VERSION")]
    to: Option<Version>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    bucket: BucketArgs,
    #[command(flatten)]
    key: ChannelKeyArgs,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    edges: EdgeArgs,
    /// How long the channel is good: edges go on after it, and say that they are degraded
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3650))]
    expires_days: u64,
    #[command(flatten)]
    output: OutputArgs,
}

/// A bucket and the keys for it.
struct Session {
    remote: Remote,
    key: SecretKey,
    also: Vec<SecretKey>,
    trust: Trust,
}

pub(super) async fn run(arguments: Arguments) -> Result<Code, Failure> {
    let session = arguments.common.session().await?;
    let mut options = arguments.common.options(arguments.name)?;
    options.auto_rollback = arguments.auto_rollback;
    options.gone = arguments.remove.into_iter().collect();
    if let Some(version) = arguments.version {
        options.moves = arguments
            .alias
            .into_iter()
            .map(|alias| (alias, version.clone()))
            .collect();
    }
    if let Some(both) = options
        .gone
        .iter()
        .find(|alias| options.moves.contains_key(*alias))
    {
        return Err(Failure::usage(format!("{both} cannot both move and go")));
    }
    promote_with(&session, &options, arguments.common.output).await
}

pub(super) async fn rollback(arguments: RollbackArguments) -> Result<Code, Failure> {
    let session = arguments.common.session().await?;
    let mut options = arguments.common.options(arguments.name)?;
    let in_force = flip::read(&session.remote, &options.name, &session.trust).await?;
    for alias in arguments.alias {
        let pointer = in_force
            .as_ref()
            .and_then(|in_force| in_force.opened.document.aliases.get(&alias));
        let Some(pointer) = pointer else {
            return Err(Failure::usage(format!("{} has no alias {alias}", options.name)));
        };
        let Some(version) = arguments.to.clone().or_else(|| pointer.previous.clone()) else {
            return Err(Failure::usage(format!(
                "{alias} has always been at {}: say where it goes with --to",
                pointer.version
            )));
        };
        options.moves.insert(alias, version);
    }
    promote_with(&session, &options, arguments.common.output).await
}

impl Common {
    async fn session(&self) -> Result<Session, Failure> {
        let (key, also) = self.key.read()?;
        Ok(Session {
            trust: self.trust.trust(&[&key])?,
            remote: self.bucket.connect().await?,
            key,
            also,
        })
    }

    fn options(&self, name: Name) -> Result<Options, Failure> {
        Ok(Options {
            name,
            moves: BTreeMap::new(),
            gone: BTreeSet::new(),
            edges: self.edges.all(),
            canaries: self.edges.canaries.len(),
            token: self.edges.token()?,
            site: self.edges.site.clone(),
            ca: self.edges.ca.clone(),
            auto_rollback: false,
            lifetime: self.expires_days * 24 * 3600,
            now: now::seconds(),
            requests: REQUESTS,
            progress: self.output.progress(),
        })
    }
}

async fn promote_with(session: &Session, options: &Options, output: OutputArgs) -> Result<Code, Failure> {
    let keys = Keys {
        channel: &session.key,
        also: &session.also,
        trust: &session.trust,
    };
    let done = promote::promote(&session.remote, options, &keys).await;
    let report = match &done {
        Ok(report) => Some(report),
        Err(Error::Mismatch(report)) => Some(report.as_ref()),
        Err(Error::Prewarm(nodes)) => {
            output::print(&format!("{}{}\n", nodes_shown(nodes), promote::wrong(nodes)))?;
            None
        }
        Err(_) => None,
    };
    if let Some(report) = report {
        match output.json {
            true => output::json(report)?,
            false => output::print(&shown(report))?,
        }
    }
    done?;
    Ok(Code::Done)
}

fn shown(report: &Report) -> String {
    let mut text = String::new();
    for moved in &report.moved {
        let from = moved.from.as_ref().map_or("nowhere", Version::as_str);
        text.push_str(&format!(
            "{} {}: {from} -> {}\n",
            report.name, moved.alias, moved.to
        ));
    }
    text.push_str(&format!(
        "serial {}, good until {}\n",
        report.serial,
        date(report.expires)
    ));
    match report.nodes.is_empty() {
        true => text.push_str("no edge was told: they follow when they next look into the bucket\n"),
        false => text.push_str(&nodes_shown(&report.nodes)),
    }
    text.push_str(promote::wrong(&report.nodes).trim_start_matches('\n'));
    text
}

fn nodes_shown(nodes: &[Node]) -> String {
    let mut table = Table::new(&["edge", "node", "prewarmed", "serial", "served", "wrong"]);
    for node in nodes {
        table.row([
            node.edge.clone(),
            node.node.clone(),
            grouped(node.prewarmed as u64),
            output::optional(node.serial),
            grouped(node.served as u64),
            grouped(node.wrong.len() as u64),
        ]);
    }
    table.to_string()
}
