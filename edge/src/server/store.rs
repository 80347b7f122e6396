//! The store of a node: memory, the disk below it, and the purges that both obey.

use std::sync::Arc;

use super::Ground;
use crate::cache::epoch::Epochs;
use crate::cache::store::{Budget, Disk, Memory, disk};
use crate::{config, exchange};

/// Bodies on disk up to this length are read into memory when they are asked for; longer ones stream from there.
const PROMOTED_BYTES_MAX: u64 = 8 * 1024 * 1024;

impl Ground {
    /// The memory cap, split once: a quarter for bodies in flight, the rest for what is stored. The disk tier below it, if
    /// it can be had; the node serves without it when not.
    pub(super) fn cache(&self, config: &config::Cache) -> exchange::Cache {
        let in_flight = config.memory_bytes / 4;
        let budget = Budget::new(in_flight);
        let shown = budget.clone();
        self.registry.gauge_fn(
            "edge_cache_in_flight_bytes",
            "Bytes held by bodies in flight.",
            move || shown.used() as f64,
        );
        let memory = Memory::new(config.memory_bytes - in_flight, &self.registry);
        let object_bytes_max = config.object_bytes_max.min(in_flight);
        let disk = config.disk.as_ref().and_then(|disk| {
            let options = disk::Options {
                path: &disk.path,
                size: disk.size_bytes,
                promoted_max: object_bytes_max.min(PROMOTED_BYTES_MAX),
            };
            let opened = Disk::open(
                &options,
                &memory,
                self.clock.clone(),
                &self.registry,
                Arc::default(),
            );
            opened
                .inspect_err(|error| {
                    let cause = std::error::Error::source(error).map(ToString::to_string);
                    tracing::error!(%error, cause, "the disk cache is not used; the node serves from memory");
                })
                .ok()
        });
        // What was purged before the end is purged still; a disk that cannot say so is not used.
        let purges = disk.as_ref().map(Disk::purges);
        let (disk, epochs) = match purges {
            None => (None, Epochs::default()),
            Some(Ok(epochs)) => (disk, epochs),
            Some(Err(error)) => {
                tracing::error!(%error, "the record of purges cannot be written; the disk cache is not used");
                (None, Epochs::default())
            }
        };
        exchange::Cache {
            memory,
            disk,
            promotions: Default::default(),
            epochs: Arc::new(epochs),
            budget,
            object_bytes_max,
            flights: Default::default(),
        }
    }
}
