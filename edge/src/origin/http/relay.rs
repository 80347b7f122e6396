//! Requests that are passed on as they are, with any method and their content.
//!
//! What has reached a server once is never sent again unless RFC 9110 9.2.2 allows it: the method is idempotent, there was
//! no content, and a connection that had been used before ended without a byte of an answer.

use ::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use ::http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::pool::{Failed, Lease};
use super::upload::Course;
use super::{Body, Content, HttpOrigin, Server, fields, no_content, target, verdict};
use crate::origin::health::Admission;
use crate::origin::{self, Answer, Error, Kind, Outcome, Relay};

/// A request on its way, and what is needed to wait for its answer.
struct Sending {
    request: Request<Content>,
    course: Option<Course>,
    /// Whether it may be sent a second time.
    repeatable: bool,
    head_only: bool,
}

/// A request without an answer; it is given back where no server has seen anything of it.
struct Unsent {
    error: Error,
    sending: Option<Sending>,
}

impl HttpOrigin {
    /// Passes a request on to the first server that takes a connection.
    pub(in crate::origin) async fn relay(&self, relay: Relay) -> Result<Answer, Error> {
        let mut left = Some(relay);
        let mut sending: Option<Sending> = None;
        let mut failed = Error::new(Kind::BreakerOpen, "none is healthy");
        for server in self.0.servers() {
            let admission = match server.vitals.admit() {
                Admission::Refused(probe_in) => {
                    failed = failed.with_retry_after(Some(probe_in));
                    continue;
                }
                admission => admission,
            };
            let next = match (sending.take(), left.take()) {
                (Some(sending), _) => server.readdress(sending)?,
                (None, Some(relay)) => server.sending(relay)?,
                (None, None) => break,
            };
            match server.relay(next, admission).await {
                Ok(answer) => return Ok(answer),
                Err(unsent) => {
                    failed = unsent.error;
                    sending = unsent.sending;
                }
            }
        }
        Err(failed)
    }
}

impl Server {
    fn sending(&self, relay: Relay) -> Result<Sending, Error> {
        let fields = self.fields.of_relay(&relay);
        let has_content = relay.content.is_some();
        let course = relay.content.as_ref().map(super::Upload::course);
        let length = relay.content.as_ref().map(|upload| upload.size_hint().exact());
        let content = relay
            .content
            .map(|upload| upload.map_err(Into::into).boxed_unsync());
        let mut request = Request::new(content.unwrap_or_else(no_content));
        *request.uri_mut() = target(&self.prefix, &relay.path, relay.query.as_deref())?;
        *request.headers_mut() = fields;
        // hyper leaves the content of a GET out unless its framing is said.
        if length == Some(None) {
            request
                .headers_mut()
                .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        // RFC 9110 8.6: a method that has content says so where there is none.
        if !has_content && matches!(relay.method, Method::POST | Method::PUT | Method::PATCH) {
            request
                .headers_mut()
                .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let repeatable = !has_content && relay.method.is_idempotent();
        let head_only = relay.method == Method::HEAD;
        *request.method_mut() = relay.method;
        // What a relay is told beside its fields goes with it, should another server be asked.
        request.extensions_mut().insert(Asked {
            path: relay.path,
            query: relay.query,
            site: relay.site,
        });
        Ok(Sending {
            request,
            course,
            repeatable,
            head_only,
        })
    }

    /// The same request for another server.
    fn readdress(&self, mut sending: Sending) -> Result<Sending, Error> {
        let asked = sending.request.extensions().get::<Asked>().cloned();
        let asked = asked.ok_or_else(|| Error::new(Kind::ProxyInternalError, "the request has no target"))?;
        *sending.request.uri_mut() = target(&self.prefix, &asked.path, asked.query.as_deref())?;
        self.fields.readdress(sending.request.headers_mut(), &asked.site);
        Ok(sending)
    }

    async fn relay(
        self: &std::sync::Arc<Self>,
        sending: Sending,
        admission: Admission,
    ) -> Result<Answer, Unsent> {
        let head_only = sending.head_only;
        let course = sending.course.clone();
        let asked = sending.request.extensions().get::<Asked>();
        let path = asked.map(|asked| asked.path.clone()).unwrap_or_default();
        let sent = self.pass_on(sending).await;
        let judged = match sent {
            Ok(response) => self
                .relayed(response, head_only, &path)
                .map_err(|error| Unsent { error, sending: None }),
            Err(unsent) => Err(unsent),
        };
        match &judged {
            Ok(answer) => {
                self.metrics.requests.inc(Outcome::of_status(answer.status));
                self.vitals.note_success(admission);
            }
            // A client that does not send what it announced says nothing about the server.
            Err(_) if course.is_some_and(|course| course.fault().is_some()) => {}
            Err(unsent) => {
                self.metrics.requests.inc(Outcome::Error);
                self.vitals.note_failure_at(admission, &unsent.error, &path);
            }
        }
        judged
    }

    fn relayed(
        self: &std::sync::Arc<Self>,
        response: Response<Incoming>,
        head_only: bool,
        path: &str,
    ) -> Result<Answer, Error> {
        let (head, stream) = response.into_parts();
        let length = verdict::judge_relayed(head.status, &head.headers)?;
        let bare =
            head_only || head.status == StatusCode::NO_CONTENT || head.status == StatusCode::NOT_MODIFIED;
        let body = match bare || length == Some(0) {
            true => origin::Body::Empty,
            false => {
                let server = std::sync::Arc::clone(self);
                origin::Body::Http(Box::new(Body::new(server, stream, length, path)))
            }
        };
        Ok(Answer {
            status: head.status,
            headers: fields::incoming(head.headers),
            length: if bare && !head_only { None } else { length },
            body,
            source: std::sync::Arc::clone(self.vitals.id()),
        })
    }

    async fn pass_on(&self, mut sending: Sending) -> Result<Response<Incoming>, Unsent> {
        let began = self.clock.now();
        loop {
            let (lease, is_new) = match self.pool.take() {
                Some(lease) => (lease, false),
                None => match self.pool.connect().await {
                    Ok(lease) => (lease, true),
                    Err(error) => {
                        return Err(Unsent {
                            error,
                            sending: Some(sending),
                        });
                    }
                },
            };
            let spare = sending.repeatable.then(|| copy(&sending.request));
            let Sending {
                request,
                course,
                repeatable,
                head_only,
            } = sending;
            match self.answer_to(lease, request, course.as_ref()).await {
                Ok(response) => {
                    self.metrics.first_byte.observe(self.clock.now().since(began));
                    return Ok(response);
                }
                Err(failed) => {
                    let again = failed.request.or(spare.filter(|_| failed.is_unanswered));
                    let again = again.map(|request| Sending {
                        request,
                        course,
                        repeatable,
                        head_only,
                    });
                    match again {
                        Some(again) if !is_new => sending = again,
                        // One that ends new connections unheard would be asked for ever: the next server is.
                        sending => {
                            return Err(Unsent {
                                error: failed.error,
                                sending,
                            });
                        }
                    }
                }
            }
        }
    }

    /// Waits for the head of the answer. The deadline is the server's: while content goes out, or the client has yet to
    /// send more of it, it does not run.
    async fn answer_to(
        &self,
        lease: Lease,
        request: Request<Content>,
        course: Option<&Course>,
    ) -> Result<Response<Incoming>, Failed> {
        let mut sent = std::pin::pin!(self.pool.send(lease, request));
        let mut moved = 0;
        loop {
            if let Ok(result) = tokio::time::timeout(self.timeouts.attempt, sent.as_mut()).await {
                return result;
            }
            let goes_on = course.is_some_and(|course| course.waits() || course.moved() > moved);
            if !goes_on {
                let detail = format!("no head within {:?}", self.timeouts.attempt);
                return Err(Failed {
                    error: Error::new(Kind::HttpResponseTimeout, detail),
                    is_unanswered: false,
                    request: None,
                });
            }
            moved = course.map_or(0, Course::moved);
        }
    }
}

/// What a request was asked for, before a server's prefix and host.
#[derive(Clone, Debug)]
struct Asked {
    path: String,
    query: Option<String>,
    site: String,
}

/// The same request, where there is no content.
fn copy(request: &Request<Content>) -> Request<Content> {
    let mut copy = Request::new(no_content());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    copy
}
