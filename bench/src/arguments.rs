//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::disk;
use crate::instructions;
use crate::raw;
use crate::scenario;

/// Measures the edge beside its peers.
#[derive(Debug, Parser)]
#[command(name = "bench", version, about, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Which peers are here, in which version, and which command installs the rest
    Peers(Here),
    /// Hits of 1 and 10 KiB, as fast as they come
    Hit(Run),
    /// Hits of 100 KiB and 10 MiB, as fast as they come
    Large(Run),
    /// New connections, full and resumed, with one request each
    Handshake(Run),
    /// Memory of idle TLS connections
    Idle(Run),
    /// Latencies of hits at a fixed rate, from when each request was due
    Latency(Run),
    /// Misses beside a bare GET by the SDK, the bucket at 30 ms
    Miss(Run),
    /// Many clients at once for one cold object of 2 MB, the bucket at 50 ms
    Collapse(Run),
    /// The login widgets in each coding
    Coding(Run),
    /// The workload of login widgets and tenants
    Real(Run),
    /// Everything above
    All(Run),
    /// The disk tier: filling it, opening it after a crash, reading from it
    Disk(disk::Arguments),
    /// Instructions of the request path, counted by valgrind, beside the committed counts
    Instructions(instructions::Arguments),
    /// Nanoseconds of the same parts, by criterion, beside those of the last time; for a quiet machine
    Micro(instructions::MicroArguments),
    /// The origin that the servers ask: serves a folder until it is ended
    #[command(hide = true)]
    Origin {
        /// The folder
        folder: PathBuf,
    },
    /// The floor that servers are measured against: serves a folder until it is ended
    #[command(hide = true)]
    Raw(raw::Arguments),
    /// Bare GETs by the SDK
    #[command(hide = true)]
    Sdk(scenario::SdkArguments),
    /// One case of the request path, again and again
    #[command(hide = true)]
    Case(instructions::CaseArguments),
}

/// Where things are.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Here {
    /// The Python environment that wheels are in
    #[arg(long, value_name = "DIR", default_value = "target/bench-venv")]
    pub(crate) venv: PathBuf,
}

/// What to measure, and how.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Run {
    /// Only these peers: their names, or what these begin with up to a dash; "none" for the edge alone
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) peers: Vec<String>,
    /// The edge's program [default: dist/edge or release/edge in the target folder]
    #[arg(long, value_name = "PATH")]
    pub(crate) edge: Option<PathBuf>,
    /// An earlier build of the edge, to be measured beside it as `edge-before`
    #[arg(long, value_name = "PATH")]
    pub(crate) before: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) here: Here,
    /// A smoke test: short runs, few connections; everything is compared, and no figure means anything
    #[arg(long)]
    pub(crate) quick: bool,
    /// Rounds that count; each asks every server once
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rounds: Option<u16>,
    /// Seconds of each run
    #[arg(long)]
    pub(crate) seconds: Option<f64>,
    /// Requests per second where the rate is fixed
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Tenants of the real workload
    #[arg(long)]
    pub(crate) tenants: Option<u64>,
    /// Seconds to wait for a quiet machine before each run
    #[arg(long)]
    pub(crate) patience: Option<u64>,
    /// Print JSON instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// Also draw the processor times into this file
    #[arg(long, value_name = "OUT.svg")]
    pub(crate) plot: Option<PathBuf>,
    /// Also write the tables, with date, versions, machine and command, into this file
    #[arg(long, value_name = "OUT.md")]
    pub(crate) markdown: Option<PathBuf>,
    /// Keep what comes of each scenario in this folder, run only those that are not in it yet, and report all that are
    #[arg(long, value_name = "DIR")]
    pub(crate) pieces: Option<PathBuf>,
    /// Where widgets are kept for the next time
    #[arg(long, value_name = "DIR", default_value = "target/bench-content")]
    pub(crate) content: PathBuf,
    /// Where servers write, a folder in it for this run [default: the system's folder for such things]
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch: Option<PathBuf>,
    /// Leave that folder behind: configurations, logs
    #[arg(long)]
    pub(crate) keep: bool,
}
