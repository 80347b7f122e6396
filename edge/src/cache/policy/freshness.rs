//! How long a response stays fresh, and how old it is (RFC 9111 section 4.2).
//!
//! This does not decide whether a response is used: `staleness` does, from what is computed here.

use std::time::Duration;

use http::header::{AGE, DATE, EXPIRES, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, StatusCode};

use super::directives::{ResponseDirectives, delta_seconds};
use super::storability::is_heuristically_cacheable;
use crate::clock::Timestamp;
use crate::config::Lifetimes;

/// A heuristic lifetime is at most this, however old the response was when it came.
const HEURISTIC_MAX: Duration = Duration::from_hours(24);

/// When a request was sent and when its answer's head came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// RFC 9111 section 4.2.3: request_time.
    pub request: Timestamp,
    /// RFC 9111 section 4.2.3: response_time.
    pub response: Timestamp,
}

/// Where a freshness lifetime comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The site's `ttl_default`.
    Default,
    /// Expires minus Date.
    Expires,
    /// A tenth of the time since Last-Modified.
    Heuristic,
    /// `max-age`.
    MaxAge,
    /// The site's `ttl_negative`.
    Negative,
    /// Nowhere: the response is stale from its first moment.
    None,
    /// The `ttl` of the rule or the site.
    Rule,
    /// `s-maxage`.
    SMaxage,
}

/// How long a response may be used, and on which terms.
///
/// The stale windows are what may be used of them: a directive that forbids stale responses has already closed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// The freshness lifetime.
    pub fresh: Duration,
    /// After it, the time for which a stale response is served while it is revalidated (RFC 5861 section 3).
    pub stale_while_revalidate: Duration,
    /// After it, the time for which a stale response is served when the origin fails (RFC 5861 section 4).
    pub stale_if_error: Duration,
    /// Whether a directive forbids to serve it stale (RFC 9111 section 4.2.4), whatever a request says.
    pub must_revalidate: bool,
    /// Whether each use needs a successful validation first.
    pub no_cache: bool,
    /// Where `fresh` comes from.
    pub source: Source,
}

impl Lifetime {
    /// The seconds of freshness that remain at `age`, rounded down; negative once stale. This is the `ttl` of RFC 9211.
    pub fn ttl(&self, age: Duration) -> i64 {
        match self.fresh.checked_sub(age) {
            Some(left) => i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            None => {
                let over = age.saturating_sub(self.fresh);
                let seconds = i64::try_from(over.as_secs()).unwrap_or(i64::MAX - 1);
                -(seconds + i64::from(over.subsec_nanos() > 0))
            }
        }
    }

    /// Whether the response is fresh at `age` (RFC 9111 section 4.2).
    pub fn is_fresh(&self, age: Duration) -> bool {
        self.fresh > age
    }
}

/// The lifetime of a response.
pub fn lifetime(
    status: StatusCode,
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    times: Times,
    lifetimes: &Lifetimes,
    strict: bool,
) -> Lifetime {
    let no_cache = directives.no_cache.is_whole();
    let (fresh, source) = fresh_for(status, headers, directives, times, lifetimes, strict);
    let windows = Windows::new(status, directives, lifetimes, strict);
    Lifetime {
        fresh,
        stale_while_revalidate: windows.while_revalidate,
        stale_if_error: windows.if_error,
        must_revalidate: forbids_stale(directives),
        no_cache,
        source,
    }
}

/// The age of a response when it came (RFC 9111 section 4.2.3: corrected_initial_age).
///
/// Date knows whole seconds only, so the apparent age is computed in whole seconds; the delay of the response is not
/// rounded.
pub fn corrected_initial_age(headers: &HeaderMap, times: Times) -> Duration {
    let apparent = date(headers, &DATE)
        .map(|date| times.response.unix_seconds().saturating_sub(date.unix_seconds()))
        .map_or(Duration::ZERO, |seconds| {
            Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        });
    let delay = times.response.since(times.request);
    apparent.max(age_value(headers).saturating_add(delay))
}

/// The age of a response at `now` (RFC 9111 section 4.2.3: current_age). Age shows it in whole seconds, rounded down.
pub fn current_age(initial: Duration, response_time: Timestamp, now: Timestamp) -> Duration {
    initial.saturating_add(now.since(response_time))
}

/// Whether the `ttl` of a rule applies to this status: to answers, not to failures.
pub(super) fn takes_rule(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

/// What the site says of a response that says nothing: `ttl_negative` for 404 and 410, `ttl_default` for what is
/// heuristically cacheable and not a failure.
pub(super) fn site_default(status: StatusCode, lifetimes: &Lifetimes) -> Option<(Duration, Source)> {
    if is_negative(status) {
        return Some((lifetimes.ttl_negative, Source::Negative));
    }
    let answers = is_heuristically_cacheable(status) && takes_rule(status);
    lifetimes
        .ttl_default
        .filter(|_| answers)
        .map(|ttl| (ttl, Source::Default))
}

fn is_negative(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

/// The freshness lifetime, in the order of RFC 9111 section 4.2.1, the site's word first.
fn fresh_for(
    status: StatusCode,
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    times: Times,
    lifetimes: &Lifetimes,
    strict: bool,
) -> (Duration, Source) {
    if let Some(ttl) = lifetimes.ttl.filter(|_| takes_rule(status)) {
        return (ttl, Source::Rule);
    }
    let said = said(headers, directives, times);
    let default = || site_default(status, lifetimes).filter(|_| !strict);
    let heuristic = || heuristic(status, headers, directives, times);
    let Some((fresh, source)) = said.or_else(default).or_else(heuristic) else {
        return (Duration::ZERO, Source::None);
    };
    // A failure is never kept longer because of `ttl_min`; where the bounds cross, the shorter one wins.
    let least = lifetimes.ttl_min.filter(|_| takes_rule(status)).unwrap_or_default();
    let most = lifetimes.ttl_max.unwrap_or(Duration::MAX);
    (fresh.max(least).min(most), source)
}

/// The lifetime that the response itself states.
fn said(headers: &HeaderMap, directives: &ResponseDirectives, times: Times) -> Option<(Duration, Source)> {
    if let Some(s_maxage) = directives.s_maxage {
        return Some((s_maxage, Source::SMaxage));
    }
    if let Some(max_age) = directives.max_age {
        return Some((max_age, Source::MaxAge));
    }
    if directives.targeted || !headers.contains_key(EXPIRES) {
        return None;
    }
    // RFC 9111 section 5.3: an invalid date, above all "0", lies in the past.
    let fresh = date(headers, &EXPIRES).map_or(Duration::ZERO, |expires| expires.since(generated(headers, times)));
    Some((fresh, Source::Expires))
}

/// A tenth of the time since Last-Modified (RFC 9111 section 4.2.2).
fn heuristic(
    status: StatusCode,
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    times: Times,
) -> Option<(Duration, Source)> {
    if !is_heuristically_cacheable(status) && !directives.public {
        return None;
    }
    let modified = date(headers, &LAST_MODIFIED)?;
    let fresh = generated(headers, times).since(modified) / 10;
    Some((fresh.min(HEURISTIC_MAX), Source::Heuristic))
}

/// When the response was generated: its Date, else the time it came (RFC 9110 section 6.6.1).
fn generated(headers: &HeaderMap, times: Times) -> Timestamp {
    date(headers, &DATE).unwrap_or(times.response)
}

/// The date in the first line of a field.
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<Timestamp> {
    let text = headers.get(name)?.to_str().ok()?;
    httpdate::parse_http_date(text).ok().map(Timestamp::from)
}

/// The Age field: the first member of what may wrongly be a list; anything but an integer counts for nothing (RFC
/// 9111 section 5.1).
fn age_value(headers: &HeaderMap) -> Duration {
    headers
        .get(AGE)
        .and_then(|line| line.as_bytes().split(|byte| *byte == b',').next())
        .and_then(|first| delta_seconds(first.trim_ascii()))
        .unwrap_or_default()
}

/// Whether a directive forbids stale responses (RFC 9111 section 4.2.4).
fn forbids_stale(directives: &ResponseDirectives) -> bool {
    directives.must_revalidate
        || directives.proxy_revalidate
        || directives.s_maxage.is_some()
        || directives.no_cache.is_whole()
}

/// How long a response may be served stale.
#[derive(Clone, Copy, Debug, Default)]
struct Windows {
    while_revalidate: Duration,
    if_error: Duration,
}

impl Windows {
    /// What the response says, and the site's windows where it says nothing.
    ///
    /// `s-maxage` forbids stale responses by itself (RFC 9111 section 5.2.2.10), so it closes the site's windows. Yet
    /// `s-maxage=1, stale-while-revalidate=60` is what most frameworks send to a CDN and mean; a site that is not
    /// strict takes the explicit word for the stronger one.
    fn new(status: StatusCode, directives: &ResponseDirectives, lifetimes: &Lifetimes, strict: bool) -> Self {
        let by_name = directives.must_revalidate || directives.proxy_revalidate || directives.no_cache.is_whole();
        if by_name || (strict && directives.s_maxage.is_some()) {
            return Self::default();
        }
        let site = !strict && directives.s_maxage.is_none();
        // A 404 is not shown again while a new one is fetched: what has appeared must become visible in time.
        let while_revalidate = lifetimes
            .stale_while_revalidate
            .filter(|_| site && takes_rule(status));
        let if_error = lifetimes
            .stale_if_error
            .filter(|_| site && (takes_rule(status) || is_negative(status)));
        Self {
            while_revalidate: directives
                .stale_while_revalidate
                .or(while_revalidate)
                .unwrap_or_default(),
            if_error: directives.stale_if_error.or(if_error).unwrap_or_default(),
        }
    }
}
