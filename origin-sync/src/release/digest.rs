//! Digests of bytes, as lowercase hexadecimal in documents and keys, and as base64 in header fields.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::Invalid;

/// Makes a newtype of a digest.
macro_rules! digest_of {
    ($(#[$doc:meta])* $name:ident, $length:literal, $algorithm:path, $said:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; $length]);

        impl $name {
            /// The digest of these bytes.
            pub fn of(bytes: &[u8]) -> Self {
                let mut hasher = digest::Context::new(&$algorithm);
                hasher.update(bytes);
                Self::finished(hasher)
            }

            /// A hasher for bytes that come in pieces; [`Self::finished`] takes it.
            pub fn hasher() -> digest::Context {
                digest::Context::new(&$algorithm)
            }

            /// What a hasher of this algorithm came to; a hasher of another one comes to zeros.
            pub fn finished(hasher: digest::Context) -> Self {
                Self(hasher.finish().as_ref().try_into().unwrap_or([0; $length]))
            }

            /// The bytes of the digest.
            pub fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }

            /// In base64, as header fields and `integrity` attributes hold it.
            pub fn base64(&self) -> String {
                STANDARD.encode(self.0)
            }
        }

        impl From<[u8; $length]> for $name {
            fn from(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                let wrong = || Invalid::new(concat!("not a ", $said, " in lowercase hexadecimal"));
                if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
                    return Err(wrong());
                }
                let mut bytes = [0; $length];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| wrong())?;
                Ok(Self(bytes))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;
            fn try_from(text: String) -> Result<Self, Invalid> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(digest: $name) -> Self {
                digest.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}({self})", stringify!($name))
            }
        }
    };
}

digest_of! {
    /// A SHA-256: the name of a blob.
    Sha256, 32, digest::SHA256, "SHA-256"
}
digest_of! {
    /// A SHA-384, for `integrity` attributes.
    Sha384, 48, digest::SHA384, "SHA-384"
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digests_are_read_as_they_are_written() {
        assert_eq!(Sha256::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(Sha256::of(b"")));
        assert_eq!(
            Sha256::of(b"").base64(),
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
        );
        assert!(Sha384::of(b"").to_string().starts_with("38b060a751ac9638"));
        let mut hasher = Sha256::hasher();
        hasher.update(b"a");
        hasher.update(b"b");
        assert_eq!(Sha256::finished(hasher), Sha256::of(b"ab"));
    }

    #[test]
    fn each_digest_has_one_spelling() {
        for bad in [
            "",
            "e3",
            &EMPTY.to_uppercase(),
            &format!("{EMPTY}00"),
            &EMPTY.replace('e', "g"),
        ] {
            assert!(bad.parse::<Sha256>().is_err(), "{bad}");
        }
        assert!(EMPTY.parse::<Sha384>().is_err());
    }
}
