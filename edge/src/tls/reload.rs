//! Certificates read again when their files change: told by the kernel, by SIGHUP, and by a look every minute for
//! file systems that tell nothing.
//!
//! A pair of files that is broken goes on serving as it last did, and says so. What is served is watched for its end:
//! as a metric, and as readiness, because DNS health checks do not look at certificates.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use certs::{Bundle, Bundles, Keeper, Outcome, Pair, Reload, Resolver, Settings};
use notify::{RecursiveMode, Watcher};
use rustls::ServerConfig;
use rustls::server::ClientHello;
use tokio::sync::Notify;

use super::managed::{self, Managed};
use crate::clock::{Clock, Timestamp};
use crate::config::CertificateFiles;
use crate::drain::{Drain, NotReady, Readiness};
use crate::telemetry::metrics::{Family, Gauge, Label, Registry};

/// How often files are looked at even if nobody tells of a change.
const POLL: Duration = Duration::from_secs(60);
/// How long writers are left alone after a change: a chain and its key are two files.
const SETTLE: Duration = Duration::from_millis(250);
/// With less than this left, DNS should send clients elsewhere.
const EXPIRING: Duration = Duration::from_secs(3600);

/// The certificates of a node and what is known of their files. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Certificates(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    resolver: Arc<Resolver>,
    bundles: Mutex<Bundles>,
    managed: Managed,
    clock: Clock,
    readiness: Readiness,
    metrics: Metrics,
    changed: Notify,
}

impl Certificates {
    /// The certificates of `files`, read for the first time. A broken pair is logged and left out.
    pub fn open(files: &[CertificateFiles], clock: Clock, readiness: Readiness, registry: &Registry) -> Self {
        let certificates = Self(Arc::new(Inner {
            resolver: Arc::default(),
            bundles: Mutex::new(Bundles::new(pairs(files))),
            managed: Managed::default(),
            clock,
            readiness,
            metrics: Metrics::new(registry),
            changed: Notify::new(),
        }));
        managed::register(registry, &certificates);
        certificates.reload();
        certificates
    }

    /// Takes the certificates that are ordered from a CA, as the configuration has them now.
    pub fn configure_managed(&self, settings: Option<&Settings>) {
        self.0.managed.configure(settings, &self.0.clock, self);
        self.rejoin();
    }

    /// The keeper of the certificates that are ordered from a CA.
    pub fn keeper(&self) -> Option<Arc<Keeper>> {
        self.0.managed.keeper()
    }

    /// What a CA is answered that asks for a file, as [`Keeper::challenge`]: for the exchange, which cannot know the TLS side,
    /// since that stands above it.
    pub fn answers(&self) -> Box<crate::exchange::Challenger> {
        let certificates = self.clone();
        Box::new(move |host, path| Some(Box::pin(certificates.keeper()?.challenge(host, path)?)))
    }

    /// How a handshake is answered by which a CA looks whether a name is ours.
    pub fn proof(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        hello
            .alpn()?
            .next()
            .filter(|first| *first == certs::acme::answers::ALPN)?;
        self.keeper()?.answers().tls(hello)
    }

    /// A handle that does not keep the certificates.
    pub(super) fn downgrade(&self) -> WeakCertificates {
        WeakCertificates(Arc::downgrade(&self.0))
    }

    /// Serves what the files and the keeper have now.
    fn rejoin(&self) {
        // Under the lock, so that of two changes the later one is served.
        let bundles = self.lock();
        self.join(&bundles);
        drop(bundles);
        self.judge_expiry(self.0.clock.now());
    }

    fn join(&self, bundles: &Bundles) {
        let managed = self.keeper().map(|keeper| keeper.good()).unwrap_or_default();
        self.0.resolver.replace(bundles.good().chain(managed));
    }

    /// What handshakes ask.
    pub fn resolver(&self) -> &Arc<Resolver> {
        &self.0.resolver
    }

    /// What is served now, in the order of the configuration.
    pub fn bundles(&self) -> Vec<Arc<Bundle>> {
        self.0.resolver.bundles()
    }

    /// Takes the files of a new configuration and reads them; pairs that stay keep their last good bundle.
    pub fn configure(&self, files: &[CertificateFiles]) -> Summary {
        self.lock().configure(pairs(files));
        self.0.changed.notify_one();
        self.reload()
    }

    /// Reads all files again, and swaps in what is good.
    pub fn reload(&self) -> Summary {
        let now = self.0.clock.now();
        let mut bundles = self.lock();
        let outcomes = bundles.load_all(now.to_system_time());
        self.join(&bundles);
        drop(bundles);
        let mut summary = Summary::default();
        for reload in &outcomes {
            self.report(reload, &mut summary);
        }
        self.judge_expiry(now);
        summary
    }

    /// Starts the tasks that follow the files and the shared store. They end with the drain.
    pub fn watch(&self, drain: &Drain) {
        self.0.managed.watch(drain);
        let (certificates, told) = (self.clone(), drain.clone());
        drain.spawn("certificates", async move {
            tokio::select! {
                () = told.begun() => {}
                () = certificates.follow() => {}
            }
        });
    }

    async fn follow(&self) {
        let changed = Arc::new(Notify::new());
        let mut watcher = FolderWatcher::new(Arc::clone(&changed));
        loop {
            watcher.follow(self.lock().pairs());
            let certificates = self.clone();
            // Reading files may block, and a slow file system must not hold up the control plane. The first reading
            // finds what changed between the start and the watch.
            if let Err(error) = tokio::task::spawn_blocking(move || certificates.reload()).await {
                tracing::error!(%error, "reading the certificates failed");
            }
            tokio::select! {
                () = changed.notified() => tokio::time::sleep(SETTLE).await,
                () = self.0.changed.notified() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    fn report(&self, reload: &Reload, summary: &mut Summary) {
        let chain = reload.pair.chain.display();
        let result = match &reload.outcome {
            Outcome::Added(bundle) | Outcome::Replaced(bundle) => {
                let names = bundle.names.join(" ");
                // Through a timestamp, which cannot be before the epoch.
                let until = Timestamp::from(bundle.not_after).to_system_time();
                tracing::info!(%chain, names, until = %httpdate::fmt_http_date(until), "certificate loaded");
                for warning in &bundle.warnings {
                    tracing::warn!("{warning}");
                }
                ReloadResult::Loaded
            }
            Outcome::Kept(error) => {
                tracing::error!(%chain, error = error as &dyn std::error::Error, "certificate is broken; the last good one goes on serving");
                ReloadResult::Kept
            }
            Outcome::Missing(error) => {
                tracing::error!(%chain, error = error as &dyn std::error::Error, "certificate cannot be used");
                ReloadResult::Missing
            }
            Outcome::Unchanged => ReloadResult::Unchanged,
        };
        self.0.metrics.reloads.inc(result);
        summary.count(result);
    }

    fn judge_expiry(&self, now: Timestamp) {
        let soonest = self.0.resolver.soonest_expiry().map(Timestamp::from);
        // A certificate that other nodes have, and this one has not, is as good as expired here.
        let behind = self.keeper().is_some_and(|keeper| keeper.is_behind());
        let expiring = behind || soonest.is_some_and(|soonest| soonest.since(now) < EXPIRING);
        self.0.readiness.set(NotReady::CertificateExpiring, expiring);
        self.0
            .metrics
            .soonest_expiry
            .set(soonest.map_or(0, Timestamp::unix_seconds));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Bundles> {
        self.0.bundles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As [`Certificates`], for those who outlive them.
#[derive(Clone, Debug)]
pub(super) struct WeakCertificates(Weak<Inner>);

impl WeakCertificates {
    pub(super) fn keeper(&self) -> Option<Arc<Keeper>> {
        Certificates(self.0.upgrade()?).keeper()
    }

    pub(super) fn rejoin(&self) {
        if let Some(inner) = self.0.upgrade() {
            Certificates(inner).rejoin();
        }
    }
}

/// What came of a reload, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Certificates that are new.
    pub loaded: usize,
    /// Pairs that are broken, and go on serving as they last did.
    pub kept: usize,
    /// Pairs that are broken, with nothing to serve instead.
    pub missing: usize,
    /// Pairs that are as they were.
    pub unchanged: usize,
}

impl Summary {
    fn count(&mut self, result: ReloadResult) {
        let field = match result {
            ReloadResult::Kept => &mut self.kept,
            ReloadResult::Loaded => &mut self.loaded,
            ReloadResult::Missing => &mut self.missing,
            ReloadResult::Unchanged => &mut self.unchanged,
        };
        *field += 1;
    }
}

/// Follows the folders of the files: a renewal renames over them, and a watch on a file follows the old one.
struct FolderWatcher {
    watcher: Option<notify::RecommendedWatcher>,
    folders: Vec<PathBuf>,
}

impl FolderWatcher {
    fn new(changed: Arc<Notify>) -> Self {
        let told = move |event: notify::Result<notify::Event>| {
            // Reading the files is itself an event, and must not lead to reading them again.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                changed.notify_one();
            }
        };
        let watcher = notify::recommended_watcher(told)
            .inspect_err(|error| tracing::warn!(%error, "certificate files are looked at once a minute only"))
            .ok();
        Self {
            watcher,
            folders: Vec::new(),
        }
    }

    fn follow<'a>(&mut self, pairs: impl Iterator<Item = &'a Pair>) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let mut folders: Vec<PathBuf> = pairs
            .flat_map(|pair| [&pair.chain, &pair.key])
            .filter_map(|file| Some(file.parent()?.to_path_buf()))
            .map(|folder| {
                if folder.as_os_str().is_empty() {
                    PathBuf::from(".")
                } else {
                    folder
                }
            })
            .collect();
        folders.sort();
        folders.dedup();
        for gone in self.folders.iter().filter(|folder| !folders.contains(folder)) {
            // It may be gone from the disk as well, with its watch.
            let _ = watcher.unwatch(gone);
        }
        // One that cannot be followed now is tried again on the next look.
        folders.retain(|folder| {
            self.folders.contains(folder) || watcher.watch(folder, RecursiveMode::NonRecursive).is_ok()
        });
        self.folders = folders;
    }
}

/// What came of reading one pair of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReloadResult {
    Kept,
    Loaded,
    Missing,
    Unchanged,
}

impl Label for ReloadResult {
    const NAME: &'static str = "result";
    const VALUES: &'static [&'static str] = &["kept", "loaded", "missing", "unchanged"];

    fn index(self) -> usize {
        self as usize
    }
}

#[derive(Debug)]
struct Metrics {
    soonest_expiry: Gauge,
    reloads: Family<ReloadResult>,
}

impl Metrics {
    fn new(registry: &Registry) -> Self {
        Self {
            soonest_expiry: registry.gauge(
                "edge_certificate_expiry_timestamp_seconds",
                "When the first of the served certificates expires; 0 without one.",
            ),
            reloads: registry.family(
                "edge_certificate_reloads_total",
                "Certificate files read, by what came of it.",
            ),
        }
    }
}

fn pairs(files: &[CertificateFiles]) -> Vec<Pair> {
    files
        .iter()
        .map(|files| Pair {
            chain: files.chain.clone(),
            key: files.key.clone(),
            default: files.default,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::tls::tests::{certificate, write};

    struct Node {
        folder: tempfile::TempDir,
        clock: Clock,
        readiness: Readiness,
        registry: Registry,
        files: Vec<CertificateFiles>,
    }

    impl Node {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let files = vec![write(folder.path(), "a", &certificate(&["a.example"]))];
            let readiness = Readiness::default();
            readiness.set(NotReady::Starting, false);
            Self {
                folder,
                clock: Clock::real(),
                readiness,
                registry: Registry::default(),
                files,
            }
        }

        fn open(&self) -> Certificates {
            Certificates::open(
                &self.files,
                self.clock.clone(),
                self.readiness.clone(),
                &self.registry,
            )
        }

        fn shows(&self, line: &str) -> bool {
            self.registry.encode().lines().any(|shown| shown == line)
        }
    }

    fn served(certificates: &Certificates) -> Option<certs::bundle::Fingerprint> {
        certificates.bundles().first().map(|bundle| bundle.fingerprint)
    }

    fn renew(folder: &Path) {
        write(folder, "a", &certificate(&["a.example"]));
    }

    #[test]
    fn a_broken_file_keeps_the_old_certificate_and_says_so() {
        let node = Node::new();
        let certificates = node.open();
        let before = served(&certificates);
        fs::write(node.folder.path().join("a.key"), "torn").unwrap();
        let summary = certificates.reload();
        assert_eq!((summary.kept, summary.loaded), (1, 0));
        assert_eq!(served(&certificates), before);
        assert!(node.shows("edge_certificate_reloads_total{result=\"kept\"} 1"));
        renew(node.folder.path());
        assert_eq!(certificates.reload().loaded, 1);
        assert_ne!(served(&certificates), before);
    }

    #[test]
    fn a_node_starts_with_the_certificates_that_are_good() {
        let mut node = Node::new();
        let missing = CertificateFiles {
            chain: node.folder.path().join("b.pem"),
            key: node.folder.path().join("b.key"),
            default: false,
        };
        node.files.insert(0, missing);
        let certificates = node.open();
        assert_eq!(certificates.bundles().len(), 1);
        assert!(node.shows("edge_certificate_reloads_total{result=\"missing\"} 1"));
    }

    #[test]
    fn the_last_hour_of_a_certificate_turns_readiness_red_until_it_is_renewed() {
        let mut node = Node::new();
        let end = {
            let certificates = node.open();
            assert!(node.readiness.is_ready());
            certificates.resolver().soonest_expiry().unwrap()
        };
        let line = format!(
            "edge_certificate_expiry_timestamp_seconds {}",
            Timestamp::from(end).unix_seconds()
        );
        assert!(node.shows(&line), "{}", node.registry.encode());

        node.clock = Clock::manual(Timestamp::from(end - Duration::from_secs(3601)));
        let certificates = node.open();
        assert!(node.readiness.is_ready());
        node.clock.advance(Duration::from_secs(2));
        certificates.reload();
        let reasons: Vec<_> = node.readiness.reasons().collect();
        assert_eq!(reasons, [NotReady::CertificateExpiring]);
        node.clock.advance(Duration::from_secs(7200));
        certificates.reload();
        assert!(!node.readiness.is_ready(), "expired is not ready either");
        let year = Duration::from_secs(365 * 86_400);
        let renewed = crate::tls::tests::certificate_from(&["a.example"], end, year);
        write(node.folder.path(), "a", &renewed);
        certificates.reload();
        assert!(node.readiness.is_ready());
    }

    #[test]
    fn without_certificates_nothing_is_red() {
        let mut node = Node::new();
        node.files.clear();
        node.open();
        assert!(node.readiness.is_ready());
        assert!(node.shows("edge_certificate_expiry_timestamp_seconds 0"));
    }

    #[tokio::test]
    async fn a_renewal_on_disk_is_served_without_being_asked_for() {
        let node = Node::new();
        let certificates = node.open();
        let before = served(&certificates);
        let drain = Drain::default();
        certificates.watch(&drain);
        // As certbot and others do it: written beside, then renamed over.
        let beside = tempfile::tempdir_in(node.folder.path()).unwrap();
        renew(beside.path());
        for file in ["a.pem", "a.key"] {
            fs::rename(beside.path().join(file), node.folder.path().join(file)).unwrap();
        }
        let changed = async {
            while served(&certificates) == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let bound = Duration::from_secs(20);
        assert!(tokio::time::timeout(bound, changed).await.is_ok());
        assert_eq!(drain.finish(bound).await, 0);
    }
}
