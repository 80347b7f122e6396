//! Encryption at rest: AES-256-GCM under a key that the store never sees.
//!
//! What an object is (its name, its serial) is bound to it as associated data, so one that was copied to another's place does
//! not open. Of several keys the first seals and all of them open: that is how a key is changed.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

const MAGIC: &[u8] = b"PCS1";
const KEY_BYTES: usize = 32;
const ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 12;

/// The keys of a fleet, the one that seals first.
#[derive(Clone)]
pub struct Keyring(Vec<Key>);

#[derive(Clone)]
struct Key {
    id: [u8; ID_BYTES],
    secret: [u8; KEY_BYTES],
}

impl Keyring {
    /// Reads keys, a line each: 32 bytes in base64 or hex. Empty lines and lines that begin with `#` do not count.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let lines = text.lines().map(str::trim);
        let lines = lines
            .enumerate()
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let keys: Vec<Key> = lines
            .map(|(at, line)| {
                decode(line)
                    .map(Key::new)
                    .ok_or(KeyError::NotAKey { line: at + 1 })
            })
            .collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err(KeyError::Empty);
        }
        Ok(Self(keys))
    }

    /// A new key, as [`Keyring::parse`] reads it.
    pub fn generate() -> Result<String, KeyError> {
        let mut secret = [0; KEY_BYTES];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| KeyError::NoRandomness)?;
        Ok(STANDARD.encode(secret))
    }

    /// Seals `plain`, bound to `place`.
    pub fn seal(&self, place: &Place<'_>, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let key = self.0.first().ok_or(SealError::Sealing)?;
        let cipher = key.cipher().ok_or(SealError::Sealing)?;
        let mut text = plain.to_vec();
        let nonce = cipher
            .seal_in_place_append_tag(Aad::from(place.bytes()), &mut text)
            .map_err(|_| SealError::Sealing)?;
        let mut sealed = Vec::with_capacity(MAGIC.len() + ID_BYTES + NONCE_BYTES + text.len());
        sealed.extend_from_slice(MAGIC);
        sealed.extend_from_slice(&key.id);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.append(&mut text);
        Ok(sealed)
    }

    /// Opens what was sealed for `place`.
    pub fn open(&self, place: &Place<'_>, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let rest = sealed.strip_prefix(MAGIC).ok_or(SealError::NotSealed)?;
        let (id, rest) = rest.split_at_checked(ID_BYTES).ok_or(SealError::NotSealed)?;
        let (nonce, text) = rest.split_at_checked(NONCE_BYTES).ok_or(SealError::NotSealed)?;
        let key = self
            .0
            .iter()
            .find(|key| key.id == id)
            .ok_or(SealError::UnknownKey)?;
        let cipher = key.cipher().ok_or(SealError::Refused)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::NotSealed)?;
        let mut text = text.to_vec();
        let plain = cipher
            .open_in_place(nonce, Aad::from(place.bytes()), &mut text)
            .map_err(|_| SealError::Refused)?;
        Ok(plain.to_vec())
    }

    /// Whether `sealed` is sealed with the key that seals now.
    pub fn seals(&self, sealed: &[u8]) -> bool {
        let id = sealed
            .strip_prefix(MAGIC)
            .and_then(|rest| rest.split_at_checked(ID_BYTES));
        let first = self.0.first();
        id.zip(first).is_some_and(|((id, _), first)| first.id == id)
    }

    /// Secrets for another purpose, one for each key, in their order: they tell nothing of the keys.
    pub fn derive(&self, purpose: &str) -> Vec<[u8; 32]> {
        self.0
            .iter()
            .filter_map(|key| expand(&key.secret, &[purpose.as_bytes()]))
            .collect()
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.0.len())
    }
}

/// HKDF-SHA256 of a secret: 32 bytes for `info` (RFC 5869).
pub(crate) fn expand(secret: &[u8], info: &[&[u8]]) -> Option<[u8; 32]> {
    let mut derived = [0; 32];
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"portico")
        .extract(secret)
        .expand(info, hkdf::HKDF_SHA256)
        .ok()?
        .fill(&mut derived)
        .ok()?;
    Some(derived)
}

/// What a sealed object is.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// The account's key at a CA.
    Account {
        /// The CA's directory.
        directory: &'a str,
    },
    /// A chain with its key.
    Bundle {
        /// Whose.
        id: &'a str,
        /// Of which leaf.
        serial: &'a str,
    },
    /// An order under way, with the key that it is for.
    Pending {
        /// Whose.
        id: &'a str,
    },
}

impl Place<'_> {
    /// No two places have the same bytes: neither a name nor a serial nor a URL holds a zero.
    fn bytes(&self) -> Vec<u8> {
        let parts = match self {
            Self::Account { directory } => ["account", directory, ""],
            Self::Bundle { id, serial } => ["bundle", id, serial],
            Self::Pending { id } => ["pending", id, ""],
        };
        parts.join("\0").into_bytes()
    }
}

impl Key {
    fn new(secret: [u8; KEY_BYTES]) -> Self {
        let hash = digest(&SHA256, &[b"portico key id".as_slice(), &secret].concat());
        let id = hash.as_ref().first_chunk().copied().unwrap_or_default();
        Self { id, secret }
    }

    fn cipher(&self) -> Option<RandomizedNonceKey> {
        RandomizedNonceKey::new(&AES_256_GCM, &self.secret).ok()
    }
}

fn decode(line: &str) -> Option<[u8; KEY_BYTES]> {
    let engines = [STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD];
    let base64 = || engines.iter().find_map(|engine| engine.decode(line).ok());
    hex::decode(line).ok().or_else(base64)?.try_into().ok()
}

/// Why there is no keyring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its variant means")]
pub enum KeyError {
    #[error("holds no key: make one with openssl rand -base64 32")]
    Empty,
    #[error("the machine has no randomness to give")]
    NoRandomness,
    #[error("line {line} is not 32 bytes in base64 or hex: make a key with openssl rand -base64 32")]
    NotAKey { line: usize },
}

/// Why something was not sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its variant means")]
pub enum SealError {
    #[error("is not a sealed object, or is torn")]
    NotSealed,
    #[error("was changed, or belongs to another place")]
    Refused,
    #[error("cannot be sealed")]
    Sealing,
    #[error("is sealed with a key that this node does not have")]
    UnknownKey,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(bytes: &[u8]) -> Keyring {
        let text: Vec<String> = bytes.iter().map(|byte| hex::encode([*byte; 32])).collect();
        Keyring::parse(&text.join("\n")).unwrap()
    }

    const HERE: Place<'_> = Place::Bundle {
        id: "a.example/ecdsa",
        serial: "01",
    };

    #[test]
    fn what_was_sealed_opens_only_in_its_place() {
        let keys = ring(&[1]);
        let sealed = keys.seal(&HERE, b"secret").unwrap();
        assert_eq!(keys.open(&HERE, &sealed).unwrap(), b"secret");
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_ne!(
            keys.seal(&HERE, b"secret").unwrap(),
            sealed,
            "a nonce of its own each time"
        );
        for other in [
            Place::Bundle {
                id: "b.example/ecdsa",
                serial: "01",
            },
            Place::Bundle {
                id: "a.example/ecdsa",
                serial: "02",
            },
            Place::Pending {
                id: "a.example/ecdsa",
            },
            Place::Account {
                directory: "a.example/ecdsa",
            },
        ] {
            assert_eq!(keys.open(&other, &sealed), Err(SealError::Refused), "{other:?}");
        }
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let keys = ring(&[1]);
        let sealed = keys.seal(&HERE, b"secret").unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(keys.open(&HERE, &changed).is_err(), "byte {at}");
            assert!(keys.open(&HERE, &sealed[..at]).is_err(), "{at} bytes of it");
        }
    }

    #[test]
    fn a_new_key_seals_while_the_old_one_still_opens() {
        let (old, both, new) = (ring(&[1]), ring(&[2, 1]), ring(&[2]));
        let before = old.seal(&HERE, b"x").unwrap();
        assert_eq!(both.open(&HERE, &before).unwrap(), b"x");
        let after = both.seal(&HERE, b"y").unwrap();
        assert_eq!(new.open(&HERE, &after).unwrap(), b"y");
        assert_eq!(new.open(&HERE, &before), Err(SealError::UnknownKey));
        assert_eq!(old.open(&HERE, &after), Err(SealError::UnknownKey));
    }

    #[test]
    fn keys_are_read_in_the_forms_that_tools_print() {
        let check = |text: &str, expected: Result<usize, KeyError>| {
            assert_eq!(Keyring::parse(text).map(|ring| ring.0.len()), expected, "{text}");
        };
        let made = Keyring::generate().unwrap();
        check(&made, Ok(1));
        check(&format!("# new\n{made}\n\n  {}\n", hex::encode([7; 32])), Ok(2));
        check(made.trim_end_matches('='), Ok(1));
        check("", Err(KeyError::Empty));
        check("# only words", Err(KeyError::Empty));
        check(&format!("{made}\nshort"), Err(KeyError::NotAKey { line: 2 }));
        check(&hex::encode([7; 31]), Err(KeyError::NotAKey { line: 1 }));
    }

    #[test]
    fn derived_secrets_differ_by_key_and_purpose_and_show_nothing() {
        let keys = ring(&[1, 2]);
        let (one, other) = (keys.derive("a"), keys.derive("b"));
        assert_eq!(one.len(), 2);
        assert_eq!(one, keys.derive("a"));
        assert!(one[0] != one[1] && one[0] != other[0] && one[0] != [1; 32]);
        assert_eq!(format!("{keys:?}"), "Keyring(2 keys)");
    }
}
