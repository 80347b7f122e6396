//! What purges come to, thing by thing: a lookup asks it, and a journal is made from it.

use std::collections::{BTreeMap, HashMap};

use super::{Position, Prefix, Purge, Url};
use crate::cache::key::Key;
use crate::cache::tag::Tag;

/// Bytes of text in all records at most; the answer is the same.
const TEXT_BYTES_MAX: usize = 256 << 20;

/// Different lengths of prefixes at most, for each is one more look-up.
pub(super) const PREFIX_LENGTHS_MAX: usize = 64;

/// The last purges of one thing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    pub(super) hard: Position,
    pub(super) soft: Position,
}

impl Mark {
    fn note(&mut self, position: Position, soft: bool) {
        let place = if soft { &mut self.soft } else { &mut self.hard };
        *place = (*place).max(position);
    }

    fn merge(&mut self, other: Option<&Self>) {
        if let Some(other) = other {
            self.hard = self.hard.max(other.hard);
            self.soft = self.soft.max(other.soft);
        }
    }

    fn latest(&self) -> Position {
        self.hard.max(self.soft)
    }
}

type Marks = HashMap<Box<str>, Mark>;

/// Everything fetched before `floor` is purged; the rest is in the maps.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) floor: Position,
    everything: Mark,
    hosts: Marks,
    tags: Marks,
    urls: Marks,
    /// By their length, so that a lookup asks once for each length that occurs.
    prefixes: BTreeMap<usize, HashMap<Box<[u8]>, Mark>>,
    pub(super) count: usize,
    text_bytes: usize,
}

impl Records {
    /// The last purges that concern a stored response.
    pub(super) fn latest(&self, key: &Key, tags: &[Tag]) -> Mark {
        let mut mark = self.everything;
        let (path, whole) = key.target();
        mark.merge(self.hosts.get(key.host()));
        mark.merge(self.urls.get(path));
        mark.merge(whole.and_then(|whole| self.urls.get(whole)));
        for tag in tags {
            mark.merge(self.tags.get(tag.as_str()));
        }
        for (length, prefixes) in self.prefixes.range(..=path.len()) {
            mark.merge(
                path.as_bytes()
                    .get(..*length)
                    .and_then(|prefix| prefixes.get(prefix)),
            );
        }
        mark
    }
}

impl Records {
    /// Writes a purge down; tells whether it had to purge more than was asked, for want of room.
    pub(super) fn note(&mut self, purge: &Purge, position: Position, records_max: usize) -> bool {
        let mut widened = false;
        if purge.everything {
            self.everything.note(position, purge.soft);
        }
        for host in &purge.hosts {
            self.note_in(|records| &mut records.hosts, host, position, purge.soft);
        }
        for tag in &purge.tags {
            self.note_in(|records| &mut records.tags, tag.as_str(), position, purge.soft);
        }
        for url in &purge.urls {
            let text = match &url.query {
                None => format!("{}|{}", url.host, url.path),
                Some(query) => format!("{}|{}?{query}", url.host, url.path),
            };
            self.note_in(|records| &mut records.urls, &text, position, purge.soft);
        }
        for prefix in &purge.prefixes {
            widened |= self.note_prefix(prefix, position, purge.soft);
        }
        if purge.everything && !purge.soft {
            // Nothing older matters any more.
            self.fold_to(position);
        }
        if self.count > records_max || self.text_bytes > TEXT_BYTES_MAX {
            self.fold();
            widened = true;
        }
        widened
    }

    /// What is noted, as purges of one thing each. The floor is a purge of everything.
    pub(super) fn all(&self) -> Vec<(Position, Purge)> {
        let everything = || Purge {
            everything: true,
            ..Purge::default()
        };
        let mut all = vec![(self.floor, everything())];
        let mut add = |mark: &Mark, purge: Purge| {
            for (position, soft) in [(mark.hard, false), (mark.soft, true)] {
                if position > Position::default() {
                    let purge = Purge {
                        soft,
                        ..purge.clone()
                    };
                    all.push((position, purge));
                }
            }
        };
        add(&self.everything, everything());
        for (host, mark) in &self.hosts {
            let hosts = vec![host.to_string()];
            add(
                mark,
                Purge {
                    hosts,
                    ..Purge::default()
                },
            );
        }
        for (tag, mark) in &self.tags {
            let tags = Tag::new(tag).into_iter().collect();
            add(
                mark,
                Purge {
                    tags,
                    ..Purge::default()
                },
            );
        }
        for (text, mark) in &self.urls {
            let urls = Url::of_text(text).into_iter().collect();
            add(
                mark,
                Purge {
                    urls,
                    ..Purge::default()
                },
            );
        }
        for (text, mark) in self.prefixes.values().flatten() {
            let text = String::from_utf8_lossy(text);
            let prefixes = text.split_once('|').map(|(host, path)| Prefix {
                host: host.into(),
                path: path.into(),
            });
            let prefixes = prefixes.into_iter().collect();
            add(
                mark,
                Purge {
                    prefixes,
                    ..Purge::default()
                },
            );
        }
        all.sort_by_key(|(position, _)| *position);
        all
    }

    fn note_in(&mut self, map: impl Fn(&mut Self) -> &mut Marks, text: &str, position: Position, soft: bool) {
        if let Some(mark) = map(self).get_mut(text) {
            mark.note(position, soft);
            return;
        }
        let mut mark = Mark::default();
        mark.note(position, soft);
        map(self).insert(text.into(), mark);
        self.count += 1;
        self.text_bytes += text.len();
    }

    /// Notes a prefix; when there are too many different lengths, a shorter prefix of it, else its whole host.
    fn note_prefix(&mut self, prefix: &Prefix, position: Position, soft: bool) -> bool {
        let text = format!("{}|{}", prefix.host, prefix.path).into_bytes();
        let known = self.prefixes.contains_key(&text.len());
        let length = if known || self.prefixes.len() < PREFIX_LENGTHS_MAX {
            Some(text.len())
        } else {
            let shorter = self.prefixes.range(..text.len()).next_back();
            shorter
                .map(|(length, _)| *length)
                .filter(|length| *length > prefix.host.len())
        };
        let Some((length, cut)) = length.and_then(|length| Some((length, text.get(..length)?))) else {
            self.note_in(|records| &mut records.hosts, &prefix.host, position, soft);
            return true;
        };
        let marks = self.prefixes.entry(length).or_default();
        if let Some(mark) = marks.get_mut(cut) {
            mark.note(position, soft);
        } else {
            let mut mark = Mark::default();
            mark.note(position, soft);
            marks.insert(cut.into(), mark);
            self.count += 1;
            self.text_bytes += length;
        }
        length < text.len()
    }

    /// Folds the older half of the records into the floor.
    fn fold(&mut self) {
        let maps = [&self.hosts, &self.tags, &self.urls];
        let in_maps = maps.into_iter().flat_map(HashMap::values);
        let in_prefixes = self.prefixes.values().flat_map(HashMap::values);
        let mut positions: Vec<Position> = in_maps.chain(in_prefixes).map(Mark::latest).collect();
        let middle = positions.len() / 2;
        if middle < positions.len() {
            let (_, median, _) = positions.select_nth_unstable(middle);
            let median = *median;
            self.fold_to(median);
        }
    }

    /// Purges everything fetched before `floor`, and forgets the records that this makes needless.
    fn fold_to(&mut self, floor: Position) {
        self.floor = self.floor.max(floor);
        let floor = self.floor;
        let (mut count, mut text_bytes) = (0, 0);
        for map in [&mut self.hosts, &mut self.tags, &mut self.urls] {
            map.retain(|_, mark| mark.latest() > floor);
            count += map.len();
            text_bytes += map.keys().map(|text| text.len()).sum::<usize>();
            map.shrink_to_fit();
        }
        self.prefixes.retain(|length, marks| {
            marks.retain(|_, mark| mark.latest() > floor);
            count += marks.len();
            text_bytes += marks.len() * length;
            !marks.is_empty()
        });
        self.count = count;
        self.text_bytes = text_bytes;
    }
}
