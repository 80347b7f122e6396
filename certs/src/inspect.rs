//! Looks for what will keep a CA from issuing, before it is asked: names that lead elsewhere, CAA records that forbid it.
//!
//! It asks as the CA does: the DNS, and for HTTP-01 the very path that the CA will ask for. It orders nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::RData;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::acme::{Answers, HttpAnswer};
use crate::settings::{Challenge, Managed};

const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// Looks things up and asks.
pub struct Inspector {
    resolver: TokioResolver,
    answers: Arc<Answers>,
    /// The port that HTTP-01 is asked for on.
    http_port: u16,
}

impl Inspector {
    /// An inspector that asks `dns`, or whom the machine asks. `answers` says what a node of ours would say.
    pub fn new(
        answers: Arc<Answers>,
        http_port: u16,
        dns: Option<SocketAddr>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let builder = match dns {
            Some(dns) => {
                let mut server = NameServerConfig::udp_and_tcp(dns.ip());
                for connection in &mut server.connections {
                    connection.port = dns.port();
                }
                let config = ResolverConfig::from_name_servers(vec![server]);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
            None => TokioResolver::builder_tokio()?,
        };
        Ok(Self {
            resolver: builder.build()?,
            answers,
            http_port,
        })
    }

    /// What stands against issuing `managed`, a line each.
    pub async fn inspect(&self, managed: &Managed) -> Vec<String> {
        let mut found = Vec::new();
        for name in &managed.names {
            found.extend(self.caa(name, &managed.acme.directory).await);
            match managed.acme.challenge {
                Challenge::Dns01(_) => {}
                Challenge::Http01 => found.extend(self.http(name).await),
                Challenge::TlsAlpn01 => found.extend(self.addresses(name).await.err()),
            }
        }
        found
    }

    /// RFC 8659 section 3: the records of the name, or of the nearest parent that has any, decide.
    async fn caa(&self, name: &str, directory: &str) -> Option<String> {
        let ca = caa_name(directory)?;
        let wildcard = name.starts_with("*.");
        let mut at = name.trim_start_matches("*.");
        loop {
            let records = match self.issuers(at).await {
                Ok(records) => records,
                // RFC 8659 section 5: a CA that cannot look does not issue.
                Err(error) => {
                    return Some(format!(
                        "{name}: the CAA records of {at} cannot be looked up: {error}"
                    ));
                }
            };
            if !records.is_empty() {
                let allowed = allows(&records, wildcard, ca);
                return (!allowed).then(|| format!("{name}: the CAA records of {at} do not allow {ca}"));
            }
            at = at.split_once('.')?.1;
        }
    }

    async fn issuers(&self, name: &str) -> Result<Vec<(String, String)>, NetError> {
        let asked = self
            .resolver
            .lookup(format!("{name}."), hickory_proto::rr::RecordType::CAA)
            .await;
        let found = match asked {
            Ok(found) => found,
            Err(error) if error.is_no_records_found() => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let records = found.answers().iter().filter_map(|record| match &record.data {
            RData::CAA(caa) => Some((
                caa.tag.to_lowercase(),
                String::from_utf8_lossy(&caa.value).into_owned(),
            )),
            _ => None,
        });
        Ok(records.collect())
    }

    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        match self.resolver.lookup_ip(format!("{name}.")).await {
            Ok(found) => Ok(found.iter().collect()),
            Err(error) if error.is_no_records_found() => Err(format!(
                "{name}: has no address in the DNS, so the CA cannot ask it"
            )),
            Err(error) => Err(format!("{name}: its addresses cannot be looked up: {error}")),
        }
    }

    /// Whether each address of the name answers as our nodes do.
    async fn http(&self, name: &str) -> Vec<String> {
        let addresses = match self.addresses(name).await {
            Ok(addresses) => addresses,
            Err(problem) => return vec![problem],
        };
        let token = format!("check-{:032x}", fastrand::u128(..));
        let path = format!("/.well-known/acme-challenge/{token}");
        let Some(HttpAnswer::Text(expected)) = self.answers.http(name, &path) else {
            return vec![format!(
                "{name}: there is no account in the store yet; ask again when a node has made one"
            )];
        };
        let mut found = Vec::new();
        for address in addresses {
            let asked = ask(SocketAddr::new(address, self.http_port), name, &path);
            let problem = match tokio::time::timeout(PATIENCE, asked).await {
                Ok(Ok(body)) if body == expected => continue,
                Ok(Ok(_)) => "does not answer as our nodes do: the name leads elsewhere".to_owned(),
                Ok(Err(error)) => format!("cannot be asked: {error}"),
                Err(_) => "does not answer".to_owned(),
            };
            found.push(format!("{name}: {address} port {} {problem}", self.http_port));
        }
        found
    }
}

impl std::fmt::Debug for Inspector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inspector(..)")
    }
}

/// What a CA is called in CAA records; `None` for one that is not known here.
fn caa_name(directory: &str) -> Option<&'static str> {
    let known = [
        ("letsencrypt.org/", "letsencrypt.org"),
        ("zerossl.com/", "sectigo.com"),
        ("pki.goog/", "pki.goog"),
        ("buypass.com/", "buypass.com"),
    ];
    known
        .iter()
        .find(|(part, _)| directory.contains(part))
        .map(|(_, name)| *name)
}

/// RFC 8659 sections 4.2 and 4.3: `issuewild` goes first for wildcards; without a property of the kind everyone may.
fn allows(records: &[(String, String)], wildcard: bool, ca: &str) -> bool {
    let of = |tag: &str| -> Vec<&str> {
        let values = records.iter().filter(|(own, _)| own == tag);
        values
            .map(|(_, value)| value.split(';').next().unwrap_or_default().trim())
            .collect()
    };
    let wild = of("issuewild");
    let issuers = if wildcard && !wild.is_empty() {
        wild
    } else {
        of("issue")
    };
    issuers.is_empty() || issuers.contains(&ca)
}

/// The body of a GET, when it is answered with 200.
async fn ask(address: SocketAddr, host: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    let good = head.split(' ').nth(1) == Some("200");
    Ok(if good {
        body.trim().to_owned()
    } else {
        String::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caa_records_allow_whom_they_name() {
        let check = |records: &[(&str, &str)], wildcard: bool, expected: bool| {
            let records: Vec<_> = records
                .iter()
                .map(|(tag, value)| ((*tag).to_owned(), (*value).to_owned()))
                .collect();
            assert_eq!(
                allows(&records, wildcard, "letsencrypt.org"),
                expected,
                "{records:?} {wildcard}"
            );
        };
        check(&[("issue", "letsencrypt.org")], false, true);
        check(
            &[("issue", "letsencrypt.org; validationmethods=dns-01")],
            true,
            true,
        );
        check(&[("issue", "other.example")], false, false);
        check(
            &[("issue", "other.example"), ("issue", "letsencrypt.org")],
            false,
            true,
        );
        check(&[("issue", ";")], false, false);
        check(&[("iodef", "mailto:a@example.com")], false, true);
        check(&[("issue", "letsencrypt.org"), ("issuewild", ";")], true, false);
        check(&[("issue", "letsencrypt.org"), ("issuewild", ";")], false, true);
    }

    #[test]
    fn well_known_authorities_are_known_by_their_directory() {
        assert_eq!(
            caa_name("https://acme-v02.api.letsencrypt.org/directory"),
            Some("letsencrypt.org")
        );
        assert_eq!(caa_name("https://ca.internal/directory"), None);
    }
}
