//! The control surface for scripts: the fault plan at `/__faults`, the log at `/__log`. JSON, without a signature.
//!
//! ```text
//! GET /__faults                    the rules, each with its id and how many requests it met
//! PUT /__faults   [{"key": "a", "method": "GET", "count": 2, "fault": {"truncate_after": 100}}]    adds rules
//! DELETE /__faults                 takes all away
//! GET /__log                       what was seen
//! DELETE /__log                    forgets it
//! ```

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use s3s::Body;
use serde_json::{Value, json};

use super::fault::{Faults, RULES_MAX, Rule};
use super::log::Log;

const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Whether the request is for this module.
pub(super) fn is_match(path: &str) -> bool {
    matches!(path, "/__faults" | "/__log")
}

/// Answers it.
pub(super) async fn answer(request: Request<Incoming>, faults: &Faults, log: &Log) -> Response<Body> {
    let is_faults = request.uri().path() == "/__faults";
    match (is_faults, request.method().clone()) {
        (true, Method::GET) => respond(StatusCode::OK, &list(faults)),
        (true, Method::PUT) => match rules(request).await {
            Ok(rules) if rules.len() + faults.list().len() > RULES_MAX => respond(
                StatusCode::INSUFFICIENT_STORAGE,
                &json!({ "error": "too many rules" }),
            ),
            Ok(rules) => {
                let ids: Vec<_> = rules.into_iter().map(|rule| faults.add(rule)).collect();
                respond(StatusCode::OK, &json!({ "added": ids }))
            }
            Err(error) => respond(StatusCode::BAD_REQUEST, &json!({ "error": error })),
        },
        (true, Method::DELETE) => {
            faults.clear();
            respond(StatusCode::OK, &json!([]))
        }
        (false, Method::GET) => respond(StatusCode::OK, &json!(log.seen())),
        (false, Method::DELETE) => {
            log.clear();
            respond(StatusCode::OK, &json!([]))
        }
        _ => respond(
            StatusCode::METHOD_NOT_ALLOWED,
            &json!({ "error": "GET, PUT or DELETE" }),
        ),
    }
}

fn list(faults: &Faults) -> Value {
    let rule = |(id, rule, hits): (super::RuleId, Rule, u64)| {
        // A barrier is held by a test in this process and has no JSON.
        let rule = serde_json::to_value(rule).unwrap_or_else(|_| json!({ "fault": "barrier" }));
        json!({ "id": id, "hits": hits, "rule": rule })
    };
    Value::Array(faults.list().into_iter().map(rule).collect())
}

async fn rules(request: Request<Incoming>) -> Result<Vec<Rule>, String> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

fn respond(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{value}\n")));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
