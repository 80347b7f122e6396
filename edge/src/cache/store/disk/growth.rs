//! How far a body has come that is on its way to the disk: it may come at several places at once, each of which ends where
//! the next one began.

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Failed,
    Open,
    Whole,
}

/// What begins so far beyond what has come of a large body does not wait for that: the body comes there as well.
pub const FAR_BYTES: u64 = 8 * 1024 * 1024;

/// What has been written so far. The first place is the body's beginning.
#[derive(Clone, Debug)]
pub(super) struct Growth {
    /// In order; none begins within another.
    spans: Vec<Span>,
    pub(super) end: Ending,
}

/// From `first` on, up to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: u64,
    end: u64,
    /// Whether more is on its way.
    grows: bool,
}

impl Growth {
    pub(super) fn new() -> Self {
        let first = Span {
            first: 0,
            end: 0,
            grows: true,
        };
        Self {
            spans: vec![first],
            end: Ending::Open,
        }
    }

    /// The place up to which can be read without a gap, from `at` on.
    pub(super) fn reach(&self, at: u64) -> u64 {
        let mut reach = at;
        for span in &self.spans {
            if span.first <= reach && reach < span.end {
                reach = span.end;
            }
        }
        reach
    }

    /// Whether the byte at `at` is there, or will be when something that comes has gone on for at most `far` bytes.
    pub(super) fn is_near(&self, at: u64, far: u64) -> bool {
        let near = |span: &Span| {
            let ahead = if span.grows { far } else { 0 };
            span.first <= at && at < span.end.saturating_add(ahead).max(span.end)
        };
        self.spans.iter().any(near)
    }

    /// Begins at another place. `false` where something has come already, or begins there.
    pub(super) fn begin(&mut self, first: u64) -> bool {
        let taken = |span: &Span| span.first == first || (span.first < first && first < span.end);
        if self.end != Ending::Open || self.spans.iter().any(taken) {
            return false;
        }
        let place = self.spans.partition_point(|span| span.first < first);
        let span = Span {
            first,
            end: first,
            grows: true,
        };
        self.spans.insert(place, span);
        true
    }

    /// Goes on at a place that was left, where it ended; as one with it.
    pub(super) fn go_on(&mut self, at: u64) -> Option<u64> {
        // The last of them: where nothing came at a place, that is where it ends as well.
        let span = self.spans.iter_mut().rev().find(|span| span.end == at)?;
        span.grows = true;
        Some(span.first)
    }

    /// Where what began at `first` ends at last: where the next one began.
    pub(super) fn limit(&self, first: u64) -> Option<u64> {
        let next = self.spans.iter().find(|span| span.first > first);
        next.map(|span| span.first)
    }

    /// What began at `first` has come up to `end`.
    pub(super) fn grow(&mut self, first: u64, end: u64) {
        if let Some(span) = self.spans.iter_mut().find(|span| span.first == first) {
            span.end = span.end.max(end);
        }
    }

    /// Nothing more comes at what began at `first`. Unless it is `done`, it is as if it had never begun: whoever comes from
    /// before goes on there, with a connection that has the right version.
    pub(super) fn leave(&mut self, first: u64, done: bool) {
        if !done {
            self.spans.retain(|span| span.first != first || first == 0);
        }
        if let Some(span) = self.spans.iter_mut().find(|span| span.first == first) {
            span.grows = false;
        }
    }

    /// Whether something comes where the body ends for who reads it from its beginning.
    pub(super) fn grows_on(&self) -> bool {
        let reach = self.reach(0);
        self.spans.iter().any(|span| span.grows && span.end == reach)
    }

    /// How many grow.
    pub(super) fn growing(&self) -> usize {
        self.spans.iter().filter(|span| span.grows).count()
    }

    /// The first stretch that is missing of a body of `length` bytes.
    pub(super) fn gap(&self, length: u64) -> Option<(u64, u64)> {
        let from = self.reach(0);
        let next = self.spans.iter().find(|span| span.first > from);
        let to = next.map_or(length, |span| span.first);
        (from < length).then_some((from, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_at_several_places_becomes_one() {
        let mut growth = Growth::new();
        growth.grow(0, 10);
        assert_eq!((growth.reach(0), growth.reach(5), growth.reach(10)), (10, 10, 10));
        assert!(growth.begin(100) && !growth.begin(100) && !growth.begin(5));
        assert_eq!((growth.limit(0), growth.limit(100)), (Some(100), None));
        assert_eq!(growth.gap(200), Some((10, 100)));
        growth.grow(100, 150);
        assert_eq!((growth.reach(120), growth.reach(50)), (150, 50));
        assert!(growth.begin(180));
        assert_eq!(growth.limit(100), Some(180));
        growth.grow(0, 100);
        assert_eq!(growth.reach(3), 150, "they met");
        growth.grow(100, 180);
        growth.grow(180, 200);
        assert_eq!((growth.reach(0), growth.gap(200)), (200, None));
        assert_eq!(growth.growing(), 3);
    }

    #[test]
    fn near_is_what_comes_before_long() {
        let mut growth = Growth::new();
        growth.grow(0, 10);
        assert!(growth.is_near(9, 5) && growth.is_near(14, 5));
        assert!(!growth.is_near(15, 5));
        growth.begin(100);
        assert!(growth.is_near(100, 5) && growth.is_near(104, 5) && !growth.is_near(99, 5));
        growth.leave(100, true);
        assert!(!growth.is_near(100, 5), "nobody goes on there");
        growth.leave(0, false);
        assert!(growth.is_near(9, 5) && !growth.is_near(10, 5));
    }

    #[test]
    fn a_gap_is_closed_before_what_comes_behind_it_has_ended() {
        let mut growth = Growth::new();
        growth.grow(0, 10);
        assert!(growth.begin(10) && growth.begin(50));
        growth.leave(0, true);
        assert!(
            growth.grows_on(),
            "the next place goes on where the first one ended"
        );
        growth.grow(10, 20);
        growth.leave(10, true);
        assert!(
            !growth.grows_on(),
            "far behind it comes, and that is waited for by nobody"
        );
        assert_eq!(growth.gap(100), Some((20, 50)));
        growth.leave(50, false);
        assert_eq!((growth.grows_on(), growth.gap(100)), (false, Some((20, 100))));
    }

    #[test]
    fn what_was_left_is_a_gap_and_is_gone_on_with() {
        let mut growth = Growth::new();
        growth.grow(0, 40);
        growth.begin(60);
        growth.begin(70);
        growth.grow(60, 70);
        growth.leave(60, true);
        growth.grow(70, 80);
        assert_eq!(growth.reach(60), 80);
        growth.leave(70, false);
        assert_eq!((growth.limit(60), growth.reach(60)), (None, 70));
        growth.grow(0, 60);
        growth.leave(0, true);
        assert_eq!((growth.growing(), growth.gap(100)), (0, Some((70, 100))));
        assert_eq!(growth.go_on(70), Some(60));
        growth.grow(60, 100);
        assert_eq!(growth.gap(100), None);
        assert_eq!(growth.go_on(71), None);
        // A place at which nothing came bounds nobody.
        let mut growth = Growth::new();
        growth.begin(60);
        assert_eq!(growth.limit(0), Some(60));
        growth.leave(60, false);
        assert_eq!((growth.limit(0), growth.gap(100)), (None, Some((0, 100))));
    }
}
