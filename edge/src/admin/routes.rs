//! The admin API's routes: exact paths, compared byte for byte. Nothing is decoded, joined or stripped on the way, so
//! no spelling of a path reaches anything but itself.

use http::Method;
use origin_sync::release::fleet::{PREWARM_PATH, RELEASES_PATH};

use crate::config::Scope;

/// One path.
#[derive(Debug)]
pub(super) struct Route {
    /// The path.
    pub(super) path: &'static str,
    /// The method; GET allows HEAD too.
    pub(super) method: Method,
    /// Who may ask.
    pub(super) access: Access,
    /// What answers.
    pub(super) endpoint: Endpoint,
}

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Anybody who reaches the listener.
    Open,
    /// Anybody, unless the configuration protects health; then holders of a read token.
    Health,
    /// Holders of a token with this scope.
    Scope(Scope),
}

/// What answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Cache,
    Livez,
    Metrics,
    Openapi,
    Prewarm,
    Purge,
    Readyz,
    Releases,
    Status,
    Verify,
    Warm,
}

/// All routes.
pub(super) const ROUTES: &[Route] = &[
    route("/livez", Method::GET, Access::Health, Endpoint::Livez),
    route("/readyz", Method::GET, Access::Health, Endpoint::Readyz),
    route("/metrics", Method::GET, Access::Health, Endpoint::Metrics),
    route("/openapi.json", Method::GET, Access::Open, Endpoint::Openapi),
    route(
        "/v1/status",
        Method::GET,
        Access::Scope(Scope::Read),
        Endpoint::Status,
    ),
    route(
        "/v1/purge",
        Method::POST,
        Access::Scope(Scope::Purge),
        Endpoint::Purge,
    ),
    route(
        "/v1/cache",
        Method::GET,
        Access::Scope(Scope::Read),
        Endpoint::Cache,
    ),
    route(
        RELEASES_PATH,
        Method::GET,
        Access::Scope(Scope::Read),
        Endpoint::Releases,
    ),
    route(
        PREWARM_PATH,
        Method::POST,
        Access::Scope(Scope::Admin),
        Endpoint::Prewarm,
    ),
    route(
        "/v1/verify",
        Method::POST,
        Access::Scope(Scope::Admin),
        Endpoint::Verify,
    ),
    route(
        "/v1/warm",
        Method::POST,
        Access::Scope(Scope::Purge),
        Endpoint::Warm,
    ),
];

const fn route(path: &'static str, method: Method, access: Access, endpoint: Endpoint) -> Route {
    Route {
        path,
        method,
        access,
        endpoint,
    }
}

impl Route {
    /// The route at exactly this path.
    pub(super) fn at(path: &str) -> Option<&'static Self> {
        ROUTES.iter().find(|route| route.path == path)
    }

    /// Whether the route answers this method.
    pub(super) fn allows(&self, method: &Method) -> bool {
        *method == self.method || (self.method == Method::GET && *method == Method::HEAD)
    }

    /// For the Allow field.
    pub(super) fn allow(&self) -> &'static str {
        if self.method == Method::GET {
            "GET, HEAD"
        } else {
            "POST"
        }
    }
}
