//! `edge cache stats`, `show` and `verify` against a node with a disk tier whose files are really damaged.

use std::path::{Path, PathBuf};

use edge::admin::client::{self, Exit, Node, ShowArgs, StatusArgs};
use edge::config::{self, AdminListen, Config, Scope, Token};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{HOST, TestBucket, TestEdge};

const MIB: u64 = 1024 * 1024;

/// A node with a disk tier and an operator, and what its commands need.
struct Lab {
    bucket: TestBucket,
    edge: TestEdge,
    folder: TempDir,
    token: TempDir,
}

impl Lab {
    async fn start() -> Self {
        let (bucket, folder, token) = (
            TestBucket::start().await,
            TempDir::new().unwrap(),
            TempDir::new().unwrap(),
        );
        std::fs::write(token.path().join("token"), "let me in").unwrap();
        let path = PathBuf::from(folder.path());
        let change = move |config: &mut Config| {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"let me in");
            config.admin.listen = Some(AdminListen::Tcp("127.0.0.1:0".parse().unwrap()));
            config.admin.tokens = vec![Token {
                name: "test".into(),
                sha256: digest.as_ref().try_into().unwrap(),
                scopes: vec![Scope::Purge, Scope::Read, Scope::Admin],
            }];
            config.cache.memory_bytes = 8 * MIB;
            config.cache.object_bytes_max = 256 * 1024;
            config.cache.disk = Some(config::Disk {
                path,
                size_bytes: 64 * MIB,
                patience: crate::support::PATIENT,
            });
        };
        let edge = TestEdge::start_with(&bucket, "", "", change).await;
        Self {
            bucket,
            edge,
            folder,
            token,
        }
    }

    fn node(&self) -> Node {
        Node {
            url: self.edge.node.admin_url().map(str::to_owned),
            token_file: Some(self.token.path().join("token")),
            json: true,
            ..Node::default()
        }
    }

    async fn stats(&self) -> Value {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args = StatusArgs { node: self.node() };
        let exit = client::stats(&args, &mut out, &mut err).await;
        assert_eq!(exit, Exit::Done, "{}", String::from_utf8_lossy(&err));
        serde_json::from_slice(&out).unwrap()
    }

    async fn verify(&self) -> (Exit, Value) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args = StatusArgs { node: self.node() };
        let exit = client::verify(&args, &mut out, &mut err).await;
        assert!(err.is_empty(), "{}", String::from_utf8_lossy(&err));
        (exit, serde_json::from_slice(&out).unwrap())
    }

    async fn show(&self, path: &str) -> Value {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args = ShowArgs {
            node: self.node(),
            url: format!("http://{HOST}{path}"),
        };
        let exit = client::show(&args, &mut out, &mut err).await;
        assert_eq!(exit, Exit::Done, "{}", String::from_utf8_lossy(&err));
        serde_json::from_slice(&out).unwrap()
    }

    async fn settle(&self) {
        let flights = || self.edge.exchange().cache().flights.is_empty();
        self.edge.until("the fetches", flights).await;
        self.edge.exchange().cache().disk.as_ref().unwrap().flush().await;
    }
}

fn flip(folder: &Path, ending: &str, place: impl Fn(usize) -> usize) {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let file = entries
        .filter(|path| path.to_str().unwrap().ends_with(ending))
        .max_by_key(|path| std::fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let place = place(bytes.len());
    bytes[place] ^= 4;
    std::fs::write(&file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_say_what_lies_in_which_tier_and_find_every_damaged_body() {
    let lab = Lab::start().await;
    for n in 0..4 {
        let (small, large) = (format!("{n}.bin"), format!("{n}.iso"));
        lab.bucket.put(&small, vec![n; 50_000], "max-age=600").await;
        lab.bucket.put(&large, vec![n; 2_000_000], "max-age=600").await;
        lab.edge.get(&format!("/{small}"), &[]).await;
        lab.edge.get(&format!("/{large}"), &[]).await;
    }
    lab.settle().await;
    let stats = lab.stats().await;
    assert_eq!(
        (stats["entries"].as_u64(), stats["disk"]["entries"].as_u64()),
        (Some(8), Some(8))
    );
    let site = &stats["disk"]["sites"][0];
    assert_eq!(
        (site["name"].as_str(), site["entries"].as_u64()),
        (Some(HOST), Some(8))
    );
    assert!(site["bytes"].as_u64().unwrap() >= 4 * 2_050_000, "{site}");
    assert!(stats["disk"]["bytes"].as_u64().unwrap() <= stats["disk"]["bytes_max"].as_u64().unwrap());
    let shown = lab.show("/0.bin").await;
    let tiers: Vec<_> = shown["stored"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|stored| &stored["tier"])
        .collect();
    assert_eq!(tiers, ["memory", "disk"], "{shown}");

    let (exit, sound) = lab.verify().await;
    assert_eq!(
        (exit, sound["entries"].as_u64(), sound["damaged"].as_u64()),
        (Exit::Done, Some(8), Some(0))
    );
    // One bit in the midst of a large body, and one in the midst of the log with the small ones.
    flip(lab.folder.path(), ".body", |length| length / 2);
    flip(lab.folder.path(), ".log", |length| length / 2);
    let (exit, found) = lab.verify().await;
    assert_eq!(
        (exit, found["entries"].as_u64(), found["damaged"].as_u64()),
        (Exit::Partly, Some(6), Some(2))
    );
    assert_eq!(
        lab.stats().await["disk"]["entries"].as_u64(),
        Some(6),
        "they are out of the store"
    );
    let (exit, again) = lab.verify().await;
    assert_eq!((exit, again["damaged"].as_u64()), (Exit::Done, Some(0)));
    for n in 0..4_u8 {
        assert!(lab.edge.get(&format!("/{n}.bin"), &[]).await.body == vec![n; 50_000]);
        assert!(lab.edge.get(&format!("/{n}.iso"), &[]).await.body == vec![n; 2_000_000]);
    }
    lab.edge.stop().await;
}
