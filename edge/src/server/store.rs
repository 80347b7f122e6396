//! The store of a node: memory, the disk below it, and the purges that both obey.

use std::sync::Arc;

use super::Ground;
use crate::cache::epoch::Epochs;
use crate::cache::store::{Budget, Disk, Memory, disk};
use crate::{config, exchange};

/// Bodies on disk up to this length are read into memory when they are asked for; longer ones stream from there.
const PROMOTED_BYTES_MAX: u64 = 8 * 1024 * 1024;

impl Ground {
    /// The memory cap, of which the memory tier takes its share and everything else on its way the rest. The disk tier below
    /// it, if it can be had; the node serves without it when not.
    pub(super) fn cache(&self, config: &config::Cache) -> exchange::Cache {
        let budget = Budget::with_patience(config.memory_bytes, config.room_patience);
        let memory = Memory::new(budget.clone(), &self.registry);
        let (shown, stored) = (budget.clone(), memory.clone());
        self.registry.gauge_fn(
            "edge_cache_in_flight_bytes",
            "Bytes of the memory cap that are held by something other than the memory tier: bodies on their way, slow readers, coders.",
            move || shown.used().saturating_sub(stored.bytes()) as f64,
        );
        let object_bytes_max = config.object_bytes_max.min(config.memory_bytes / 4);
        let disk = config.disk.as_ref().and_then(|disk| {
            let options = disk::Options {
                path: &disk.path,
                size: disk.size_bytes,
                promoted_max: (config.memory_bytes / 32).min(PROMOTED_BYTES_MAX),
                patience: disk.patience,
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
