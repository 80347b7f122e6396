//! What the disk tier counts.

use crate::telemetry::metrics::{Counter, Family, Gauge, Label, Registry};

/// The counters of the disk tier.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub(super) lookups: Family<Found>,
    pub(super) writes: Family<Written>,
    pub(super) written_bytes: Counter,
    pub(super) read_bytes: Counter,
    pub(super) skipped: Family<Skip>,
    pub(super) damaged: Family<Damage>,
    pub(super) evicted: Family<Evicted>,
    pub(super) errors: Family<Operation>,
    pub(super) working: Gauge,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Self {
        Self {
            lookups: registry.family(
                "edge_disk_lookups_total",
                "Lookups in the disk tier, after memory had nothing, by what was found.",
            ),
            writes: registry.family("edge_disk_writes_total", "Records written to disk, by kind."),
            written_bytes: registry.counter("edge_disk_written_bytes_total", "Bytes written to disk."),
            read_bytes: registry.counter("edge_disk_read_bytes_total", "Bytes read from disk."),
            skipped: registry.family(
                "edge_disk_skipped_total",
                "Responses that were not written to disk, by reason.",
            ),
            damaged: registry.family(
                "edge_disk_damaged_total",
                "Stored responses that were not as they had been written, by what was wrong.",
            ),
            evicted: registry.family(
                "edge_disk_evicted_total",
                "Stored responses that eviction came to, by what became of them.",
            ),
            errors: registry.family(
                "edge_disk_errors_total",
                "Operations on files that failed, by operation.",
            ),
            working: registry.gauge(
                "edge_disk_working",
                "Whether the disk tier can be used: 0 while it cannot be opened or written.",
            ),
        }
    }
}

macro_rules! label {
    ($(#[$doc:meta])* $kind:ident, $name:literal, { $($(#[$inner:meta])* $variant:ident = $token:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum $kind { $($(#[$inner])* $variant),+ }

        impl Label for $kind {
            const NAME: &'static str = $name;
            const VALUES: &'static [&'static str] = &[$($token),+];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

label!(
    /// What a lookup found.
    Found, "found", {
        /// Another key with the same fingerprint.
        Foreign = "foreign",
        Hit = "hit",
        Miss = "miss",
        /// Too many reads wait.
        Overloaded = "overloaded",
    }
);

label!(
    /// What was written.
    Written, "kind", {
        Body = "body",
        External = "external",
        Gone = "gone",
        Inline = "inline",
        Spared = "spared",
    }
);

label!(
    /// Why something was not written.
    Skip, "reason", {
        /// It was asked for once, and the disk is full.
        Admission = "admission",
        /// The disk is too slow for it.
        Busy = "busy",
        /// A write failed a moment ago, or this one did.
        Failed = "failed",
        /// The queue is full.
        QueueFull = "queue-full",
        TooLarge = "too-large",
    }
);

label!(
    /// What was wrong.
    Damage, "what", {
        Body = "body",
        File = "file",
        Record = "record",
    }
);

label!(
    /// What became of it.
    Evicted, "how", {
        Removed = "removed",
        Spared = "spared",
    }
);

label!(
    /// An operation on files.
    Operation, "operation", {
        Read = "read",
        Remove = "remove",
        Write = "write",
    }
);
