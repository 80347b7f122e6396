//! Sockets in: binds every address for every worker before anything is served.
//!
//! Each worker has a socket of its own at each address (`SO_REUSEPORT`), so the kernel spreads connections and no lock is
//! shared. What is accepted, and how much of it, is in `workers` and `admission`. TLS and HTTP are not known here.

mod admission;
mod metrics;
mod workers;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

pub use self::admission::Full;
pub use self::workers::{Setup, Workers};
use crate::config::Listen;
use crate::http::Kind;

/// Connections that the kernel may hold for us; it takes the smaller of this and `net.core.somaxconn`.
const BACKLOG: i32 = 8192;

/// Descriptors that connections never get: for origins, the admin side, logs and disk.
const RESERVE_MAX: u64 = 1024;
const RESERVE_MIN: u64 = 64;

/// An address that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {kind} {address}")]
pub struct BindError {
    /// The listener's kind, as the configuration calls it.
    pub kind: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// One address, bound once for each worker.
#[derive(Debug)]
pub struct Bound {
    /// What its connections are for.
    pub kind: Kind,
    /// The address, with the port that was chosen where 0 was asked for.
    pub address: SocketAddr,
    sockets: Vec<TcpListener>,
}

/// Binds every address of `listen`, a socket per worker. Either all are bound, or none.
pub fn bind(listen: &Listen, workers: usize) -> Result<Vec<Bound>, BindError> {
    let all: Vec<(Kind, SocketAddr)> = [
        (Kind::Https, &listen.https),
        (Kind::Redirect, &listen.http),
        (Kind::Plain, &listen.plain),
    ]
    .into_iter()
    .flat_map(|(kind, addresses)| addresses.iter().map(move |address| (kind, *address)))
    .collect();
    all.iter()
        .map(|(kind, address)| {
            let alone = is_v6_only(*address, &all);
            bind_one(*kind, *address, alone, workers.max(1)).map_err(|source| BindError {
                kind: kind.token(),
                address: *address,
                source,
            })
        })
        .collect()
}

/// How many descriptors this process may have, raised as far as it goes, and how many of them connections may take.
pub fn connections_max(wanted: usize) -> usize {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    let allowed = connections_within(files, wanted);
    if allowed < wanted {
        tracing::warn!(
            files,
            wanted,
            allowed,
            "the limit of open files is too low for limits.connections; raise LimitNOFILE"
        );
    }
    allowed
}

/// An IPv6 wildcard takes IPv4 too, unless an IPv4 address of the same port is listed as well.
fn is_v6_only(address: SocketAddr, all: &[(Kind, SocketAddr)]) -> bool {
    address.is_ipv6()
        && address.port() != 0
        && all
            .iter()
            .any(|(_, other)| other.is_ipv4() && other.port() == address.port())
}

fn bind_one(kind: Kind, address: SocketAddr, v6_only: bool, workers: usize) -> io::Result<Bound> {
    let first = match open(address, v6_only) {
        // A host without IPv6: the wildcard means every address there is.
        Err(error) if is_no_ipv6(&error) && address.ip() == IpAddr::from([0u16; 8]) => {
            tracing::warn!(%address, "this host has no IPv6; listening on IPv4 alone");
            open((Ipv4Addr::UNSPECIFIED, address.port()).into(), v6_only)?
        }
        result => result?,
    };
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(open(address, v6_only)?);
    }
    Ok(Bound {
        kind,
        address,
        sockets,
    })
}

/// EAFNOSUPPORT and EADDRNOTAVAIL, as Linux numbers them.
fn is_no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(97)
}

fn open(address: SocketAddr, v6_only: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(v6_only)?;
    }
    // Accepted sockets inherit it. TCP_DEFER_ACCEPT stays off: it hides silent connections from the limits.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn connections_within(files: u64, wanted: usize) -> usize {
    let reserve = (files / 4).clamp(RESERVE_MIN, RESERVE_MAX);
    let room = usize::try_from(files.saturating_sub(reserve)).unwrap_or(usize::MAX);
    wanted.min(room.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(https: &[&str], plain: &[&str]) -> Listen {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Listen {
            https: parse(https),
            plain: parse(plain),
            ..Listen::default()
        }
    }

    #[test]
    fn all_workers_share_the_port_that_was_chosen() {
        let bound = bind(&listen(&["127.0.0.1:0"], &["127.0.0.1:0"]), 3).unwrap();
        assert_eq!(bound.len(), 2);
        assert_ne!(bound[0].address.port(), bound[1].address.port());
        for one in &bound {
            assert_eq!(one.sockets.len(), 3);
            assert!(
                one.sockets
                    .iter()
                    .all(|socket| socket.local_addr().unwrap() == one.address)
            );
        }
    }

    #[test]
    fn an_address_in_use_is_an_error_that_names_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = bind(&listen(&[], &[&address]), 1).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on plain {address}"));
    }

    #[test]
    fn a_wildcard_takes_both_families_unless_ipv4_is_listed() {
        let check = |https: &[&str], expected: &[bool]| {
            let all: Vec<_> = listen(https, &[])
                .https
                .into_iter()
                .map(|a| (Kind::Https, a))
                .collect();
            let alone: Vec<_> = all
                .iter()
                .map(|(_, address)| is_v6_only(*address, &all))
                .collect();
            assert_eq!(alone, expected, "{https:?}");
        };
        check(&["[::]:443"], &[false]);
        check(&["[::]:443", "0.0.0.0:80"], &[false, false]);
        check(&["[::]:443", "0.0.0.0:443"], &[true, false]);
        check(&["[::]:0", "0.0.0.0:0"], &[false, false]);
    }

    #[test]
    fn both_families_of_one_port_can_be_listed() {
        let Ok(free) = bind(&listen(&["[::]:0"], &[]), 1) else {
            return;
        };
        let port = free[0].address.port();
        drop(free);
        let bound = bind(
            &listen(&[&format!("[::]:{port}"), &format!("0.0.0.0:{port}")], &[]),
            2,
        );
        assert!(bound.is_ok(), "{bound:?}");
    }

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        assert_eq!(connections_within(300, 20_000), 225);
        assert_eq!(connections_within(100, 20_000), 36);
        assert_eq!(connections_within(1_000_000, 20_000), 20_000);
        assert_eq!(connections_within(10, 20_000), 1);
    }
}
