//! The log of requests seen, so that a test can ask what arrived: the last 10,000, oldest first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, Method, Uri, header};
use serde::Serialize;
use tokio::sync::watch;

/// A request that arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// `GET`, ...
    pub method: String,
    /// The bucket; empty when the whole service was addressed.
    pub bucket: String,
    /// The key, decoded; empty when the bucket was addressed.
    pub key: String,
    /// The query, as sent.
    pub query: String,
    /// `Range`, as sent.
    pub range: Option<String>,
    /// `If-Match`, as sent.
    pub if_match: Option<String>,
    /// `If-None-Match`, as sent.
    pub if_none_match: Option<String>,
    /// How it was answered; nothing while it is not.
    pub status: Option<u16>,
}

/// The ring of what was seen.
#[derive(Clone, Debug)]
pub(super) struct Log(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ring: Mutex<Ring>,
    arrivals: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    seen: VecDeque<Seen>,
    /// The number of the first one in the ring.
    first: u64,
}

const SEEN_MAX: usize = 10_000;

impl Seen {
    /// What a request asks for, before it is answered.
    pub(super) fn of(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        let text = |name| {
            headers
                .get(name)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let path = uri.path().trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        Self {
            method: method.to_string(),
            bucket: bucket.to_owned(),
            key: decode(key),
            query: uri.query().unwrap_or_default().to_owned(),
            range: text(header::RANGE),
            if_match: text(header::IF_MATCH),
            if_none_match: text(header::IF_NONE_MATCH),
            status: None,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self(Arc::new(Inner {
            ring: Mutex::default(),
            arrivals: watch::Sender::new(0),
        }))
    }
}

impl Log {
    /// Notes an arrival; the number is for [`Log::answered`].
    pub(super) fn arrived(&self, seen: Seen) -> u64 {
        let mut ring = self.0.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.seen.len() == SEEN_MAX {
            ring.seen.pop_front();
            ring.first += 1;
        }
        let number = ring.first + ring.seen.len() as u64;
        ring.seen.push_back(seen);
        drop(ring);
        self.0.arrivals.send_modify(|arrivals| *arrivals += 1);
        number
    }

    /// Notes the answer. It may have left the ring by now.
    pub(super) fn answered(&self, number: u64, status: u16) {
        let mut ring = self.0.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let place = number
            .checked_sub(ring.first)
            .and_then(|place| usize::try_from(place).ok());
        if let Some(seen) = place.and_then(|place| ring.seen.get_mut(place)) {
            seen.status = Some(status);
        }
    }

    /// All that is in the ring.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.0
            .ring
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .seen
            .iter()
            .cloned()
            .collect()
    }

    /// Empties the ring. Who is still unanswered is not noted any more.
    pub(super) fn clear(&self) {
        let mut ring = self.0.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.first += ring.seen.len() as u64;
        ring.seen.clear();
    }

    /// Waits until `wanted` is true of what was seen; it is asked again at each arrival.
    pub(super) async fn until(&self, mut wanted: impl FnMut(&[Seen]) -> bool) {
        let mut arrivals = self.0.arrivals.subscribe();
        while !wanted(&self.seen()) {
            if arrivals.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Percent-decoding; what is not UTF-8 then is shown with replacement characters.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((head, tail)) = rest.split_once('%') {
        bytes.extend_from_slice(head.as_bytes());
        let coded = tail
            .split_at_checked(2)
            .and_then(|(digits, behind)| Some((hex::decode(digits).ok()?, behind)));
        match coded {
            Some((byte, behind)) => {
                bytes.extend_from_slice(&byte);
                rest = behind;
            }
            None => {
                bytes.push(b'%');
                rest = tail;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(path: &str) -> Seen {
        Seen::of(&Method::GET, &path.parse().unwrap(), &HeaderMap::new())
    }

    #[test]
    fn a_request_is_seen_by_bucket_and_key() {
        let check = |path: &str, bucket: &str, key: &str| {
            let seen = seen(path);
            assert_eq!((seen.bucket.as_str(), seen.key.as_str()), (bucket, key), "{path}");
        };
        check("/", "", "");
        check("/b", "b", "");
        check("/b/", "b", "");
        check("/b/a/c%20d%2Fe?list-type=2", "b", "a/c d/e");
        check("/b/50%", "b", "50%");
        check("/b/%zz%41", "b", "%zzA");
    }

    #[test]
    fn the_ring_forgets_the_oldest() {
        let log = Log::default();
        let first = log.arrived(seen("/b/0"));
        for number in 1..=SEEN_MAX {
            log.arrived(seen(&format!("/b/{number}")));
        }
        log.answered(first, 200);
        let all = log.seen();
        assert_eq!(
            (all.len(), all[0].key.as_str(), all[0].status),
            (SEEN_MAX, "1", None)
        );
        log.clear();
        let number = log.arrived(seen("/b/x"));
        log.answered(number, 404);
        assert_eq!(log.seen()[0].status, Some(404));
    }
}
