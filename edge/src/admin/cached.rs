//! Looking at what is stored for a URL, warming, and verifying what is on the disk: all ask the request path.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::auth::Known;
use super::refusal::Refusal;
use super::{Admin, Reply, json_reply, purge};
use crate::exchange::Exchange;

/// URLs of one request; more are refused with 400.
const URLS_MAX: usize = 100;

/// URLs that are asked for at the same time, by one request.
const AT_ONCE: usize = 8;

/// How long one request to warm may take. What has not come by then is told so; its fetch goes on.
const PATIENCE: Duration = Duration::from_secs(12);

/// How often a verification under way is looked at.
const FOLLOWED_EVERY: Duration = Duration::from_millis(50);

/// The body of a request to warm.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    urls: Vec<String>,
    /// What Accept-Encoding says.
    #[serde(default = "codings")]
    codings: String,
}

fn codings() -> String {
    "br, gzip".into()
}

impl Admin {
    /// Answers `GET /v1/cache?url=`.
    pub(super) async fn cached(&self, query: Option<&str>) -> Result<Reply, Refusal> {
        let url = query
            .into_iter()
            .flat_map(|query| query.split('&'))
            .find_map(|parameter| parameter.strip_prefix("url="))
            .and_then(unescape)
            .ok_or_else(|| Refusal::Purge("say which: /v1/cache?url=https%3A%2F%2Fhost%2Fpath".into()))?;
        let inspected = self.exchange()?.inspect(&url).await;
        let shown = inspected.map_err(|why| Refusal::Purge(format!("{url}: {why}")))?;
        Ok(json_reply(StatusCode::OK, &shown))
    }

    /// Answers `POST /v1/warm`: each URL with what a client would have got.
    pub(super) async fn warm(
        &self,
        known: &Known,
        headers: &HeaderMap,
        body: Incoming,
        peer: &str,
    ) -> Result<Reply, Refusal> {
        known.take(self.0.handles.clock.now())?;
        let exchange = self.exchange()?;
        let body = purge::read(headers, body, self.0.limits.body).await?;
        let body: Body = serde_json::from_slice(&body)
            .map_err(|error| Refusal::Purge(format!("the body cannot be used: {error}")))?;
        if body.urls.is_empty() || body.urls.len() > URLS_MAX {
            return Err(Refusal::Purge(format!("urls holds 1 to {URLS_MAX} URLs")));
        }
        let codings = HeaderValue::try_from(&body.codings)
            .map_err(|_| Refusal::Purge("codings is no value of Accept-Encoding".into()))?;
        let count = body.urls.len();
        tracing::info!(target: "audit", token = known.name(), peer, urls = count, "warming");
        self.0.metrics.warmed.add(count as u64);
        let results = self.warm_all(&exchange, body.urls, &codings).await;
        let failed = results
            .iter()
            .filter(|result| result.get("ok") != Some(&Value::Bool(true)));
        let failed = failed.count();
        Ok(json_reply(
            StatusCode::OK,
            &json!({ "failed": failed, "urls": results }),
        ))
    }

    /// Answers `POST /v1/verify`: begins to read and prove everything on the disk, unless that is under way already, and
    /// tells how far it is. With `?run=N` it begins nothing, and follows that verification.
    pub(super) async fn verify(
        &self,
        known: &Known,
        query: Option<&str>,
        peer: &str,
    ) -> Result<Reply, Refusal> {
        let exchange = self.exchange()?;
        let none = || Refusal::Purge("there is no disk tier that can be used".into());
        let disk = exchange.cache().disk.clone().ok_or_else(none)?;
        let followed = query.and_then(|query| query.strip_prefix("run="));
        let run = match followed.map(str::parse) {
            Some(Ok(run)) => run,
            Some(Err(_)) => return Err(Refusal::Purge("run is the number of a verification".into())),
            None => {
                known.take(self.0.handles.clock.now())?;
                tracing::info!(target: "audit", token = known.name(), peer, "verifying the disk tier");
                disk.begin_verification()
                    .map_err(|error| Refusal::Purge(format!("it cannot be begun: {error}")))?
            }
        };
        let over = async {
            while disk.verified().run == run && !disk.verified().done {
                tokio::time::sleep(FOLLOWED_EVERY).await;
            }
        };
        // Whoever asked asks again when it takes longer.
        let _ = tokio::time::timeout(PATIENCE, over).await;
        let verified = disk.verified();
        Ok(json_reply(
            StatusCode::OK,
            &json!({
                "run": verified.run,
                "done": verified.done || verified.run != run,
                "of": verified.of,
                "entries": verified.entries,
                "bytes": verified.bytes,
                "damaged": verified.damaged,
            }),
        ))
    }

    async fn warm_all(
        &self,
        exchange: &Arc<Exchange>,
        urls: Vec<String>,
        codings: &HeaderValue,
    ) -> Vec<Value> {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let tasks: Vec<_> = urls
            .into_iter()
            .map(|url| {
                let (room, exchange, codings) = (Arc::clone(&room), Arc::clone(exchange), codings.clone());
                let (told, result) = tokio::sync::oneshot::channel();
                let asked = url.clone();
                self.0.handles.drain.spawn("warm", async move {
                    let warming = async {
                        let _permit = room.acquire().await;
                        shown(&asked, exchange.warm(&asked, &codings).await)
                    };
                    let late = || json!({ "url": asked, "ok": false, "error": "not there in time; its fetch goes on" });
                    let shown = tokio::time::timeout(PATIENCE, warming).await;
                    // Whoever asked may be gone.
                    let _ = told.send(shown.unwrap_or_else(|_| late()));
                });
                (url, result)
            })
            .collect();
        let mut results = Vec::with_capacity(tasks.len());
        for (url, result) in tasks {
            let given_up = |_| json!({ "url": url, "ok": false, "error": "the node is draining" });
            results.push(result.await.unwrap_or_else(given_up));
        }
        results
    }

    pub(super) fn exchange(&self) -> Result<Arc<Exchange>, Refusal> {
        let exchange = self.0.handles.exchange.get().and_then(Weak::upgrade);
        exchange.ok_or(Refusal::NotUp)
    }
}

fn shown(url: &str, warmed: Result<crate::exchange::Warmed, crate::exchange::BadUrl>) -> Value {
    match warmed {
        Err(why) => json!({ "url": url, "ok": false, "error": why.to_string() }),
        Ok(warmed) => json!({
            "url": url,
            "ok": warmed.whole && !warmed.status.is_server_error(),
            "status": warmed.status.as_u16(),
            "cache_status": warmed.cache_status,
            "bytes": warmed.bytes,
        }),
    }
}

/// Text with its percent-escapes taken off; `None` when one is broken or it is not UTF-8.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_taken_off() {
        let check =
            |text: &str, expected: Option<&str>| assert_eq!(unescape(text).as_deref(), expected, "{text}");
        check("https%3A%2F%2fa%2Fb%3Fc", Some("https://a/b?c"));
        check("a+b", Some("a+b"));
        check("%c3%a9", Some("\u{e9}"));
        for bad in ["%", "%4", "%zz", "%+1", "%ff"] {
            check(bad, None);
        }
    }
}
