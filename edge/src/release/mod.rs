//! Releases: from a path to bytes that somebody with the right key signed for, and never to any others.
//!
//! A path names a release, a version or an alias, and a file. The channel says where aliases point, manifests say which
//! blobs a version is made of; both are believed by their signatures alone, and blobs by their digests. Whoever can write
//! to the bucket can therefore withhold a release, and change nothing of it. What was last good stays in force, and is kept
//! on disk, so that nobody turns back time by waiting for a restart.
//!
//! It knows no client and no cache: the exchange asks where a path leads, which form suits, and for bytes that were checked.

pub mod delta;
mod fetch;
pub mod file;
mod keep;
mod metrics;
mod state;
mod track;
pub mod wants;

use std::collections::HashMap;
use std::sync::Arc;

use origin_sync::release::Name;
use origin_sync::release::fleet::ReleaseState;
use origin_sync::release::names::Alias;

pub use self::fetch::Checked;
pub use self::metrics::{Metrics, Rejected};
pub use self::state::{InForce, Release};
pub use self::track::Track;
use crate::clock::Clock;
use crate::config::Config;
use crate::drain::{Degraded, Drain, Readiness};
use crate::origin::Origins;
use crate::release::file::Found;

/// What releases stand on.
#[derive(Clone, Debug)]
pub struct Ground {
    /// The time.
    pub clock: Clock,
    /// By which the channels are followed.
    pub drain: Drain,
    /// Where it is said that something is not well.
    pub readiness: Readiness,
    /// What is counted.
    pub metrics: Metrics,
}

impl Ground {
    /// Says anew whether everything is well.
    fn review(&self) {
        let degraded = self.metrics.any_degraded();
        self.readiness.set_degraded(Degraded::Release, degraded);
    }
}

/// The releases of all sites.
#[derive(Debug)]
pub struct Releases {
    sites: HashMap<Box<str>, Vec<Arc<Track>>>,
    ground: Ground,
}

/// Where a path leads.
#[derive(Debug)]
pub enum Look {
    /// To this file.
    Found(Found),
    /// To nothing that was ever signed for: nobody needs to be asked.
    Nothing,
    /// Somewhere that is not known here yet: the release, and the version or alias to learn of.
    Unknown(Arc<Track>, Box<str>),
}

impl Releases {
    /// The releases of every site of `config`, as they were last good. Follows their channels from now on. Call it within
    /// the control plane's runtime.
    pub fn start(config: &Config, origins: &Origins, ground: Ground) -> Self {
        let mut sites = HashMap::new();
        for site in &config.sites {
            let (Some(releases), Some(origin)) = (&site.releases, origins.find(&site.origin)) else {
                continue;
            };
            let host = site.hosts.first().map_or("", String::as_str);
            let place = track::Place {
                site: host.into(),
                origin_name: site.origin.as_str().into(),
                origin,
                folder: config.releases.state.as_ref().map(|state| state.join(host)),
                trust: Arc::new(releases.trust.clone()),
            };
            let tracks: Vec<_> = releases
                .names
                .iter()
                .map(|name| Track::open(name.clone(), place.clone(), &ground))
                .collect();
            sites.insert(host.into(), tracks);
        }
        let releases = Self { sites, ground };
        let metrics = &releases.ground.metrics;
        metrics.show(releases.tracks().map(Arc::downgrade).collect());
        releases.ground.review();
        for track in releases.tracks() {
            track.follow(config.releases.poll);
        }
        releases
    }

    /// The releases of a reloaded configuration. What follows the old ones ends with them.
    pub fn reload(&self, config: &Config, origins: &Origins) -> Self {
        Self::start(config, origins, self.ground.clone())
    }

    /// Where `path` leads on a site, by its own name. The path is canonical.
    pub fn look(&self, site: &str, path: &str) -> Look {
        let mut segments = path.strip_prefix('/').unwrap_or(path).splitn(3, '/');
        let (Some(name), Some(segment), Some(file)) = (segments.next(), segments.next(), segments.next())
        else {
            return Look::Nothing;
        };
        let tracks = self.sites.get(site).map(Vec::as_slice).unwrap_or_default();
        match tracks.iter().find(|track| track.name().as_str() == name) {
            Some(track) => track.look(segment, file),
            None => Look::Nothing,
        }
    }

    /// Every release of every site.
    pub fn tracks(&self) -> impl Iterator<Item = &Arc<Track>> {
        self.sites.values().flatten()
    }

    /// What is in force, name by name. Where several sites have a name, that of the one that is furthest behind.
    pub fn states(&self) -> Vec<ReleaseState> {
        let mut states: HashMap<Name, ReleaseState> = HashMap::new();
        for track in self.tracks() {
            let state = track.shown();
            match states.get(&state.name) {
                Some(other) if other.serial <= state.serial => {}
                _ => drop(states.insert(state.name.clone(), state)),
            }
        }
        let mut states: Vec<_> = states.into_values().collect();
        states.sort_by(|a, b| a.name.cmp(&b.name));
        states
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.ground.metrics
    }
}

/// The alias by which a file was asked for, and the channel that says where it points.
#[derive(Clone, Debug)]
pub struct Under {
    /// The channel.
    pub channel: Arc<InForce>,
    /// The alias.
    pub alias: Alias,
}
