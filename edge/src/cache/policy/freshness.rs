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
use crate::fields::dates;

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

impl Source {
    /// One word for it.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Default => "ttl_default",
            Self::Expires => "expires",
            Self::Heuristic => "heuristic",
            Self::MaxAge => "max-age",
            Self::Negative => "ttl_negative",
            Self::None => "none",
            Self::Rule => "ttl",
            Self::SMaxage => "s-maxage",
        }
    }
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
///
/// A response that came later than `now` was stored under a clock that has been set back since. How long it has been
/// here cannot be told; it counts as old as the clock has moved, so that it is validated soon and none is fresh for
/// ever.
pub fn current_age(initial: Duration, response_time: Timestamp, now: Timestamp) -> Duration {
    let resident = now.since(response_time).max(response_time.since(now));
    initial.saturating_add(resident)
}

/// Whether `ttl` and `ttl_default` apply to this status: to what may be kept without the origin's word, less failures.
/// A 302, a 403 or a 503 that says nothing is not kept because a rule was written for what lies there when all is well.
pub(super) fn takes_rule(status: StatusCode) -> bool {
    is_heuristically_cacheable(status) && is_answer(status)
}

fn is_answer(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

/// What the site says of a response that says nothing: `ttl_negative` for 404 and 410, `ttl_default` for what is
/// heuristically cacheable and not a failure.
pub(super) fn site_default(status: StatusCode, lifetimes: &Lifetimes) -> Option<(Duration, Source)> {
    if is_negative(status) {
        return Some((lifetimes.ttl_negative, Source::Negative));
    }
    lifetimes
        .ttl_default
        .filter(|_| takes_rule(status))
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
    let heuristic = || {
        let allowed = lifetimes.heuristic;
        heuristic(status, headers, directives, times).filter(|_| allowed)
    };
    let Some((fresh, source)) = said.or_else(default).or_else(heuristic) else {
        return (Duration::ZERO, Source::None);
    };
    // A failure is never kept longer because of `ttl_min`; where the bounds cross, the shorter one wins.
    let least = lifetimes
        .ttl_min
        .filter(|_| is_answer(status))
        .unwrap_or_default();
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
    let fresh =
        date(headers, &EXPIRES).map_or(Duration::ZERO, |expires| expires.since(generated(headers, times)));
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
    dates::parse(headers.get(name)?)
}

/// The Age field: the first member of what may wrongly be a list; anything but an integer counts for nothing (RFC
/// 9111 section 5.1). What follows a semicolon is passed over: to take the number before it is the safe reading.
fn age_value(headers: &HeaderMap) -> Duration {
    headers
        .get(AGE)
        .and_then(|line| line.as_bytes().split(|byte| matches!(byte, b',' | b';')).next())
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
    /// What the response says (RFC 5861), and the site's windows where it says nothing: its configuration is the
    /// contract of RFC 9111 section 4.2.4. A strict site has windows only where somebody wrote them down.
    ///
    /// `s-maxage` forbids stale responses by itself (RFC 9111 section 5.2.2.10), so it closes the site's windows. Yet
    /// `s-maxage=1, stale-while-revalidate=60` is what most frameworks send to a CDN and mean; a site that is not
    /// strict takes the explicit word for the stronger one.
    fn new(status: StatusCode, directives: &ResponseDirectives, lifetimes: &Lifetimes, strict: bool) -> Self {
        let by_name =
            directives.must_revalidate || directives.proxy_revalidate || directives.no_cache.is_whole();
        if by_name || (strict && directives.s_maxage.is_some()) {
            return Self::default();
        }
        let site = directives.s_maxage.is_none();
        // A 404 is not shown again while a new one is fetched: what has appeared must become visible in time.
        let while_revalidate = lifetimes
            .stale_while_revalidate
            .filter(|_| site && is_answer(status));
        let if_error = lifetimes
            .stale_if_error
            .filter(|_| site && (is_answer(status) || is_negative(status)));
        Self {
            while_revalidate: directives
                .stale_while_revalidate
                .or(while_revalidate)
                .unwrap_or_default(),
            if_error: directives.stale_if_error.or(if_error).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn fields(lines: &[(&str, &str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        fields
    }

    /// The date `seconds` after the response came.
    fn at(seconds: i64) -> String {
        dates::format(Timestamp::from_unix_seconds(NOW + seconds))
    }

    fn times() -> Times {
        let now = Timestamp::from_unix_seconds(NOW);
        Times {
            request: now,
            response: now,
        }
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn silent() -> Lifetimes {
        Lifetimes {
            ttl: None,
            ttl_default: None,
            ttl_min: None,
            ttl_max: None,
            ttl_negative: secs(10),
            stale_while_revalidate: None,
            stale_if_error: None,
            heuristic: true,
        }
    }

    fn of(status: u16, lines: &[(&str, &str)], site: &Lifetimes, strict: bool) -> Lifetime {
        let fields = fields(lines);
        let directives = ResponseDirectives::parse(&fields);
        let status = StatusCode::from_u16(status).unwrap();
        lifetime(status, &fields, &directives, times(), site, strict)
    }

    #[test]
    fn what_the_response_says() {
        let check = |lines: &[(&str, &str)], expected: u64, source: Source| {
            let found = of(200, lines, &silent(), true);
            assert_eq!((found.fresh, found.source), (secs(expected), source), "{lines:?}");
        };
        check(&[], 0, Source::None);
        check(&[("cache-control", "max-age=60")], 60, Source::MaxAge);
        check(&[("cache-control", "max-age=60, s-maxage=5")], 5, Source::SMaxage);
        check(
            &[("cache-control", "max-age=x"), ("expires", &at(60))],
            0,
            Source::MaxAge,
        );
        check(&[("expires", &at(60)), ("date", &at(0))], 60, Source::Expires);
        check(&[("expires", &at(60))], 60, Source::Expires);
        check(&[("expires", &at(60)), ("date", &at(-40))], 100, Source::Expires);
        check(&[("expires", &at(60)), ("date", "nonsense")], 60, Source::Expires);
        check(&[("expires", &at(-60)), ("date", &at(0))], 0, Source::Expires);
        check(&[("expires", "0")], 0, Source::Expires);
        check(
            &[("expires", ""), ("last-modified", &at(-1000))],
            0,
            Source::Expires,
        );
        check(&[("expires", &at(5)), ("expires", &at(60))], 5, Source::Expires);
        check(
            &[("expires", &at(60)), ("cache-control", "max-age=5")],
            5,
            Source::MaxAge,
        );
        check(
            &[("last-modified", &at(-1000)), ("date", &at(0))],
            100,
            Source::Heuristic,
        );
        check(&[("last-modified", &at(-100_000_000))], 86_400, Source::Heuristic);
        check(&[("last-modified", &at(1000))], 0, Source::Heuristic);
        check(&[("last-modified", "nonsense")], 0, Source::None);
    }

    #[test]
    fn a_targeted_field_silences_expires() {
        let fields = fields(&[("cdn-cache-control", "x"), ("expires", &at(60))]);
        let target = HeaderName::from_static("cdn-cache-control");
        let directives = super::super::directives::effective(&fields, &[target]);
        let found = lifetime(StatusCode::OK, &fields, &directives, times(), &silent(), true);
        assert_eq!(found.source, Source::None);
    }

    #[test]
    fn heuristics_need_a_status_or_public() {
        let modified = at(-1000);
        let check = |status: u16, control: &str, source: Source| {
            let lines = [("last-modified", modified.as_str()), ("cache-control", control)];
            assert_eq!(
                of(status, &lines, &silent(), true).source,
                source,
                "{status} {control}"
            );
        };
        for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
            check(status, "", Source::Heuristic);
        }
        for status in [201, 302, 303, 307, 403, 500, 503, 599] {
            check(status, "", Source::None);
            check(status, "public", Source::Heuristic);
        }
        let never = Lifetimes {
            heuristic: false,
            ..silent()
        };
        let found = of(200, &[("last-modified", modified.as_str())], &never, true);
        assert_eq!(found.source, Source::None);
    }

    #[test]
    fn what_the_site_says() {
        let minute = ("cache-control", "max-age=60");
        let check = |status: u16, lines: &[(&str, &str)], site: Lifetimes, expected: u64, source: Source| {
            let found = of(status, lines, &site, false);
            assert_eq!(
                (found.fresh, found.source),
                (secs(expected), source),
                "{status} {lines:?} {site:?}"
            );
        };
        let ruled = || Lifetimes {
            ttl: Some(secs(7)),
            ttl_min: Some(secs(20)),
            ..silent()
        };
        check(200, &[minute], ruled(), 7, Source::Rule);
        check(404, &[], ruled(), 10, Source::Negative);
        check(410, &[("cache-control", "max-age=3")], ruled(), 3, Source::MaxAge);
        check(503, &[], ruled(), 0, Source::None);
        let bounded = || Lifetimes {
            ttl_default: Some(secs(500)),
            ttl_min: Some(secs(20)),
            ttl_max: Some(secs(100)),
            ..silent()
        };
        check(200, &[], bounded(), 100, Source::Default);
        check(
            200,
            &[("last-modified", &at(-1000))],
            bounded(),
            100,
            Source::Default,
        );
        check(
            200,
            &[("cache-control", "max-age=1")],
            bounded(),
            20,
            Source::MaxAge,
        );
        check(200, &[minute], bounded(), 60, Source::MaxAge);
        check(
            503,
            &[("cache-control", "max-age=1")],
            bounded(),
            1,
            Source::MaxAge,
        );
        check(302, &[], bounded(), 0, Source::None);
        let crossed = Lifetimes {
            ttl_min: Some(secs(50)),
            ttl_max: Some(secs(30)),
            ..silent()
        };
        check(200, &[minute], crossed, 30, Source::MaxAge);
    }

    #[test]
    fn a_strict_site_has_no_defaults_but_its_rules() {
        let site = Lifetimes {
            ttl_default: Some(secs(500)),
            stale_while_revalidate: Some(secs(60)),
            stale_if_error: Some(secs(600)),
            ..silent()
        };
        let found = of(200, &[], &site, true);
        assert_eq!((found.source, found.stale_if_error), (Source::None, secs(600)));
        assert_eq!(found.stale_while_revalidate, secs(60));
        let found = of(200, &[("cache-control", "s-maxage=1")], &site, true);
        assert_eq!(found.stale_if_error, Duration::ZERO);
        let found = of(200, &[], &silent(), true);
        assert_eq!(found.stale_if_error, Duration::ZERO);
        assert_eq!(of(404, &[], &site, true).source, Source::None);
        let ruled = Lifetimes {
            ttl: Some(secs(7)),
            ..site
        };
        assert_eq!(of(200, &[], &ruled, true).source, Source::Rule);
    }

    #[test]
    fn stale_windows() {
        let site = Lifetimes {
            stale_while_revalidate: Some(secs(100)),
            stale_if_error: Some(secs(1000)),
            ..silent()
        };
        let check = |status: u16, control: &str, strict: bool, expected: (u64, u64), must: bool| {
            let found = of(status, &[("cache-control", control)], &site, strict);
            let windows = (found.stale_while_revalidate, found.stale_if_error);
            let expected = (secs(expected.0), secs(expected.1));
            assert_eq!(
                (windows, found.must_revalidate),
                (expected, must),
                "{status} {control} strict={strict}"
            );
        };
        check(200, "max-age=1", false, (100, 1000), false);
        check(
            200,
            "max-age=1, stale-while-revalidate=0",
            false,
            (0, 1000),
            false,
        );
        check(
            200,
            "max-age=1, stale-while-revalidate=5, stale-if-error=6",
            true,
            (5, 6),
            false,
        );
        check(200, "max-age=1", true, (100, 1000), false);
        for forbidding in ["must-revalidate", "proxy-revalidate", "no-cache"] {
            let control = format!("max-age=1, stale-if-error=9, stale-while-revalidate=9, {forbidding}");
            check(200, &control, false, (0, 0), true);
            check(200, &control, true, (0, 0), true);
        }
        check(200, "s-maxage=1", false, (0, 0), true);
        check(200, "s-maxage=1, stale-while-revalidate=60", false, (60, 0), true);
        check(200, "s-maxage=1, stale-while-revalidate=60", true, (0, 0), true);
        // A stale 404 is better than an error, but is not shown where a fetch would tell.
        check(404, "max-age=1", false, (0, 1000), false);
        check(500, "max-age=1", false, (0, 0), false);
        check(500, "max-age=1, stale-if-error=9", false, (0, 9), false);
    }

    #[test]
    fn ages() {
        let check = |lines: &[(&str, &str)], delay_ms: u64, expected_ms: u64| {
            let mut times = times();
            times.request = times.response - Duration::from_millis(delay_ms);
            let found = corrected_initial_age(&fields(lines), times);
            assert_eq!(found, Duration::from_millis(expected_ms), "{lines:?}");
        };
        check(&[], 0, 0);
        check(&[], 1500, 1500);
        check(&[("age", "10")], 1500, 11_500);
        check(&[("date", &at(-5))], 1500, 5_000);
        check(&[("date", &at(5))], 0, 0);
        check(&[("date", &at(-5)), ("age", "10")], 0, 10_000);
        check(&[("date", &at(-20)), ("age", "10")], 0, 20_000);
        check(&[("age", "10, 20")], 0, 10_000);
        check(&[("age", "10"), ("age", "20")], 0, 10_000);
        check(&[("age", "10;x=y, 20")], 0, 10_000);
        for ignored in ["-1", "1.5", "a10", "10a", "", ", 10", "\"10\"", ";10"] {
            check(&[("age", ignored)], 0, 0);
        }
        check(&[("age", "99999999999999999999")], 0, (1 << 31) * 1000);
    }

    #[test]
    fn age_grows_with_time_and_never_shrinks() {
        let came = Timestamp::from_unix_seconds(NOW);
        let later = came + Duration::from_millis(2500);
        assert_eq!(current_age(secs(1), came, later), Duration::from_millis(3500));
        let set_back = current_age(secs(1), came, came - secs(100));
        assert_eq!(
            set_back,
            secs(101),
            "what comes from the future is old, never young"
        );
    }

    #[test]
    fn ttl_is_rounded_down() {
        let lifetime = of(200, &[("cache-control", "max-age=10")], &silent(), true);
        for (age_ms, expected) in [
            (0, 10),
            (1, 9),
            (9_999, 0),
            (10_000, 0),
            (10_001, -1),
            (12_000, -2),
        ] {
            assert_eq!(lifetime.ttl(Duration::from_millis(age_ms)), expected, "{age_ms}");
        }
        assert!(!lifetime.is_fresh(secs(10)));
        assert_eq!(lifetime.ttl(Duration::MAX), -i64::MAX);
    }
}
