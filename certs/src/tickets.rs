//! Session tickets that every node of a fleet can resume, without a word between them.
//!
//! The key of an hour is derived (HKDF, RFC 5869) from a secret that the nodes share, so each of them seals and opens what
//! the others do, and nothing is stored. A ticket is good for twelve hours. That it comes back under the name it was given for is checked
//! by rustls, which keeps that name inside: a ticket of one site opens nothing at another. Whoever has the secret can read
//! resumed TLS 1.2 traffic, so it is changed now and then: several secrets are taken, the first of which seals.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use rustls::server::ProducesTickets;

use crate::store::seal::expand;
use crate::store::slot::unix;

const HOUR: u64 = 3600;
/// How many hours back a ticket is taken.
const HOURS_BACK: u32 = 12;
/// How far the clocks of two nodes may be apart, at the turn of an hour.
const HOURS_AHEAD: u32 = 1;
/// No session of ours is larger; what is, is nobody's ticket.
const TICKET_BYTES_MAX: usize = 16 * 1024;
const ID_BYTES: usize = 4;
const NONCE_BYTES: usize = 12;

/// Says what time it is.
pub type Now = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Seals and opens session tickets.
pub struct Tickets {
    secrets: Vec<Secret>,
    now: Now,
    /// The keys of hours that were asked for, each derived once.
    keys: ArcSwap<HashMap<(u32, u32), Arc<RandomizedNonceKey>>>,
}

struct Secret {
    id: u32,
    bytes: [u8; 32],
}

impl Tickets {
    /// Tickets under `secrets`, of which the first seals. `None` without a secret.
    pub fn new(secrets: &[[u8; 32]], now: Now) -> Option<Self> {
        let secrets: Vec<Secret> = secrets
            .iter()
            .filter_map(|bytes| {
                let id = expand(bytes, &[b"portico ticket secret id"])?;
                Some(Secret {
                    id: u32::from_be_bytes(*id.first_chunk()?),
                    bytes: *bytes,
                })
            })
            .collect();
        (!secrets.is_empty()).then(|| Self {
            secrets,
            now,
            keys: ArcSwap::default(),
        })
    }

    fn hour(&self) -> u32 {
        u32::try_from(unix((self.now)()) / HOUR).unwrap_or(u32::MAX)
    }

    /// The key of an hour that may still be used.
    fn key(&self, id: u32, hour: u32) -> Option<Arc<RandomizedNonceKey>> {
        if let Some(key) = self.keys.load().get(&(id, hour)) {
            return Some(Arc::clone(key));
        }
        let secret = self.secrets.iter().find(|secret| secret.id == id)?;
        let derived = expand(&secret.bytes, &[b"portico session tickets", &hour.to_be_bytes()])?;
        let key = Arc::new(RandomizedNonceKey::new(&AES_256_GCM, &derived).ok()?);
        let oldest = self.hour().saturating_sub(HOURS_BACK);
        self.keys.rcu(|keys| {
            let mut keys: HashMap<_, _> = keys
                .iter()
                .filter(|((_, hour), _)| *hour >= oldest)
                .map(|(at, key)| (*at, Arc::clone(key)))
                .collect();
            keys.insert((id, hour), Arc::clone(&key));
            keys
        });
        Some(key)
    }

    fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let (id, hour) = (self.secrets.first()?.id, self.hour());
        let head = head(id, hour);
        let mut text = plain.to_vec();
        let nonce = self
            .key(id, hour)?
            .seal_in_place_append_tag(Aad::from(head), &mut text)
            .ok()?;
        let mut ticket = Vec::with_capacity(head.len() + NONCE_BYTES + text.len());
        ticket.extend_from_slice(&head);
        ticket.extend_from_slice(nonce.as_ref());
        ticket.append(&mut text);
        Some(ticket)
    }

    fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (id, rest) = ticket.split_first_chunk::<ID_BYTES>()?;
        let (hour, rest) = rest.split_first_chunk::<4>()?;
        let (nonce, text) = rest.split_at_checked(NONCE_BYTES)?;
        let (id, hour) = (u32::from_be_bytes(*id), u32::from_be_bytes(*hour));
        let now = self.hour();
        if hour > now.saturating_add(HOURS_AHEAD) || hour < now.saturating_sub(HOURS_BACK) {
            return None;
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let plain = self
            .key(id, hour)?
            .open_in_place(nonce, Aad::from(head(id, hour)), &mut text)
            .ok()?;
        Some(plain.to_vec())
    }
}

fn head(id: u32, hour: u32) -> [u8; 8] {
    ((u64::from(id) << 32) | u64::from(hour)).to_be_bytes()
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(Duration::from_secs(u64::from(HOURS_BACK) * HOUR).as_secs()).unwrap_or(0)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tickets({} secrets)", self.secrets.len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::testing::now;

    #[derive(Clone)]
    struct Hand(Arc<Mutex<SystemTime>>);

    impl Hand {
        fn new() -> Self {
            Self(Arc::new(Mutex::new(now())))
        }

        fn advance(&self, hours: u64) {
            *self.0.lock().unwrap() += Duration::from_secs(hours * HOUR);
        }

        fn node(&self, secrets: &[[u8; 32]]) -> Tickets {
            let hand = Arc::clone(&self.0);
            Tickets::new(secrets, Arc::new(move || *hand.lock().unwrap())).unwrap()
        }
    }

    #[test]
    fn what_one_node_seals_another_opens_for_twelve_hours() {
        let hand = Hand::new();
        let (one, other) = (hand.node(&[[1; 32]]), hand.node(&[[1; 32]]));
        let ticket = one.encrypt(b"session").unwrap();
        for _ in 0..=HOURS_BACK {
            assert_eq!(other.decrypt(&ticket).as_deref(), Some(b"session".as_slice()));
            hand.advance(1);
        }
        assert_eq!(other.decrypt(&ticket), None);
        assert!(one.keys.load().len() + other.keys.load().len() <= 2 + HOURS_BACK as usize);
    }

    #[test]
    fn a_node_whose_clock_is_behind_opens_what_the_next_hour_sealed() {
        let (ahead, behind) = (Hand::new(), Hand::new());
        ahead.advance(1);
        let ticket = ahead.node(&[[1; 32]]).encrypt(b"session").unwrap();
        assert!(behind.node(&[[1; 32]]).decrypt(&ticket).is_some());
        ahead.advance(1);
        let ticket = ahead.node(&[[1; 32]]).encrypt(b"session").unwrap();
        assert!(behind.node(&[[1; 32]]).decrypt(&ticket).is_none());
    }

    #[test]
    fn a_secret_is_changed_while_old_tickets_still_open() {
        let hand = Hand::new();
        let (old, both) = (hand.node(&[[1; 32]]), hand.node(&[[2; 32], [1; 32]]));
        let ticket = old.encrypt(b"session").unwrap();
        assert!(both.decrypt(&ticket).is_some());
        assert!(old.decrypt(&both.encrypt(b"session").unwrap()).is_none());
        assert!(Tickets::new(&[], Arc::new(now)).is_none());
    }

    #[test]
    fn whatever_a_client_sends_is_refused_unless_it_is_a_ticket() {
        let node = Hand::new().node(&[[1; 32]]);
        let ticket = node.encrypt(b"session").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 0x80;
            assert_eq!(node.decrypt(&changed), None, "byte {at}");
            assert_eq!(node.decrypt(&ticket[..at]), None, "{at} bytes");
        }
        assert_eq!(node.decrypt(&vec![0; TICKET_BYTES_MAX + 1]), None);
        assert_ne!(node.encrypt(b"session").unwrap(), ticket);
    }
}
