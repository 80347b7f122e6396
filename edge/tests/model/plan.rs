//! What happens in a run: steps by chance, from a seed. Whole seconds only, so that no age is ever in doubt.

use std::fmt::Write as _;

use fastrand::Rng;

/// Keys in play. Few, so that steps meet.
pub(crate) const KEYS: u8 = 6;

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Clients ask, `count` of them at once, and the origin answers by the script if it is asked.
    Ask { ask: Ask, count: usize, script: Script },
    /// A client sends an unsafe method; the origin answers with this status.
    Change {
        key: u8,
        method: &'static str,
        status: u16,
        names: Option<u8>,
    },
    /// The operator purges.
    Purge(Purge),
    /// The clock moves.
    Wait(u64),
}

/// A request for a key.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) key: u8,
    pub(crate) head: bool,
    pub(crate) range: Option<(u64, u64)>,
    /// The value of the field that some answers vary on.
    pub(crate) variant: Option<&'static str>,
    pub(crate) authorized: bool,
    pub(crate) control: Asked,
}

/// The directives of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) no_cache: bool,
    pub(crate) no_store: bool,
    pub(crate) only_if_cached: bool,
    pub(crate) max_age: Option<u64>,
    pub(crate) min_fresh: Option<u64>,
    /// Any staleness, or so much.
    pub(crate) max_stale: Option<Option<u64>>,
    pub(crate) stale_if_error: Option<u64>,
}

/// What the origin does when it is asked.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) fault: Option<Fault>,
    pub(crate) status: u16,
    pub(crate) control: Control,
    /// Expires, in seconds from Date; or something that is no date.
    pub(crate) expires: Option<Result<i64, ()>>,
    /// Last-Modified, in seconds before Date.
    pub(crate) last_modified: Option<u64>,
    pub(crate) age: Option<u64>,
    /// How many seconds Date lies in the past.
    pub(crate) date_behind: u64,
    pub(crate) etag: bool,
    pub(crate) vary: Vary,
    pub(crate) tag: Option<u8>,
    /// Whether the content has changed since the last answer.
    pub(crate) changed: bool,
    pub(crate) chunked: bool,
    /// Whether ranges are answered with 206.
    pub(crate) ranges: bool,
    /// A purge that comes while the origin is at work.
    pub(crate) purge: Option<Purge>,
}

/// How an origin fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It closes without a word.
    Close,
    /// What it says is not HTTP.
    Garbage,
    /// It closes within the header block.
    HalfHead,
    /// It closes within the content.
    Truncate,
}

/// The directives of a response.
#[derive(Clone, Debug, Default)]
pub(crate) struct Control {
    pub(crate) max_age: Option<u64>,
    pub(crate) s_maxage: Option<u64>,
    pub(crate) stale_while_revalidate: Option<u64>,
    pub(crate) stale_if_error: Option<u64>,
    pub(crate) no_cache: bool,
    pub(crate) no_store: bool,
    pub(crate) private: bool,
    pub(crate) public: bool,
    pub(crate) must_revalidate: bool,
    pub(crate) proxy_revalidate: bool,
    pub(crate) extension: bool,
}

/// What an answer depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vary {
    Nothing,
    Field,
    Star,
}

/// A purge, and what of.
#[derive(Clone, Debug)]
pub(crate) struct Purge {
    pub(crate) of: Of,
    pub(crate) soft: bool,
}

/// What is purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Key(u8),
    Tag(u8),
    /// The keys below this number: they share a folder.
    Folder,
    Host,
    Everything,
}

impl Step {
    /// As a line of the report.
    pub(crate) fn brief(&self) -> String {
        let Self::Ask { ask, count, script } = self else {
            return format!("{self:?}");
        };
        let mut line = format!("{} k{}", if ask.head { "HEAD" } else { "GET" }, ask.key);
        let mut add = |text: String| {
            line.push(' ');
            line.push_str(&text);
        };
        if *count > 1 {
            add(format!("x{count}"));
        }
        if let Some(variant) = ask.variant {
            add(format!("variant={variant}"));
        }
        if ask.authorized {
            add("authorized".to_owned());
        }
        if let Some((first, last)) = ask.range {
            add(format!("range={first}-{last}"));
        }
        if let Some(control) = ask.control.write() {
            add(format!("[{control}]"));
        }
        add(format!(
            "<- {} [{}]",
            script.status,
            script.control.write().unwrap_or_default()
        ));
        let facts = [
            script.fault.map(|fault| format!("{fault:?}")),
            script.expires.map(|delta| format!("expires={delta:?}")),
            script.last_modified.map(|before| format!("modified=-{before}")),
            script.age.map(|age| format!("age={age}")),
            (script.date_behind > 0).then(|| format!("date=-{}", script.date_behind)),
            script.etag.then(|| "etag".to_owned()),
            (script.vary != Vary::Nothing).then(|| format!("vary={:?}", script.vary)),
            script.tag.map(|tag| format!("tag={tag}")),
            script.changed.then(|| "changed".to_owned()),
            script.chunked.then(|| "chunked".to_owned()),
            script.ranges.then(|| "ranges".to_owned()),
            script.purge.as_ref().map(|purge| format!("{purge:?}")),
        ];
        for fact in facts.into_iter().flatten() {
            add(fact);
        }
        line
    }
}

/// `count` steps of this seed.
pub(crate) fn steps(seed: u64, count: usize) -> Vec<Step> {
    let mut rng = Rng::with_seed(seed);
    (0..count).map(|_| step(&mut rng)).collect()
}

fn one_in(rng: &mut Rng, n: u32) -> bool {
    rng.u32(0..n) == 0
}

fn maybe<T>(rng: &mut Rng, n: u32, value: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    one_in(rng, n).then(|| value(rng))
}

fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(0..of.len())]
}

fn step(rng: &mut Rng) -> Step {
    match rng.u32(0..100) {
        0..70 => Step::Ask {
            ask: ask(rng),
            count: if one_in(rng, 12) { rng.usize(2..6) } else { 1 },
            script: script(rng),
        },
        70..90 => Step::Wait(pick(rng, &[1, 1, 2, 3, 5, 8, 20, 100, 1000])),
        90..96 => Step::Change {
            key: rng.u8(0..KEYS),
            method: pick(rng, &["POST", "PUT", "DELETE", "M-SEARCH"]),
            status: pick(rng, &[200, 201, 204, 303, 400, 409, 500]),
            names: maybe(rng, 3, |rng| rng.u8(0..KEYS)),
        },
        _ => Step::Purge(purge(rng)),
    }
}

fn purge(rng: &mut Rng) -> Purge {
    let of = match rng.u32(0..12) {
        0..5 => Of::Key(rng.u8(0..KEYS)),
        5..8 => Of::Tag(rng.u8(0..3)),
        8 | 9 => Of::Folder,
        10 => Of::Host,
        _ => Of::Everything,
    };
    Purge {
        of,
        soft: one_in(rng, 3),
    }
}

fn ask(rng: &mut Rng) -> Ask {
    let steers = one_in(rng, 4);
    let few = |rng: &mut Rng| pick(rng, &[0, 1, 2, 5, 30]);
    Ask {
        key: rng.u8(0..KEYS),
        head: one_in(rng, 15),
        range: maybe(rng, 15, |rng| {
            let first = rng.u64(0..40);
            (first, first + rng.u64(0..200))
        }),
        variant: pick(rng, &[None, None, Some("a"), Some("b")]),
        authorized: one_in(rng, 15),
        control: if !steers {
            Asked::default()
        } else {
            Asked {
                no_cache: one_in(rng, 5),
                no_store: one_in(rng, 10),
                only_if_cached: one_in(rng, 6),
                max_age: maybe(rng, 3, few),
                min_fresh: maybe(rng, 5, few),
                max_stale: maybe(rng, 3, |rng| maybe(rng, 2, few)),
                stale_if_error: maybe(rng, 5, few),
            }
        },
    }
}

fn script(rng: &mut Rng) -> Script {
    Script {
        fault: maybe(rng, 25, |rng| {
            pick(
                rng,
                &[
                    Fault::Close,
                    Fault::Close,
                    Fault::Garbage,
                    Fault::HalfHead,
                    Fault::Truncate,
                ],
            )
        }),
        status: if one_in(rng, 8) {
            pick(rng, &[204, 301, 302, 404, 404, 410, 403, 500, 503, 503, 599, 299])
        } else {
            200
        },
        control: control(rng),
        expires: maybe(rng, 6, |rng| match rng.u32(0..4) {
            0 => Err(()),
            1 => Ok(-10),
            _ => Ok(pick(rng, &[0, 2, 10, 500])),
        }),
        last_modified: maybe(rng, 3, |rng| pick(rng, &[0, 10, 1000, 100_000])),
        age: maybe(rng, 8, |rng| pick(rng, &[0, 1, 4, 50, 5000])),
        date_behind: if one_in(rng, 10) {
            pick(rng, &[1, 5, 60])
        } else {
            0
        },
        etag: !one_in(rng, 3),
        vary: match rng.u32(0..20) {
            0..6 => Vary::Field,
            6 => Vary::Star,
            _ => Vary::Nothing,
        },
        tag: maybe(rng, 3, |rng| rng.u8(0..3)),
        changed: one_in(rng, 3),
        chunked: one_in(rng, 6),
        ranges: one_in(rng, 2),
        purge: maybe(rng, 40, purge),
    }
}

fn control(rng: &mut Rng) -> Control {
    if one_in(rng, 8) {
        return Control::default();
    }
    let life = |rng: &mut Rng| pick(rng, &[0, 1, 2, 5, 10, 60, 1000]);
    Control {
        max_age: (!one_in(rng, 5)).then(|| life(rng)),
        s_maxage: maybe(rng, 8, life),
        stale_while_revalidate: maybe(rng, 6, life),
        stale_if_error: maybe(rng, 5, life),
        no_cache: one_in(rng, 15),
        no_store: one_in(rng, 20),
        private: one_in(rng, 20),
        public: one_in(rng, 10),
        must_revalidate: one_in(rng, 12),
        proxy_revalidate: one_in(rng, 20),
        extension: one_in(rng, 10),
    }
}

/// Collects directives into a field value.
#[derive(Default)]
struct List(String);

impl List {
    fn flag(&mut self, name: &str, is_set: bool) {
        if is_set {
            let comma = if self.0.is_empty() { "" } else { ", " };
            let _ = write!(self.0, "{comma}{name}");
        }
    }

    fn number(&mut self, name: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.flag(&format!("{name}={value}"), true);
        }
    }
}

impl Control {
    /// As Cache-Control, or nothing.
    pub(crate) fn write(&self) -> Option<String> {
        let mut list = List::default();
        list.flag("x-unknown=\"max-age=9999, a\"", self.extension);
        list.flag("public", self.public);
        list.flag("private", self.private);
        list.number("max-age", self.max_age);
        list.flag("no-cache", self.no_cache);
        list.number("S-MaxAge", self.s_maxage);
        list.flag("no-store", self.no_store);
        list.flag("Must-Revalidate", self.must_revalidate);
        list.flag("proxy-revalidate", self.proxy_revalidate);
        list.number("stale-while-revalidate", self.stale_while_revalidate);
        list.number("stale-if-error", self.stale_if_error);
        (!list.0.is_empty()).then_some(list.0)
    }
}

impl Asked {
    /// As Cache-Control, or nothing.
    pub(crate) fn write(&self) -> Option<String> {
        let mut list = List::default();
        list.flag("no-cache", self.no_cache);
        list.flag("no-store", self.no_store);
        list.flag("only-if-cached", self.only_if_cached);
        list.number("max-age", self.max_age);
        list.number("min-fresh", self.min_fresh);
        list.flag("max-stale", self.max_stale == Some(None));
        list.number("max-stale", self.max_stale.flatten());
        list.number("stale-if-error", self.stale_if_error);
        (!list.0.is_empty()).then_some(list.0)
    }
}
