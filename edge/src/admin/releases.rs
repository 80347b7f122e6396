//! What a promotion asks of a node (`origin_sync::release::fleet`): to fetch a release before it is led to, and to say what is
//! in force.

use http::{HeaderMap, StatusCode};
use hyper::body::Incoming;
use origin_sync::release::Name;
use origin_sync::release::fleet::PrewarmRequest;
use serde_json::json;

use super::auth::Known;
use super::refusal::Refusal;
use super::{Admin, Reply, json_reply, purge};

impl Admin {
    /// Answers `POST /v1/releases/prewarm`, when everything has come, or it is known what does not.
    pub(super) async fn prewarm(
        &self,
        known: &Known,
        headers: &HeaderMap,
        body: Incoming,
        peer: &str,
    ) -> Result<Reply, Refusal> {
        known.take(self.0.handles.clock.now())?;
        let exchange = self.exchange()?;
        let body = purge::read(headers, body, self.0.limits.body).await?;
        let request: PrewarmRequest = serde_json::from_slice(&body)
            .map_err(|error| Refusal::Purge(format!("the body cannot be used: {error}")))?;
        tracing::info!(
            target: "audit", token = known.name(), peer, release = %request.name, version = %request.version,
            "fetching a release"
        );
        let answer = exchange.prewarm(&request).await;
        Ok(json_reply(StatusCode::OK, &json!(answer)))
    }

    /// Answers `GET /v1/releases`; with `?refresh=NAME` the bucket is asked for that channel first.
    pub(super) async fn releases(&self, query: Option<&str>) -> Result<Reply, Refusal> {
        let exchange = self.exchange()?;
        let named = query
            .into_iter()
            .flat_map(|query| query.split('&'))
            .find_map(|parameter| parameter.strip_prefix("refresh="));
        let refresh = named.map(str::parse::<Name>).transpose();
        let refresh = refresh.map_err(|error| Refusal::Purge(format!("refresh: {error}")))?;
        let answer = exchange.releases(refresh.as_ref()).await;
        Ok(json_reply(StatusCode::OK, &json!(answer)))
    }
}
