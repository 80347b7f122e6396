//! Requests that the cache has no part in, passed on to an application and its answers passed back.
//!
//! The origin's side runs on the control plane: content is pulled over as fast as the application takes it, and the
//! answer is followed like any body in flight. Nothing is stored. A request that changed something makes what is stored
//! under its target unusable (RFC 9111 4.4).
//!
//! Interim answers (1xx) stop here: hyper's server has no way to send one but 100 (Continue), which it sends by itself when
//! content is first taken. Trailer sections stop here too, both ways.

use std::sync::Arc;

use http::header::{ALLOW, CONTENT_LENGTH, DATE, MAX_FORWARDS, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::sync::oneshot;

use super::error::{self, Failure};
use super::fetch;
use super::message::{Body, Request, Response, Scheme};
use super::record::Record;
use super::{Exchange, respond};
use crate::cache::inflight::{self, Broken, Reader, Writer};
use crate::cache::key::Key;
use crate::cache::status::{Forward, Handling, Outcome, Status};
use crate::fields::dates;
use crate::origin::http::{Course, Upload, UploadFault};
use crate::origin::{self, Origin, Relay};
use crate::site::Site;

/// Fields by which an application speaks to this cache alone.
const NOT_SENT_ON: [HeaderName; 4] = [
    HeaderName::from_static("cache-tag"),
    HeaderName::from_static("portico-cache-control"),
    HeaderName::from_static("surrogate-control"),
    HeaderName::from_static("surrogate-key"),
];

/// An answer on its way back.
struct Relayed {
    status: StatusCode,
    fields: HeaderMap,
    /// Of the content, or for a HEAD of that which a GET would have got.
    length: Option<u64>,
    /// None where there is no content.
    content: Option<Reader>,
}

impl Exchange {
    /// Passes `request` on to the origin of `site`, and its answer back.
    pub(super) async fn relay(self: &Arc<Self>, mut request: Request, site: &Arc<Site>) -> Response {
        let key = match site.key(request.target.path(), request.target.query()) {
            Ok(key) => key,
            Err(why) => return self.fail(request, Some(site), Failure::BadPath(why)),
        };
        let forwards_left = forwards_left(&request);
        if forwards_left == Some(0) {
            return self.options(request, site);
        }
        let announced = request
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok());
        let announced = announced.and_then(|text| text.parse::<u64>().ok());
        if request.content.is_some() && announced.is_some_and(|length| length > self.content_bytes_max) {
            return self.fail(request, Some(site), Failure::ContentTooLarge);
        }
        let routes = self.routes.load_full();
        let Some(origin) = routes.origins.find(&site.settings().origin) else {
            return self.fail(request, Some(site), error::no_origin());
        };
        let content = request.content.take().map(|content| {
            Upload::new(
                content.into_body(),
                self.content_bytes_max,
                self.content_stall,
                self.clock.clone(),
            )
        });
        let course = content.as_ref().map(Upload::course);
        let mut relay = relay_of(&request, site, &key, content);
        if let Some(left) = forwards_left {
            relay.fields.insert(MAX_FORWARDS, HeaderValue::from(left - 1));
        }
        let told = self.pass_over(origin, relay, site, key, request.host.clone());
        match told.await {
            Ok(Ok(relayed)) => self.pass_back(request, site, &routes.name, &routes.via, relayed),
            Ok(Err(error)) => {
                let failure = failure(&error, course.as_ref());
                self.fail(request, Some(site), failure)
            }
            Err(_) => self.fail(request, Some(site), error::no_origin()),
        }
    }

    /// Asks the origin on the control plane, and follows the body of its answer there.
    fn pass_over(
        self: &Arc<Self>,
        origin: Arc<Origin>,
        relay: Relay,
        site: &Arc<Site>,
        key: Key,
        host: Box<str>,
    ) -> oneshot::Receiver<Result<Relayed, origin::Error>> {
        let (mut tell, told) = oneshot::channel();
        let (exchange, site) = (Arc::clone(self), Arc::clone(site));
        let method = relay.method.clone();
        self.drain.spawn_on(&self.control, "relay", async move {
            let answer = tokio::select! {
                answer = origin.relay(relay) => answer,
                // Whoever asked is gone: nobody waits for what would come.
                () = tell.closed() => return,
            };
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => return drop(tell.send(Err(error))),
            };
            // Before anybody hears of the change, nothing older is left.
            let answered = (answer.status, &answer.headers);
            exchange.invalidate(&site, &key, (&method, &host), answered).await;
            let is_empty = matches!(answer.body, origin::Body::Empty);
            let length = if is_empty { Some(0) } else { answer.length };
            let (budget, ahead) = (&exchange.cache.budget, answer.body.ahead_bytes());
            let Some(room) = budget.stream_soon(length, ahead).await else {
                exchange.metrics().no_room.inc();
                return drop(tell.send(Err(fetch::over_budget())));
            };
            let (writer, joiner) = inflight::past(length, room);
            let relayed = Relayed {
                status: answer.status,
                fields: answer.headers,
                length: answer.length,
                content: (!is_empty).then(|| joiner.join()).flatten(),
            };
            if tell.send(Ok(relayed)).is_ok() && !is_empty {
                pump(answer.body, writer).await;
            }
        });
        told
    }

    /// The answer to an OPTIONS that may go no farther.
    fn options(&self, request: Request, site: &Arc<Site>) -> Response {
        let fields = HeaderMap::from_iter([
            (
                ALLOW,
                HeaderValue::from_static("GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE"),
            ),
            (CONTENT_LENGTH, HeaderValue::from_static("0")),
        ]);
        self.plain(
            request,
            site.shared_name(),
            StatusCode::OK,
            fields,
            Body::Empty,
            None,
        )
    }

    fn pass_back(
        &self,
        request: Request,
        site: &Arc<Site>,
        name: &str,
        via: &HeaderValue,
        relayed: Relayed,
    ) -> Response {
        let Relayed {
            status,
            mut fields,
            length,
            content,
        } = relayed;
        for name in &NOT_SENT_ON {
            fields.remove(name);
        }
        let rule = site
            .rule(request.target.path())
            .fields(request.scheme == Scheme::Https);
        let own = rule
            .iter()
            .filter(|(name, _)| *name != http::header::CACHE_CONTROL);
        for (name, value) in own {
            fields.insert(name.clone(), value.clone());
        }
        fields.append(VIA, via.clone());
        if !fields.contains_key(DATE) {
            fields.insert(DATE, dates::to_value(self.clock.now()));
        }
        let handling = Handling::Forwarded {
            reason: Forward::Method,
            status: Some(status.as_u16()),
            stored: false,
            collapsed: false,
            ttl: None,
        };
        let said = Status {
            handling,
            detail: None,
        };
        fields.append(&respond::CACHE_STATUS, said.write(name, None));
        if request.method == Method::HEAD
            && let Some(length) = length
        {
            fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let record = Record::new(
            &self.sinks,
            request,
            site.shared_name(),
            status,
            Some(Outcome::Bypass),
        );
        Response {
            status,
            headers: fields,
            body: content.map_or(Body::Empty, Body::Inflight),
            record: Box::new(record),
        }
    }
}

/// What goes to the origin. The query is the client's own: what is not stored needs no key.
fn relay_of(request: &Request, site: &Site, key: &Key, content: Option<Upload>) -> Relay {
    Relay {
        method: request.method.clone(),
        path: key.path().to_owned(),
        query: request.target.query().map(str::to_owned),
        site: site.name().to_owned(),
        fields: request.headers.clone(),
        client: request.client,
        scheme: request.scheme.token(),
        host: request.host.to_string(),
        content,
    }
}

/// RFC 9110 7.6.2: how much farther an OPTIONS may go; at zero it is ours to answer.
fn forwards_left(request: &Request) -> Option<u64> {
    if request.method != Method::OPTIONS {
        return None;
    }
    request.headers.get(MAX_FORWARDS)?.to_str().ok()?.parse().ok()
}

/// Whose fault it was: a client's that did not send what it announced, or the origin's.
fn failure(error: &origin::Error, course: Option<&Course>) -> Failure {
    match course.and_then(Course::fault) {
        None => Failure::from_origin(error),
        Some(UploadFault::TooLarge) => Failure::ContentTooLarge,
        Some(UploadFault::Broken | UploadFault::Stalled) => Failure::RequestTimeout,
    }
}

async fn pump(mut body: origin::Body, mut writer: Writer) {
    while let Some(chunk) = body.chunk().await {
        match chunk {
            Ok(chunk) => {
                if !writer.write(chunk).await {
                    return writer.fail(Broken::Abandoned);
                }
            }
            Err(error) => {
                tracing::warn!(%error, written = writer.written(), "a relayed answer broke");
                return writer.fail(Broken::Origin);
            }
        }
    }
    writer.finish();
}
