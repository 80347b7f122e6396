//! Portico's edge node: TLS on your own domain, negotiated codings and a cache, in front of S3.
//!
//! # The life of a request
//!
//! A connection is accepted by a worker (`listener`), shakes hands (`tls`) and speaks one version of HTTP (`http`). Each
//! request passes one validator there and becomes an exchange (`exchange`), the only module that sequences: host and path
//! find a site and its rule (`site`), these make a key, and the key is looked up (`cache`). On a site with releases the
//! path leads to what was signed instead (`release`): a blob, looked up by its digest, and hashed before it is seen. A
//! fresh response is answered at once, on the worker's thread. A stale one may be answered while it is revalidated.
//! Everything else is fetched (`origin`) on the control plane, once however many ask, and followed while it arrives. What
//! is answered is a selected representation (`representation`): a coding, preconditions, a range.
//!
//! # Two planes
//!
//! *Data plane*: a thread per core with a runtime and sockets of its own; a connection lives and dies on one thread. A hit
//! waits for nothing but its socket. *Control plane*: one small runtime for fetches, coders, the operator's side,
//! certificates. A miss crosses over once, and streams back. A slow control plane never slows a hit.
//!
//! # Invariants
//!
//! 1. A module imports only modules declared below it in this file. `cache::policy`, `representation` and `fields` know no
//!    runtime, no HTTP library's connections and no store.
//! 2. `now()` is called in `clock` only; there is no `unsafe`, no lock held across an await, no unbounded channel.
//! 3. Each task starts through `drain`, which names it and ends it.
//! 4. A follower always gets an answer: a response, an error, or leave to fetch alone.
//! 5. A body that did not arrive whole is never stored, and never ends cleanly.
//! 6. A fetch begun before a purge never becomes fresh after it: it carries the epoch of its start.
//! 7. Nothing read from the network can panic. Every limit has an answer when it is reached.
//! 8. Each visible outcome is one enum value, one log token, one metric label, one member of Cache-Status.
//! 9. The memory cap counts bytes in flight. The cache outlives a reload.
//! 10. Readiness never depends on S3.
//!
//! # The modules, in the order in which a request meets them

pub mod server;

pub mod lifecycle;

pub mod demo;

pub mod admin;

pub mod listener;

pub mod tls;

pub mod http;

pub mod exchange;

pub mod site;

pub mod release;

pub mod origin;

pub mod cache;

pub mod representation;

pub mod fields;

pub mod telemetry;

pub mod config;

pub mod drain;

pub mod clock;
