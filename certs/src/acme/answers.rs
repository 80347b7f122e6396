//! The answers to a CA that looks whether a name is ours: a file (HTTP-01) or a certificate (TLS-ALPN-01, RFC 8737).
//!
//! HTTP-01 is answered without a look at any order: what a CA wants to see is its token and the account's thumbprint, and whoever
//! asks with a token of his own learns nothing. So every node answers for every other, at once.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// The protocol of TLS-ALPN-01.
pub const ALPN: &[u8] = b"acme-tls/1";

const PATH: &str = "/.well-known/acme-challenge/";
/// RFC 8555 section 8.1 asks for 128 bits at least; nobody has been seen to use more than 43 letters.
const TOKEN_BYTES_MAX: usize = 128;

/// What this node answers a CA.
#[derive(Debug, Default)]
pub struct Answers {
    /// The account's thumbprint by name, nothing while no account is known; `*.` never stands here, for HTTP-01 proves no
    /// wildcards.
    thumbprints: ArcSwap<HashMap<String, Option<Arc<str>>>>,
    certificates: ArcSwap<HashMap<String, Arc<ServerConfig>>>,
}

/// What is answered on the challenge path of HTTP-01.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpAnswer {
    /// Not a token, or not a name that is proved this way.
    Missing,
    /// It would be answered if this node knew the account.
    NoAccount,
    /// The token and the account's thumbprint.
    Text(String),
}

impl HttpAnswer {
    /// The text, if there is one.
    pub fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Missing | Self::NoAccount => None,
        }
    }
}

impl Answers {
    /// What to answer to `path`: `None` where it is not the challenge path.
    pub fn http(&self, host: &str, path: &str) -> Option<HttpAnswer> {
        let token = path.strip_prefix(PATH)?;
        let base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let good = !token.is_empty() && token.len() <= TOKEN_BYTES_MAX && token.bytes().all(base64url);
        let host = host.rsplit_once(':').map_or(host, |(name, port)| {
            if port.bytes().all(|byte| byte.is_ascii_digit()) {
                name
            } else {
                host
            }
        });
        let thumbprints = self.thumbprints.load();
        let thumbprint = thumbprints.get(host.trim_end_matches('.')).filter(|_| good);
        Some(match thumbprint {
            Some(Some(thumbprint)) => HttpAnswer::Text(format!("{token}.{thumbprint}")),
            Some(None) => HttpAnswer::NoAccount,
            None => HttpAnswer::Missing,
        })
    }

    /// Sets whose thumbprint is answered under which name.
    pub fn set_thumbprints(&self, thumbprints: HashMap<String, Option<Arc<str>>>) {
        self.thumbprints.store(Arc::new(thumbprints));
    }

    /// How a handshake is answered that wants to see a proof and nothing else; `None` for any other.
    pub fn tls(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        let mut protocols = hello.alpn()?;
        if protocols.next() != Some(ALPN) || protocols.next().is_some() {
            return None;
        }
        self.certificates.load().get(hello.server_name()?).cloned()
    }

    /// Shows `digest` under `name` until what is returned is dropped.
    pub(super) fn show(self: &Arc<Self>, name: &str, digest: &[u8]) -> Result<Shown, rcgen::Error> {
        let config = proof(name, digest)?;
        self.certificates.rcu(|shown| {
            let mut shown = HashMap::clone(shown);
            shown.insert(name.to_owned(), Arc::clone(&config));
            shown
        });
        Ok(Shown {
            answers: Arc::clone(self),
            name: name.to_owned(),
        })
    }
}

/// A proof that is shown.
#[derive(Debug)]
pub(super) struct Shown {
    answers: Arc<Answers>,
    name: String,
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.answers.certificates.rcu(|shown| {
            let mut shown = HashMap::clone(shown);
            shown.remove(&self.name);
            shown
        });
    }
}

/// RFC 8737 section 3: a self-signed certificate for the name alone, with the digest in a critical extension.
fn proof(name: &str, digest: &[u8]) -> Result<Arc<ServerConfig>, rcgen::Error> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let unusable = |_| rcgen::Error::CouldNotParseKeyPair;
    let signing = aws_lc_rs::sign::any_supported_type(&private).map_err(unusable)?;
    let certified = CertifiedKey::new(vec![certificate.der().clone()], signing);
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Always(Arc::new(certified))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl fmt::Debug for Always {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Always(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_exact_token_of_a_known_name_is_answered() {
        let answers = Answers::default();
        answers.set_thumbprints(HashMap::from([
            ("a.example".to_owned(), Some(Arc::from("print"))),
            ("new.example".to_owned(), None),
        ]));
        let check = |host: &str, path: &str, expected: Option<Option<&str>>| {
            let text = |text: &str| HttpAnswer::Text(text.to_owned());
            let expected = expected.map(|answer| answer.map_or(HttpAnswer::Missing, text));
            assert_eq!(answers.http(host, path), expected, "{host} {path}");
        };
        check(
            "a.example",
            "/.well-known/acme-challenge/tok-En_9",
            Some(Some("tok-En_9.print")),
        );
        check(
            "a.example:80",
            "/.well-known/acme-challenge/t",
            Some(Some("t.print")),
        );
        check(
            "a.example.",
            "/.well-known/acme-challenge/t",
            Some(Some("t.print")),
        );
        check("b.example", "/.well-known/acme-challenge/t", Some(None));
        check("a.example", "/.well-known/acme-challenge/", Some(None));
        check("a.example", "/.well-known/acme-challenge/../../x", Some(None));
        check("a.example", "/.well-known/acme-challenge/t/", Some(None));
        check("a.example", "/.well-known/acme-challenge/t%2e", Some(None));
        check("a.example", "/.well-known/acme-challenge/<b>", Some(None));
        check("a.example", "/.well-known/acme-challenge/t?x", Some(None));
        let long = format!("{PATH}{}", "t".repeat(TOKEN_BYTES_MAX + 1));
        check("a.example", &long, Some(None));
        check("a.example", "/.well-known/acme-challenge", None);
        check("a.example", "/.well-known/ACME-challenge/t", None);
        check("a.example", "/", None);
        let early = |path: &str| answers.http("new.example", path);
        assert_eq!(
            early("/.well-known/acme-challenge/t"),
            Some(HttpAnswer::NoAccount)
        );
        assert_eq!(
            early("/.well-known/acme-challenge/t/"),
            Some(HttpAnswer::Missing),
            "nobody is asked for the account's sake over what is no token"
        );
    }
}
