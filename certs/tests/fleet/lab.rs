//! The vocabulary of these tests: a hand on the clock, a bucket, a CA, and nodes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use certs::keeper::{Keeper, Outcome};
use certs::settings::{
    Acme, BucketSettings, Challenge, Credentials, KeyKind, Managed, ORDER_PATIENCE, Secret, Settings,
    StorePlace, StoreSettings,
};
use certs::store::{Bucket, Folder, Objects};
use origin_sync::bucket::{Options, Server};
use tempfile::TempDir;

use crate::ca::Ca;

pub(crate) const NAME: &str = "cdn.example.com";
pub(crate) const ID: &str = "cdn.example.com/ecdsa";
pub(crate) const BUCKET: &str = "control";
pub(crate) const LEASE: Duration = Duration::from_secs(60);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// The hand on the clock.
#[derive(Clone)]
pub(crate) struct Hand(Arc<Mutex<SystemTime>>);

impl Hand {
    pub(crate) fn new() -> Self {
        // 2026-01-01.
        let start = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        Self(Arc::new(Mutex::new(start)))
    }

    pub(crate) fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }

    pub(crate) fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

/// Everything that a fleet shares.
pub(crate) struct Lab {
    pub(crate) hand: Hand,
    pub(crate) ca: Ca,
    pub(crate) bucket: Server,
    pub(crate) objects: Arc<dyn Objects>,
    dir: TempDir,
}

impl Lab {
    pub(crate) async fn start() -> Self {
        let (hand, dir) = (Hand::new(), tempfile::tempdir().unwrap());
        let mut options = Options::new(dir.path().join("bucket"));
        options.buckets = vec![BUCKET.to_owned()];
        options.durable = false;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bucket = Server::start(options, listener).await.unwrap();
        let objects = Arc::new(Bucket::open(&bucket_settings(&bucket)).await);
        Self {
            ca: Ca::start(&hand).await,
            hand,
            bucket,
            objects,
            dir,
        }
    }

    /// As [`Lab::start`], with a folder as the store.
    pub(crate) async fn in_folder() -> Self {
        let lab = Self::start().await;
        let objects = Arc::new(Folder::new(lab.dir.path().join("folder")));
        Self { objects, ..lab }
    }

    pub(crate) fn settings(&self, owner: &str) -> Settings {
        Settings {
            store: StoreSettings {
                place: StorePlace::Bucket(bucket_settings(&self.bucket)),
                keys: Secret(hex::encode([7; 32])),
                state: self.dir.path().join(owner),
                owner: owner.to_owned(),
                poll: Duration::from_secs(60),
                lease: LEASE,
            },
            managed: vec![Managed {
                names: vec![NAME.to_owned()],
                default: false,
                keys: vec![KeyKind::Ecdsa],
                acme: Acme {
                    directory: self.ca.directory(),
                    contact: Vec::new(),
                    challenge: Challenge::Http01,
                    profile: None,
                    preferred_chain: None,
                    patience: ORDER_PATIENCE,
                    binding: None,
                    roots: None,
                },
            }],
        }
    }

    pub(crate) fn node(&self, owner: &str) -> Node {
        self.node_with(owner, |_| {})
    }

    pub(crate) fn node_with(&self, owner: &str, change: impl FnOnce(&mut Settings)) -> Node {
        let mut settings = self.settings(owner);
        change(&mut settings);
        let changes = Arc::new(AtomicUsize::new(0));
        let (hand, counted) = (self.hand.clone(), Arc::clone(&changes));
        let keeper = Keeper::with_objects(
            settings,
            Arc::clone(&self.objects),
            Arc::new(move || hand.now()),
            Box::new(move || {
                counted.fetch_add(1, Ordering::SeqCst);
            }),
        );
        Node {
            keeper: Arc::new(keeper.unwrap()),
            changes,
        }
    }

    /// Validations reach this node.
    pub(crate) fn route_to(&self, node: &Node) {
        route(&self.ca, node);
    }

    /// The keys and bytes of everything in the store.
    pub(crate) async fn contents(&self) -> Vec<(String, Vec<u8>)> {
        let mut contents = Vec::new();
        for key in self.objects.list("").await.unwrap() {
            let object = self.objects.get(&key).await.unwrap().unwrap();
            contents.push((key, object.body));
        }
        contents
    }
}

/// Validations of `ca` reach `node`, which runs.
pub(crate) fn route(ca: &Ca, node: &Node) {
    let keeper = Arc::clone(&node.keeper);
    let looking = Arc::clone(&keeper);
    tokio::spawn(async move { looking.look_for_accounts().await });
    ca.ask_by(move |name, token| {
        let answer = keeper.challenge(name, &format!("/.well-known/acme-challenge/{token}"));
        async move { answer?.await }
    });
}

fn bucket_settings(bucket: &Server) -> BucketSettings {
    BucketSettings {
        name: BUCKET.to_owned(),
        region: "us-east-1".to_owned(),
        prefix: "certificates/".to_owned(),
        endpoint: Some(format!("http://{}", bucket.address())),
        path_style: true,
        credentials: Credentials::Static {
            id: Options::ACCESS_KEY_ID.to_owned(),
            secret: Secret(Options::SECRET_ACCESS_KEY.to_owned()),
        },
    }
}

/// One node.
pub(crate) struct Node {
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) changes: Arc<AtomicUsize>,
}

impl Node {
    pub(crate) async fn look(&self) -> Outcome {
        self.keeper.attend(0).await.unwrap()
    }

    /// What it answers a CA.
    pub(crate) async fn answers(&self, name: &str) -> Option<String> {
        let path = "/.well-known/acme-challenge/token";
        self.keeper.challenge(name, path)?.await
    }

    /// The serial number of what is served.
    pub(crate) fn serves(&self) -> Option<String> {
        self.keeper
            .good()
            .first()
            .map(|(bundle, _)| bundle.serial.clone())
    }

    pub(crate) fn refused(&self) -> Option<&'static str> {
        self.keeper.status()[0].refused
    }
}

/// Lets `work` go on until `reached` happens, and hands back what is left of it.
pub(crate) async fn until<T>(
    mut work: std::pin::Pin<Box<dyn Future<Output = T> + Send>>,
    reached: impl Future<Output = ()>,
) -> std::pin::Pin<Box<dyn Future<Output = T> + Send>> {
    let bound = Duration::from_secs(60);
    let racing = async {
        tokio::select! {
            _ = &mut work => panic!("it ended before it got there"),
            () = reached => {}
        }
    };
    tokio::time::timeout(bound, racing).await.unwrap();
    work
}
