//! Whether a stored response may be used for a request, fresh or stale (RFC 9111 sections 4, 4.2.4 and 5.2.1).
//!
//! A site may keep browsers from steering: of a request's directives it then heeds `only-if-cached` and
//! `stale-if-error` alone. A reload sends `no-cache` or `max-age=0`, and an edge that obeyed would hand each client a
//! lever on the origin. A strict site heeds them all unless it says otherwise.

use std::time::Duration;

use super::directives::RequestDirectives;
use super::freshness::Lifetime;

/// How long past its lifetime a response is served while the origin is silent, where nothing says otherwise.
const SILENCE_MAX: Duration = Duration::from_hours(24);

/// What may be done with a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Use it.
    Fresh,
    /// Validate it first, or fetch anew.
    MustValidate {
        /// Why.
        why: Why,
        /// Whether it may be used if the origin fails.
        stale_if_error_left: bool,
    },
    /// A forward would be needed and the request forbids it: 504 (RFC 9111 section 5.2.1.7).
    OnlyIfCached,
    /// Use it stale: the request's `max-stale` allows it.
    StaleAllowed,
    /// Use it stale, and revalidate in the background.
    StaleWhileRevalidate,
}

/// Why a stored response needs validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its own `no-cache` asks for it each time.
    NoCache,
    /// The request asks for it.
    Request,
    /// A soft purge made it stale.
    SoftlyPurged,
    /// It is stale.
    Stale,
}

/// Decides over a stored response of age `age`. `heeds` is whether the site heeds the directives of requests.
pub fn judge(
    lifetime: &Lifetime,
    age: Duration,
    request: &RequestDirectives,
    softly_purged: bool,
    heeds: bool,
) -> Verdict {
    let forward = |why| {
        if request.only_if_cached {
            return Verdict::OnlyIfCached;
        }
        Verdict::MustValidate {
            why,
            stale_if_error_left: may_serve_on_error(lifetime, age, request),
        }
    };
    if lifetime.no_cache {
        return forward(Why::NoCache);
    }
    if heeds && request_refuses(lifetime, age, request) {
        return forward(Why::Request);
    }
    if lifetime.is_fresh(age) && !softly_purged {
        return Verdict::Fresh;
    }
    // RFC 9111 sections 5.2.1.1 and 5.2.1.2: whoever sends max-age takes nothing stale, unless max-stale is there too; and
    // then nothing that is staler.
    let staleness = age.saturating_sub(lifetime.fresh);
    let takes_stale = match (request.max_age, request.max_stale) {
        _ if !heeds => true,
        (Some(_), None) => false,
        (_, Some(max)) => staleness <= max,
        (None, None) => true,
    };
    if takes_stale && staleness < lifetime.stale_while_revalidate {
        return Verdict::StaleWhileRevalidate;
    }
    let max_stale = request.max_stale.filter(|_| heeds && !lifetime.must_revalidate);
    if !softly_purged && max_stale.is_some_and(|max| staleness <= max) {
        return Verdict::StaleAllowed;
    }
    forward(if softly_purged && lifetime.is_fresh(age) {
        Why::SoftlyPurged
    } else {
        Why::Stale
    })
}

/// Whether a stored response of age `age` may be served when the origin fails (RFC 5861 section 4).
pub fn may_serve_on_error(lifetime: &Lifetime, age: Duration, request: &RequestDirectives) -> bool {
    if lifetime.no_cache {
        return false;
    }
    let asked = request
        .stale_if_error
        .filter(|_| !lifetime.must_revalidate)
        .unwrap_or_default();
    let window = lifetime.stale_if_error.max(asked);
    // Without a window nothing may take the place of an error, fresh as it may be: who asked for a validation is told.
    !window.is_zero() && age < lifetime.fresh.saturating_add(window)
}

/// Whether a stored response of age `age` may be served when the origin gives no answer at all, and nothing says anything
/// of that: RFC 9111 section 4.2.4 lets a cache that is disconnected serve stale what is not forbidden. A day is enough.
pub fn may_serve_when_silent(lifetime: &Lifetime, age: Duration) -> bool {
    !lifetime.no_cache && !lifetime.must_revalidate && age < lifetime.fresh.saturating_add(SILENCE_MAX)
}

/// Whether the request's own directives refuse the response as it is (RFC 9111 sections 5.2.1.1 to 5.2.1.4).
fn request_refuses(lifetime: &Lifetime, age: Duration, request: &RequestDirectives) -> bool {
    request.no_cache
        || request.max_age.is_some_and(|max| age > max)
        || request
            .min_fresh
            .is_some_and(|min| !lifetime.is_fresh(age) || lifetime.fresh.saturating_sub(age) < min)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::CACHE_CONTROL;

    use super::super::freshness::Source;
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Fresh for 100 s, then 10 s while it is revalidated, 50 s when the origin fails.
    const KEPT: Lifetime = Lifetime {
        fresh: Duration::from_secs(100),
        stale_while_revalidate: Duration::from_secs(10),
        stale_if_error: Duration::from_secs(50),
        must_revalidate: false,
        no_cache: false,
        source: Source::MaxAge,
    };

    /// The same without windows.
    const BARE: Lifetime = Lifetime {
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::ZERO,
        ..KEPT
    };

    const FORBIDDING: Lifetime = Lifetime {
        must_revalidate: true,
        ..BARE
    };

    fn request(control: &str) -> RequestDirectives {
        let mut fields = HeaderMap::new();
        if !control.is_empty() {
            fields.insert(CACHE_CONTROL, control.parse().unwrap());
        }
        RequestDirectives::parse(&fields)
    }

    fn validate(why: Why, stale_if_error_left: bool) -> Verdict {
        Verdict::MustValidate {
            why,
            stale_if_error_left,
        }
    }

    #[test]
    fn by_age() {
        let check = |lifetime: Lifetime, age: u64, expected: Verdict| {
            for strict in [true, false] {
                let verdict = judge(&lifetime, secs(age), &request(""), false, strict);
                assert_eq!(verdict, expected, "{age} {lifetime:?}");
            }
        };
        check(KEPT, 0, Verdict::Fresh);
        check(KEPT, 99, Verdict::Fresh);
        check(KEPT, 100, Verdict::StaleWhileRevalidate);
        check(KEPT, 109, Verdict::StaleWhileRevalidate);
        check(KEPT, 110, validate(Why::Stale, true));
        check(KEPT, 149, validate(Why::Stale, true));
        check(KEPT, 150, validate(Why::Stale, false));
        check(BARE, 100, validate(Why::Stale, false));
        let no_cache = Lifetime {
            no_cache: true,
            ..KEPT
        };
        check(no_cache, 0, validate(Why::NoCache, false));
    }

    #[test]
    fn by_the_requests_word_on_a_strict_site() {
        let check = |lifetime: Lifetime, control: &str, age: u64, expected: Verdict| {
            let verdict = judge(&lifetime, secs(age), &request(control), false, true);
            assert_eq!(verdict, expected, "{control} {age}");
        };
        check(BARE, "no-cache", 0, validate(Why::Request, false));
        check(BARE, "max-age=0", 1, validate(Why::Request, false));
        check(BARE, "max-age=50", 50, Verdict::Fresh);
        check(BARE, "max-age=50", 51, validate(Why::Request, false));
        check(BARE, "max-age=500", 101, validate(Why::Stale, false));
        check(KEPT, "max-age=500", 101, validate(Why::Stale, true));
        check(BARE, "max-age=500, max-stale=5", 101, Verdict::StaleAllowed);
        check(BARE, "min-fresh=30", 70, Verdict::Fresh);
        check(BARE, "min-fresh=30", 71, validate(Why::Request, false));
        check(BARE, "max-stale", 100_000, Verdict::StaleAllowed);
        check(BARE, "max-stale=5", 105, Verdict::StaleAllowed);
        check(BARE, "max-stale=5", 106, validate(Why::Stale, false));
        check(FORBIDDING, "max-stale", 101, validate(Why::Stale, false));
        check(BARE, "only-if-cached", 99, Verdict::Fresh);
        check(BARE, "only-if-cached", 100, Verdict::OnlyIfCached);
        check(BARE, "only-if-cached, no-cache", 0, Verdict::OnlyIfCached);
        check(KEPT, "only-if-cached", 100, Verdict::StaleWhileRevalidate);
    }

    #[test]
    fn other_sites_do_not_let_a_browser_steer() {
        for control in ["no-cache", "max-age=0", "min-fresh=1000", "no-store"] {
            let verdict = judge(&KEPT, secs(50), &request(control), false, false);
            assert_eq!(verdict, Verdict::Fresh, "{control}");
        }
        let verdict = judge(&BARE, secs(101), &request("max-stale"), false, false);
        assert_eq!(verdict, validate(Why::Stale, false));
        let verdict = judge(&BARE, secs(101), &request("only-if-cached"), false, false);
        assert_eq!(verdict, Verdict::OnlyIfCached);
    }

    #[test]
    fn a_soft_purge_makes_stale() {
        let check = |lifetime: Lifetime, age: u64, expected: Verdict| {
            let verdict = judge(&lifetime, secs(age), &request("max-stale"), true, true);
            assert_eq!(verdict, expected, "{age} {lifetime:?}");
        };
        check(KEPT, 1, Verdict::StaleWhileRevalidate);
        check(BARE, 1, validate(Why::SoftlyPurged, false));
        check(KEPT, 120, validate(Why::Stale, true));
        check(BARE, 120, validate(Why::Stale, false));
    }

    #[test]
    fn when_the_origin_is_silent() {
        let day = 24 * 3600;
        let check = |lifetime: Lifetime, age: u64, expected: bool| {
            assert_eq!(
                may_serve_when_silent(&lifetime, secs(age)),
                expected,
                "{age} {lifetime:?}"
            );
        };
        check(BARE, 0, true);
        check(BARE, 100 + day - 1, true);
        check(BARE, 100 + day, false);
        check(FORBIDDING, 101, false);
        let no_cache = Lifetime {
            no_cache: true,
            ..BARE
        };
        check(no_cache, 1, false);
    }

    #[test]
    fn when_the_origin_fails() {
        let check = |lifetime: Lifetime, control: &str, age: u64, expected: bool| {
            let may = may_serve_on_error(&lifetime, secs(age), &request(control));
            assert_eq!(may, expected, "{control} {age} {lifetime:?}");
        };
        check(KEPT, "", 149, true);
        check(KEPT, "", 150, false);
        check(KEPT, "stale-if-error=60", 159, true);
        check(KEPT, "stale-if-error=1", 149, true);
        check(BARE, "", 100, false);
        check(FORBIDDING, "stale-if-error=60", 101, false);
        check(FORBIDDING, "", 99, false);
    }
}
