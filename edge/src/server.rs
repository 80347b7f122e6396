//! The one place where the parts of a node are joined: everything is bound before anything is served.

mod releases;
mod status;
mod store;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderValue;
use tokio::runtime::Handle;

use self::status::Status;
use crate::admin::{self, Admin, Handles, PurgeMethod};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::drain::{Drain, NotReady, Readiness};
use crate::exchange::record::Sinks;
use crate::exchange::{self, Exchange, Parts, Routes};
use crate::http::{Door, Kind};
use crate::lifecycle::{self, Ended, Orders, Signals};
use crate::listener::{self, Setup, Workers};
use crate::origin::Origins;
use crate::release::Releases;
use crate::site::Router;
use crate::telemetry::metrics::Registry;
use crate::tls;
use crate::tls::reload::Certificates;

/// How long the end of a node waits for what is to be written to disk.
const DISK_PATIENCE: Duration = Duration::from_secs(3);

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The access log.
    #[error("cannot open the access log")]
    AccessLog(#[source] io::Error),
    /// The admin listener.
    #[error("cannot listen for the operator on {0}")]
    Admin(String, #[source] io::Error),
    /// An address is taken, or not ours.
    #[error(transparent)]
    Bind(#[from] listener::BindError),
    /// An origin.
    #[error("cannot prepare the origins")]
    Origin(#[from] crate::origin::StartError),
    /// A thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// TLS.
    #[error("cannot prepare TLS")]
    Tls(#[from] rustls::Error),
}

/// A node that serves.
#[derive(Debug)]
pub struct Node {
    addresses: Vec<(Kind, SocketAddr)>,
    admin_url: Option<String>,
    workers: Workers,
    parts: Reloadable,
}

/// The parts that a reload changes, and those by which it is stopped.
#[derive(Clone, Debug)]
struct Reloadable {
    config: Config,
    file: Option<PathBuf>,
    certificates: Certificates,
    registry: Registry,
    drain: Drain,
    readiness: Readiness,
    control: Handle,
    joined: Joined,
}

/// The request path and the operator's side, which know of each other.
#[derive(Clone, Debug)]
struct Joined {
    exchange: Arc<Exchange>,
    sinks: Arc<Sinks>,
    admin: Admin,
    /// The operator's side ends last, so that a drain can be watched.
    admin_drain: Drain,
}

/// Everything that is bound before anything is served.
struct Sockets {
    clients: Vec<listener::Bound>,
    addresses: Vec<(Kind, SocketAddr)>,
    operator: Option<admin::Listener>,
}

impl Sockets {
    fn bind(config: &Config) -> Result<Self, Error> {
        let clients = listener::bind(&config.listen, config.workers)?;
        let addresses = clients.iter().map(|bound| (bound.kind, bound.address)).collect();
        Ok(Self {
            clients,
            addresses,
            operator: bind_admin(&config.admin)?,
        })
    }
}

/// What every part stands on.
struct Ground {
    clock: Clock,
    registry: Registry,
    drain: Drain,
    readiness: Readiness,
    control: Handle,
}

impl Ground {
    fn certificates(&self, config: &Config) -> Certificates {
        let certificates = Certificates::open(
            &config.certificates,
            self.clock.clone(),
            self.readiness.clone(),
            &self.registry,
        );
        certificates.configure_managed(config.managed.as_ref());
        certificates
    }

    /// Joins the request path with the operator's side.
    fn join(
        &self,
        config: &Config,
        addresses: &[(Kind, SocketAddr)],
        certificates: &Certificates,
    ) -> Result<Joined, Error> {
        let sinks = Sinks::new(&self.registry, config.log.access.as_ref(), self.clock.clone());
        let sinks = Arc::new(sinks.map_err(Error::AccessLog)?);
        let origins = Origins::start(config, &self.drain, &self.registry, self.clock.clone())?;
        let releases = self.releases(config, &origins);
        let routes = routes(config, origins, releases, https_port(config, addresses));
        let cache = self.cache(&config.cache);
        let (status, admin_drain) = (Arc::new(OnceLock::new()), Drain::default());
        let path = Arc::new(OnceLock::new());
        let handles = Handles {
            clock: self.clock.clone(),
            drain: admin_drain.clone(),
            registry: self.registry.clone(),
            readiness: self.readiness.clone(),
            epochs: Arc::clone(&cache.epochs),
            exchange: Arc::clone(&path),
            status: status_of(&status),
        };
        let admin = Admin::new(config, Arc::clone(&routes.router), handles);
        let parts = Parts {
            routes,
            cache,
            purge_method: purge_method(&admin),
            challenges: exchange::Challenges(certificates.answers()),
            sinks: Arc::clone(&sinks),
            clock: self.clock.clone(),
            control: self.control.clone(),
            drain: self.drain.clone(),
            readiness: self.readiness.clone(),
            recode_share: config.cache.recode_budget,
            patience: config.cache.stale_after,
            content_bytes_max: config.limits.content_bytes,
            content_stall: config.limits.write_stall,
        };
        let exchange = Exchange::start(parts).map_err(Error::Thread)?;
        // Nobody else sets them: the cells were made above.
        let _ = path.set(Arc::downgrade(&exchange));
        let _ = status.set(Status::new(addresses, certificates, &exchange));
        Ok(Joined {
            exchange,
            sinks,
            admin,
            admin_drain,
        })
    }
}

impl Node {
    /// Starts a node. `file` is where a reload reads the configuration; `control` is the runtime of the control plane.
    ///
    /// # Errors
    ///
    /// When an address, a file or a thread cannot be had; then nothing is left running.
    pub fn start(
        config: Config,
        file: Option<PathBuf>,
        clock: Clock,
        control: Handle,
    ) -> Result<Self, Error> {
        let _control = control.enter();
        let sockets = Sockets::bind(&config)?;
        let ground = Ground {
            clock,
            control: control.clone(),
            registry: Registry::default(),
            drain: Drain::default(),
            readiness: Readiness::default(),
        };
        crate::telemetry::process::register(&ground.registry, ground.clock.now());
        let certificates = ground.certificates(&config);
        let acceptor = tls::Acceptor::of(&config, &certificates, &ground.clock, &ground.registry)?;
        let joined = ground.join(&config, &sockets.addresses, &certificates)?;

        let mut limits = config.limits.clone();
        limits.connections = listener::connections_max(limits.connections);
        let Ground {
            clock,
            registry,
            drain,
            readiness,
            control,
        } = ground;
        let door = Door::new(
            Arc::clone(&joined.exchange),
            &limits,
            clock,
            drain.clone(),
            &registry,
        );
        let setup = Setup {
            door,
            acceptor,
            limits,
            drain: drain.clone(),
            registry: registry.clone(),
        };
        let workers = Workers::start(sockets.clients, setup).map_err(Error::Thread)?;
        let admin_url = sockets.operator.as_ref().map(admin::Listener::url);
        if let Some(listener) = sockets.operator {
            joined.admin.serve(listener).map_err(Error::Thread)?;
        }
        certificates.watch(&drain);
        readiness.set(NotReady::Starting, false);
        let parts = Reloadable {
            config,
            file,
            certificates,
            registry,
            drain,
            readiness,
            control,
            joined,
        };
        Ok(Self {
            addresses: sockets.addresses,
            admin_url,
            workers,
            parts,
        })
    }

    /// Where clients come in, with the ports that were chosen where 0 was asked for.
    pub fn addresses(&self) -> &[(Kind, SocketAddr)] {
        &self.addresses
    }

    /// Where the operator comes in, if there is a listener for that.
    pub fn admin_url(&self) -> Option<&str> {
        self.admin_url.as_deref()
    }

    /// The request path.
    pub fn exchange(&self) -> &Arc<Exchange> {
        &self.parts.joined.exchange
    }

    /// All metrics.
    pub fn registry(&self) -> &Registry {
        &self.parts.registry
    }

    /// Whether the node wants traffic.
    pub fn readiness(&self) -> &Readiness {
        &self.parts.readiness
    }

    /// Reads the configuration file and the certificates again, as SIGHUP does.
    pub fn reload(&mut self) {
        self.parts.reload();
    }

    /// Serves until a signal says stop, then drains.
    pub async fn run(self, signals: Signals) -> Ended {
        let Self { workers, parts, .. } = self;
        let (plan, drain, readiness) = (
            parts.config.drain.clone(),
            parts.drain.clone(),
            parts.readiness.clone(),
        );
        let exchange = Arc::clone(&parts.joined.exchange);
        let (sinks, admin_drain) = (Arc::clone(&parts.joined.sinks), parts.joined.admin_drain.clone());
        let ended = lifecycle::run(signals, parts, &plan, &drain, &readiness, workers).await;
        finish(&admin_drain, sinks, &exchange).await;
        ended
    }

    /// Drains without waiting for a signal.
    pub async fn stop(self) -> Ended {
        let Self {
            mut workers, parts, ..
        } = self;
        let ended =
            lifecycle::orderly(&parts.config.drain, &parts.drain, &parts.readiness, &mut workers).await;
        // Joining threads blocks; they end as soon as they are told.
        let _ = tokio::task::spawn_blocking(move || workers.end()).await;
        let Joined {
            exchange,
            sinks,
            admin_drain,
            ..
        } = parts.joined;
        finish(&admin_drain, sinks, &exchange).await;
        ended
    }
}

/// Ends what is left when the data plane has ended: the operator's side, what is to be written to disk, and the last lines
/// of the access log.
async fn finish(admin: &Drain, sinks: Arc<Sinks>, exchange: &Exchange) {
    admin.finish(Duration::from_secs(1)).await;
    if let Some(disk) = &exchange.cache().disk {
        disk.close(DISK_PATIENCE).await;
    }
    let _ = tokio::task::spawn_blocking(move || sinks.access.finish(Duration::from_secs(2))).await;
}

impl Orders for Reloadable {
    fn reload(&mut self) {
        let Some(file) = self.file.clone() else {
            self.certificates.reload();
            return;
        };
        match config::load(&file) {
            Ok(config) => self.take_over(config, &file),
            Err(errors) => tracing::error!(%errors, "the new configuration is refused; the old one stays"),
        }
    }

    fn reopen_logs(&mut self) {
        match self.joined.sinks.access.reopen() {
            Ok(()) => tracing::info!("log files are open again"),
            Err(error) => tracing::error!(%error, "cannot open the access log again; the old file stays"),
        }
    }
}

impl Reloadable {
    /// Goes over to a configuration that was read without fault. What cannot change while running is named.
    fn take_over(&mut self, config: Config, file: &Path) {
        let _control = self.control.enter();
        let origins = match self.joined.exchange.routes().origins.reload(&config, &self.drain) {
            Ok(origins) => origins,
            Err(error) => {
                tracing::error!(%error, "the new origins are refused; the old configuration stays");
                return;
            }
        };
        if let Err(error) = self.joined.sinks.access.apply(config.log.access.as_ref()) {
            tracing::error!(%error, "cannot open the new access log; the old configuration stays");
            return;
        }
        for (what, changed) in [
            ("listen", self.config.listen != config.listen),
            ("workers", self.config.workers != config.workers),
            ("cache", self.config.cache != config.cache),
            ("limits", self.config.limits != config.limits),
            ("tls.tickets", self.config.tickets != config.tickets),
            ("tls.early_data", self.config.early_data != config.early_data),
        ] {
            if changed {
                tracing::warn!(what, "changed in the configuration; this takes a restart");
            }
        }
        let old = self.joined.exchange.routes();
        let releases = old.releases.reload(&config, &origins);
        let routes = routes(&config, origins, releases, old.https_port);
        self.joined.admin.apply(&config, Arc::clone(&routes.router));
        self.joined.exchange.reload(routes);
        self.certificates.configure(&config.certificates);
        self.certificates.configure_managed(config.managed.as_ref());
        self.config = config;
        tracing::info!(file = %file.display(), "configuration reloaded");
    }
}

fn bind_admin(config: &config::Admin) -> Result<Option<admin::Listener>, Error> {
    let Some(listen) = &config.listen else {
        return Ok(None);
    };
    let failed = |error| match listen {
        config::AdminListen::Tcp(address) => Error::Admin(address.to_string(), error),
        config::AdminListen::Unix(path) => Error::Admin(path.display().to_string(), error),
    };
    admin::bind(listen).map(Some).map_err(failed)
}

/// The status, once there is something to tell of.
fn status_of(
    cell: &Arc<OnceLock<Status>>,
) -> Box<dyn Fn() -> serde_json::Map<String, serde_json::Value> + Send + Sync> {
    let cell = Arc::clone(cell);
    Box::new(move || cell.get().map(Status::members).unwrap_or_default())
}

/// How a site that allows it answers `PURGE`: the exchange cannot know the admin side, which stands above it.
fn purge_method(admin: &Admin) -> exchange::PurgeMethod {
    let admin = admin.clone();
    exchange::PurgeMethod(Box::new(move |request| {
        let asked = PurgeMethod {
            host: &request.host,
            target: &request.target,
            headers: &request.headers,
            client: request.client,
        };
        let admin = admin.clone();
        Box::pin(async move { admin.purge_method(&asked).await })
    }))
}

fn routes(config: &Config, origins: Origins, releases: Releases, https_port: u16) -> Routes {
    let via = HeaderValue::try_from(format!("1.1 {}", config.name));
    Routes {
        router: Arc::new(Router::new(config)),
        origins,
        releases,
        name: config.name.clone(),
        via: via.unwrap_or_else(|_| HeaderValue::from_static("1.1 portico")),
        https_port,
    }
}

/// The port that redirects name: the configured one, or the one that was chosen for port 0.
fn https_port(config: &Config, addresses: &[(Kind, SocketAddr)]) -> u16 {
    let bound = addresses
        .iter()
        .find(|(kind, _)| *kind == Kind::Https)
        .map(|(_, address)| address.port());
    if config.listen.https_port != 0 {
        config.listen.https_port
    } else {
        bound.unwrap_or(443)
    }
}
