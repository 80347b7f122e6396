//! Whether a stored response may be used for a request, fresh or stale (RFC 9111 sections 4, 4.2.4 and 5.2.1).
//!
//! A site that is not `strict` does not let browsers steer: of a request's directives it heeds `only-if-cached` and
//! `stale-if-error` alone. A reload sends `no-cache` or `max-age=0`, and an edge that obeyed would hand each client a
//! lever on the origin. A strict site heeds them all.

use std::time::Duration;

use super::directives::RequestDirectives;
use super::freshness::Lifetime;

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

/// Decides over a stored response of age `age`.
pub fn judge(
    lifetime: &Lifetime,
    age: Duration,
    request: &RequestDirectives,
    softly_purged: bool,
    strict: bool,
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
    if strict && request_refuses(lifetime, age, request) {
        return forward(Why::Request);
    }
    if lifetime.is_fresh(age) && !softly_purged {
        return Verdict::Fresh;
    }
    // RFC 9111 section 5.2.1.1: whoever sends max-age takes nothing stale, unless max-stale is there too.
    let takes_stale = !strict || request.max_age.is_none() || request.max_stale.is_some();
    let staleness = age.saturating_sub(lifetime.fresh);
    if takes_stale && staleness < lifetime.stale_while_revalidate {
        return Verdict::StaleWhileRevalidate;
    }
    let max_stale = request.max_stale.filter(|_| strict && !lifetime.must_revalidate);
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
    age < lifetime.fresh.saturating_add(window)
}

/// Whether the request's own directives refuse the response as it is (RFC 9111 sections 5.2.1.1 to 5.2.1.4).
fn request_refuses(lifetime: &Lifetime, age: Duration, request: &RequestDirectives) -> bool {
    request.no_cache
        || request.max_age.is_some_and(|max| age > max)
        || request
            .min_fresh
            .is_some_and(|min| lifetime.fresh.saturating_sub(age) < min)
}
