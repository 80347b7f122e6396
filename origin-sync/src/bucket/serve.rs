//! The server: connections in, each request through the fault plan, `s3s` and the store, and out again.
//!
//! HTTP/1.1 with keep-alive. It knows nothing of S3 beyond what an error looks like.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::Access;
use super::control;
use super::fault::{Fault, Faults};
use super::log::{Log, Seen};
use super::raw::{GARBAGE, Shape, Takeover};
use super::service::Service;
use super::store::{Store, StoreError};
use super::{Error, Options};

/// A bucket that is being served. It ends when it is dropped or stopped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    begun: CancellationToken,
    ended: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    s3: S3Service,
    store: Store,
    faults: Faults,
    log: Log,
    control: bool,
    requests: AtomicU64,
}

/// More connections than this at a time are closed as soon as they are accepted.
const CONNECTIONS_MAX: usize = 4096;
/// How long [`Server::stop`] waits for answers under way.
const GRACE: Duration = Duration::from_secs(2);
/// How long a connection may be idle, or take to send the head of a request.
const HEAD_DEADLINE: Duration = Duration::from_secs(60);

impl Server {
    /// Opens the folder, makes the buckets that are missing, and serves on `listener`.
    pub async fn start(options: Options, listener: TcpListener) -> Result<Self, Error> {
        let address = listener.local_addr().map_err(Error::Listener)?;
        let store = open(&options).await?;
        let service = Service {
            store: store.clone(),
            list_allowed: options.list_allowed,
        };
        let mut builder = S3ServiceBuilder::new(service);
        builder.set_auth(SimpleAuth::from_single(
            options.access_key_id,
            options.secret_access_key,
        ));
        builder.set_access(Access {
            anonymous_read: options.anonymous_read,
            list_allowed: options.list_allowed,
        });
        let shared = Arc::new(Shared {
            s3: builder.build(),
            store,
            faults: Faults::default(),
            log: Log::default(),
            control: options.control,
            requests: AtomicU64::new(0),
        });
        let server = Self {
            address,
            shared,
            tasks: TaskTracker::new(),
            begun: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        server.tasks.spawn(accept(
            listener,
            Arc::clone(&server.shared),
            server.tasks.clone(),
            server.begun.clone(),
            server.ended.clone(),
        ));
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it holds.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// What goes wrong.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// The requests seen, oldest first; the last 10,000.
    pub fn log(&self) -> Vec<Seen> {
        self.shared.log.seen()
    }

    /// Forgets the requests seen.
    pub fn clear_log(&self) {
        self.shared.log.clear();
    }

    /// Waits until `wanted` is true of the requests seen; it is asked again whenever one arrives.
    pub async fn until_seen(&self, wanted: impl FnMut(&[Seen]) -> bool) {
        self.shared.log.until(wanted).await;
    }

    /// Takes no more connections, lets answers under way end for two seconds, and ends.
    pub async fn stop(self) {
        self.begun.cancel();
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            self.ended.cancel();
            self.tasks.wait().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.begun.cancel();
        self.ended.cancel();
    }
}

async fn open(options: &Options) -> Result<Store, Error> {
    let (dir, durable, buckets) = (options.dir.clone(), options.durable, options.buckets.clone());
    let open = move || {
        let store = Store::open(&dir, durable)?;
        buckets.iter().try_for_each(|name| store.ensure_bucket(name))?;
        Ok::<_, StoreError>(store)
    };
    match tokio::task::spawn_blocking(open).await {
        Ok(store) => Ok(store?),
        Err(error) => Err(Error::Store(StoreError::Disk(
            "open the folder",
            std::io::Error::other(error),
        ))),
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    begun: CancellationToken,
    ended: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = begun.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(_) if tasks.len() > CONNECTIONS_MAX => tracing::warn!("too many connections to the bucket"),
            Ok((socket, _)) => {
                let connection = connection(socket, Arc::clone(&shared), begun.clone());
                let ended = ended.clone();
                tasks.spawn(async move {
                    tokio::select! {
                        () = ended.cancelled() => {}
                        () = connection => {}
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: trying again at once would only burn the processor.
                tracing::warn!(%error, "the bucket cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(socket: TcpStream, shared: Arc<Shared>, begun: CancellationToken) {
    // Without it a body of a few segments waits 40 ms for an acknowledgement.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
    let (takeover, mut taken) = mpsc::channel::<Takeover>(1);
    let service = service_fn(move |request| {
        let (shared, takeover) = (Arc::clone(&shared), takeover.clone());
        async move {
            match answer(&shared, request).await {
                Answer::Http(response) => Ok::<_, HttpError>(*response),
                Answer::Raw(raw) => {
                    // The connection is taken from hyper, which drops this future.
                    let _ = takeover.send(raw).await;
                    std::future::pending().await
                }
                Answer::Never => std::future::pending().await,
            }
        }
    });
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(TokioIo::new(socket), service);
    let mut is_ending = false;
    let raw = loop {
        tokio::select! {
            biased;
            raw = taken.recv() => break raw,
            result = &mut http => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection to the bucket ended badly");
                }
                return;
            }
            () = begun.cancelled(), if !is_ending => {
                is_ending = true;
                std::pin::Pin::new(&mut http).graceful_shutdown();
            }
        }
    };
    let Some(raw) = raw else { return };
    let socket = http.into_parts().io.into_inner();
    if let Err(error) = raw.carry_out(socket).await {
        tracing::debug!(%error, "the client did not wait for the fault");
    }
}

/// How a request is answered.
enum Answer {
    Http(Box<Response<Body>>),
    Raw(Takeover),
    Never,
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Answer {
    if shared.control && control::is_match(request.uri().path()) {
        return Answer::Http(Box::new(
            control::answer(request, &shared.faults, &shared.log).await,
        ));
    }
    let method = request.method().clone();
    let seen = Seen::of(&method, request.uri(), request.headers());
    let faults = shared.faults.meet(&seen);
    let number = shared.log.arrived(seen);
    let mut response = match before(&faults).await {
        Before::Instead(answer) => return answer,
        Before::Respond(response) => response,
        Before::GoOn => match shared.s3.call(request.map(Body::from)).await {
            Ok(response) => response,
            Err(error) => error_response(500, "InternalError", &format!("{error:?}")),
        },
    };
    finish(&mut response, shared.requests.fetch_add(1, Ordering::Relaxed));
    for fault in &faults {
        match fault {
            Fault::HoldUntil(barrier) => barrier.pass().await,
            Fault::ClockAhead(ahead) => {
                let date = httpdate::fmt_http_date(super::store::now() + *ahead);
                if let Ok(date) = HeaderValue::try_from(date) {
                    response.headers_mut().insert(header::DATE, date);
                }
            }
            Fault::WrongEtag => {
                let wrong = HeaderValue::from_static("\"00000000000000000000000000000000\"");
                response.headers_mut().insert(header::ETAG, wrong);
            }
            _ => {}
        }
    }
    shared.log.answered(number, response.status().as_u16());
    match Shape::of(&faults) {
        Some(shape) => Answer::Raw(Takeover::Answer(method, Box::new(response), shape)),
        None => Answer::Http(Box::new(response)),
    }
}

/// What faults do before the store is asked.
enum Before {
    GoOn,
    Respond(Response<Body>),
    Instead(Answer),
}

async fn before(faults: &[Fault]) -> Before {
    for fault in faults {
        match fault {
            Fault::Delay(time) => tokio::time::sleep(*time).await,
            Fault::HangBeforeHeaders => return Before::Instead(Answer::Never),
            Fault::ResetBeforeHeaders => return Before::Instead(Answer::Raw(Takeover::Reset)),
            Fault::Garbage => return Before::Instead(Answer::Raw(Takeover::Bytes(GARBAGE))),
            Fault::SlowDown => {
                let mut response = error_response(503, "SlowDown", "Please reduce your request rate.");
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                return Before::Respond(response);
            }
            Fault::Status(status, code) => {
                return Before::Respond(error_response(*status, code, "The fault plan wants it."));
            }
            Fault::Redirect(status, location) => {
                let code = if *status == 301 {
                    "PermanentRedirect"
                } else {
                    "TemporaryRedirect"
                };
                let mut response = error_response(*status, code, "Send your request elsewhere.");
                if let Ok(location) = location.parse() {
                    response.headers_mut().insert(header::LOCATION, location);
                }
                return Before::Respond(response);
            }
            Fault::Unasked304 => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                return Before::Respond(response);
            }
            _ => {}
        }
    }
    Before::GoOn
}

/// What S3 says with each answer, and what it does not say with a 304.
fn finish(response: &mut Response<Body>, number: u64) {
    if response.status() == StatusCode::NOT_MODIFIED {
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(header::CONTENT_TYPE);
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static("portico-bucket"));
    if let Ok(id) = HeaderValue::from_str(&format!("{number:016X}")) {
        headers.insert("x-amz-request-id", id);
    }
}

fn error_response(status: u16, code: &str, message: &str) -> Response<Body> {
    let escape = |text: &str| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
    };
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{}</Code><Message>{}</Message></Error>",
        escape(code),
        escape(message)
    );
    let mut response = Response::new(Body::from(xml));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    response
}
