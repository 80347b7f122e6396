//! Bearer tokens (RFC 6750): who asks, what they may do, and how often they may purge.
//!
//! Only a token's SHA-256 is known here. Tokens are random and long, so a plain hash is enough; it is compared with
//! all known ones in constant time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::refusal::Refusal;
use crate::clock::Timestamp;
use crate::config::{self, Scope};

/// The tokens of a configuration.
#[derive(Debug)]
pub(super) struct Tokens(Vec<Known>);

/// A token that is known.
#[derive(Debug)]
pub(super) struct Known {
    token: config::Token,
    bucket: Mutex<Bucket>,
}

impl Tokens {
    pub(super) fn new(config: &config::Admin) -> Self {
        let known = |token: &config::Token| Known {
            token: token.clone(),
            bucket: Mutex::new(Bucket::new(config.purges_per_second)),
        };
        Self(config.tokens.iter().map(known).collect())
    }

    /// Who asks: nobody in particular when no credentials are shown, and a refusal when wrong ones are.
    pub(super) fn identify(&self, headers: &HeaderMap) -> Result<Option<&Known>, Refusal> {
        let mut fields = headers.get_all(AUTHORIZATION).iter();
        let Some(field) = fields.next() else {
            return Ok(None);
        };
        if fields.next().is_some() {
            return Err(Refusal::WrongToken);
        }
        let token = bearer(field.as_bytes()).ok_or(Refusal::WrongToken)?;
        self.find(token).map(Some).ok_or(Refusal::WrongToken)
    }

    /// Looks at every token, also after a match, so that time tells nothing about where in the list one stands.
    fn find(&self, token: &[u8]) -> Option<&Known> {
        let hash = digest(&SHA256, token);
        let mut found = None;
        for known in &self.0 {
            if verify_slices_are_equal(hash.as_ref(), &known.token.sha256).is_ok() {
                found = Some(known);
            }
        }
        found
    }
}

impl Known {
    /// The name for audit lines.
    pub(super) fn name(&self) -> &str {
        &self.token.name
    }

    /// Refuses when the token does not allow `scope`.
    pub(super) fn require(&self, scope: Scope) -> Result<(), Refusal> {
        let scopes = &self.token.scopes;
        if scopes.contains(&scope) || scopes.contains(&Scope::Admin) {
            return Ok(());
        }
        Err(Refusal::Scope(match scope {
            Scope::Admin => "admin",
            Scope::Purge => "purge",
            Scope::Read => "read",
        }))
    }

    /// Takes leave for one purge.
    pub(super) fn take(&self, now: Timestamp) -> Result<(), Refusal> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.take(now).map_err(Refusal::TooOften)
    }
}

/// The token of a field such as `Bearer abc`.
fn bearer(field: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = field.split_at_checked("bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

/// A token bucket: `rate` per second, and no more than that at once.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    left: f64,
    at: Option<Timestamp>,
}

impl Bucket {
    fn new(per_second: u32) -> Self {
        let rate = f64::from(per_second.max(1));
        Self {
            rate,
            left: rate,
            at: None,
        }
    }

    /// Takes one, or says how long to wait for it.
    fn take(&mut self, now: Timestamp) -> Result<(), Duration> {
        let passed = self.at.map_or(Duration::ZERO, |at| now.since(at));
        self.at = Some(now);
        self.left = (self.left + passed.as_secs_f64() * self.rate).min(self.rate);
        if self.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.left) / self.rate));
        }
        self.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_by_their_grammar() {
        let check = |field: &str, expected: Option<&str>| {
            assert_eq!(bearer(field.as_bytes()), expected.map(str::as_bytes), "{field:?}");
        };
        check("Bearer abc", Some("abc"));
        check("bEARER  abc ", Some("abc"));
        check("Bearer", None);
        check("Bearer ", None);
        check("Basic abc", None);
        check("Bearerabc", None);
        check("", None);
    }

    #[test]
    fn a_token_is_found_by_its_hash_alone() {
        let token = |name: &str, secret: &str| config::Token {
            name: name.into(),
            sha256: digest(&SHA256, secret.as_bytes()).as_ref().try_into().unwrap(),
            scopes: vec![Scope::Purge],
        };
        let tokens = Tokens::new(&config::Admin {
            listen: None,
            tokens: vec![token("a", "secret-a"), token("b", "secret-b")],
            hosts: Vec::new(),
            protect_health: false,
            purges_per_second: 1,
        });
        let check = |secret: &[u8], expected: Option<&str>| {
            assert_eq!(tokens.find(secret).map(Known::name), expected);
        };
        check(b"secret-a", Some("a"));
        check(b"secret-b", Some("b"));
        check(b"secret-c", None);
        check(b"secret-", None);
        check(b"secret-aa", None);
        check(b"", None);
        let known = tokens.find(b"secret-a").unwrap();
        assert_eq!(known.require(Scope::Purge), Ok(()));
        assert_eq!(known.require(Scope::Read), Err(Refusal::Scope("read")));
        assert_eq!(known.require(Scope::Admin), Err(Refusal::Scope("admin")));
    }

    #[test]
    fn a_bucket_gives_its_rate_and_says_how_long_to_wait() {
        let start = Timestamp::from_unix_seconds(100);
        let mut bucket = Bucket::new(4);
        for _ in 0..4 {
            assert_eq!(bucket.take(start), Ok(()));
        }
        assert_eq!(bucket.take(start), Err(Duration::from_millis(250)));
        assert_eq!(bucket.take(start + Duration::from_millis(250)), Ok(()));
        assert!(bucket.take(start + Duration::from_millis(260)).is_err());
        // A long rest earns no more than one second's worth.
        let late = start + Duration::from_secs(3600);
        let given = (0..10).filter(|_| bucket.take(late).is_ok()).count();
        assert_eq!(given, 4);
    }
}
