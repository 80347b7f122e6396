//! A small model of RFC 9111, written from the RFC and from nothing of the product: it is told what was asked, what the
//! origin was asked and answered meanwhile, and what the client got, and says whether that is allowed.
//!
//! A stored response is *certain* when the cache has promised to hold it: it must be reused while nothing forbids it. Where
//! the RFC leaves a choice, both outcomes are kept as responses that *may* be there.

use std::collections::HashSet;

use crate::plan::{Ask, Asked, Control, Of, Purge, Script, Vary};

/// What was said to the origin, and what it said.
#[derive(Clone, Debug)]
pub(crate) struct Contact {
    pub(crate) key: u8,
    pub(crate) head: bool,
    pub(crate) said: Said,
    pub(crate) script: Script,
    /// The purge that came while this was under way.
    pub(crate) purge: Option<Purge>,
}

/// An answer of the origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Everything, or a part of it, under this number.
    Full {
        number: u64,
        version: u64,
        partial: bool,
        cut: bool,
    },
    /// 304, under this number, for this version.
    NotModified { number: u64, version: u64 },
    /// Nothing that is an answer.
    Nothing,
}

/// What a client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// An answer of the origin: its number and version, the status, the Age, and whether the content ended well.
    Served {
        number: u64,
        version: u64,
        age: Option<u64>,
        whole: bool,
    },
    /// An error of the node's own.
    Failed(u16),
}

/// A response that the cache holds, or may hold.
#[derive(Clone, Debug)]
struct Stored {
    key: u8,
    number: u64,
    version: u64,
    status: u16,
    control: Control,
    /// The value that the request had in the field of Vary; `None` when the answer does not vary.
    variant: Option<Option<&'static str>>,
    lifetime: Option<u64>,
    initial_age: u64,
    times: Times,
    /// When it came, in seconds of the run.
    came: u64,
    tag: Option<u8>,
    is_certain: bool,
    /// Only validation makes it good again.
    is_invalid: bool,
    /// An operator made it stale.
    is_soft: bool,
}

/// How the origin failed while a client waited, if it did.
#[derive(Clone, Copy, Debug)]
struct Failing {
    /// It gave no answer.
    disconnected: bool,
    /// Its answer was a 5xx.
    server_error: bool,
}

/// The model.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) now: u64,
    stored: Vec<Stored>,
    /// Keys whose origin failed last: for a moment they need not be asked for again.
    pub(crate) failed: HashSet<u8>,
    /// Failures in a row, and until when the origin may be given up for them.
    failures: u32,
    given_up_until: u64,
    pub(crate) reused: u64,
    pub(crate) had_to: u64,
}

/// After so many failures in a row the origin may be left alone, at most for so many seconds.
const FAILURES: u32 = 5;
const GIVEN_UP: u64 = 60;

type Verdict = Result<(), String>;

fn wrong(what: impl Into<String>) -> Verdict {
    Err(what.into())
}

impl Oracle {
    /// Judges what each of the clients got that asked `ask` at once, and takes in what the origin said.
    pub(crate) fn judge(&mut self, ask: &Ask, contacts: &[Contact], got: &[Got], slow: bool) -> Verdict {
        let must = self.must_reuse(ask);
        self.had_to += u64::from(must);
        if must && !contacts.is_empty() {
            return wrong("the origin was asked although a fresh response is held");
        }
        let is_from = |got: &Got, contact: &Contact| match (got, &contact.said) {
            (
                Got::Served { number, .. },
                Said::Full { number: n, .. } | Said::NotModified { number: n, .. },
            ) => number == n,
            (Got::Served { .. }, Said::Nothing) => false,
            (Got::Failed(_), _) => true,
        };
        // What is served stale may be revalidated behind the client's back all the same.
        let waited = got
            .iter()
            .any(|got| contacts.iter().any(|contact| is_from(got, contact)));
        if ask.control.only_if_cached && waited {
            return wrong("the origin was asked although the client forbade it");
        }
        // A failure that is held may stop being held while several ask: some learn of it, and another asks anew.
        let is_spared = contacts.len() < got.len();
        for got in got {
            self.one(ask, contacts, (got, is_spared), must, slow)?;
        }
        self.apart(ask, contacts, got)?;
        for contact in contacts {
            self.take(ask, contact);
        }
        Ok(())
    }

    fn one(
        &mut self,
        ask: &Ask,
        contacts: &[Contact],
        (got, is_spared): (&Got, bool),
        must: bool,
        slow: bool,
    ) -> Verdict {
        let broke = contacts
            .iter()
            .any(|contact| matches!(contact.said, Said::Nothing | Said::Full { cut: true, .. }));
        let unasked = is_spared && (self.failed.contains(&ask.key) || self.now < self.given_up_until);
        let disconnected = slow || broke || unasked;
        let (number, version, age, whole) = match *got {
            // What is held is too short for the range.
            Got::Failed(416) if ask.range.is_some() => return Ok(()),
            Got::Failed(_) if must => return wrong("an error although a fresh response is held"),
            Got::Failed(504) if ask.control.only_if_cached => return Ok(()),
            Got::Failed(_) if disconnected => return Ok(()),
            Got::Failed(status) => return wrong(format!("an error ({status}) out of nothing")),
            Got::Served {
                number,
                version,
                age,
                whole,
            } => (number, version, age, whole),
        };
        for contact in contacts {
            match contact.said {
                Said::Full {
                    number: n,
                    version: v,
                    cut,
                    ..
                } if n == number => {
                    // RFC 9111, 4.3.5: without validators the answer to a HEAD freshens whatever is stored.
                    let freshened = contact.head
                        && !contact.script.etag
                        && self.held(ask.key).any(|held| held.version == version);
                    if v != version && !freshened {
                        return wrong("fields of one version with another's");
                    }
                    if cut && whole && !ask.head && ask.range.is_none() {
                        return wrong("a cut body ended well");
                    }
                    return Ok(());
                }
                Said::NotModified {
                    number: n,
                    version: v,
                } if n == number => {
                    let came = |contact: &Contact| matches!(contact.said, Said::Full { version, cut: false, .. } if version == v);
                    // RFC 9111, 4.1 and 4.3.3: by its tag it may name one that is stored for another request.
                    let known = self.held(ask.key).any(|held| held.version == v) || contacts.iter().any(came);
                    return if known && v == version {
                        Ok(())
                    } else {
                        wrong("a 304 was taken for a response that it is not about")
                    };
                }
                _ => {}
            }
        }
        if !whole {
            return wrong("a stored body broke");
        }
        let failing = Failing {
            disconnected,
            server_error: contacts
                .iter()
                .any(|contact| matches!(contact.said, Said::Full { .. }) && contact.script.status >= 500),
        };
        // One answer of the origin may stand for several that may be held: it is fine if one of them allows it.
        let mut verdict = wrong(format!(
            "answer {number} must not be reused here, or never was stored"
        ));
        for held in self.candidates(ask) {
            if held.number == number && held.version == version {
                verdict = self.reuse(ask, held, contacts.is_empty(), age, failing);
                if verdict.is_ok() {
                    break;
                }
            }
        }
        verdict?;
        self.reused += 1;
        Ok(())
    }

    /// Whether `held` may have been reused, unasked or not, and shown with this Age.
    fn reuse(&self, ask: &Ask, held: &Stored, unasked: bool, age: Option<u64>, failing: Failing) -> Verdict {
        let number = held.number;
        // By Date, as RFC 9111, 4 has it, and by arrival: where the two disagree, either will do.
        let newer = |other: &Stored| {
            other.is_certain
                && !other.is_invalid
                && other.times.date > held.times.date
                && other.number > number
        };
        if unasked && self.candidates(ask).any(newer) {
            return wrong(format!("answer {number} is superseded by a newer one"));
        }
        self.allowed(held, &ask.control, failing)?;
        let exact = self.age(held);
        if age != Some(exact) {
            return wrong(format!("answer {number} has Age {age:?}, and is {exact} s old"));
        }
        Ok(())
    }

    /// Whether a stored response may answer as it is.
    fn allowed(&self, held: &Stored, asked: &Asked, failing: Failing) -> Verdict {
        let Failing {
            disconnected,
            server_error,
        } = failing;
        let age = self.age(held);
        if held.is_invalid {
            return wrong("an invalidated response was served without validation");
        }
        if held.control.no_cache {
            return wrong("no-cache was served without validation");
        }
        let lifetime = held.lifetime.unwrap_or(0);
        let is_fresh = age < lifetime && !held.is_soft;
        let staleness = age.saturating_sub(lifetime);
        let failing = disconnected || server_error;
        // RFC 9111, 4.2.4 and 5.2.2: these forbid stale, whatever else allows it. s-maxage implies proxy-revalidate.
        let strict =
            held.control.must_revalidate || held.control.proxy_revalidate || held.control.s_maxage.is_some();
        if is_fresh {
            let refused = asked.no_cache
                || asked.max_age.is_some_and(|max| age > max)
                || asked.min_fresh.is_some_and(|min| lifetime - age < min);
            let window = held.control.stale_if_error.or(asked.stale_if_error);
            let saved = disconnected || (failing && window.is_some());
            // RFC 9111, 5.2.1.1: max-stale softens max-age; and of a failing origin the fresh one is still the best.
            if refused && !saved && asked.max_stale.is_none() {
                return wrong("the request's directives refuse what was served");
            }
            return Ok(());
        }
        if age < lifetime {
            // Fresh by the RFC, and softly purged: good for as long as the origin fails or is being asked.
            let spared = failing
                || held
                    .control
                    .stale_while_revalidate
                    .is_some_and(|window| window > 0);
            return if spared {
                Ok(())
            } else {
                wrong("softly purged, and served as if it were not")
            };
        }
        if strict {
            return wrong("stale, and its directives forbid that");
        }
        let within = |window: Option<u64>| window.is_some_and(|window| staleness < window);
        if disconnected || (failing && (within(held.control.stale_if_error) || within(asked.stale_if_error)))
        {
            return Ok(());
        }
        if asked.no_cache || (asked.min_fresh.is_some() && asked.max_stale.is_none()) {
            return wrong("stale, and the client wants it validated or fresh");
        }
        if asked
            .max_stale
            .is_some_and(|max| max.is_none_or(|max| staleness <= max))
            && !held.is_soft
        {
            return Ok(());
        }
        // RFC 9111, 5.2.1.1 and 5.2.1.2.
        let takes_stale = match (asked.max_age, asked.max_stale) {
            (Some(_), None) => false,
            (_, Some(Some(max))) => staleness <= max,
            _ => true,
        };
        if within(held.control.stale_while_revalidate) && takes_stale {
            return Ok(());
        }
        wrong(format!("stale for {staleness} s without leave"))
    }

    /// Answers that nobody may share went to one client each.
    fn apart(&self, ask: &Ask, contacts: &[Contact], got: &[Got]) -> Verdict {
        for contact in contacts {
            let Said::Full { number, .. } = contact.said else {
                continue;
            };
            let shared = got
                .iter()
                .filter(|got| matches!(got, Got::Served { number: n, .. } if *n == number))
                .count();
            if shared > 1
                && (contact.script.control.private
                    || contact.script.control.no_store
                    || forbids_authorized(ask, contact))
            {
                return wrong(format!(
                    "answer {number} is nobody else's, and {shared} clients got it"
                ));
            }
        }
        Ok(())
    }

    /// Whether the cache holds what answers `ask`, and must use it.
    fn must_reuse(&self, ask: &Ask) -> bool {
        let newest = self
            .candidates(ask)
            .max_by_key(|held| (held.times.date, held.number));
        let last = self.candidates(ask).map(|held| held.number).max();
        let newest = newest.filter(|held| Some(held.number) == last);
        newest.is_some_and(|held| {
            let asked = &ask.control;
            let age = self.age(held);
            let lifetime = held.lifetime.unwrap_or(0);
            held.is_certain
                && !held.is_invalid
                && !held.is_soft
                && !held.control.no_cache
                && age < lifetime
                && !asked.no_cache
                && asked.max_age.is_none_or(|max| age <= max)
                && asked.min_fresh.is_none_or(|min| lifetime - age >= min)
        })
    }

    fn held(&self, key: u8) -> impl Iterator<Item = &Stored> {
        self.stored.iter().filter(move |held| held.key == key)
    }

    fn candidates(&self, ask: &Ask) -> impl Iterator<Item = &Stored> {
        let variant = ask.variant;
        self.held(ask.key)
            .filter(move |held| held.variant.is_none_or(|stored| stored == variant))
    }

    /// RFC 9111, 4.2.3, without delays: no time passes while the origin is asked.
    fn age(&self, held: &Stored) -> u64 {
        held.initial_age + (self.now - held.came)
    }

    fn take(&mut self, ask: &Ask, contact: &Contact) {
        if let Some(purge) = &contact.purge {
            self.purge(purge);
        }
        if contact.said == Said::Nothing {
            self.failures += 1;
        } else {
            (self.failures, self.given_up_until) = (0, 0);
        }
        if self.failures >= FAILURES {
            self.given_up_until = self.now + GIVEN_UP;
        }
        match contact.said {
            Said::Nothing => {
                self.failed.insert(contact.key);
            }
            Said::Full {
                number,
                version,
                partial,
                cut,
            } => {
                if cut {
                    self.failed.insert(contact.key);
                } else {
                    self.failed.remove(&contact.key);
                    self.take_full(ask, contact, number, version, partial);
                }
            }
            Said::NotModified { number, version } => {
                self.failed.remove(&contact.key);
                self.take_304(ask, contact, number, version);
            }
        }
    }

    fn take_full(&mut self, ask: &Ask, contact: &Contact, number: u64, version: u64, partial: bool) {
        let script = &contact.script;
        if contact.head {
            // RFC 9111, 4.3.5: it may update what is stored, or end it. Both are kept as possible.
            let mut updated = Vec::new();
            for held in self.stored.iter_mut().filter(|held| held.key == contact.key) {
                held.is_certain = false;
                if held.version == version || !script.etag {
                    updated.push(self::updated(held, script, number, self.now));
                }
            }
            self.stored.extend(updated.into_iter().map(|held| Stored {
                is_certain: false,
                ..held
            }));
            return;
        }
        let forbidden = script.control.no_store
            || script.control.private
            || script.vary == Vary::Star
            || ask.control.no_store
            || forbids_authorized(ask, contact);
        let purged = contact
            .purge
            .as_ref()
            .is_some_and(|purge| concerns(purge, contact.key, script.tag));
        let is_soft = purged && contact.purge.as_ref().is_some_and(|purge| purge.soft);
        if forbidden || (purged && !is_soft) {
            return;
        }
        let times = Times::of(script, self.now);
        let (lifetime, explicit) = times.lifetime(&script.control, script.status);
        let plain = matches!(script.status, 200 | 204 | 301 | 404 | 410);
        let mut new = Stored {
            key: contact.key,
            number,
            version,
            status: script.status,
            control: script.control.clone(),
            variant: (script.vary == Vary::Field).then_some(ask.variant),
            lifetime,
            initial_age: initial_age(script),
            times,
            came: self.now,
            tag: script.tag,
            // Where a range was asked for, its bytes may be with the client before the rest is with the cache.
            is_certain: plain
                && explicit
                && !partial
                && ask.range.is_none()
                && lifetime.is_some_and(|lifetime| lifetime > 0),
            is_invalid: false,
            is_soft,
        };
        if partial {
            self.join(ask, contact, &new);
        }
        // What it replaces may be gone.
        for held in &mut self.stored {
            if held.key == new.key && held.variant.is_none_or(|stored| stored == ask.variant) {
                held.is_certain = false;
            }
        }
        // An older Date loses against what is there already: then this one may not be used.
        new.is_certain &= !self
            .candidates(ask)
            .any(|held| (held.times.date, held.number) > (new.times.date, new.number));
        self.stored.push(new);
    }

    /// RFC 9111, 3.4: a part may be joined to one that is held, with the fields of both.
    fn join(&mut self, ask: &Ask, contact: &Contact, new: &Stored) {
        let held: Vec<_> = self
            .candidates(ask)
            .filter(|held| held.version == new.version)
            .cloned()
            .collect();
        for held in held {
            let mut joined = updated(&held, &contact.script, new.number, self.now);
            let hit = contact
                .purge
                .as_ref()
                .filter(|purge| concerns(purge, held.key, joined.tag));
            if hit.is_some_and(|purge| !purge.soft) {
                continue;
            }
            joined.is_soft = hit.is_some();
            joined.is_certain = false;
            if contact.script.vary == Vary::Field {
                joined.variant = Some(ask.variant);
            }
            self.stored.push(joined);
        }
    }

    fn take_304(&mut self, ask: &Ask, contact: &Contact, number: u64, version: u64) {
        let script = &contact.script;
        let purged = contact.purge.clone();
        let now = self.now;
        let named = |held: &&Stored| held.version == version;
        let mut confirmed: Vec<_> = self.candidates(ask).filter(named).cloned().collect();
        // Or one that was stored for another request, chosen for this one from now on. Nothing is promised of it.
        let suits = |held: &Stored| held.variant.is_none_or(|stored| stored == ask.variant);
        let others = self.held(ask.key).filter(named).filter(|held| !suits(held));
        confirmed.extend(others.map(|held| Stored {
            variant: Some(ask.variant),
            is_certain: false,
            ..held.clone()
        }));
        let forbidden = script.control.no_store || script.control.private || script.vary == Vary::Star;
        // The updated one takes the place of the old one. That may stand beside it, but nothing is promised of it.
        self.stored.retain_mut(|held| {
            let is_old = held.key == ask.key
                && held.version == version
                && held.variant.is_none_or(|v| v == ask.variant);
            // A confirmation that forbids storing ends all that is stored under the key.
            held.is_certain &= !(is_old || (forbidden && held.key == ask.key));
            !is_old || !forbidden
        });
        for held in confirmed {
            let mut fresh = updated(&held, script, number, now);
            let hit = purged
                .as_ref()
                .filter(|purge| concerns(purge, held.key, fresh.tag.or(held.tag)));
            if forbidden || ask.control.no_store || hit.is_some_and(|purge| !purge.soft) {
                continue;
            }
            if script.vary == Vary::Field {
                fresh.variant = Some(ask.variant);
            }
            fresh.is_soft = hit.is_some();
            fresh.is_certain &= !forbids_authorized(ask, contact);
            self.stored.push(fresh);
        }
    }

    /// An unsafe method was answered with this status (RFC 9111, 4.4).
    pub(crate) fn changed(&mut self, key: u8, names: Option<u8>, status: u16) {
        if !(200..400).contains(&status) {
            return;
        }
        for held in &mut self.stored {
            if held.key == key {
                held.is_invalid = true;
            } else if Some(held.key) == names {
                held.is_certain = false;
            }
        }
    }

    /// An operator purged. Nothing that was held or on its way then is used after it.
    pub(crate) fn purge(&mut self, purge: &Purge) {
        if purge.soft {
            for held in self
                .stored
                .iter_mut()
                .filter(|held| concerns(purge, held.key, held.tag))
            {
                held.is_soft = true;
            }
        } else {
            self.stored.retain(|held| !concerns(purge, held.key, held.tag));
        }
    }

    /// Promises nothing any more of what is held: it may have been evicted.
    pub(crate) fn forget_promises(&mut self) {
        for held in &mut self.stored {
            held.is_certain = false;
        }
    }

    /// Responses that can never be used again need not be remembered.
    pub(crate) fn tidy(&mut self) {
        if self.stored.len() > 400 {
            let keep = self.stored.len() - 300;
            // The oldest first; what is certain stays.
            let mut at = 0;
            self.stored.retain(|held| {
                at += 1;
                at > keep || held.is_certain || held.lifetime.is_some()
            });
        }
    }
}

/// RFC 9111, 3.5.
fn forbids_authorized(ask: &Ask, contact: &Contact) -> bool {
    let control = &contact.script.control;
    ask.authorized && !control.public && !control.must_revalidate && control.s_maxage.is_none()
}

fn concerns(purge: &Purge, key: u8, tag: Option<u8>) -> bool {
    match purge.of {
        Of::Key(purged) => purged == key,
        Of::Tag(purged) => tag == Some(purged),
        Of::Folder => crate::world::in_folder(key),
        Of::Host | Of::Everything => true,
    }
}

/// What of the fields says how long: Expires and Last-Modified as points in time.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    date: i64,
    expires: Option<Result<i64, ()>>,
    modified: Option<i64>,
}

impl Times {
    fn of(script: &Script, now: u64) -> Self {
        let date = now as i64 - script.date_behind as i64;
        Self {
            date,
            expires: script.expires.map(|expires| expires.map(|delta| date + delta)),
            modified: script.last_modified.map(|before| date - before as i64),
        }
    }

    /// The lifetime, and whether the origin said it itself (RFC 9111, 4.2.1).
    fn lifetime(&self, control: &Control, status: u16) -> (Option<u64>, bool) {
        if let Some(seconds) = control.s_maxage.or(control.max_age) {
            return (Some(seconds), true);
        }
        match self.expires {
            Some(Ok(at)) => return (Some(u64::try_from(at - self.date).unwrap_or(0)), true),
            Some(Err(())) => return (Some(0), true),
            None => {}
        }
        // RFC 9111, 4.2.2: a tenth of the time since the last change is what caches use; none is fine, too.
        let heuristic = matches!(
            status,
            200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
        ) || control.public;
        match self.modified {
            Some(at) if heuristic => (
                Some(u64::try_from(self.date - at).unwrap_or(0).div_ceil(10)),
                false,
            ),
            _ => (None, false),
        }
    }
}

fn initial_age(script: &Script) -> u64 {
    script.age.unwrap_or(0).max(script.date_behind)
}

/// RFC 9111, 3.2: every field of the new answer replaces the stored one, and those that it lacks stay.
fn updated(held: &Stored, script: &Script, number: u64, now: u64) -> Stored {
    let new = Times::of(script, now);
    let times = Times {
        date: new.date,
        expires: new.expires.or(held.times.expires),
        modified: new.modified.or(held.times.modified),
    };
    let is_silent = script.control.write().is_none();
    let control = if is_silent {
        held.control.clone()
    } else {
        script.control.clone()
    };
    let (lifetime, explicit) = times.lifetime(&control, held.status);
    Stored {
        number,
        is_certain: held.is_certain && explicit && lifetime.is_some_and(|lifetime| lifetime > 0),
        lifetime,
        control,
        initial_age: initial_age(script),
        times,
        came: now,
        tag: script.tag.or(held.tag),
        is_invalid: false,
        is_soft: false,
        ..held.clone()
    }
}
