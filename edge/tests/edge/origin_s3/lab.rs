//! The vocabulary: a store with objects in it, and an edge's origin in front of it.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use edge::clock::Clock;
use edge::config;
use edge::drain::Drain;
use edge::origin::{Answer, Ask, AskedRange, Condition, Error, Kind, Origin, Origins};
use edge::telemetry::metrics::Registry;
use http::HeaderValue;
use origin_sync::bucket::{Fault, Options, Server};
use tokio::net::TcpListener;

/// A bucket somewhere.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) endpoint: String,
    pub(super) bucket: String,
    pub(super) key_id: String,
    pub(super) secret: String,
}

impl Place {
    /// A new bucket in the S3 that the environment names, if it names one.
    pub(super) async fn external() -> Option<Self> {
        let endpoint = std::env::var("EDGE_TEST_S3_ENDPOINT").ok()?;
        let place = Self {
            endpoint,
            bucket: format!("edge-test-{:016x}", fastrand::u64(..)),
            key_id: std::env::var("EDGE_TEST_S3_KEY_ID").unwrap(),
            secret: std::env::var("EDGE_TEST_S3_SECRET").unwrap(),
        };
        place
            .client()
            .create_bucket()
            .bucket(&place.bucket)
            .send()
            .await
            .unwrap();
        Some(place)
    }

    pub(super) fn client(&self) -> Client {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(&self.endpoint)
            .force_path_style(true)
            .credentials_provider(Credentials::new(&self.key_id, &self.secret, None, None, "test"));
        Client::from_conf(config.build())
    }

    pub(super) async fn put(&self, key: &str, body: impl Into<Vec<u8>>) {
        let body = ByteStream::from(body.into());
        self.client()
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .body(body)
            .send()
            .await
            .unwrap();
    }

    pub(super) fn config(&self) -> config::Bucket {
        config::Bucket {
            name: self.bucket.clone(),
            region: "us-east-1".to_owned(),
            prefix: String::new(),
            endpoint: Some(self.endpoint.clone()),
            path_style: true,
            canary: None,
        }
    }

    pub(super) fn credentials(&self) -> config::Credentials {
        config::Credentials::Static {
            access_key_id: self.key_id.clone(),
            secret_access_key: config::Secret(self.secret.clone()),
        }
    }
}

/// The embedded bucket.
pub(super) struct Embedded {
    pub(super) server: Server,
    pub(super) place: Place,
    _dir: tempfile::TempDir,
}

impl Embedded {
    pub(super) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new(dir.path());
        options.buckets = vec!["widgets".to_owned()];
        options.durable = false;
        change(&mut options);
        let server = Server::start(options, TcpListener::bind("127.0.0.1:0").await.unwrap())
            .await
            .unwrap();
        let place = Place {
            endpoint: format!("http://{}", server.address()),
            bucket: "widgets".to_owned(),
            key_id: Options::ACCESS_KEY_ID.to_owned(),
            secret: Options::SECRET_ACCESS_KEY.to_owned(),
        };
        Self {
            server,
            place,
            _dir: dir,
        }
    }
}

/// Three attempts, with deadlines that no scenario comes near, however slow the machine.
pub(super) fn thrice() -> config::OriginTimeouts {
    config::OriginTimeouts {
        connect: Duration::from_secs(10),
        read: Duration::from_secs(10),
        attempt: Duration::from_secs(20),
        operation: Duration::from_secs(60),
        attempts: 3,
        pool_idle: Duration::from_secs(5),
    }
}

/// One attempt only, so that the first fault shows.
pub(super) fn once() -> config::OriginTimeouts {
    config::OriginTimeouts {
        attempts: 1,
        ..thrice()
    }
}

/// With deadlines that a peer which hangs or drips runs into, within the scenario.
pub(super) fn hasty(patient: config::OriginTimeouts) -> config::OriginTimeouts {
    config::OriginTimeouts {
        connect: Duration::from_secs(10),
        read: Duration::from_secs(3),
        attempt: Duration::from_secs(6),
        operation: Duration::from_secs(30),
        ..patient
    }
}

/// Those that show what `fault` does.
pub(super) fn suited(fault: &Fault, patient: config::OriginTimeouts) -> config::OriginTimeouts {
    match fault {
        Fault::HangBeforeHeaders | Fault::StallAfter(_) => hasty(patient),
        Fault::Drip { .. } => config::OriginTimeouts {
            read: Duration::from_secs(1),
            ..hasty(patient)
        },
        _ => patient,
    }
}

/// An origin as the node has it.
pub(super) struct Edge {
    pub(super) origin: Arc<Origin>,
    registry: Registry,
    _drain: Drain,
}

impl Edge {
    pub(super) fn of(place: &Place, timeouts: config::OriginTimeouts) -> Self {
        Self::with(vec![place.config()], place.credentials(), timeouts)
    }

    pub(super) fn with(
        buckets: Vec<config::Bucket>,
        credentials: config::Credentials,
        timeouts: config::OriginTimeouts,
    ) -> Self {
        let config = configuration(config::S3Origin {
            credentials,
            buckets,
            timeouts,
        });
        let (drain, registry) = (Drain::default(), Registry::default());
        let origins = Origins::start(&config, &drain, &registry, Clock::real()).unwrap();
        assert!(origins.find("other").is_none());
        Self {
            origin: origins.find("assets").unwrap(),
            registry,
            _drain: drain,
        }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Answer, Error> {
        self.origin
            .fetch(Ask {
                path: path.to_owned(),
                ..Ask::default()
            })
            .await
    }

    pub(super) async fn range(&self, path: &str, range: AskedRange) -> Result<Answer, Error> {
        self.origin
            .fetch(Ask {
                path: path.to_owned(),
                range: Some(range),
                ..Ask::default()
            })
            .await
    }

    /// Asks whether what `stored` brought still holds.
    pub(super) async fn revalidate(&self, path: &str, stored: &Answer) -> Result<Answer, Error> {
        let condition = Condition {
            etag: stored.headers.get("etag").cloned(),
            last_modified: stored.headers.get("last-modified").cloned(),
            source: Arc::clone(&stored.source),
        };
        self.origin
            .fetch(Ask {
                path: path.to_owned(),
                condition: Some(condition),
                ..Ask::default()
            })
            .await
    }

    /// The whole body, or how it failed: in its head or on the way.
    pub(super) async fn body(&self, path: &str) -> Result<Vec<u8>, Kind> {
        drain(self.get(path).await.map_err(|error| error.kind)?).await
    }

    /// Whether the metrics have this line.
    pub(super) fn counts(&self, line: &str) -> bool {
        self.registry.encode().lines().any(|seen| seen == line)
    }
}

/// Reads an answer's body to its end.
pub(super) async fn drain(mut answer: Answer) -> Result<Vec<u8>, Kind> {
    let mut whole = Vec::new();
    while let Some(chunk) = answer.body.chunk().await {
        whole.extend_from_slice(&chunk.map_err(|error| error.kind)?);
    }
    if let Some(length) = answer.length {
        assert_eq!(
            whole.len() as u64,
            length,
            "a clean end before the announced length"
        );
    }
    Ok(whole)
}

/// Bytes without a pattern that repeats soon.
pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..length).map(|_| random.u8(..)).collect()
}

pub(super) fn field(answer: &Answer, name: &str) -> Option<String> {
    let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
    answer.headers.get(name).map(text)
}

/// A configuration with nothing but one origin, called `assets`.
pub(super) fn configuration(s3: config::S3Origin) -> config::Config {
    let origin = config::Origin {
        name: "assets".to_owned(),
        kind: config::OriginKind::S3(s3),
    };
    config::Config {
        name: "portico".to_owned(),
        workers: 1,
        listen: config::Listen::default(),
        admin: config::Admin {
            hosts: Vec::new(),
            listen: None,
            tokens: Vec::new(),
            protect_health: false,
            purges_per_second: 1,
        },
        certificates: Vec::new(),
        managed: None,
        tickets: None,
        early_data: false,
        cache: config::Cache {
            disk: None,
            memory_bytes: 1 << 20,
            object_bytes_max: 1 << 20,
            recode_budget: 0.0,
            stale_after: Duration::from_secs(1),
            room_patience: Duration::from_secs(1),
        },
        origins: vec![origin],
        sites: Vec::new(),
        releases: config::Releases {
            state: None,
            poll: Duration::from_secs(5),
        },
        limits: config::Limits::default(),
        log: config::Log { access: None },
        drain: config::Drain {
            delay: Duration::ZERO,
            deadline: Duration::from_secs(1),
        },
    }
}
