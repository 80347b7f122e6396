//! The time, for a tool whose subject it is: the one place that asks for it.

use std::time::{Instant, SystemTime};

/// The time that only goes forward.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place of the tool that asks for the time"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The time of the day.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place of the tool that asks for the time"
)]
pub(crate) fn today() -> SystemTime {
    SystemTime::now()
}
