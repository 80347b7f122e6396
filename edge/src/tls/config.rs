//! How rustls is set up: versions, resumption, early data, ALPN, certificate compression.

use std::sync::Arc;

use certs::store::Keyring;
use certs::{Resolver, Tickets};
use rustls::ServerConfig;
use rustls::compress::CompressionCache;
use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, ProducesTickets, ServerSessionMemoryCache};

use crate::clock::Clock;
use crate::config::Config;

/// Compressed chains that are kept: one for each certificate of a node with many, and their ECDSA and RSA forms.
const COMPRESSED_CHAINS_MAX: usize = 64;

/// Sessions that are kept where early data is taken, the oldest given up first; each takes about half a kilobyte.
const SESSIONS_MAX: usize = 32 * 1024;
/// Of each connection: a few requests fit, and a client that sends more is sent away.
const EARLY_BYTES_MAX: u32 = 16 * 1024;

/// A server that speaks TLS 1.2 and 1.3 (X25519MLKEM768 first) with the certificates of `resolver`.
///
/// Sessions are resumed by tickets: those of `tickets`, which other nodes resume too, or those of this process alone.
pub fn server(
    resolver: Arc<Resolver>,
    tickets: Option<Arc<dyn ProducesTickets>>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = base(resolver)?;
    // Resumption without memory: all that is needed to go on stands in the ticket, under a key that changes every hour
    // (every six hours without a secret that the nodes share). No session is kept, so there is no table to fill and none to
    // lock.
    config.ticketer = match tickets {
        Some(tickets) => tickets,
        None => aws_lc_rs::Ticketer::new()?,
    };
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // RFC 8446 section 8: early data can be replayed, and a ticket that any node takes can be replayed at each of them.
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// As [`server`], and clients that come back send their first request before the handshake is over.
///
/// RFC 8446 section 8.1: a session is kept by the node that made it, and used once. A copy of what a client has sent finds
/// no session, here or on any other node, so what came early in it is thrown away unread. The price: no other node resumes
/// these sessions.
pub fn early(resolver: Arc<Resolver>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = base(resolver)?;
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    config.max_early_data_size = EARLY_BYTES_MAX;
    // What is asked early is answered early: else nothing is won.
    config.send_half_rtt_data = true;
    Ok(Arc::new(config))
}

fn base(resolver: Arc<Resolver>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    // Most preferred first (RFC 7301 section 3.2 lets the server choose).
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.send_tls13_tickets = 2;
    // A phone without AES instructions puts ChaCha20 first, and is right.
    config.ignore_client_order = false;
    // RFC 8879: the first client pays for the compression, the others find it done.
    config.cert_compression_cache = Arc::new(CompressionCache::new(COMPRESSED_CHAINS_MAX));
    Ok(config)
}

/// Session tickets that every node with the same configuration resumes: under the secret of the configuration, or one that
/// follows from the keys of the certificate store. `None` where nodes share neither.
pub fn tickets(config: &Config, clock: &Clock) -> Option<Tickets> {
    let store = || config.managed.as_ref().map(|managed| &managed.store.keys);
    let secret = config.tickets.as_ref().or_else(store)?;
    let keys = Keyring::parse(&secret.0)
        .inspect_err(|error| tracing::error!(%error, "the secret of session tickets cannot be used"))
        .ok()?;
    let clock = clock.clone();
    let now = Arc::new(move || clock.now().to_system_time());
    Tickets::new(&keys.derive("session tickets"), now)
}
