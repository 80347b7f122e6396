//! The admin listener's socket: TCP or Unix, few connections, short deadlines.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Admin;
use super::refusal::Refusal;
use crate::config::AdminListen;

/// Bytes of a request's head; more are answered 431.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How long, and for how many bytes, a client that was refused is still listened to: closing at once would reset the
/// connection, and the refusal would be lost.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 4 * 1024 * 1024;

/// How long to wait after accepting failed, which is mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What one connection may take, and how many there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at once; one more is answered 503 and closed. As many are answered so at once; one more than that
    /// is closed without an answer.
    pub(super) connections: usize,
    /// From the moment a connection waits for a request to the end of its head: what an idle connection is given, too.
    /// Later, it is closed.
    pub(super) head: Duration,
    /// From the end of a request's head to the end of its body; later is refused with 408.
    pub(super) body: Duration,
    /// A connection's life; then it is closed after the request under way.
    pub(super) life: Duration,
    /// For that request; then it is cut.
    pub(super) grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            life: Duration::from_secs(600),
            grace: Duration::from_secs(15),
        }
    }
}

/// A socket that is bound and does not answer yet.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket, at this path.
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// The address for a person: `http://127.0.0.1:9180` or `unix:/path`.
    pub fn url(&self) -> String {
        match self {
            Self::Tcp(listener) => listener
                .local_addr()
                .map_or_else(|_| "http://?".into(), |address| format!("http://{address}")),
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    /// The address on TCP.
    pub fn tcp_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }
}

/// Binds the admin listener. A Unix socket is open to its owner and group only (0660) from its first moment; one that
/// nobody listens to any more is replaced.
pub fn bind(listen: &AdminListen) -> io::Result<Listener> {
    match listen {
        AdminListen::Tcp(address) => {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(Listener::Tcp(listener))
        }
        AdminListen::Unix(path) => {
            let listener = bind_unix(path)?;
            listener.set_nonblocking(true)?;
            Ok(Listener::Unix(listener, path.clone()))
        }
    }
}

/// Binds under another name, sets the mode, and only then moves the socket to where it is looked for.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    if let Err(error) = std::fs::remove_file(&fresh)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let listener = UnixListener::bind(&fresh)?;
    let placed = std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o660))
        .and_then(|()| refuse_other_files(path))
        .and_then(|()| std::fs::rename(&fresh, path));
    if let Err(error) = placed {
        let _ = std::fs::remove_file(&fresh);
        return Err(error);
    }
    Ok(listener)
}

/// A path that holds something else than a socket is a mistake in the configuration, not ours to remove.
fn refuse_other_files(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt as _;
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// How many more connections there may be.
struct Places {
    served: Arc<Semaphore>,
    refused: Arc<Semaphore>,
}

enum Socket {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Admin {
    /// Answers on `listener` until the drain of its [`Handles`](super::Handles) begins. Called on the control plane.
    pub fn serve(&self, listener: Listener) -> io::Result<()> {
        let socket = match listener {
            Listener::Tcp(listener) => Socket::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Listener::Unix(listener, _) => Socket::Unix(tokio::net::UnixListener::from_std(listener)?),
        };
        let admin = self.clone();
        self.0
            .handles
            .drain
            .spawn("admin", async move { admin.accept(socket).await });
        Ok(())
    }

    async fn accept(&self, socket: Socket) {
        let connections = self.0.limits.connections;
        let places = Places {
            served: Arc::new(Semaphore::new(connections)),
            refused: Arc::new(Semaphore::new(connections)),
        };
        loop {
            let accepted = tokio::select! {
                () = self.0.handles.drain.begun() => return,
                accepted = self.accept_one(&socket, &places) => accepted,
            };
            if let Err(error) = accepted {
                tracing::warn!(%error, "the admin listener could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    async fn accept_one(&self, socket: &Socket, places: &Places) -> io::Result<()> {
        match socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // A client that is gone already is found out soon enough.
                let _ = stream.set_nodelay(true);
                self.admit_connection(stream, false, peer.to_string(), places);
            }
            Socket::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let peer = stream.peer_cred().map(|cred| format!("uid {}", cred.uid()));
                let peer = peer.unwrap_or_else(|_| "unix".into());
                self.admit_connection(stream, true, peer, places);
            }
        }
        Ok(())
    }

    fn admit_connection<S>(&self, stream: S, local: bool, peer: String, places: &Places)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let drain = &self.0.handles.drain;
        let Ok(place) = Arc::clone(&places.served).try_acquire_owned() else {
            self.0.metrics.turned_away.inc();
            if let Ok(place) = Arc::clone(&places.refused).try_acquire_owned() {
                drain.spawn("admin-full", turn_away(stream, place));
            }
            return;
        };
        let admin = self.clone();
        drain.spawn("admin-connection", async move {
            admin.0.metrics.connections.add(1);
            let open = Open(&admin, place);
            admin.connection(stream, local, &peer).await;
            drop(open);
        });
    }

    async fn connection<S>(&self, stream: S, local: bool, peer: &str)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let service = service_fn(|request| {
            Box::pin(
                async move { Ok::<_, Infallible>(self.answer(request, local, peer).await.map(Full::new)) },
            )
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.0.limits.head)
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(2 * HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let whole = tokio::select! {
            done = poll_fn(|cx| connection.poll_without_shutdown(cx)) => Some(done),
            () = self.0.handles.drain.begun() => None,
            () = tokio::time::sleep(self.0.limits.life) => None,
        };
        if whole.is_none() {
            Pin::new(&mut connection).graceful_shutdown();
            let rest = poll_fn(|cx| connection.poll_without_shutdown(cx));
            if tokio::time::timeout(self.0.limits.grace, rest).await.is_err() {
                return;
            }
        }
        linger(connection.into_parts().io.into_inner()).await;
    }
}

/// A place among the connections, given back also when the task is dropped.
struct Open<'a>(
    &'a Admin,
    #[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit,
);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.0.metrics.connections.add(-1);
    }
}

async fn turn_away<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, place: OwnedSemaphorePermit) {
    let reply = Refusal::Full.reply();
    let body = String::from_utf8_lossy(reply.body());
    let text = format!(
        "HTTP/1.1 {}\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        reply.status(),
        body.len()
    );
    let written = tokio::time::timeout(LINGER, stream.write_all(text.as_bytes())).await;
    if matches!(written, Ok(Ok(()))) {
        linger(stream).await;
    }
    drop(place);
}

/// Closes our side, and reads what the client still sends, for a while.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let _ = tokio::time::timeout(LINGER, async {
        stream.shutdown().await?;
        let mut rest = stream.take(LINGER_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    })
    .await;
}
