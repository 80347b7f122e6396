//! What the listeners count.

use super::admission::{Admission, Full};
use crate::telemetry::metrics::{Counter, Family, Registry};

/// Handles to the listeners' metrics.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub accepted: Counter,
    pub refused: Family<Full>,
    pub accept_errors: Counter,
}

impl Metrics {
    pub(super) fn new(registry: &Registry, admission: &Admission) -> Self {
        let open = admission.clone();
        registry.gauge_fn("edge_connections", "Connections open now.", move || {
            open.open() as f64
        });
        Self {
            accepted: registry.counter("edge_connections_total", "Connections accepted."),
            refused: registry.family(
                "edge_connections_refused_total",
                "Connections closed at once because a limit was reached.",
            ),
            accept_errors: registry.counter(
                "edge_accept_errors_total",
                "Times that a listener paused because a connection could not be accepted.",
            ),
        }
    }
}
