//! Releases: what was signed is served, by any path that leads to it, and nothing else ever is.

mod attacker;
mod deltas;
mod limits;
mod rollout;
mod serving;

use std::collections::BTreeMap;

use edge::config::{AdminListen, Config, OriginKind, Scope, Token};
use origin_sync::release::envelope::seal;
use origin_sync::release::fleet::ReleaseState;
use origin_sync::release::integrity::Fields;
use origin_sync::release::{
    Channel, Class, Coding, CodingName, File, Manifest, Name, Pointer, Role, SecretKey, Sha256, Sha384,
    coding, layout,
};

use crate::client::{Answer, TestClient};
use crate::support::{TestBucket, TestEdge};

const TOKEN: &str = "promote me";

/// A script of some kilobytes that says which it is.
pub(crate) fn script(version: &str) -> Vec<u8> {
    let mut text = format!("window.lock = \"{version}\";\n");
    for line in 0..300 {
        text.push_str(&format!(
            "function f{line}(a) {{ return a * {} + {line}; }}\n",
            line * 7 + 1
        ));
    }
    text.into_bytes()
}

/// Who signs.
pub(crate) struct Signer {
    pub(crate) release: SecretKey,
    pub(crate) channel: SecretKey,
}

/// A version that was made: its manifest as it is stored, and its blobs.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) manifest: Manifest,
    pub(crate) bytes: Vec<u8>,
    pub(crate) blobs: Vec<Vec<u8>>,
}

impl Made {
    pub(crate) fn file(&self, path: &str) -> &File {
        self.manifest.file(path).unwrap()
    }

    pub(crate) fn key(&self) -> String {
        layout::manifest(&self.manifest.name, &self.manifest.version)
    }

    pub(crate) async fn push(&self, bucket: &TestBucket) {
        for blob in &self.blobs {
            bucket
                .put(&layout::blob(&Sha256::of(blob)), blob.clone(), "")
                .await;
        }
        bucket.put(&self.key(), self.bytes.clone(), "").await;
    }

    pub(crate) fn digest(&self) -> Sha256 {
        Sha256::of(&self.bytes)
    }
}

impl Signer {
    pub(crate) fn new() -> Self {
        Self {
            release: SecretKey::generate(Role::Release).unwrap(),
            channel: SecretKey::generate(Role::Channel).unwrap(),
        }
    }

    /// The lines of a site that serves `lock`, and of the table that goes with it.
    pub(crate) fn site(&self) -> String {
        format!(
            "preset = \"embed\"\nreleases = [\"lock\"]\ntrust = [\"{}\", \"{}\"]",
            self.release.public(),
            self.channel.public()
        )
    }

    /// A version of files with br, and with a delta from the same path of `old` if there is one.
    pub(crate) fn make(&self, version: &str, files: &[(&str, Vec<u8>)], old: Option<&Made>) -> Made {
        let mut blobs = Vec::new();
        let mut listed = Vec::new();
        for (path, bytes) in files {
            let mut codings = Vec::new();
            let mut add = |name, coded: Vec<u8>, dictionary| {
                codings.push(Coding {
                    name,
                    sha256: Sha256::of(&coded),
                    size: coded.len() as u64,
                    dictionary,
                });
                blobs.push(coded);
            };
            if let Some(old) = old.and_then(|old| {
                old.blobs.iter().find(|blob| {
                    old.manifest
                        .file(path)
                        .is_some_and(|file| file.sha256 == Sha256::of(blob))
                })
            }) {
                add(
                    CodingName::Dcb,
                    coding::dcb(bytes, old, 9).unwrap(),
                    Some(Sha256::of(old)),
                );
            }
            add(CodingName::Br, coding::br(bytes, 5).unwrap(), None);
            let sha256 = Sha256::of(bytes);
            listed.push(File {
                path: path.parse().unwrap(),
                sha256,
                sha384: Sha384::of(bytes),
                size: bytes.len() as u64,
                media_type: "text/javascript; charset=utf-8".into(),
                class: Class::Immutable,
                tags: vec![format!("file:{path}")],
                codings,
                integrity: Some(Fields::signed(&sha256, &[&self.release], None)),
            });
            blobs.push(bytes.clone());
        }
        listed.sort_by(|a, b| a.path.cmp(&b.path));
        self.sealed(
            Manifest {
                name: lock(),
                version: version.parse().unwrap(),
                created: 1,
                files: listed,
            },
            blobs,
        )
    }

    pub(crate) fn sealed(&self, manifest: Manifest, blobs: Vec<Vec<u8>>) -> Made {
        let bytes = seal(&manifest, &self.release).unwrap();
        Made {
            manifest,
            bytes,
            blobs,
        }
    }

    /// A channel whose aliases lead to these versions.
    pub(crate) fn channel(&self, serial: u64, aliases: &[(&str, &Made)]) -> Channel {
        let pointer = |made: &Made| Pointer {
            version: made.manifest.version.clone(),
            manifest: made.digest(),
            previous: None,
        };
        let files = aliases.iter().flat_map(|(_, made)| &made.manifest.files);
        Channel {
            name: lock(),
            serial,
            created: 1,
            expires: 4_000_000_000,
            aliases: aliases
                .iter()
                .map(|(alias, made)| (alias.parse().unwrap(), pointer(made)))
                .collect(),
            integrity: files
                .map(|file| {
                    (
                        file.sha256,
                        Fields::signed(&file.sha256, &[&self.channel], Some(4_000_000_000)),
                    )
                })
                .collect::<BTreeMap<_, _>>(),
        }
    }

    /// Puts a channel into the bucket; the node is not told.
    pub(crate) async fn flip(&self, bucket: &TestBucket, channel: &Channel) {
        let bytes = seal(channel, &self.channel).unwrap();
        bucket.put(&layout::channel(&channel.name), bytes, "").await;
    }
}

pub(crate) fn lock() -> Name {
    "lock".parse().unwrap()
}

/// Nothing is asked for by itself: tests say when.
pub(crate) const RELEASES: &str = "[releases]\nstate = \"state\"\npoll = \"1h\"";

/// A node in front of `bucket`, and of `others` behind it, that has asked for the channel.
pub(crate) async fn start(signer: &Signer, bucket: &TestBucket, others: &[&TestBucket]) -> TestEdge {
    start_with(signer, bucket, others, |_| {}).await
}

pub(crate) async fn start_with(
    signer: &Signer,
    bucket: &TestBucket,
    others: &[&TestBucket],
    change: impl FnOnce(&mut Config),
) -> TestEdge {
    let edge = TestEdge::start_with(bucket, &signer.site(), RELEASES, |config| {
        config.admin.listen = Some(AdminListen::Tcp("127.0.0.1:0".parse().unwrap()));
        config.admin.tokens = vec![Token {
            name: "test".into(),
            sha256: *Sha256::of(TOKEN.as_bytes()).as_bytes(),
            scopes: vec![Scope::Admin],
        }];
        let OriginKind::S3(s3) = &mut config.origins[0].kind else {
            unreachable!()
        };
        for (number, other) in others.iter().enumerate() {
            let mut second = s3.buckets[0].clone();
            second.endpoint = Some(format!("http://{}", other.address()));
            second.region = format!("us-west-{number}");
            s3.buckets.push(second);
        }
        change(config);
    })
    .await;
    refresh(&edge).await;
    edge
}

/// Has the bucket asked for the channel, and says what is in force then.
pub(crate) async fn refresh(edge: &TestEdge) -> ReleaseState {
    edge.exchange().releases(Some(&lock())).await.releases.remove(0)
}

/// The requests that came for manifests and blobs. For the channel the node asks on its own.
pub(crate) fn asked_by_clients(bucket: &TestBucket) -> usize {
    let log = bucket.log();
    log.iter()
        .filter(|seen| !seen.key.starts_with("channels/"))
        .count()
}

/// Asks the admin listener.
pub(crate) async fn operator(edge: &TestEdge, head: &str, body: &str) -> Answer {
    let url = edge.node.admin_url().unwrap();
    let address = url.trim_start_matches("http://").parse().unwrap();
    let mut client = TestClient::plain(address).await;
    let length = body.len();
    client
        .send(format!(
            "{head} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {TOKEN}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
        .await;
    client.answer().await
}

/// The file behind an answer, decoded; the dictionary is for deltas.
pub(crate) fn decoded(answer: &Answer, dictionary: Option<&[u8]>) -> Vec<u8> {
    let name = match answer.field("content-encoding") {
        None => return answer.body.clone(),
        Some("br") => CodingName::Br,
        Some("gzip") => CodingName::Gzip,
        Some("dcb") => CodingName::Dcb,
        Some(other) => panic!("{other}"),
    };
    let dictionary = dictionary.filter(|_| name == CodingName::Dcb);
    coding::decode(name, &answer.body, dictionary, 1 << 24).unwrap()
}

/// What a client says that holds these bytes.
pub(crate) fn holding(bytes: &[u8]) -> String {
    format!(":{}:", Sha256::of(bytes).base64())
}
