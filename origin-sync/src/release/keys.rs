//! Keys: Ed25519 (RFC 8032), each with one role.
//!
//! Two roles, so that two machines can hold them: the *release* key signs manifests where releases are built, the
//! *channel* key signs channels where they are promoted. A key that leaks does the harm of its own role only, which is why
//! the role is part of how a key is written, also on the side that trusts it.
//!
//! A secret key is PKCS#8 in PEM (RFC 8410) below one line that says the role; other tools skip that line. A public key
//! is one line, `release:ed25519-<base64>`; behind the colon it is what an `integrity` attribute pins.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::Invalid;

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

const PREFIX: &str = "ed25519-";
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";
const KEY_FILE_BYTES_MAX: u64 = 16 * 1024;

/// What a key may sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Channels: which version each alias points to.
    Channel,
    /// Manifests: which bytes a version is.
    Release,
}

impl Role {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Release => "release",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "channel" => Ok(Self::Channel),
            "release" => Ok(Self::Release),
            _ => Err(Invalid::new(format!(
                "a key is for release or channel, not {text:?}"
            ))),
        }
    }
}

/// A public key. Written `ed25519-<base64>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// In base64: the `keyid` of RFC 9421 as browsers want it.
    pub fn base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// Whether `signature` is this key's over `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(message, signature)
            .is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || {
            Invalid::new(format!(
                "{text:?} is not a public key: ed25519- and 32 bytes in base64 are one"
            ))
        };
        let encoded = text.strip_prefix(PREFIX).ok_or_else(wrong)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| wrong())?;
        Ok(Self(bytes.try_into().map_err(|_| wrong())?))
    }
}

impl TryFrom<String> for PublicKey {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{PREFIX}{}", self.base64())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A public key and what it is trusted to sign. Written `release:ed25519-<base64>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustedKey {
    /// What it may sign.
    pub role: Role,
    /// The key.
    pub key: PublicKey,
}

impl FromStr for TrustedKey {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        let (role, key) = text.split_once(':').ok_or_else(|| {
            Invalid::new(format!(
                "{text:?} does not say what the key is for: release:{PREFIX}… or channel:{PREFIX}…"
            ))
        })?;
        Ok(Self {
            role: role.parse()?,
            key: key.parse()?,
        })
    }
}

impl fmt::Display for TrustedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.role, self.key)
    }
}

/// The keys whose word counts. More than one of a role while a key is being changed for another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust(Vec<TrustedKey>);

impl Trust {
    /// These keys.
    pub fn new(keys: impl IntoIterator<Item = TrustedKey>) -> Self {
        Self(keys.into_iter().collect())
    }

    /// The keys of these lines, as a configuration lists them.
    pub fn parse<T: AsRef<str>>(lines: impl IntoIterator<Item = T>) -> Result<Self, Invalid> {
        let keys: Result<Vec<TrustedKey>, Invalid> =
            lines.into_iter().map(|line| line.as_ref().parse()).collect();
        Ok(Self(keys?))
    }

    /// Whether this key may sign what `role` signs.
    pub fn allows(&self, role: Role, key: &PublicKey) -> bool {
        self.0.contains(&TrustedKey { role, key: *key })
    }

    /// The keys of a role.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &PublicKey> {
        self.0
            .iter()
            .filter(move |trusted| trusted.role == role)
            .map(|trusted| &trusted.key)
    }

    /// All keys.
    pub fn keys(&self) -> &[TrustedKey] {
        &self.0
    }
}

/// A secret key and its role. It prints as its public key.
pub struct SecretKey {
    role: Role,
    pair: Ed25519KeyPair,
}

/// Why a key could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file can be read by others than its owner.
    #[error(
        "{path} may be read by others than its owner (mode {mode:03o}): chmod 600 it, and think of who read it"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The system gave no randomness, or refused the key.
    #[error("no key could be made")]
    Generate,
    /// What was read is not a secret key.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// The file could not be read or written.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The key is for something else.
    #[error("{origin} is a {found} key where a {wanted} key is needed")]
    Role {
        /// Where the key came from.
        origin: String,
        /// Its role.
        found: Role,
        /// The role that is needed.
        wanted: Role,
    },
}

impl SecretKey {
    /// A new key.
    pub fn generate(role: Role) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Generate)?;
        Ok(Self { role, pair })
    }

    /// The key of a PEM text.
    pub fn from_pem(text: &str) -> Result<Self, Invalid> {
        let (before, rest) = text
            .split_once(PEM_BEGIN)
            .ok_or_else(|| Invalid::new("this is not a secret key: no PRIVATE KEY in PEM"))?;
        let (body, _) = rest
            .split_once(PEM_END)
            .ok_or_else(|| Invalid::new("the secret key is cut off"))?;
        let role = before.trim().strip_prefix("role: ").ok_or_else(|| {
            Invalid::new("the secret key does not say its role: a line `role: release` or `role: channel` stands above it")
        })?;
        let encoded: String = body.split_ascii_whitespace().collect();
        let der = STANDARD
            .decode(encoded)
            .map_err(|_| Invalid::new("the secret key is not base64"))?;
        let pair = Ed25519KeyPair::from_pkcs8(&der)
            .or_else(|_| Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der))
            .map_err(|_| Invalid::new("the secret key is not Ed25519 in PKCS#8"))?;
        Ok(Self {
            role: role.trim().parse()?,
            pair,
        })
    }

    /// As PEM, with its role above.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        let der = self.pair.to_pkcs8v1().map_err(|_| KeyError::Generate)?;
        let encoded = STANDARD.encode(der.as_ref());
        Ok(format!(
            "role: {}\n{PEM_BEGIN}\n{encoded}\n{PEM_END}\n",
            self.role
        ))
    }

    /// Reads a file that only its owner may read.
    pub fn read(path: &Path, role: Role) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Io {
            operation: "read",
            path: path.to_owned(),
            source,
        };
        let file = std::fs::File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = String::new();
        file.take(KEY_FILE_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(failed)?;
        Self::for_role(&text, role, &path.display().to_string())
    }

    /// The key of a PEM text that came from `origin`, if it is for this role.
    pub fn for_role(pem: &str, role: Role, origin: &str) -> Result<Self, KeyError> {
        let key = Self::from_pem(pem).map_err(|error| Invalid::new(format!("{origin}: {error}")))?;
        if key.role != role {
            return Err(KeyError::Role {
                origin: origin.to_owned(),
                found: key.role,
                wanted: role,
            });
        }
        Ok(key)
    }

    /// Writes `<role>.key` (mode 0600) and `<role>.pub` into a folder. Nothing is overwritten.
    pub fn write(&self, dir: &Path) -> Result<(PathBuf, PathBuf), KeyError> {
        let secret = dir.join(format!("{}.key", self.role));
        let public = dir.join(format!("{}.pub", self.role));
        write_new(&secret, 0o600, &self.to_pem()?)?;
        write_new(&public, 0o644, &format!("{}\n", self.public()))?;
        Ok((secret, public))
    }

    /// What is told to those who should trust it.
    pub fn public(&self) -> TrustedKey {
        let bytes = self.pair.public_key().as_ref().try_into().unwrap_or([0; 32]);
        TrustedKey {
            role: self.role,
            key: PublicKey(bytes),
        }
    }

    /// Its role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Signs. The same message always has the same signature.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let signature = self.pair.sign(message);
        signature.as_ref().try_into().unwrap_or([0; SIGNATURE_BYTES])
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SecretKey({})", self.public())
    }
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), KeyError> {
    let failed = |source| KeyError::Io {
        operation: "make",
        path: path.to_owned(),
        source,
    };
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_goes_through_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let key = SecretKey::generate(Role::Release).unwrap();
        let (secret, public) = key.write(dir.path()).unwrap();
        assert_eq!(std::fs::metadata(&secret).unwrap().mode() & 0o777, 0o600);
        let again = SecretKey::read(&secret, Role::Release).unwrap();
        let trusted: TrustedKey = std::fs::read_to_string(public).unwrap().parse().unwrap();
        assert_eq!(again.public(), trusted);
        assert!(trusted.key.verifies(b"message", &key.sign(b"message")));
        assert!(!trusted.key.verifies(b"massage", &key.sign(b"message")));
        assert!(!trusted.key.verifies(b"message", &key.sign(b"message")[..63]));
        assert!(matches!(
            key.write(dir.path()),
            Err(KeyError::Io {
                operation: "make",
                ..
            })
        ));
        assert!(matches!(
            SecretKey::read(&secret, Role::Channel),
            Err(KeyError::Role { .. })
        ));
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            SecretKey::read(&secret, Role::Release),
            Err(KeyError::Exposed { mode: 0o640, .. })
        ));
    }

    #[test]
    fn the_key_of_rfc_9421_is_read_from_its_own_pem() {
        // Appendix B.1.4: the PEM as openssl writes it, below our line.
        let pem = "role: channel\n-----BEGIN PRIVATE KEY-----\n\
                   MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n-----END PRIVATE KEY-----\n";
        let key = SecretKey::from_pem(pem).unwrap();
        assert_eq!(
            key.public().to_string(),
            "channel:ed25519-JrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs="
        );
        assert_eq!(key.to_pem().unwrap(), pem);
        assert!(!format!("{key:?}").contains("MC4CAQ"));
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        for (text, expected) in [
            ("", "no PRIVATE KEY"),
            ("role: release\n-----BEGIN PRIVATE KEY-----\nAAAA\n", "cut off"),
            (
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
                "does not say its role",
            ),
            (
                "role: x\n-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
                "not Ed25519",
            ),
            (
                "role: release\n-----BEGIN PRIVATE KEY-----\n*\n-----END PRIVATE KEY-----",
                "not base64",
            ),
        ] {
            let error = SecretKey::from_pem(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let good = "ed25519-JrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=";
        assert!(good.parse::<PublicKey>().is_ok());
        for bad in [
            "",
            "ed25519-",
            &good[8..],
            &good[..good.len() - 1],
            "ed25519-AAAA",
            "rsa-AAAA",
        ] {
            assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
        }
        for bad in [good, "other:ed25519-JrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs="] {
            assert!(bad.parse::<TrustedKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn trust_is_by_role() {
        let key = SecretKey::generate(Role::Release).unwrap().public();
        let trust = Trust::parse([key.to_string()]).unwrap();
        assert!(trust.allows(Role::Release, &key.key));
        assert!(!trust.allows(Role::Channel, &key.key));
        assert_eq!(trust.of(Role::Release).count(), 1);
        assert_eq!(trust.of(Role::Channel).count(), 0);
    }
}
