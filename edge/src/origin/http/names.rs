//! Names to addresses: asked anew when their time to live is over, and the last good addresses when nobody answers.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use tokio::sync::OnceCell;

use crate::origin::{Error, Kind};

/// Names whose last good addresses are kept.
const NAMES_MAX: usize = 64;

/// The resolver of one origin. It keeps what it has learnt for as long as the answer's TTL says.
pub(super) struct Names {
    deadline: Duration,
    /// Made when it is first needed, within the runtime that asks.
    resolver: OnceCell<TokioResolver>,
    last_good: Mutex<HashMap<String, Vec<IpAddr>>>,
}

impl Names {
    pub(super) fn new(deadline: Duration) -> Self {
        Self {
            deadline,
            resolver: OnceCell::new(),
            last_good: Mutex::default(),
        }
    }

    /// The addresses of `name`; never empty.
    pub(super) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Error> {
        // RFC 6761 6.3: the loopback addresses, and nobody is asked.
        if name == "localhost" || name.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let asked = match tokio::time::timeout(self.deadline, self.lookup(name)).await {
            Ok(asked) => asked,
            Err(_) => Err(Error::new(
                Kind::DnsTimeout,
                format!("no address of {name} within {:?}", self.deadline),
            )),
        };
        let mut last_good = self.last_good.lock().unwrap_or_else(PoisonError::into_inner);
        match asked {
            Ok(addresses) => {
                if last_good.len() < NAMES_MAX || last_good.contains_key(name) {
                    last_good.insert(name.to_owned(), addresses.clone());
                }
                Ok(addresses)
            }
            Err(error) => match last_good.get(name) {
                Some(addresses) => {
                    tracing::warn!(name, %error, "the name does not resolve: using its last good addresses");
                    Ok(addresses.clone())
                }
                None => Err(error),
            },
        }
    }

    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::new(Kind::DnsError, format!("{name}: {error}"));
        let resolver = self
            .resolver
            .get_or_try_init(|| async { resolver() })
            .await
            .map_err(|error| failed(&error))?;
        let found = resolver.lookup_ip(name).await.map_err(|error| failed(&error))?;
        let addresses: Vec<IpAddr> = found.iter().collect();
        match addresses.is_empty() {
            true => Err(Error::new(Kind::DnsError, format!("{name} has no address"))),
            false => Ok(addresses),
        }
    }
}

/// As the system resolves: its servers, its hosts file, its search list.
fn resolver() -> Result<TokioResolver, hickory_resolver::net::NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

    use hickory_resolver::config::{NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    use tokio::net::UdpSocket;

    use super::*;

    /// A server of names that says 192.0.2.1 to every question for an IPv4 address, or nothing.
    struct Server {
        names: Names,
        asked: Arc<AtomicUsize>,
        ttl: Arc<AtomicU32>,
    }

    const SILENT: u32 = u32::MAX;
    const ADDRESS: [u8; 4] = [192, 0, 2, 1];

    async fn server(deadline: Duration, ttl: u32) -> Server {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let (asked, ttl) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU32::new(ttl)));
        let (counts, says) = (Arc::clone(&asked), Arc::clone(&ttl));
        crate::drain::Drain::default().spawn("names", async move {
            let mut packet = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                counts.fetch_add(1, Ordering::SeqCst);
                let ttl = says.load(Ordering::SeqCst);
                if ttl != SILENT {
                    let _ = socket.send_to(&answer(&packet[..length], ttl), from).await;
                }
            }
        });
        let mut place = NameServerConfig::udp(Ipv4Addr::LOCALHOST.into());
        place.connections[0].port = port;
        let config = ResolverConfig::from_name_servers(vec![place]);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4Only;
        Server {
            names: Names {
                deadline,
                resolver: OnceCell::new_with(Some(builder.build().unwrap())),
                last_good: Mutex::default(),
            },
            asked,
            ttl,
        }
    }

    /// RFC 1035 4.1: the question, and one address for it.
    fn answer(question: &[u8], ttl: u32) -> Vec<u8> {
        let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
        let mut packet = question[..2].to_vec();
        packet.extend([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        packet.extend(&question[12..end]);
        packet.extend([0xc0, 12, 0, 1, 0, 1]);
        packet.extend(ttl.to_be_bytes());
        packet.extend([0, 4]);
        packet.extend(ADDRESS);
        packet
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_name_is_asked_for_anew_when_its_time_to_live_is_over() {
        for (ttl, expected) in [(300, 1), (0, 3)] {
            let server = server(LONG, ttl).await;
            for _ in 0..3 {
                let addresses = server.names.addresses("app.example.").await.unwrap();
                assert_eq!(addresses, [IpAddr::from(ADDRESS)]);
            }
            assert_eq!(server.asked.load(Ordering::SeqCst), expected, "ttl {ttl}");
        }
    }

    #[tokio::test]
    async fn a_name_that_stops_resolving_keeps_its_last_good_addresses() {
        let mut server = server(LONG, 0).await;
        server.names.addresses("app.example.").await.unwrap();
        server.ttl.store(SILENT, Ordering::SeqCst);
        server.names.deadline = Duration::from_millis(50);
        let addresses = server.names.addresses("app.example.").await.unwrap();
        assert_eq!(addresses, [IpAddr::from(ADDRESS)]);
        let unknown = server.names.addresses("other.example.").await.unwrap_err();
        assert_eq!(unknown.kind, Kind::DnsTimeout);
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_an_error() {
        let error = Names::new(LONG)
            .addresses("no-such-name.invalid")
            .await
            .unwrap_err();
        assert!(matches!(error.kind, Kind::DnsError | Kind::DnsTimeout), "{error}");
    }

    #[tokio::test]
    async fn the_loopback_needs_no_server() {
        let names = Names::new(Duration::ZERO);
        for name in ["localhost", "app.localhost"] {
            let addresses = names.addresses(name).await.unwrap();
            assert!(addresses.iter().all(IpAddr::is_loopback), "{name}");
        }
    }
}
