//! Whose answer counts. The first bucket is the truth; later ones are its replicas, which lag. So a replica's "not found"
//! is no answer, and neither is content that is older than what is stored.

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::origin::{Answer, Ask, Condition, Error, Kind};

/// Whether the answer of the bucket at `place` counts.
pub(super) fn counts(answer: Answer, ask: &Ask, place: usize) -> Result<Answer, Error> {
    if place == 0 {
        return Ok(answer);
    }
    if matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE) {
        return Err(Error::new(
            Kind::ReplicaMissing,
            format!("{} lacks it", answer.source),
        ));
    }
    let stored = ask
        .condition
        .as_ref()
        .filter(|condition| condition.source != answer.source);
    if stored.is_some_and(|stored| is_older(&answer.headers, stored)) {
        return Err(Error::new(
            Kind::ReplicaStale,
            format!("{} has an older one than is stored", answer.source),
        ));
    }
    Ok(answer)
}

fn is_older(headers: &HeaderMap, stored: &Condition) -> bool {
    let time = |value: &HeaderValue| httpdate::parse_http_date(value.to_str().ok()?).ok();
    let theirs = headers.get(header::LAST_MODIFIED).and_then(time);
    let ours = stored.last_modified.as_ref().and_then(time);
    matches!((theirs, ours), (Some(theirs), Some(ours)) if theirs < ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::Body;

    fn answer(status: u16, last_modified: Option<&'static str>) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(date) = last_modified {
            headers.insert(header::LAST_MODIFIED, HeaderValue::from_static(date));
        }
        let status = StatusCode::from_u16(status).unwrap();
        Answer {
            status,
            headers,
            length: None,
            body: Body::Empty,
            source: "b".into(),
        }
    }

    const OLD: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
    const NEW: &str = "Fri, 02 Jan 2026 00:00:00 GMT";

    #[test]
    fn a_replica_that_lags_is_not_an_answer() {
        let check =
            |place, answer: Answer, stored: Option<(&'static str, &str)>, expected: Result<(), Kind>| {
                let condition = stored.map(|(last_modified, source)| Condition {
                    etag: None,
                    last_modified: Some(HeaderValue::from_static(last_modified)),
                    source: source.into(),
                });
                let ask = Ask {
                    condition,
                    ..Ask::default()
                };
                let seen = format!("{place} {answer:?} {stored:?}");
                assert_eq!(
                    counts(answer, &ask, place).map(drop).map_err(|error| error.kind),
                    expected,
                    "{seen}"
                );
            };
        check(0, answer(404, None), None, Ok(()));
        check(1, answer(404, None), None, Err(Kind::ReplicaMissing));
        check(1, answer(410, None), None, Err(Kind::ReplicaMissing));
        check(1, answer(200, Some(OLD)), None, Ok(()));
        check(
            1,
            answer(200, Some(OLD)),
            Some((NEW, "a")),
            Err(Kind::ReplicaStale),
        );
        check(1, answer(200, Some(NEW)), Some((NEW, "a")), Ok(()));
        check(1, answer(200, Some(OLD)), Some((NEW, "b")), Ok(()));
        check(0, answer(200, Some(OLD)), Some((NEW, "a")), Ok(()));
        check(1, answer(200, None), Some((NEW, "a")), Ok(()));
    }
}
