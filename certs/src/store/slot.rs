//! What the store says of one certificate: which bundle serves, who is at work on the next one, and how that went.
//!
//! All of it is one object, `names/<id>/current.json`, so that taking the lease and publishing are writes of the same
//! thing. A holder that slept while its lease was stolen holds the tag of a state that is gone, and can change nothing: the lease
//! is fenced by the very write that it guards. Times are whole seconds since 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The state of one certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// What serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Current>,
    /// Who is at work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Held>,
    /// An order under way, sealed: its URL and the key that it is for. Whoever holds the lease next goes on with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<String>,
    /// How the last try went, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Different in each write, so that a writer whose answer got lost can tell its own from another's.
    #[serde(default)]
    pub writer: String,
}

/// The bundle that serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    /// The serial number of the leaf, in hex; the bundle's object is called by it.
    pub serial: String,
    /// When it was published.
    pub issued: u64,
    /// When it ends, for those who only look.
    pub not_after: u64,
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The node that holds it.
    pub owner: String,
    /// Until when.
    pub expires: u64,
}

/// Why there is no newer certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// How many tries failed in a row, by whichever node.
    pub count: u32,
    /// No node tries before.
    pub retry_at: u64,
    /// What the last one said.
    pub reason: String,
}

impl Slot {
    /// The lease, if it holds now: one whose end is further away than any lease lasts was written by a clock that is wrong,
    /// and must not stand in the way for ever.
    pub fn held(&self, now: SystemTime, life: Duration) -> Option<&Held> {
        self.lease.as_ref().filter(|lease| {
            let end = from_unix(lease.expires);
            end > now && end <= now + life * 3
        })
    }
}

/// The key of a certificate's slot.
pub fn slot_key(id: &str) -> String {
    format!("names/{id}/current.json")
}

/// The key of a bundle.
pub fn bundle_key(id: &str, serial: &str) -> String {
    format!("names/{id}/{serial}.bundle")
}

/// The certificate whose slot is at `key`.
pub(crate) fn id_of(key: &str) -> Option<&str> {
    key.strip_prefix("names/")?.strip_suffix("/current.json")
}

/// Whole seconds since 1970.
pub fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The time so many seconds after 1970; nothing that an object says can overflow it.
pub fn from_unix(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.min(u64::from(u32::MAX) * 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::now;

    #[test]
    fn a_lease_holds_until_its_end_and_never_longer_than_leases_last() {
        let life = Duration::from_secs(60);
        let check = |expires: u64, expected: bool| {
            let slot = Slot {
                lease: Some(Held {
                    owner: "a".into(),
                    expires,
                }),
                ..Slot::default()
            };
            assert_eq!(slot.held(now(), life).is_some(), expected, "{expires}");
        };
        let at = unix(now());
        check(at + 60, true);
        check(at + 1, true);
        check(at, false);
        check(at - 60, false);
        check(at + 180, true);
        check(at + 181, false);
        check(u64::MAX, false);
        assert_eq!(Slot::default().held(now(), life), None);
    }

    #[test]
    fn a_slot_reads_what_it_wrote_and_what_an_older_one_wrote() {
        let slot = Slot {
            current: Some(Current {
                serial: "01".into(),
                issued: 1,
                not_after: 2,
            }),
            ..Slot::default()
        };
        let text = serde_json::to_string(&slot).unwrap();
        assert_eq!(serde_json::from_str::<Slot>(&text).unwrap(), slot);
        assert_eq!(serde_json::from_str::<Slot>("{}").unwrap(), Slot::default());
        assert_eq!(id_of(&slot_key("a.example/ecdsa")), Some("a.example/ecdsa"));
        assert_eq!(id_of(&bundle_key("a.example/ecdsa", "01")), None);
    }
}
