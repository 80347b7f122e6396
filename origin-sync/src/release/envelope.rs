//! The envelope: a document, who signed it, how, and the signature, as one JSON object in one spelling.
//!
//! The object is `{"algorithm", "key", "kind", "payload", "signature"}` in the canonical form of RFC 8785, byte by byte;
//! what is signed is the canonical form of the same object without `signature`. So the algorithm, the key and the kind
//! are under the signature too, and no document can stand for one of another kind.
//!
//! Reading is strict: after parsing, the document is written again, and must come to the very same bytes. With that one
//! comparison go duplicate members, numbers that read as others, escapes, white space and whatever else two JSON parsers
//! could disagree about.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Invalid;
use super::digest::Sha256;
use super::keys::{PublicKey, Role, SecretKey, Trust};

/// A document that is signed.
pub trait Document: Serialize + DeserializeOwned {
    /// Its kind and the version of its format.
    const KIND: &'static str;
    /// Which keys may sign it.
    const ROLE: Role;
    /// More bytes are not read.
    const BYTES_MAX: usize;
    /// What its types cannot say.
    fn check(&self) -> Result<(), Invalid>;
}

/// A document whose signature was good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened<D> {
    /// What it says.
    pub document: D,
    /// The digest of the bytes that were opened.
    pub digest: Sha256,
    /// Who signed it.
    pub key: PublicKey,
}

/// Why a document was not believed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is not the JSON that such a document is.
    #[error("it is not a {kind}")]
    Form {
        /// The kind that was wanted.
        kind: &'static str,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// Its content makes no sense.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// It is a signed document of another kind.
    #[error("it is a {found}, not a {wanted}")]
    Kind {
        /// What it calls itself.
        found: String,
        /// What was wanted.
        wanted: &'static str,
    },
    /// It is a good document from somewhere else.
    #[error("it is the document of {found}, found where that of {wanted} should be")]
    Misplaced {
        /// What it is for.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// It is not in its canonical form: somebody wrote it by another hand, perhaps with members twice.
    #[error("it is not in canonical form (RFC 8785)")]
    NotCanonical,
    /// The signature is not over this document.
    #[error("the signature of {0} is wrong")]
    Signature(PublicKey),
    /// It is larger than such a document can be.
    #[error("it has more than {max} bytes")]
    TooLarge {
        /// The limit.
        max: usize,
    },
    /// The key that signed it is not trusted to sign such a document.
    #[error("the key {key} is not trusted as a {role} key")]
    UnknownKey {
        /// The key.
        key: PublicKey,
        /// The role that it would need.
        role: Role,
    },
}

/// Why a document was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Its content makes no sense.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// It could not be written as JSON.
    #[error("it cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// It would be larger than a reader takes.
    #[error("it has {bytes} bytes, more than the {max} that are read")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The key is for something else.
    #[error("a {found} key cannot sign what a {wanted} key signs")]
    Role {
        /// The role of the key.
        found: Role,
        /// The role that is needed.
        wanted: Role,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Algorithm {
    Ed25519,
}

/// What is stored. Its members stand in the order of RFC 8785.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<D> {
    algorithm: Algorithm,
    key: PublicKey,
    kind: String,
    payload: D,
    signature: String,
}

/// What is signed.
#[derive(Serialize)]
struct Statement<'a, D> {
    algorithm: Algorithm,
    key: PublicKey,
    kind: &'a str,
    payload: &'a D,
}

/// Signs a document; returns the bytes to store. The same document and key come to the same bytes.
pub fn seal<D: Document>(document: &D, key: &SecretKey) -> Result<Vec<u8>, SealError> {
    document.check()?;
    if key.role() != D::ROLE {
        return Err(SealError::Role {
            found: key.role(),
            wanted: D::ROLE,
        });
    }
    let statement = Statement {
        algorithm: Algorithm::Ed25519,
        key: key.public().key,
        kind: D::KIND,
        payload: document,
    };
    let signature = key.sign(&serde_jcs::to_vec(&statement)?);
    let bytes = serde_jcs::to_vec(&Envelope {
        algorithm: statement.algorithm,
        key: statement.key,
        kind: D::KIND.to_owned(),
        payload: document,
        signature: STANDARD.encode(signature),
    })?;
    if bytes.len() > D::BYTES_MAX {
        return Err(SealError::TooLarge {
            bytes: bytes.len(),
            max: D::BYTES_MAX,
        });
    }
    Ok(bytes)
}

/// Opens a document: nothing of it is returned unless a trusted key signed all of it.
pub fn open<D: Document>(bytes: &[u8], trust: &Trust) -> Result<Opened<D>, OpenError> {
    if bytes.len() > D::BYTES_MAX {
        return Err(OpenError::TooLarge { max: D::BYTES_MAX });
    }
    let form = |source| OpenError::Form {
        kind: D::KIND,
        source,
    };
    let envelope: Envelope<D> =
        serde_json::from_slice(bytes).map_err(|source| other_kind::<D>(bytes, source))?;
    if envelope.kind != D::KIND {
        return Err(OpenError::Kind {
            found: envelope.kind,
            wanted: D::KIND,
        });
    }
    // Before anything is written again: numbers beyond the limit have no canonical form.
    envelope.payload.check()?;
    if serde_jcs::to_vec(&envelope).map_err(form)? != bytes {
        return Err(OpenError::NotCanonical);
    }
    if !trust.allows(D::ROLE, &envelope.key) {
        return Err(OpenError::UnknownKey {
            key: envelope.key,
            role: D::ROLE,
        });
    }
    let statement = Statement {
        algorithm: envelope.algorithm,
        key: envelope.key,
        kind: &envelope.kind,
        payload: &envelope.payload,
    };
    let signed = serde_jcs::to_vec(&statement).map_err(form)?;
    let signature = STANDARD.decode(&envelope.signature).unwrap_or_default();
    if !envelope.key.verifies(&signed, &signature) {
        return Err(OpenError::Signature(envelope.key));
    }
    Ok(Opened {
        document: envelope.payload,
        digest: Sha256::of(bytes),
        key: envelope.key,
    })
}

/// A document of another kind does not parse either; its kind says more than the parser.
fn other_kind<D: Document>(bytes: &[u8], source: serde_json::Error) -> OpenError {
    #[derive(Deserialize)]
    struct Kind {
        kind: String,
    }
    match serde_json::from_slice::<Kind>(bytes) {
        Ok(Kind { kind }) if kind != D::KIND && kind.len() <= 64 => OpenError::Kind {
            found: kind.escape_default().to_string(),
            wanted: D::KIND,
        },
        _ => OpenError::Form {
            kind: D::KIND,
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::channel::Channel;
    use crate::release::manifest::{Manifest, tests::manifest};

    fn keys() -> (SecretKey, Trust) {
        let key = SecretKey::generate(Role::Release).unwrap();
        let trust = Trust::new([key.public()]);
        (key, trust)
    }

    fn sealed() -> (String, SecretKey, Trust) {
        let (key, trust) = keys();
        let text = String::from_utf8(seal(&manifest(), &key).unwrap()).unwrap();
        (text, key, trust)
    }

    #[test]
    fn what_is_sealed_opens_again() {
        let (text, key, trust) = sealed();
        let opened = open::<Manifest>(text.as_bytes(), &trust).unwrap();
        assert_eq!(opened.document, manifest());
        assert_eq!(opened.key, key.public().key);
        assert_eq!(opened.digest, Sha256::of(text.as_bytes()));
        assert_eq!(text.as_bytes(), seal(&manifest(), &key).unwrap());
        assert!(
            text.starts_with(r#"{"algorithm":"ed25519","key":"ed25519-"#),
            "{text}"
        );
        let found = Manifest::open(
            text.as_bytes(),
            &trust,
            &"lock".parse().unwrap(),
            &"12.5.2".parse().unwrap(),
        );
        assert!(matches!(found, Err(OpenError::Misplaced { .. })));
    }

    #[test]
    fn each_byte_counts() {
        let (text, _, trust) = sealed();
        for place in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[place] ^= 1;
            assert!(
                open::<Manifest>(&bytes, &trust).is_err(),
                "byte {place} of {text}"
            );
        }
        for length in 0..text.len() {
            assert!(
                open::<Manifest>(&text.as_bytes()[..length], &trust).is_err(),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn documents_by_another_hand_are_refused() {
        let (text, _, trust) = sealed();
        let check = |changed: String, expected: &str| {
            assert_ne!(changed, text);
            let error = open::<Manifest>(changed.as_bytes(), &trust).unwrap_err();
            let cause = std::error::Error::source(&error)
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(format!("{error}: {cause}").contains(expected), "{error}: {cause}");
        };
        check(format!("{text}\n"), "canonical");
        check(format!(" {text}"), "canonical");
        check(text.replace(r#""name":"lock""#, r#""name": "lock""#), "canonical");
        check(
            text.replace(r#""name":"lock""#, r#""name":"l\u006fck""#),
            "canonical",
        );
        let (before, after) = text.rsplit_once(r#""size":2}"#).unwrap();
        check(format!(r#"{before}"size":2,"tags":[]}}{after}"#), "canonical");
        check(
            text.replacen(r#""name":"lock""#, r#""name":"evil","name":"lock""#, 1),
            "duplicate field",
        );
        check(
            text.replacen(r#""kind":"#, r#""kind":"x","kind":"#, 1),
            "duplicate field",
        );
        check(
            text.replacen(r#""size":2"#, r#""size":2.0"#, 1),
            "invalid type: floating point",
        );
        check(
            text.replacen(r#""size":2"#, r#""size":1e999"#, 1),
            "number out of range",
        );
        check(
            text.replacen(r#""size":2"#, r#""size":18446744073709551615"#, 1),
            "larger than 9007199254740991",
        );
        check(
            text.replacen(r#""size":2"#, &format!(r#""size":{}"#, "9".repeat(4000)), 1),
            "number out of range",
        );
        check(text.replacen(r#""size":2"#, r#""size":-2"#, 1), "invalid value");
        check(
            text.replacen(r#""size":2"#, r#""more":1,"size":2"#, 1),
            "unknown field",
        );
        check(text.replacen("a/b.js", "../b.js", 1), "dot segment");
        check(text.replacen("12.5.1", "../../x", 1), "version");
        check(
            text.replacen("manifest.v1", "channel.v1", 1),
            "it is a portico.channel.v1",
        );
        check(text.replacen("ed25519\",", "rsa\",", 1), "unknown variant");
        check(format!("{}{}", "[".repeat(100_000), text), "expected value");
        check(text.replace("a/b.js", "a/a.js"), "signature of ed25519-");
    }

    #[test]
    fn only_a_key_of_the_role_counts() {
        let (text, key, _) = sealed();
        let (_, others) = keys();
        let error = open::<Manifest>(text.as_bytes(), &others).unwrap_err();
        assert!(
            matches!(
                error,
                OpenError::UnknownKey {
                    role: Role::Release,
                    ..
                }
            ),
            "{error}"
        );
        let mut wrong = key.public();
        wrong.role = Role::Channel;
        let error = open::<Manifest>(text.as_bytes(), &Trust::new([wrong])).unwrap_err();
        assert!(matches!(error, OpenError::UnknownKey { .. }), "{error}");
        let channel_key = SecretKey::generate(Role::Channel).unwrap();
        assert!(matches!(
            seal(&manifest(), &channel_key),
            Err(SealError::Role { .. })
        ));
    }

    #[test]
    fn a_manifest_is_no_channel_and_size_has_an_end() {
        let (text, _, trust) = sealed();
        let error = open::<Channel>(text.as_bytes(), &trust).unwrap_err();
        assert!(matches!(error, OpenError::Kind { .. }), "{error}");
        let huge = vec![b' '; Manifest::BYTES_MAX + 1];
        assert!(matches!(
            open::<Manifest>(&huge, &trust),
            Err(OpenError::TooLarge { .. })
        ));
    }
}
