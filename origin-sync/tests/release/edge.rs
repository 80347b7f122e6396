//! An edge, scripted: it answers the admin API as a promotion expects, from the bucket, and lies when it is told to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use origin_sync::bucket::Store;
use origin_sync::release::fleet::{
    FileAnswer, FormAnswer, PREWARM_PATH, PrewarmAnswer, PrewarmRequest, ReleaseState, ReleasesAnswer,
};
use origin_sync::release::{Channel, Manifest, Sha256, Trust, layout};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::{BUCKET, PREFIX, World};

/// What an edge does wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Nothing.
    #[default]
    None,
    /// It holds other bytes than the manifest says.
    Digest,
    /// It refuses to prewarm.
    Refuse,
    /// Under aliases it serves other bytes.
    Serve,
    /// It has this serial in force already, whatever the bucket has.
    Serial(u64),
}

/// A scripted edge: admin listener and public door at one address.
pub(crate) struct Edge {
    /// Where it is.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    store: Store,
    trust: Trust,
    lie: Mutex<Lie>,
    asked: Mutex<Vec<String>>,
}

impl Edge {
    /// Starts one on the bucket of a world.
    pub(crate) async fn start(world: &World, lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shared = Arc::new(Shared {
            store: world.server.store().clone(),
            trust: world.trust(),
            lie: Mutex::new(lie),
            asked: Mutex::default(),
        });
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let served = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&served);
                let service = service_fn(move |request| {
                    let shared = Arc::clone(&shared);
                    async move { Ok::<_, std::convert::Infallible>(shared.answer(request).await) }
                });
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                connections.spawn(async move { drop(connection.await) });
            }
        });
        Self {
            address,
            shared,
            _tasks: tasks,
        }
    }

    /// The requests so far: method and path, and the body of a purge.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let lie = *self.lie.lock().unwrap();
        let path = request.uri().path().to_owned();
        let method = request.method().clone();
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let note = if path == "/v1/purge" {
            String::from_utf8_lossy(&body).into_owned()
        } else {
            String::new()
        };
        self.asked
            .lock()
            .unwrap()
            .push(format!("{method} {path} {note}").trim_end().to_owned());
        match path.as_str() {
            PREWARM_PATH if lie == Lie::Refuse => {
                let mut refused =
                    Response::new(Full::new(Bytes::from(r#"{"detail": "no site releases this"}"#)));
                *refused.status_mut() = StatusCode::CONFLICT;
                refused
            }
            PREWARM_PATH => json(&self.prewarm(&serde_json::from_slice(&body).unwrap(), lie).await),
            "/v1/releases" => json(&self.releases(lie).await),
            "/v1/purge" => json(&serde_json::json!({ "position": 1 })),
            _ => self.serve(&path, &parts.headers, lie).await,
        }
    }

    async fn object(&self, key: &str) -> Option<Bytes> {
        let read = self.store.read(BUCKET, &format!("{PREFIX}{key}")).await;
        read.ok().map(|(_, bytes)| bytes)
    }

    async fn prewarm(&self, request: &PrewarmRequest, lie: Lie) -> PrewarmAnswer {
        let bytes = self
            .object(&layout::manifest(&request.name, &request.version))
            .await
            .unwrap();
        let manifest = Manifest::open(&bytes, &self.trust, &request.name, &request.version).unwrap();
        let mut files = Vec::new();
        for file in &manifest.document.files {
            let whole = std::iter::once((None, None, file.sha256));
            let coded = file
                .codings
                .iter()
                .map(|coding| (Some(coding.name), coding.dictionary, coding.sha256));
            let mut forms = Vec::new();
            for (coding, dictionary, sha256) in whole.chain(coded) {
                let held = Sha256::of(&self.object(&layout::blob(&sha256)).await.unwrap());
                forms.push(FormAnswer {
                    coding,
                    dictionary,
                    sha256: Some(if lie == Lie::Digest {
                        Sha256::of(b"lie")
                    } else {
                        held
                    }),
                    error: None,
                });
            }
            let path = file.path.clone();
            files.push(FileAnswer { path, forms });
        }
        PrewarmAnswer {
            node: "scripted".into(),
            manifest: Some(manifest.digest),
            error: None,
            files,
        }
    }

    async fn channel(&self) -> Option<Channel> {
        let name = "lock".parse().unwrap();
        let bytes = self.object(&layout::channel(&name)).await?;
        Some(Channel::open(&bytes, &self.trust, &name).unwrap().document)
    }

    async fn releases(&self, lie: Lie) -> ReleasesAnswer {
        let channel = self.channel().await;
        let serial = channel.as_ref().map(|channel| channel.serial);
        ReleasesAnswer {
            node: "scripted".into(),
            releases: vec![ReleaseState {
                name: "lock".parse().unwrap(),
                serial: match lie {
                    Lie::Serial(seen) => serial.max(Some(seen)),
                    _ => serial,
                },
                expires: channel.as_ref().map(|channel| channel.expires),
                aliases: channel.map(|channel| channel.aliases).unwrap_or_default(),
                degraded: None,
            }],
        }
    }

    /// `/lock/<version or alias>/<path>`.
    async fn serve(&self, path: &str, headers: &http::HeaderMap, lie: Lie) -> Response<Full<Bytes>> {
        let name = "lock".parse().unwrap();
        let mut segments = path.trim_start_matches('/').splitn(3, '/').skip(1);
        let (segment, path) = (segments.next().unwrap(), segments.next().unwrap());
        let channel = self.channel().await;
        let pointer = channel.as_ref().and_then(|channel| channel.aliases.get(segment));
        let version = pointer.map_or_else(|| segment.parse().unwrap(), |pointer| pointer.version.clone());
        let bytes = self.object(&layout::manifest(&name, &version)).await.unwrap();
        let manifest = Manifest::open(&bytes, &self.trust, &name, &version)
            .unwrap()
            .document;
        let file = manifest.file(path).unwrap();
        let wanted = headers["accept-encoding"].to_str().unwrap();
        let dictionary = headers
            .get("available-dictionary")
            .map(|value| value.to_str().unwrap().to_owned());
        let coding = file.codings.iter().find(|coding| {
            let held = coding.dictionary.map(|digest| format!(":{}:", digest.base64()));
            coding.name.as_str() == wanted && held == dictionary
        });
        let mut bytes = self
            .object(&layout::blob(&coding.map_or(file.sha256, |coding| coding.sha256)))
            .await
            .unwrap();
        if lie == Lie::Serve && pointer.is_some() {
            bytes = Bytes::from_static(b"evil");
        }
        let fields = match pointer {
            Some(_) => channel.as_ref().unwrap().integrity.get(&file.sha256).cloned(),
            None => file.integrity.clone(),
        };
        let mut response = Response::builder()
            .header("content-type", &file.media_type)
            .header(
                "etag",
                format!("\"{}\"", coding.map_or(file.sha256, |coding| coding.sha256)),
            )
            .header(
                "cache-control",
                if pointer.is_some() {
                    "public, max-age=60"
                } else {
                    "immutable"
                },
            );
        if let Some(coding) = coding {
            response = response.header("content-encoding", coding.name.as_str());
        }
        if let Some(fields) = fields {
            response = response
                .header("unencoded-digest", fields.unencoded_digest)
                .header("signature-input", fields.signature_input.unwrap())
                .header("signature", fields.signature.unwrap());
        }
        response.body(Full::new(bytes)).unwrap()
    }
}

fn json(value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    Response::new(Full::new(serde_json::to_vec(value).unwrap().into()))
}
