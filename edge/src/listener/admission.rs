//! How many connections there may be: in all, and from one address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::telemetry::metrics::Label;

const SHARDS: usize = 16;

/// Counts connections. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub(super) struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max: usize,
    max_per_address: usize,
    open: AtomicUsize,
    addresses: [Mutex<HashMap<Neighbour, usize>>; SHARDS],
    hasher: RandomState,
}

/// Why a connection was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// `limits.connections_per_address` are open from there.
    Address,
    /// `limits.connections` are open.
    All,
}

impl Label for Full {
    const NAME: &'static str = "reason";
    const VALUES: &'static [&'static str] = &["address", "all"];

    fn index(self) -> usize {
        self as usize
    }
}

/// One client as far as limits go: an IPv4 address, or the /64 that one IPv6 subscriber has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Neighbour {
    V4(Ipv4Addr),
    V6([u16; 4]),
}

impl From<IpAddr> for Neighbour {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = Ipv6Addr::segments(&address);
                Self::V6([a, b, c, d])
            }
        }
    }
}

impl Admission {
    pub(super) fn new(max: usize, max_per_address: usize) -> Self {
        Self(Arc::new(Inner {
            max,
            max_per_address,
            open: AtomicUsize::new(0),
            addresses: Default::default(),
            hasher: RandomState::new(),
        }))
    }

    /// Counts a connection in, unless there are as many as there may be.
    pub(super) fn admit(&self, address: IpAddr) -> Result<Admitted, Full> {
        let inner = &self.0;
        let neighbour = Neighbour::from(address);
        if inner.open.fetch_add(1, Ordering::Relaxed) >= inner.max {
            inner.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::All);
        }
        let fits = inner.with_shard(neighbour, |shard| {
            let count = shard.entry(neighbour).or_default();
            let fits = *count < inner.max_per_address;
            *count += usize::from(fits);
            fits
        });
        if !fits {
            inner.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Address);
        }
        Ok(Admitted {
            admission: self.clone(),
            neighbour,
        })
    }

    /// Connections open now.
    pub(super) fn open(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }
}

impl Inner {
    fn with_shard<T>(
        &self,
        neighbour: Neighbour,
        act: impl FnOnce(&mut HashMap<Neighbour, usize>) -> T,
    ) -> T {
        let [first, ..] = &self.addresses;
        let at = usize::try_from(self.hasher.hash_one(neighbour) % SHARDS as u64).unwrap_or(0);
        let shard = self.addresses.get(at).unwrap_or(first);
        act(&mut shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A connection that was counted in; dropping it counts it out.
#[derive(Debug)]
pub(super) struct Admitted {
    admission: Admission,
    neighbour: Neighbour,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let inner = &self.admission.0;
        inner.with_shard(self.neighbour, |shard| {
            if let Entry::Occupied(mut entry) = shard.entry(self.neighbour) {
                *entry.get_mut() -= 1;
                if *entry.get() == 0 {
                    entry.remove();
                }
            }
        });
        inner.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_has_its_share_and_gets_it_back() {
        let admission = Admission::new(10, 2);
        let a = address("192.0.2.1");
        let held = [admission.admit(a), admission.admit(a)];
        assert_eq!(admission.admit(a).err(), Some(Full::Address));
        assert!(admission.admit(address("192.0.2.2")).is_ok());
        drop(held);
        assert_eq!(admission.open(), 0);
        assert!(admission.admit(a).is_ok());
        assert!(
            admission
                .0
                .addresses
                .iter()
                .all(|shard| shard.lock().unwrap().is_empty())
        );
    }

    #[test]
    fn a_v6_subscriber_is_one_address_and_mapped_v4_is_v4() {
        let check = |one: &str, other: &str, same: bool| {
            let admission = Admission::new(10, 1);
            let _held = admission.admit(address(one)).unwrap();
            assert_eq!(admission.admit(address(other)).is_err(), same, "{one} {other}");
        };
        check("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true);
        check("2001:db8:0:1::1", "2001:db8:0:2::1", false);
        check("::ffff:192.0.2.1", "192.0.2.1", true);
        check("::ffff:192.0.2.1", "::ffff:192.0.2.2", false);
    }

    #[test]
    fn the_limit_in_all_holds_whatever_the_addresses() {
        let admission = Admission::new(3, 2);
        let held: Vec<_> = (0..5)
            .map(|n| admission.admit(address(&format!("192.0.2.{n}"))))
            .collect();
        assert_eq!(held.iter().filter(|one| one.is_ok()).count(), 3);
        assert_eq!(held.last().and_then(|one| one.as_ref().err()), Some(&Full::All));
    }
}
