//! The scenarios: each asks every server in turn, round by round, so that what disturbs one disturbs the others.

mod coding;
mod collapse;
mod handshake;
mod hit;
mod idle;
mod lab;
mod latency;
mod miss;
mod real;
mod sdk;

pub(crate) use lab::{Lab, Plan, Scale, block_on};
pub(crate) use sdk::{Arguments as SdkArguments, serve as serve_sdk};

use crate::error::Result;
use crate::peer::Server;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scenario {
    Hit,
    Large,
    Handshake,
    Idle,
    Latency,
    Miss,
    Collapse,
    Coding,
    Real,
}

impl Scenario {
    /// All of them, in the order in which they are run.
    pub(crate) const ALL: [Self; 9] = [
        Self::Hit,
        Self::Large,
        Self::Handshake,
        Self::Idle,
        Self::Latency,
        Self::Miss,
        Self::Collapse,
        Self::Coding,
        Self::Real,
    ];

    /// Its name on the command line.
    pub(crate) fn token(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Large => "large",
            Self::Handshake => "handshake",
            Self::Idle => "idle",
            Self::Latency => "latency",
            Self::Miss => "miss",
            Self::Collapse => "collapse",
            Self::Coding => "coding",
            Self::Real => "real",
        }
    }

    /// What it is about, for a heading.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Hit => "small hits, as fast as they come",
            Self::Large => "large hits, as fast as they come",
            Self::Handshake => "a new connection for each request, 1 KiB",
            Self::Idle => "memory of idle connections",
            Self::Latency => "10 KiB hits at a fixed rate",
            Self::Miss => "10 KiB that nobody asked for before, the bucket at 30 ms",
            Self::Collapse => "one cold object of 2 MB for all at once, the bucket at 50 ms",
            Self::Coding => "the login widgets in each coding",
            Self::Real => "the workload of login widgets and tenants",
        }
    }

    /// Whether it needs the widgets of npm.
    pub(crate) fn needs_widgets(self) -> bool {
        matches!(self, Self::Coding | Self::Real)
    }

    /// Runs it on all servers.
    pub(crate) fn run(self, lab: &mut Lab, servers: &[Server]) -> Result<()> {
        match self {
            Self::Hit => hit::small(lab, servers),
            Self::Large => hit::large(lab, servers),
            Self::Handshake => handshake::run(lab, servers),
            Self::Idle => idle::run(lab, servers),
            Self::Latency => latency::run(lab, servers),
            Self::Miss => miss::run(lab, servers),
            Self::Collapse => collapse::run(lab, servers),
            Self::Coding => coding::run(lab, servers),
            Self::Real => real::run(lab, servers),
        }
    }
}
