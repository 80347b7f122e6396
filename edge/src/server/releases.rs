//! What the releases of a node stand on.

use super::Ground;
use crate::config::Config;
use crate::origin::Origins;
use crate::release::{self, Releases};

impl Ground {
    /// The releases of every site, as they were last good; followed from now on.
    pub(super) fn releases(&self, config: &Config, origins: &Origins) -> Releases {
        let ground = release::Ground {
            clock: self.clock.clone(),
            drain: self.drain.clone(),
            readiness: self.readiness.clone(),
            metrics: release::Metrics::register(&self.registry),
        };
        Releases::start(config, origins, ground)
    }
}
