//! Revalidation behind the client's back (RFC 5861 section 3).
//!
//! It is an ordinary fetch that nobody waits for. The collapse table bounds it to one per key; the number in all is
//! bounded here, and above it the stale response is served and the next request tries again.

use std::sync::Arc;

use super::Exchange;
use super::order::Order;

/// How many keys may be revalidated at once.
const REVALIDATIONS_MAX: usize = 256;

impl Exchange {
    /// Starts a revalidation unless one is under way, or too many are.
    pub(super) fn revalidate(self: &Arc<Self>, order: Order) {
        if self.cache.flights.len() >= REVALIDATIONS_MAX {
            self.metrics().revalidations_skipped.inc();
            return;
        }
        drop(self.begin(order));
    }
}
