//! The fields by which a browser checks a response against a key that a page pins: `Unencoded-Digest`, and a signature
//! over it (`Signature-Input`, `Signature`; RFC 9421) under the tag `ed25519-integrity`.
//!
//! They are made where the keys are, at release time and at the flip of a channel, and only repeated by an edge. They say
//! the same for every coding, since the digest is of the bytes without one. A browser that knows them enforces what it is
//! sent, also where the page asks for nothing: a wrong or expired one blocks every visitor. So [`Fields::verify`] does
//! what the browser does, and what it refuses must not be sent.
//!
//! Only the spelling that [`Fields::signed`] writes is read; other profiles of RFC 9421 are not known here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::digest::{Sha256, Sha384};
use super::keys::{PublicKey, SIGNATURE_BYTES, SecretKey};
use super::{Invalid, NUMBER_MAX};

/// The tag of a signature that browsers check.
pub const TAG: &str = "ed25519-integrity";

/// Signatures of one response at most.
pub const SIGNATURES_MAX: usize = 4;

const COMPONENTS: &str = r#"("unencoded-digest";sf)"#;

/// The values of the three fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fields {
    /// `Unencoded-Digest`.
    pub unencoded_digest: String,
    /// `Signature-Input`: absent where there is only the digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature_input: Option<String>,
    /// `Signature`: there when `signature_input` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// One signature of [`Fields`], as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Whose it is.
    pub key: PublicKey,
    /// When it stops being good, in seconds since 1970.
    pub expires: Option<u64>,
    /// The value of `@signature-params`.
    parameters: String,
    signature: [u8; SIGNATURE_BYTES],
}

impl Fields {
    /// The digest of a file, and nobody's word for it.
    pub fn digest_only(digest: &Sha256) -> Self {
        Self {
            unencoded_digest: unencoded_digest(digest),
            signature_input: None,
            signature: None,
        }
    }

    /// The digest of a file, signed with each of the keys: two while pages go from one key to the next.
    pub fn signed(digest: &Sha256, keys: &[&SecretKey], expires: Option<u64>) -> Self {
        let unencoded_digest = unencoded_digest(digest);
        let mut inputs = Vec::new();
        let mut signatures = Vec::new();
        for (place, key) in keys.iter().take(SIGNATURES_MAX).enumerate() {
            let parameters = parameters(&key.public().key, expires);
            let signature = key.sign(signature_base(&unencoded_digest, &parameters).as_bytes());
            inputs.push(format!("sig{place}={parameters}"));
            signatures.push(format!("sig{place}=:{}:", STANDARD.encode(signature)));
        }
        let joined = |members: Vec<String>| (!members.is_empty()).then(|| members.join(", "));
        Self {
            unencoded_digest,
            signature_input: joined(inputs),
            signature: joined(signatures),
        }
    }

    /// Checks the form, and that the digest is that of the file.
    pub fn check(&self, digest: &Sha256) -> Result<(), Invalid> {
        if self.unencoded_digest != unencoded_digest(digest) {
            return Err(Invalid::new(
                "Unencoded-Digest states another digest than the file's",
            ));
        }
        self.signatures().map(|_| ())
    }

    /// Does what a browser does at `now`: every signature must be good. Returns whose they are.
    pub fn verify(&self, digest: &Sha256, now: u64) -> Result<Vec<PublicKey>, Invalid> {
        self.check(digest)?;
        let signatures = self.signatures()?;
        for signed in &signatures {
            let key = &signed.key;
            if signed.expires.is_some_and(|expires| expires <= now) {
                return Err(Invalid::new(format!(
                    "the integrity signature of {key} has expired"
                )));
            }
            let base = signature_base(&self.unencoded_digest, &signed.parameters);
            if !key.verifies(base.as_bytes(), &signed.signature) {
                return Err(Invalid::new(format!("the integrity signature of {key} is wrong")));
            }
        }
        Ok(signatures.into_iter().map(|signed| signed.key).collect())
    }

    /// When the first of the signatures stops being good; from then on nothing of this must be sent.
    pub fn expires(&self) -> Option<u64> {
        let signatures = self.signatures().unwrap_or_default();
        signatures.into_iter().filter_map(|signed| signed.expires).min()
    }

    /// Reads the signatures.
    pub fn signatures(&self) -> Result<Vec<Signed>, Invalid> {
        let (inputs, signatures) = match (&self.signature_input, &self.signature) {
            (None, None) => return Ok(Vec::new()),
            (Some(inputs), Some(signatures)) => (inputs, signatures),
            _ => return Err(Invalid::new("Signature and Signature-Input come together")),
        };
        let inputs: Vec<&str> = inputs.split(", ").collect();
        let signatures: Vec<&str> = signatures.split(", ").collect();
        if inputs.len() != signatures.len() || inputs.len() > SIGNATURES_MAX {
            return Err(Invalid::new(
                "Signature and Signature-Input differ in length, or are too long",
            ));
        }
        let pairs = inputs.into_iter().zip(signatures).enumerate();
        pairs
            .map(|(place, (input, signature))| read(place, input, signature))
            .collect()
    }
}

/// The value of an `integrity` attribute for a file under its version: its digest, and the keys that may vouch for it.
pub fn attribute(digest: Option<&Sha384>, keys: &[PublicKey]) -> String {
    let digest = digest.map(|digest| format!("sha384-{}", digest.base64()));
    let keys = keys.iter().map(ToString::to_string);
    digest.into_iter().chain(keys).collect::<Vec<String>>().join(" ")
}

/// The value of `Unencoded-Digest`.
pub fn unencoded_digest(digest: &Sha256) -> String {
    format!("sha-256=:{}:", digest.base64())
}

fn parameters(key: &PublicKey, expires: Option<u64>) -> String {
    let expires = expires
        .map(|expires| format!(";expires={expires}"))
        .unwrap_or_default();
    format!(r#"{COMPONENTS}{expires};keyid="{}";tag="{TAG}""#, key.base64())
}

/// RFC 9421, section 2.5.
fn signature_base(unencoded_digest: &str, parameters: &str) -> String {
    format!("\"unencoded-digest\";sf: {unencoded_digest}\n\"@signature-params\": {parameters}")
}

fn read(place: usize, input: &str, signature: &str) -> Result<Signed, Invalid> {
    let wrong = || {
        Invalid::new(format!(
            "{input:?} with {signature:?} is not a signature as it is written here"
        ))
    };
    let label = format!("sig{place}=");
    let parameters_text = input.strip_prefix(&label).ok_or_else(wrong)?;
    let rest = parameters_text.strip_prefix(COMPONENTS).ok_or_else(wrong)?;
    let (expires, rest) = match rest.strip_prefix(";expires=") {
        Some(rest) => {
            let (number, rest) = rest.split_once(';').ok_or_else(wrong)?;
            let number: u64 = number.parse().map_err(|_| wrong())?;
            (Some(number).filter(|number| *number <= NUMBER_MAX), rest)
        }
        None => (None, rest.strip_prefix(';').ok_or_else(wrong)?),
    };
    let key = rest
        .strip_prefix("keyid=\"")
        .and_then(|rest| rest.split_once('"'));
    let key: PublicKey = format!("ed25519-{}", key.ok_or_else(wrong)?.0).parse()?;
    // One spelling: what was read must be what would be written.
    if parameters(&key, expires) != parameters_text {
        return Err(wrong());
    }
    let encoded = signature
        .strip_prefix(&label)
        .and_then(|rest| rest.strip_prefix(':')?.strip_suffix(':'))
        .ok_or_else(wrong)?;
    let signature = STANDARD.decode(encoded).map_err(|_| wrong())?;
    Ok(Signed {
        key,
        expires,
        parameters: parameters_text.to_owned(),
        signature: signature.try_into().map_err(|_| wrong())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::keys::Role;

    /// The key of RFC 9421, appendix B.1.4.
    fn rfc_key() -> SecretKey {
        SecretKey::from_pem(
            "role: release\n-----BEGIN PRIVATE KEY-----\n\
             MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n-----END PRIVATE KEY-----\n",
        )
        .unwrap()
    }

    const RFC_KEY: &str = "JrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=";

    /// The vectors by which Chromium tests its own reading of these fields.
    #[test]
    fn signatures_are_those_that_chromium_knows_as_good() {
        let digest = Sha256::of(br#"{"hello": "world"}"#);
        let fields = Fields::signed(&digest, &[&rfc_key()], None);
        assert_eq!(
            fields.unencoded_digest,
            "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
        );
        let input = format!(r#"sig0=("unencoded-digest";sf);keyid="{RFC_KEY}";tag="ed25519-integrity""#);
        assert_eq!(fields.signature_input, Some(input));
        let signature =
            "sig0=:SbCdPUyjc0IBJjFbVRWs81ucEUcFz87b37nQ63d6kDW+/JvDmET6O5cSdwlddePvlwemLdaWFuY6pQGO+hrkAg==:";
        assert_eq!(fields.signature.as_deref(), Some(signature));
        let expiring = Fields::signed(&digest, &[&rfc_key()], Some(5_459_212_800));
        let signature =
            "sig0=:y1gsTrDU7XUJzdk6o3IIVjc2WqEC3duoEmD9KczAp7OUDU8CwjD1PfYhIVeTOieGzeuCjQR+9JwWJV2BF41uBA==:";
        assert_eq!(expiring.signature.as_deref(), Some(signature));
        assert_eq!(expiring.expires(), Some(5_459_212_800));
    }

    #[test]
    fn fields_are_verified_as_a_browser_does() {
        let digest = Sha256::of(b"file");
        let other = SecretKey::generate(Role::Channel).unwrap();
        let fields = Fields::signed(&digest, &[&rfc_key(), &other], Some(1_000));
        let keys = vec![rfc_key().public().key, other.public().key];
        assert_eq!(fields.verify(&digest, 999), Ok(keys));
        let check = |fields: &Fields, now: u64, expected: &str| {
            let error = fields.verify(&digest, now).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&fields, 1_000, "has expired");
        check(
            &Fields::signed(&Sha256::of(b"tile"), &[&rfc_key()], None),
            0,
            "another digest",
        );
        let mut swapped = fields.clone();
        swapped.signature = Fields::signed(&digest, &[&other, &rfc_key()], Some(1_000)).signature;
        check(&swapped, 0, "is wrong");
        let mut later = fields.clone();
        later.signature_input = later.signature_input.map(|input| input.replace("1000", "2000"));
        check(&later, 0, "is wrong");
        let mut half = fields;
        half.signature = None;
        check(&half, 0, "come together");
        assert_eq!(Fields::digest_only(&digest).verify(&digest, u64::MAX), Ok(vec![]));
    }

    #[test]
    fn only_the_spelling_that_is_written_is_read() {
        let digest = Sha256::of(b"file");
        let fields = Fields::signed(&digest, &[&rfc_key()], Some(7));
        assert_eq!(fields.check(&digest), Ok(()));
        let input = fields.signature_input.clone().unwrap();
        let check = |changed: String| {
            assert_ne!(changed, input);
            let mut fields = fields.clone();
            fields.signature_input = Some(changed.clone());
            assert!(fields.check(&digest).is_err(), "{changed}");
        };
        check(input.replace("sig0", "sig1"));
        check(input.replace(";sf", ""));
        check(input.replace("expires=7", "expires=07"));
        check(input.replace("expires=7", "expires=x"));
        check(input.replace("expires=7", "expires=99999999999999999"));
        check(input.replace(";tag", ";alg=\"ed25519\";tag"));
        check(input.replace("ed25519-integrity", "sri"));
        check(format!("{input}, {input}"));
        check(input.replace('\"', ""));
        check(String::new());
        let mut short = fields.clone();
        short.signature = Some("sig0=:AAAA:".into());
        assert!(short.check(&digest).is_err());
    }

    #[test]
    fn an_attribute_pins_digest_and_keys() {
        let key = rfc_key().public().key;
        let digest = Sha384::of(b"");
        let pinned = format!("ed25519-{RFC_KEY}");
        assert_eq!(attribute(None, &[key, key]), format!("{pinned} {pinned}"));
        let expected =
            format!("sha384-OLBgp1GsljhM2TJ+sbHjaiH9txEUvgdDTAzHv2P24donTt6/529l+9Ua0vFImLlb {pinned}");
        assert_eq!(attribute(Some(&digest), &[key]), expected);
    }
}
