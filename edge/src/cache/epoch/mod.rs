//! Purge by epochs: a purge moves a number, and a lookup compares it with what a stored response remembers.
//!
//! Each purge takes the next [`Position`] and writes it down for what it purges: a URL, a tag, a prefix, a host, or
//! everything. A fetch takes the position of its start, and what it stores carries that position: a purge with a
//! higher one purges it, however long the fetch took. Nothing is scanned, whatever the number of stored responses.
//!
//! Where there is a [`Journal`], a purge is on record before it takes effect, so that it still holds after a restart. This
//! does not know the fleet's purge log, nor who may purge.

mod records;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use self::records::Records;
use super::key::Key;
use super::tag::Tag;

/// Records kept at most; the answer beyond is in [`Epochs::purge`].
const RECORDS_MAX: usize = 1_000_000;

/// A place in the sequence of purges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

impl Position {
    /// The position with this number: what [`Position::number`] gave.
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// What is purged by URL. The host is the site's own, the path canonical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// The site's own host.
    pub host: String,
    /// The canonical path, or for a prefix its beginning.
    pub path: String,
    /// The canonical query. Without one, every query of the path is purged.
    pub query: Option<String>,
}

impl Url {
    /// From the text under which it is noted.
    fn of_text(text: &str) -> Option<Self> {
        let (host, rest) = text.split_once('|')?;
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (rest, None),
        };
        Some(Self {
            host: host.into(),
            path: path.into(),
            query,
        })
    }
}

/// What is purged by prefix: every path of the host that begins with this text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The site's own host.
    pub host: String,
    /// The beginning of canonical paths, to the character.
    pub path: String,
}

/// One purge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purge {
    /// URLs.
    pub urls: Vec<Url>,
    /// Tags.
    pub tags: Vec<Tag>,
    /// Prefixes.
    pub prefixes: Vec<Prefix>,
    /// Sites' own hosts.
    pub hosts: Vec<String>,
    /// Everything.
    pub everything: bool,
    /// Whether it marks stale instead of removing.
    pub soft: bool,
}

/// How a stored response stands towards the purges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It must not be used.
    Purged,
    /// It is stale, whatever its lifetime says.
    SoftlyPurged,
    /// No purge up to `as_of` concerns it. Whoever remembers that asks again only when [`Epochs::last`] has moved.
    Valid {
        /// The last purge that was looked at.
        as_of: Position,
    },
}

/// Where purges are put on record, for a restart.
pub trait Journal: std::fmt::Debug + Send + Sync {
    /// Puts a purge on record. It blocks until it is there.
    fn note(&self, position: Position, purge: &Purge) -> io::Result<()>;

    /// Whether the record is so long that it should be written anew.
    fn is_long(&self) -> bool;

    /// Puts this on record in place of all that is there.
    fn rewrite(&self, all: &[(Position, Purge)]) -> io::Result<()>;
}

/// A purge that holds, but not beyond a restart, for it could not be put on record.
#[derive(Debug, thiserror::Error)]
#[error("the purge holds now, but it could not be put on record: a restart may bring back what it removed")]
pub struct NotOnRecord {
    /// Its position.
    pub position: Position,
    /// Why.
    pub source: io::Error,
}

/// All purges so far. Shared between threads.
#[derive(Debug)]
pub struct Epochs {
    /// Held by whoever purges: positions are given in order, also while the journal is written.
    order: Mutex<()>,
    journal: Option<Box<dyn Journal>>,
    last: AtomicU64,
    folds: AtomicU64,
    records: RwLock<Records>,
    records_max: usize,
}

impl Default for Epochs {
    fn default() -> Self {
        Self::new(Position::default())
    }
}

impl Epochs {
    /// No purge yet after `start`.
    pub fn new(start: Position) -> Self {
        Self {
            order: Mutex::new(()),
            journal: None,
            last: AtomicU64::new(start.0),
            folds: AtomicU64::new(0),
            records: RwLock::new(Records::default()),
            records_max: RECORDS_MAX,
        }
    }

    /// What a journal holds, which goes on being written; the next purge comes after `last` at least.
    pub fn restored(all: &[(Position, Purge)], last: Position, journal: Box<dyn Journal>) -> Self {
        let mut epochs = Self::new(last);
        let records = epochs.records.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (position, purge) in all {
            records.note(purge, *position, epochs.records_max);
            let highest = epochs.last.get_mut();
            *highest = (*highest).max(position.0);
        }
        epochs.journal = Some(journal);
        epochs
    }

    /// All that the purges so far come to, as purges.
    pub fn all(&self) -> Vec<(Position, Purge)> {
        self.records.read().unwrap_or_else(PoisonError::into_inner).all()
    }

    /// Whether purges are put on record, and so take their time.
    pub fn has_journal(&self) -> bool {
        self.journal.is_some()
    }

    /// The position for a fetch that begins now.
    pub fn now(&self) -> Position {
        self.last()
    }

    /// The position of the last purge: one atomic load.
    pub fn last(&self) -> Position {
        Position(self.last.load(Ordering::Acquire))
    }

    /// Purges, and says at which position. When it returns, no lookup anywhere finds what was purged.
    ///
    /// When a million records are full, the older half is folded into one number: everything fetched before it is
    /// purged. That is too much rather than too little, and counted in [`Epochs::folds`].
    pub fn purge(&self, purge: &Purge) -> Position {
        self.purge_on_record(purge)
            .unwrap_or_else(|not_on_record| not_on_record.position)
    }

    /// As [`Epochs::purge`], and tells when it could not be put on record. It blocks where there is a journal.
    ///
    /// # Errors
    ///
    /// When the journal cannot be written. The purge holds all the same, until a restart.
    pub fn purge_on_record(&self, purge: &Purge) -> Result<Position, NotOnRecord> {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let next = Position(self.last().0.saturating_add(1));
        let noted = self
            .journal
            .as_ref()
            .map_or(Ok(()), |journal| journal.note(next, purge));
        let position = self.apply(purge);
        noted.map_err(|source| NotOnRecord { position, source })?;
        if let Some(journal) = self.journal.as_ref().filter(|journal| journal.is_long()) {
            // The long one is as good, if it cannot be written.
            let _ = journal.rewrite(&self.all());
        }
        Ok(position)
    }

    fn apply(&self, purge: &Purge) -> Position {
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        // Writers are alone here, so the next number is theirs. It is published after the records stand: a fetch that
        // reads the number before that begins before the purge, and is purged by it.
        let position = Position(self.last.load(Ordering::Relaxed).saturating_add(1));
        let folded = records.note(purge, position, self.records_max);
        self.last.store(position.0, Ordering::Release);
        drop(records);
        if folded {
            self.folds.fetch_add(1, Ordering::Relaxed);
        }
        position
    }

    /// How the response stands that is stored under `key` with `tags`, fetched at `fetched_at` or later found valid
    /// as of it.
    pub fn judge(&self, key: &Key, tags: &[Tag], fetched_at: Position) -> Standing {
        let as_of = self.last();
        if as_of <= fetched_at {
            return Standing::Valid { as_of: fetched_at };
        }
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        let mark = records.latest(key, tags);
        if mark.hard > fetched_at || records.floor > fetched_at {
            return Standing::Purged;
        }
        if mark.soft > fetched_at {
            return Standing::SoftlyPurged;
        }
        // Not the number that stands now: a purge may have come since it was read, and then it was seen here as well.
        Standing::Valid { as_of }
    }

    /// Records kept now.
    pub fn records(&self) -> usize {
        self.records.read().unwrap_or_else(PoisonError::into_inner).count
    }

    /// How often the older half of the records was folded.
    pub fn folds(&self) -> u64 {
        self.folds.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::records::PREFIX_LENGTHS_MAX;
    use super::*;

    fn key(path: &str, query: Option<&str>) -> Key {
        Key::new("assets", "cdn.example.com", path, query)
    }

    fn tag(text: &str) -> Tag {
        Tag::new(text).unwrap()
    }

    fn url(path: &str, query: Option<&str>) -> Purge {
        Purge {
            urls: vec![Url {
                host: "cdn.example.com".into(),
                path: path.into(),
                query: query.map(Into::into),
            }],
            ..Purge::default()
        }
    }

    fn prefix(path: &str) -> Purge {
        Purge {
            prefixes: vec![Prefix {
                host: "cdn.example.com".into(),
                path: path.into(),
            }],
            ..Purge::default()
        }
    }

    fn host(host: &str) -> Purge {
        Purge {
            hosts: vec![host.into()],
            ..Purge::default()
        }
    }

    fn tagged(text: &str) -> Purge {
        Purge {
            tags: vec![tag(text)],
            ..Purge::default()
        }
    }

    fn everything() -> Purge {
        Purge {
            everything: true,
            ..Purge::default()
        }
    }

    #[test]
    fn what_a_purge_reaches() {
        let check = |purge: Purge, path: &str, query: Option<&str>, purged: bool| {
            for soft in [false, true] {
                let epochs = Epochs::default();
                let before = epochs.now();
                let at = epochs.purge(&Purge {
                    soft,
                    ..purge.clone()
                });
                let expected = match (purged, soft) {
                    (false, _) => Standing::Valid { as_of: at },
                    (true, false) => Standing::Purged,
                    (true, true) => Standing::SoftlyPurged,
                };
                let tags = [tag("widget"), tag("eu")];
                assert_eq!(
                    epochs.judge(&key(path, query), &tags, before),
                    expected,
                    "{purge:?} {path} {query:?}"
                );
                let after = epochs.judge(&key(path, query), &tags, epochs.now());
                assert_eq!(after, Standing::Valid { as_of: at }, "fetched after {purge:?}");
            }
        };
        check(url("/a.js", None), "/a.js", None, true);
        check(url("/a.js", None), "/a.js", Some("v=1"), true);
        check(url("/a.js", Some("v=1")), "/a.js", Some("v=1"), true);
        check(url("/a.js", Some("v=1")), "/a.js", Some("v=2"), false);
        check(url("/a.js", Some("v=1")), "/a.js", None, false);
        check(url("/a.js", None), "/a.jsx", None, false);
        check(prefix("/client/"), "/client/1.js", Some("x"), true);
        check(prefix("/client/1"), "/client/1.js", None, true);
        check(prefix("/client/1.js"), "/client/1.js", None, true);
        check(prefix("/client/1.js"), "/client/1.j", None, false);
        check(prefix("/client/"), "/client", None, false);
        check(prefix(""), "/", None, true);
        check(tagged("eu"), "/", None, true);
        check(tagged("EU"), "/", None, false);
        check(host("cdn.example.com"), "/", None, true);
        check(host("example.com"), "/", None, false);
        check(everything(), "/", None, true);
        check(Purge::default(), "/", None, false);
    }

    #[test]
    fn a_fetch_begun_before_a_purge_is_purged_however_late_it_ends() {
        let epochs = Epochs::default();
        let early = epochs.now();
        let purged_at = epochs.purge(&url("/a", None));
        let late = epochs.now();
        epochs.purge(&url("/b", None));
        assert_eq!(epochs.judge(&key("/a", None), &[], early), Standing::Purged);
        assert!(late >= purged_at);
        assert_eq!(
            epochs.judge(&key("/a", None), &[], late),
            Standing::Valid { as_of: epochs.last() }
        );
    }

    #[test]
    fn hard_wins_over_soft_in_either_order() {
        for first_soft in [false, true] {
            let epochs = Epochs::default();
            let before = epochs.now();
            for soft in [first_soft, !first_soft] {
                epochs.purge(&Purge { soft, ..tagged("t") });
            }
            let found = epochs.judge(&key("/", None), &[tag("t")], before);
            assert_eq!(found, Standing::Purged);
        }
    }

    #[test]
    fn what_was_found_valid_is_asked_again_only_after_the_next_purge() {
        let epochs = Epochs::default();
        let fetched = epochs.now();
        epochs.purge(&url("/other", None));
        let Standing::Valid { as_of } = epochs.judge(&key("/", None), &[], fetched) else {
            panic!("not concerned");
        };
        assert_eq!(as_of, epochs.last());
        epochs.purge(&everything());
        assert!(as_of < epochs.last());
        assert_eq!(epochs.judge(&key("/", None), &[], as_of), Standing::Purged);
    }

    #[test]
    fn a_repeated_purge_takes_no_more_room() {
        let epochs = Epochs::default();
        for _ in 0..10 {
            epochs.purge(&url("/a", None));
            epochs.purge(&prefix("/a"));
        }
        assert_eq!((epochs.records(), epochs.last().number()), (2, 20));
        epochs.purge(&everything());
        assert_eq!(epochs.records(), 0, "nothing older matters after everything");
    }

    #[derive(Debug, Default)]
    struct Kept(std::sync::Arc<Mutex<Vec<(Position, Purge)>>>, bool);

    impl Journal for Kept {
        fn note(&self, position: Position, purge: &Purge) -> io::Result<()> {
            if self.1 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.lock().unwrap().push((position, purge.clone()));
            Ok(())
        }

        fn is_long(&self) -> bool {
            self.0.lock().unwrap().len() > 6
        }

        fn rewrite(&self, all: &[(Position, Purge)]) -> io::Result<()> {
            *self.0.lock().unwrap() = all.to_vec();
            Ok(())
        }
    }

    #[test]
    fn what_a_journal_holds_purges_the_same_things_again() {
        let journal = Kept::default();
        let held = std::sync::Arc::clone(&journal.0);
        let epochs = Epochs::restored(&[], Position(5), Box::new(journal));
        let start = epochs.now();
        let soft = |purge: Purge| Purge { soft: true, ..purge };
        for purge in [
            url("/a", None),
            url("/q", Some("v=1?|")),
            soft(tagged("release-1")),
            prefix("/client/"),
            soft(host("other.example")),
            host("gone.example"),
            tagged("release-2"),
            url("/b", None),
        ] {
            epochs.purge_on_record(&purge).unwrap();
        }
        let middle = Position(9);
        let again = Epochs::restored(&held.lock().unwrap(), Position(5), Box::new(Kept::default()));
        assert_eq!(again.last(), epochs.last());
        let other = |host: &str| Key::new("assets", host, "/", None);
        for (key, tags) in [
            (key("/a", None), vec![]),
            (key("/a", Some("x")), vec![]),
            (key("/q", Some("v=1?|")), vec![]),
            (key("/q", None), vec![]),
            (key("/b", None), vec![]),
            (key("/client/x", None), vec![]),
            (key("/c", None), vec![tag("release-1")]),
            (key("/c", None), vec![tag("release-2")]),
            (key("/c", None), vec![]),
            (other("other.example"), vec![]),
            (other("gone.example"), vec![]),
        ] {
            for at in [start, middle, epochs.last()] {
                assert_eq!(
                    again.judge(&key, &tags, at),
                    epochs.judge(&key, &tags, at),
                    "{key} {tags:?} {at:?}"
                );
            }
        }
        assert_eq!(again.judge(&key("/a", None), &[], start), Standing::Purged);
    }

    #[test]
    fn a_purge_that_cannot_be_put_on_record_holds_and_says_so() {
        let epochs = Epochs::restored(&[], Position::default(), Box::new(Kept(Default::default(), true)));
        let error = epochs.purge_on_record(&url("/a", None)).unwrap_err();
        assert_eq!(error.position, epochs.last());
        let standing = epochs.judge(&key("/a", None), &[], Position::default());
        assert_eq!(standing, Standing::Purged);
    }

    #[test]
    fn when_the_records_are_full_the_older_half_purges_everything_before_it() {
        let epochs = Epochs {
            records_max: 10,
            ..Epochs::default()
        };
        let start = epochs.now();
        for n in 0..10 {
            epochs.purge(&url(&format!("/{n}"), None));
        }
        assert_eq!((epochs.records(), epochs.folds()), (10, 0));
        assert!(matches!(
            epochs.judge(&key("/x", None), &[], start),
            Standing::Valid { .. }
        ));
        let before_last = epochs.now();
        epochs.purge(&tagged("t"));
        assert_eq!(epochs.folds(), 1);
        assert!(epochs.records() <= 5, "{}", epochs.records());
        // Old and never purged: purged now, on the safe side. Recent: as before.
        assert_eq!(epochs.judge(&key("/x", None), &[], start), Standing::Purged);
        assert!(matches!(
            epochs.judge(&key("/x", None), &[], before_last),
            Standing::Valid { .. }
        ));
        assert_eq!(
            epochs.judge(&key("/x", None), &[tag("t")], before_last),
            Standing::Purged
        );
        assert_eq!(epochs.judge(&key("/9", None), &[], Position(9)), Standing::Purged);
    }

    #[test]
    fn a_batch_larger_than_the_room_purges_everything_before_it() {
        let epochs = Epochs {
            records_max: 10,
            ..Epochs::default()
        };
        let start = epochs.now();
        let urls = (0..50).flat_map(|n| url(&format!("/{n}"), None).urls).collect();
        epochs.purge(&Purge {
            urls,
            ..Purge::default()
        });
        assert_eq!(epochs.records(), 0);
        assert_eq!(epochs.judge(&key("/17", None), &[], start), Standing::Purged);
        assert!(matches!(
            epochs.judge(&key("/17", None), &[], epochs.now()),
            Standing::Valid { .. }
        ));
    }

    #[test]
    fn too_many_prefix_lengths_purge_a_shorter_prefix_or_the_host() {
        let epochs = Epochs::default();
        for n in 0..PREFIX_LENGTHS_MAX {
            epochs.purge(&prefix(&format!("/{}", "a".repeat(2 * n + 2))));
        }
        assert_eq!(epochs.folds(), 0);
        let before = epochs.now();
        epochs.purge(&prefix("/bbb"));
        assert_eq!(epochs.folds(), 1, "cut to the length before");
        assert_eq!(epochs.judge(&key("/bbbb", None), &[], before), Standing::Purged);
        assert_eq!(epochs.judge(&key("/bbx", None), &[], before), Standing::Purged);
        assert!(matches!(
            epochs.judge(&key("/bx", None), &[], before),
            Standing::Valid { .. }
        ));
        epochs.purge(&prefix("/"));
        assert_eq!(
            epochs.judge(&key("/bx", None), &[], before),
            Standing::Purged,
            "the whole host"
        );
    }

    #[test]
    fn no_purge_is_missed_while_others_look() {
        let epochs = Epochs::default();
        let key = key("/a", None);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let before = epochs.now();
                        let at = epochs.purge(&url("/a", None));
                        assert!(at > before);
                        assert_eq!(epochs.judge(&key, &[], before), Standing::Purged);
                        assert!(epochs.now() >= at);
                    }
                });
            }
            scope.spawn(|| {
                let mut as_of = epochs.now();
                while as_of.number() < 6_000 {
                    let now = epochs.now();
                    let standing = epochs.judge(&key, &[], as_of);
                    // Every purge concerns this key, so whatever is behind must be purged.
                    assert!(standing == Standing::Purged || now == as_of, "{standing:?}");
                    as_of = now;
                }
            });
        });
        assert_eq!(epochs.last().number(), 6_000);
    }
}
