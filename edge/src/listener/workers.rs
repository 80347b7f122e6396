//! The data plane: a thread per worker, each with its own runtime, its own sockets and its own watchdog.
//!
//! A connection lives and dies on the thread that accepted it.

use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::Bound;
use super::admission::{Admission, Admitted};
use super::metrics::Metrics;
use crate::config::Limits;
use crate::drain::Drain;
use crate::exchange::Exchange;
use crate::http::{Answer, Client, Door, Kind, Protocol, Transport, Watchdog};
use crate::telemetry::metrics::Registry;
use crate::tls;

/// How long a listener waits after an error that will not pass by itself, doubling.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// One line about a full table in so many pauses is enough.
const PAUSES_PER_LINE: u64 = 20;

/// What workers need.
#[derive(Debug)]
pub struct Setup<A = Exchange> {
    /// Where requests go.
    pub door: Door<A>,
    /// How TLS is spoken.
    pub acceptor: tls::Acceptor,
    /// The limits; `connections` as [`super::connections_max`] allows it.
    pub limits: Limits,
    /// Every task is tied to it.
    pub drain: Drain,
    /// Where the listeners' metrics go.
    pub registry: Registry,
}

/// The running workers.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    close: CancellationToken,
    closed: tokio::sync::mpsc::Receiver<()>,
    end: CancellationToken,
}

impl Workers {
    /// Starts as many workers as there are sockets at each address.
    pub fn start<A: Answer>(bound: Vec<Bound>, setup: Setup<A>) -> io::Result<Self> {
        let (close, end) = (CancellationToken::new(), CancellationToken::new());
        // Nothing is ever sent: the channel closes when the last listener has dropped its end.
        let (open, closed) = tokio::sync::mpsc::channel(1);
        let admission = Admission::new(setup.limits.connections, setup.limits.connections_per_address);
        let metrics = Metrics::new(&setup.registry, &admission);
        let mut threads = Vec::new();
        for (number, sockets) in deal(bound).into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let worker = Worker {
                sockets,
                door: setup.door.clone(),
                acceptor: setup.acceptor.clone(),
                limits: setup.limits.clone(),
                drain: setup.drain.clone(),
                admission: admission.clone(),
                metrics: metrics.clone(),
                close: close.clone(),
                open: open.clone(),
            };
            let ended = end.clone();
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    runtime.block_on(async {
                        worker.start();
                        ended.cancelled().await;
                    });
                })?;
            threads.push(thread);
        }
        Ok(Self {
            threads,
            close,
            closed,
            end,
        })
    }

    /// Closes the listening sockets, after every connection that the kernel had already completed was taken. Returns
    /// when the last one is closed.
    pub async fn close_sockets(&mut self) {
        self.close.cancel();
        while self.closed.recv().await.is_some() {}
    }

    /// Ends the threads, and with them whatever still runs on them.
    pub fn end(self) {
        self.end.cancel();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

/// One worker's sockets at each address.
type Sockets = Vec<(Kind, SocketAddr, std::net::TcpListener)>;

/// Deals out sockets: to each worker one of each address.
fn deal(bound: Vec<Bound>) -> Vec<Sockets> {
    let mut hands: Vec<Sockets> = Vec::new();
    for Bound {
        kind,
        address,
        sockets,
    } in bound
    {
        for (number, socket) in sockets.into_iter().enumerate() {
            match hands.get_mut(number) {
                Some(hand) => hand.push((kind, address, socket)),
                None => hands.push(vec![(kind, address, socket)]),
            }
        }
    }
    hands
}

struct Worker<A> {
    sockets: Sockets,
    door: Door<A>,
    acceptor: tls::Acceptor,
    limits: Limits,
    drain: Drain,
    admission: Admission,
    metrics: Metrics,
    close: CancellationToken,
    open: tokio::sync::mpsc::Sender<()>,
}

impl<A: Answer> Worker<A> {
    fn start(self) {
        let watchdog = Watchdog::start(&self.limits, &self.drain);
        for (kind, address, socket) in self.sockets {
            let socket = match TcpListener::from_std(socket) {
                Ok(socket) => socket,
                Err(error) => {
                    tracing::error!(%address, %error, "a socket could not be served");
                    continue;
                }
            };
            let gate = Gate {
                kind,
                door: self.door.clone(),
                acceptor: self.acceptor.clone(),
                handshake: self.limits.handshake,
                drain: self.drain.clone(),
                admission: self.admission.clone(),
                metrics: self.metrics.clone(),
                watchdog: watchdog.clone(),
            };
            let (close, _open) = (self.close.clone(), self.open.clone());
            let listener = Listener {
                address,
                socket,
                gate,
                close,
                _open,
            };
            self.drain.spawn("listener", listener.run());
        }
    }
}

/// One socket and its loop.
struct Listener<A> {
    address: SocketAddr,
    socket: TcpListener,
    gate: Gate<A>,
    close: CancellationToken,
    _open: tokio::sync::mpsc::Sender<()>,
}

/// What a connection passes from its socket to the door.
struct Gate<A> {
    kind: Kind,
    door: Door<A>,
    acceptor: tls::Acceptor,
    handshake: Duration,
    drain: Drain,
    admission: Admission,
    metrics: Metrics,
    watchdog: Watchdog,
}

impl<A: Answer> Listener<A> {
    async fn run(self) {
        let mut pauses = Pauses::default();
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.close.cancelled() => break,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((tcp, peer)) => {
                    pauses.reset();
                    self.gate.take(tcp, peer);
                }
                Err(error) if is_passing(&error) => {}
                Err(error) => {
                    self.gate.metrics.accept_errors.inc();
                    let pause = pauses.next(|| {
                        tracing::error!(address = %self.address, %error, "no connection can be accepted; pausing");
                    });
                    tokio::select! {
                        () = self.close.cancelled() => break,
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
        self.gate.take_rest(self.socket);
    }
}

impl<A: Answer> Gate<A> {
    /// Takes what the kernel has queued: closing the socket would reset it. The runtime's view of the socket may be
    /// older than the queue, so the socket itself is asked.
    fn take_rest(&self, socket: TcpListener) {
        let Ok(socket) = socket.into_std() else { return };
        while let Ok((tcp, peer)) = socket.accept() {
            if tcp.set_nonblocking(true).is_ok()
                && let Ok(tcp) = TcpStream::from_std(tcp)
            {
                self.take(tcp, peer);
            }
        }
    }

    fn take(&self, tcp: TcpStream, peer: SocketAddr) {
        self.metrics.accepted.inc();
        let admitted = match self.admission.admit(peer.ip()) {
            Ok(admitted) => admitted,
            Err(full) => {
                self.metrics.refused.inc(full);
                // A reset: nothing of it stays with us, not even a socket in TIME_WAIT.
                let _ = socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
                return;
            }
        };
        let client = Client {
            address: peer.ip().to_canonical(),
            kind: self.kind,
        };
        let visitor = Visitor {
            door: self.door.clone(),
            watchdog: self.watchdog.clone(),
            client,
            _admitted: admitted,
        };
        match self.kind {
            Kind::Redirect | Kind::Plain => {
                self.drain.spawn("connection", async move {
                    visitor.serve(Transport::Plain(tcp), Protocol::H1).await;
                });
            }
            Kind::Https => {
                let (acceptor, deadline) = (self.acceptor.clone(), self.handshake);
                self.drain.spawn("connection", async move {
                    // Boxed, for a handshake needs more room than what comes after it. A refusal is counted where it was made.
                    let Ok(accepted) = Box::pin(acceptor.accept(tcp, deadline)).await else {
                        return;
                    };
                    let protocol = match accepted.protocol {
                        tls::Protocol::H1 => Protocol::H1,
                        tls::Protocol::H2 => Protocol::H2,
                    };
                    visitor.serve(Transport::Tls(accepted.stream), protocol).await;
                });
            }
        }
    }
}

/// A connection that was let in.
struct Visitor<A> {
    door: Door<A>,
    watchdog: Watchdog,
    client: Client,
    _admitted: Admitted,
}

impl<A: Answer> Visitor<A> {
    async fn serve(self, transport: Transport, protocol: Protocol) {
        self.door
            .serve(transport, protocol, self.client, &self.watchdog)
            .await;
    }
}

/// Whether an error belongs to the one connection that was to be accepted, and not to us (accept(2)).
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted | Kind::ConnectionReset | Kind::Interrupted | Kind::PermissionDenied
    )
}

/// Waits that grow, and lines that do not.
#[derive(Debug, Default)]
struct Pauses {
    in_a_row: u32,
    all: u64,
}

impl Pauses {
    /// The next wait. `say` is called for the first one, and then now and again.
    fn next(&mut self, say: impl FnOnce()) -> Duration {
        if self.all.is_multiple_of(PAUSES_PER_LINE) {
            say();
        }
        self.all += 1;
        let pause = PAUSE_MIN.saturating_mul(1 << self.in_a_row.min(8)).min(PAUSE_MAX);
        self.in_a_row += 1;
        pause
    }

    fn reset(&mut self) {
        self.in_a_row = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_lines_are_few() {
        let (mut pauses, mut lines) = (Pauses::default(), 0);
        let first: Vec<_> = (0..5).map(|_| pauses.next(|| lines += 1).as_millis()).collect();
        assert_eq!(first, [50, 100, 200, 400, 500]);
        (0..35).for_each(|_| {
            pauses.next(|| lines += 1);
        });
        assert_eq!(lines, 2);
        pauses.reset();
        assert_eq!(pauses.next(|| ()), PAUSE_MIN);
    }

    #[test]
    fn a_full_table_is_no_passing_error() {
        for (code, passing) in [
            (103, true),
            (104, true),
            (24, false),
            (23, false),
            (105, false),
            (12, false),
        ] {
            assert_eq!(is_passing(&io::Error::from_raw_os_error(code)), passing, "{code}");
        }
    }
}
