//! The connections to one server: opened as needed up to a limit, kept while they are of use, never kept long.
//!
//! Each connection is a task of its own that ends when nobody holds its sender any more.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::Content;
use super::connect::{Stream, Target};
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::drain::Drain;
use crate::origin::{Error, Kind};
use crate::telemetry::metrics::Gauge;

/// Bytes of an answer's header section, and of its trailer section.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Fields in it.
const HEADER_COUNT_MAX: usize = 200;
/// What a connection holds of an answer that is not read yet.
const BUFFER_BYTES_MAX: usize = 128 * 1024;
/// What is held of it before it is passed on: that, and a piece that was taken from it.
pub(in crate::origin) const AHEAD_BYTES: u64 = 2 * BUFFER_BYTES_MAX as u64;
/// Interim answers to one request.
const INTERIM_MAX: u64 = 32;
/// Unused connections that are kept.
const IDLE_MAX: usize = 64;

/// Connections to one server.
#[derive(Debug)]
pub(super) struct Pool {
    target: Target,
    idle: Mutex<Vec<Idle>>,
    idle_count: Gauge,
    places: Arc<Semaphore>,
    connections: usize,
    connect: Duration,
    idle_time: Duration,
    clock: Clock,
    drain: Drain,
    /// Told when a connection is put aside.
    put_aside: Arc<Notify>,
}

#[derive(Debug)]
struct Idle {
    lease: Lease,
    since: Timestamp,
    _aside: Aside,
}

/// Counts a connection that is put aside.
#[derive(Debug)]
struct Aside(Gauge);

impl Aside {
    fn new(count: &Gauge) -> Self {
        count.add(1);
        Self(count.clone())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

/// A connection for one request.
#[derive(Debug)]
pub(super) struct Lease {
    sender: SendRequest<Content>,
    /// Bytes that have come over this connection.
    received: Arc<AtomicU64>,
    was_used: bool,
    _place: OwnedSemaphorePermit,
}

/// A request without an answer.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: Error,
    /// Whether a connection that had been used before ended without a byte: most likely it was closed already when the
    /// request went out.
    pub(super) is_unanswered: bool,
    /// The request, where nothing of it has gone out.
    pub(super) request: Option<Request<Content>>,
}

impl Pool {
    /// `idle_count` is how many connections of all pools are put aside.
    pub(super) fn new(
        target: Target,
        config: &config::HttpOrigin,
        idle_count: Gauge,
        clock: Clock,
        drain: &Drain,
    ) -> Arc<Self> {
        let pool = Arc::new(Self {
            target,
            idle: Mutex::default(),
            idle_count,
            places: Arc::new(Semaphore::new(config.connections)),
            connections: config.connections,
            connect: config.timeouts.connect,
            idle_time: config.timeouts.pool_idle,
            clock,
            drain: drain.clone(),
            put_aside: Arc::new(Notify::new()),
        });
        drain.spawn("origin-pool", tidy(&pool));
        pool
    }

    /// A connection that is open and unused, the one that was used last.
    pub(super) fn take(&self) -> Option<Lease> {
        let now = self.clock.now();
        let mut idle = self.idle();
        while let Some(last) = idle.pop() {
            let is_good = now.since(last.since) < self.idle_time && last.lease.sender.is_ready();
            if is_good {
                return Some(last.lease);
            }
        }
        None
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> Result<Lease, Error> {
        let late = |kind, detail: String| move |_| Error::new(kind, detail);
        let place = tokio::time::timeout(self.connect, Arc::clone(&self.places).acquire_owned());
        let full = format!("{} connections are in use", self.connections);
        let place = place
            .await
            .map_err(late(Kind::ConnectionLimitReached, full))?
            .map_err(|_| Error::new(Kind::ProxyInternalError, "the pool is closed"))?;
        let slow = format!("no connection within {:?}", self.connect);
        let stream = tokio::time::timeout(self.connect, self.target.connect())
            .await
            .map_err(late(Kind::ConnectionTimeout, slow))??;
        let received = Arc::new(AtomicU64::new(0));
        let counted = Counted {
            stream,
            received: Arc::clone(&received),
        };
        let handshake = builder().handshake::<_, Content>(TokioIo::new(counted)).await;
        let (sender, connection) =
            handshake.map_err(|error| Error::from_causes(&error, Kind::ConnectionTerminated))?;
        self.drain.spawn("origin-connection", async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to an origin ended");
            }
        });
        Ok(Lease {
            sender,
            received,
            was_used: false,
            _place: place,
        })
    }

    /// Sends a request, up to the head of its answer. The connection comes back by itself when the answer has been read.
    pub(super) async fn send(
        self: &Arc<Self>,
        mut lease: Lease,
        mut request: Request<Content>,
    ) -> Result<Response<Incoming>, Failed> {
        let before = lease.received.load(Ordering::Relaxed);
        let is_last = leaves_doubt(&request);
        let told = Interim::listen(&mut request);
        let sent = tokio::select! {
            // A flood counts although the answer behind it has come.
            biased;
            () = told.too_many() => {
                return Err(Failed {
                    error: Error::new(
                        Kind::HttpProtocolError,
                        format!("more than {INTERIM_MAX} interim answers"),
                    ),
                    is_unanswered: false,
                    request: None,
                });
            }
            sent = lease.sender.try_send_request(request) => sent,
        };
        match sent {
            Ok(response) => {
                lease.was_used = true;
                match is_last {
                    true => self.end_when_done(lease),
                    false => self.keep_when_done(lease),
                }
                Ok(response)
            }
            Err(mut failed) => {
                let request = failed.take_message();
                let error = failed.into_error();
                let is_silent = lease.received.load(Ordering::Relaxed) == before;
                Err(Failed {
                    is_unanswered: lease.was_used && is_silent && !error.is_user() && !error.is_parse(),
                    error: Error::from_causes(&error, Kind::HttpProtocolError),
                    request,
                })
            }
        }
    }

    /// Puts a connection aside when it is ready for the next request; one that never is ends.
    pub(super) fn keep_when_done(self: &Arc<Self>, mut lease: Lease) {
        let pool = Arc::downgrade(self);
        self.drain.spawn("origin-keep", async move {
            if lease.sender.ready().await.is_ok()
                && let Some(pool) = pool.upgrade()
            {
                pool.put(lease);
            }
        });
    }

    /// Ends a connection when the answer that comes over it has been read.
    fn end_when_done(&self, mut lease: Lease) {
        self.drain.spawn("origin-last", async move {
            let _ = lease.sender.ready().await;
        });
    }

    fn put(&self, lease: Lease) {
        let since = self.clock.now();
        {
            let mut idle = self.idle();
            // Looked at under the lock, as a drain empties the list once.
            if idle.len() >= IDLE_MAX || self.drain.is_draining() {
                return;
            }
            idle.push(Idle {
                lease,
                since,
                _aside: Aside::new(&self.idle_count),
            });
        }
        self.put_aside.notify_one();
    }

    /// Ends what has been unused for too long; whether anything is left.
    fn sweep(&self) -> bool {
        let now = self.clock.now();
        let mut idle = self.idle();
        idle.retain(|idle| now.since(idle.since) < self.idle_time && idle.lease.sender.is_ready());
        !idle.is_empty()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.put_aside.notify_one();
    }
}

/// Whether a server may take the content of this request for the next request: many read none where the method gives it
/// no meaning, or where they serve a file. What follows over the same connection would then be answered out of turn, so
/// nothing follows.
fn leaves_doubt(request: &Request<Content>) -> bool {
    let has_meaning = matches!(*request.method(), Method::PATCH | Method::POST | Method::PUT);
    !has_meaning && !request.body().is_end_stream()
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .max_headers(HEADER_COUNT_MAX)
        .max_header_size(HEADER_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX);
    builder
}

/// Ends unused connections, and all of them when a drain begins.
fn tidy(pool: &Arc<Pool>) -> impl Future<Output = ()> + Send + 'static {
    let (put_aside, drain, pause) = (
        Arc::clone(&pool.put_aside),
        pool.drain.clone(),
        pool.idle_time.max(Duration::from_millis(20)) / 2,
    );
    let pool: Weak<Pool> = Arc::downgrade(pool);
    async move {
        let sweeping = async {
            loop {
                put_aside.notified().await;
                loop {
                    tokio::time::sleep(pause).await;
                    match pool.upgrade() {
                        None => return,
                        Some(pool) if pool.sweep() => {}
                        Some(_) => break,
                    }
                }
            }
        };
        tokio::select! {
            () = sweeping => {}
            () = drain.begun() => {}
        }
        if let Some(pool) = pool.upgrade() {
            pool.idle().clear();
        }
    }
}

/// Counts the interim answers (1xx) to one request, which hyper passes over without an end.
struct Interim {
    count: Arc<AtomicU64>,
    told: Arc<Notify>,
}

impl Interim {
    fn listen(request: &mut Request<Content>) -> Self {
        let (count, told) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        let (counts, tells) = (Arc::clone(&count), Arc::clone(&told));
        hyper::ext::on_informational(request, move |_| {
            if counts.fetch_add(1, Ordering::Relaxed) >= INTERIM_MAX {
                tells.notify_one();
            }
        });
        Self { count, told }
    }

    /// Comes when there are more than any sound server sends.
    async fn too_many(&self) {
        while self.count.load(Ordering::Relaxed) <= INTERIM_MAX {
            self.told.notified().await;
        }
    }
}

pin_project! {
    /// A stream that counts what comes.
    struct Counted {
        #[pin]
        stream: Stream,
        received: Arc<AtomicU64>,
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.project();
        let before = buf.filled().len();
        let polled = this.stream.poll_read(cx, buf);
        let count = buf.filled().len().saturating_sub(before) as u64;
        this.received.fetch_add(count, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.project().stream.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        self.project().stream.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.project().stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.project().stream.poll_shutdown(cx)
    }
}
