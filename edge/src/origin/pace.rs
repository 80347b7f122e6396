//! Whether bytes come at a decent pace: a body that drips is as good as one that has stalled.

use std::time::Duration;

/// A body that brings less than this in a window of waiting is taken for stalled.
const BYTES_MIN: u64 = 16 * 1024;
/// The window, in deadlines between bytes.
pub(super) const WINDOW_DEADLINES: u32 = 4;

/// How much came in how much waiting. Time that the reader takes does not count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Counts; whether too little came in a whole window.
    pub(super) fn is_stalled(&mut self, waited: Duration, bytes: u64, window: Duration) -> bool {
        self.waited += waited;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.waited < window {
            return false;
        }
        std::mem::take(self).bytes < BYTES_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dripping_is_told_from_a_slow_line_and_from_a_slow_reader() {
        const WINDOW: Duration = Duration::from_secs(8);
        let stalls = |waited_ms, bytes| {
            let mut pace = Pace::default();
            (0..100).any(|_| pace.is_stalled(Duration::from_millis(waited_ms), bytes, WINDOW))
        };
        assert!(stalls(1000, 1), "a byte a second");
        assert!(!stalls(1000, 4096), "four kilobytes a second");
        assert!(!stalls(0, 1), "the reader took the time");
    }
}
