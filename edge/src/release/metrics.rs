//! What is counted of releases, and what is shown of each.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Track;
use crate::telemetry::metrics::{Counter, Family, Label, Registry};

/// What was not what it should have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// A blob of another digest than its name.
    Blob,
    /// A channel that is not believed.
    Channel,
    /// What the disk tier kept, with another digest than its name.
    Disk,
    /// A manifest that is not believed.
    Manifest,
}

impl Label for Rejected {
    const NAME: &'static str = "what";
    const VALUES: &'static [&'static str] = &["blob", "channel", "disk", "manifest"];

    fn index(self) -> usize {
        self as usize
    }
}

/// The metrics of releases.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// What was not what it should have been.
    pub rejections: Family<Rejected>,
    /// Deltas that were made here.
    pub deltas_made: Counter,
    /// Channels that came into force.
    pub flips: Counter,
    shown: Arc<Mutex<Vec<Weak<Track>>>>,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &Registry) -> Self {
        let shown = Arc::<Mutex<Vec<Weak<Track>>>>::default();
        let each = |name, help, value: fn(&Track) -> f64| {
            let shown = Arc::clone(&shown);
            registry.gauge_each(name, help, &["site", "release"], move || {
                let shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
                let tracks = shown.iter().filter_map(Weak::upgrade);
                tracks
                    .map(|track| {
                        let labels = vec![track.site().to_owned(), track.name().to_string()];
                        (labels, value(&track))
                    })
                    .collect()
            });
        };
        each(
            "edge_release_degraded",
            "Whether a release goes on with what was last good, for what the bucket has is not believed.",
            |track| f64::from(u8::from(track.shown().degraded.is_some())),
        );
        each(
            "edge_release_channel_serial",
            "The serial of the channel in force; 0 while there is none.",
            |track| track.shown().serial.unwrap_or_default() as f64,
        );
        each(
            "edge_release_channel_expiry_timestamp_seconds",
            "When the channel in force expires; 0 while there is none.",
            |track| track.shown().expires.unwrap_or_default() as f64,
        );
        Self {
            rejections: registry.family(
                "edge_integrity_rejections_total",
                "Bytes that were not what a release says, and were not served, by what they should have been.",
            ),
            deltas_made: registry.counter("edge_release_deltas_made_total", "Deltas that were made on demand."),
            flips: registry.counter("edge_release_channels_total", "Channels that came into force."),
            shown,
        }
    }

    /// Shows these from now on.
    pub(super) fn show(&self, tracks: Vec<Weak<Track>>) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = tracks;
    }

    /// Whether any release that is shown is degraded.
    pub(super) fn any_degraded(&self) -> bool {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown
            .iter()
            .filter_map(Weak::upgrade)
            .any(|track| track.is_degraded())
    }
}
