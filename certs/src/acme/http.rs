//! How a CA is spoken to: https with deadlines, a bound on what it may answer, and an ear for what instant-acme drops
//! (`Retry-After` of an error, the chain it offers and the others beside it).

use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LINK, RETRY_AFTER};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::Error;
use crate::settings::Acme;
use crate::tickets::Now;

/// One request, from the name's address to the answer's last byte.
const PATIENCE: Duration = Duration::from_secs(30);
/// No answer of a CA comes near it.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Chains beside the first that are looked at.
const ALTERNATES_MAX: usize = 8;

type HyperClient = Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>;

/// A client of one CA. Clones share what was heard.
#[derive(Clone)]
pub(crate) struct Http {
    client: HyperClient,
    heard: Arc<Mutex<Heard>>,
    directory: Arc<str>,
    now: Now,
}

/// What the last answers said beside their bodies.
#[derive(Debug, Default)]
struct Heard {
    retry_after: Option<Duration>,
    chain: Option<String>,
    alternates: Vec<String>,
}

impl Http {
    /// A client that trusts the machine's roots, or those that `acme` names.
    pub(super) fn new(acme: &Acme, now: Now) -> Result<Self, Error> {
        let unusable = |error: Box<dyn std::error::Error + Send + Sync>| Error::Account(error);
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.into()))?;
        let builder = HttpsConnectorBuilder::new();
        let builder = if let Some(file) = &acme.roots {
            builder.with_tls_config(tls.with_root_certificates(roots(file)?).with_no_client_auth())
        } else {
            builder
                .with_provider_and_native_roots(aws_lc_rs::default_provider())
                .map_err(|error| unusable(error.into()))?
        };
        Ok(Self {
            client: Client::builder(TokioExecutor::new())
                .build(builder.https_or_http().enable_http1().build()),
            heard: Arc::default(),
            directory: Arc::from(acme.directory.as_str()),
            now,
        })
    }

    pub(super) fn boxed(&self) -> Box<dyn HttpClient> {
        Box::new(self.clone())
    }

    /// The error with what the CA said beside it.
    pub(super) fn failed(&self, error: instant_acme::Error) -> Error {
        Error::ca(&self.directory, error, self.heard().retry_after.take())
    }

    /// The chain that was answered last, and where the others are (RFC 8555 section 7.4.2).
    pub(super) fn take_chain(&self) -> (Option<String>, Vec<String>) {
        let mut heard = self.heard();
        (heard.chain.take(), std::mem::take(&mut heard.alternates))
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, instant_acme::Error> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| instant_acme::Error::Other(error);
        let (parts, body) = self
            .client
            .request(request)
            .await
            .map_err(|error| failed(error.into()))?
            .into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(failed)?
            .to_bytes();
        let mut heard = self.heard();
        heard.retry_after = None;
        if !parts.status.is_success() {
            heard.retry_after = retry_after(&parts.headers, (self.now)());
        } else if is_chain(&parts.headers) {
            heard.chain = String::from_utf8(body.to_vec()).ok();
            heard.alternates = alternates(&parts.headers);
        }
        drop(heard);
        Ok(BytesResponse {
            parts,
            body: Box::new(body),
        })
    }
}

/// The roots in a file of PEM: those of a CA that the machine does not know.
pub fn roots(file: &Path) -> Result<RootCertStore, Error> {
    let unusable = |reason: String| Error::Roots {
        file: file.into(),
        reason,
    };
    let mut roots = RootCertStore::empty();
    let text = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    for root in CertificateDer::pem_slice_iter(&text) {
        let root = root.map_err(|error| unusable(error.to_string()))?;
        roots.add(root).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("there is no certificate in it".to_owned()));
    }
    Ok(roots)
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let asked = self.clone().ask(request);
        Box::pin(async move {
            let late = |_| instant_acme::Error::Other("the CA did not answer in time".into());
            tokio::time::timeout(PATIENCE, asked).await.map_err(late)?
        })
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http(..)")
    }
}

/// RFC 9110 section 10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

fn is_chain(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.starts_with("application/pem-certificate-chain"))
}

/// The targets of `Link: <..>;rel="alternate"`.
fn alternates(headers: &HeaderMap) -> Vec<String> {
    let links = headers
        .get_all(LINK)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let links = links.flat_map(|value| value.split(','));
    links
        .filter_map(|link| {
            let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
            rest.contains("rel=\"alternate\"").then(|| target.to_owned())
        })
        .take(ALTERNATES_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::now;

    fn headers(name: http::HeaderName, values: &[&str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (name.clone(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_wait_is_read_as_seconds_or_as_a_date() {
        let check = |value: &str, expected: Option<u64>| {
            let read = retry_after(&headers(RETRY_AFTER, &[value]), now());
            assert_eq!(read, expected.map(Duration::from_secs), "{value}");
        };
        check("120", Some(120));
        check("Thu, 01 Jan 2026 00:02:00 GMT", Some(120));
        check("Wed, 31 Dec 2025 00:00:00 GMT", Some(0));
        check("soon", None);
        check("-1", None);
        check("", None);
    }

    #[test]
    fn other_chains_are_found_and_their_number_is_bounded() {
        let links = [
            "<https://ca.example/directory>;rel=\"index\"",
            "<https://ca.example/1>;rel=\"alternate\", <https://ca.example/2>; rel=\"alternate\"",
        ];
        let found = alternates(&headers(LINK, &links));
        assert_eq!(found, ["https://ca.example/1", "https://ca.example/2"]);
        let many = vec!["<https://ca.example/1>;rel=\"alternate\""; 50];
        assert_eq!(alternates(&headers(LINK, &many)).len(), ALTERNATES_MAX);
    }
}
