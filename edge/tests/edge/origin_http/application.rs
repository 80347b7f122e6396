//! An application by hand: it reads requests with their content, does what its script says, and remembers everything.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::client::soon;
use crate::support::TestEdge;

/// One step of an answer.
#[derive(Clone)]
pub(super) enum Act {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Waits until it is told to go on.
    Wait(Arc<Notify>),
    /// Closes the connection.
    Close,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The head, with its empty line.
    pub(super) head: String,
    /// The content.
    pub(super) body: Vec<u8>,
    /// The connection's number, from 0.
    pub(super) connection: usize,
    /// The request's number on all connections, from 0.
    pub(super) number: usize,
}

impl Seen {
    pub(super) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The value of a field; the lines of one name are joined as a list.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

/// The application. It ends with the test's runtime.
pub(super) struct Application {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    news: Arc<Notify>,
}

impl Application {
    /// Answers each request with what `script` makes of it, on connections that stay open unless an act closes them.
    pub(super) async fn start(script: impl Fn(&Seen) -> Vec<Act> + Clone + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, connections, news) = (
            Arc::default(),
            Arc::new(AtomicUsize::new(0)),
            Arc::new(Notify::new()),
        );
        let application = Self {
            address,
            seen: Arc::clone(&seen),
            connections: Arc::clone(&connections),
            news: Arc::clone(&news),
        };
        let drain = edge::drain::Drain::default();
        let each = drain.clone();
        drain.spawn("application", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let connection = connections.fetch_add(1, Ordering::SeqCst);
                let (seen, news, script) = (Arc::clone(&seen), Arc::clone(&news), script.clone());
                each.spawn("application-connection", async move {
                    let _ = converse(stream, connection, &seen, &news, &script).await;
                });
            }
        });
        application
    }

    /// Answers each request with these bytes.
    pub(super) async fn saying(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::start(move |_| vec![Act::Send(bytes.clone())]).await
    }

    pub(super) fn url(&self) -> String {
        format!("url = \"http://{}\"", self.address)
    }

    /// All requests so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Connections so far.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until `count` requests have come.
    pub(super) async fn until_seen(&self, count: usize) -> Vec<Seen> {
        soon("the application to be asked", async {
            loop {
                let told = self.news.notified();
                let seen = self.seen();
                if seen.len() >= count {
                    return seen;
                }
                told.await;
            }
        })
        .await
    }
}

/// Waits until so many connections to the application are ready for the next request: the end of an answer may be ahead of
/// that.
pub(super) async fn idle(edge: &TestEdge, count: u64) {
    edge.until("connections to be put aside", || {
        edge.metric("edge_origin_idle_connections") == count
    })
    .await;
}

/// A 200 with these fields, each line ended by CRLF, and this body.
pub(super) fn ok(fields: &str, body: &str) -> Vec<u8> {
    answer("200 OK", fields, body)
}

/// An answer with this status, these fields, and this body.
pub(super) fn answer(status: &str, fields: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{fields}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn converse(
    mut stream: TcpStream,
    connection: usize,
    seen: &Mutex<Vec<Seen>>,
    news: &Notify,
    script: &impl Fn(&Seen) -> Vec<Act>,
) -> std::io::Result<()> {
    let mut received = Vec::new();
    loop {
        let Some(head) = take_head(&mut stream, &mut received).await? else {
            return Ok(());
        };
        let mut request = Seen {
            head,
            body: Vec::new(),
            connection,
            number: 0,
        };
        request.body = take_content(&mut stream, &mut received, &request).await?;
        {
            let mut seen = seen.lock().unwrap();
            request.number = seen.len();
            seen.push(request.clone());
        }
        news.notify_waiters();
        for act in script(&request) {
            match act {
                Act::Send(bytes) => stream.write_all(&bytes).await?,
                Act::Wait(told) => told.notified().await,
                Act::Close => return stream.shutdown().await,
            }
        }
    }
}

async fn take_head(stream: &mut TcpStream, received: &mut Vec<u8>) -> std::io::Result<Option<String>> {
    loop {
        if let Some(at) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            let head: Vec<u8> = received.drain(..at + 4).collect();
            return Ok(Some(String::from_utf8_lossy(&head).into_owned()));
        }
        if stream.read_buf(received).await? == 0 {
            return Ok(None);
        }
    }
}

async fn take_content(
    stream: &mut TcpStream,
    received: &mut Vec<u8>,
    request: &Seen,
) -> std::io::Result<Vec<u8>> {
    if let Some(length) = request.field("content-length") {
        return take(stream, received, length.parse().unwrap()).await;
    }
    let mut body = Vec::new();
    if request.field("transfer-encoding").is_none() {
        return Ok(body);
    }
    loop {
        let at = loop {
            if let Some(at) = received.windows(2).position(|two| two == b"\r\n") {
                break at;
            }
            if stream.read_buf(received).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        };
        let line = String::from_utf8(received.drain(..at + 2).collect()).unwrap();
        let size = usize::from_str_radix(line.trim(), 16).unwrap();
        let chunk = take(stream, received, size + 2).await?;
        body.extend_from_slice(&chunk[..size]);
        if size == 0 {
            return Ok(body);
        }
    }
}

async fn take(stream: &mut TcpStream, received: &mut Vec<u8>, count: usize) -> std::io::Result<Vec<u8>> {
    while received.len() < count {
        if stream.read_buf(received).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(received.drain(..count).collect())
}
