//! Releases, seen from outside: the binary as a pipeline runs it, against a bucket that is served here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod edge;
mod promoting;
mod pushing;
mod races;
mod tools;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use origin_sync::bucket::{Meta, Options, Query, Server};
use origin_sync::release::{Channel, Manifest, Opened, Sha256, Trust, layout};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::process::Command;

/// The bucket that every scenario has.
pub const BUCKET: &str = "widgets";
/// What stands before every key.
pub const PREFIX: &str = "cdn/";

/// A served bucket, a pair of keys, and folders to push.
pub struct World {
    /// The bucket.
    pub server: Server,
    dir: tempfile::TempDir,
}

/// What a run of the binary said.
#[derive(Debug)]
pub struct Ran {
    /// The exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl World {
    /// A bucket with nothing in it, and new keys.
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new(dir.path().join("bucket"));
        options.buckets = vec![BUCKET.to_owned()];
        options.durable = false;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::start(options, listener).await.unwrap();
        let world = Self { server, dir };
        world.good("keygen --out keys").await;
        world
    }

    /// The folder in which the binary runs.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a folder with these files.
    pub fn folder(&self, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let folder = self.dir().join(name);
        for (path, bytes) in files {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        folder
    }

    /// The binary with these words, in an environment of its own.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_origin-sync"));
        command
            .args(line.split_whitespace())
            .current_dir(self.dir())
            .env_clear()
            .env("HOME", self.dir())
            .env("AWS_ACCESS_KEY_ID", Options::ACCESS_KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", Options::SECRET_ACCESS_KEY)
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.server.address()))
            .env("ORIGIN_SYNC_BUCKET", format!("s3://{BUCKET}/{PREFIX}"))
            .env("ORIGIN_SYNC_RELEASE_KEY_FILE", "keys/release.key")
            .env("ORIGIN_SYNC_CHANNEL_KEY_FILE", "keys/channel.key")
            .env("ORIGIN_SYNC_TRUST", "keys/release.pub,keys/channel.pub")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs it.
    pub async fn run(&self, line: &str) -> Ran {
        let output = tokio::time::timeout(Duration::from_secs(120), self.command(line).output());
        let output = output.await.expect("it did not end in time").unwrap();
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs it, and expects that it does all that it was asked.
    pub async fn good(&self, line: &str) -> String {
        let ran = self.run(line).await;
        assert_eq!(ran.code, Some(0), "{line}: {ran:?}");
        ran.stdout
    }

    /// Runs it, expects that it does all that it was asked, and reads its JSON.
    pub async fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.good(&format!("{line} --json")).await).unwrap()
    }

    /// Runs it, and expects this exit code and these words on standard error.
    pub async fn bad(&self, line: &str, code: i32, words: &[&str]) -> Ran {
        let ran = self.run(line).await;
        assert_eq!(ran.code, Some(code), "{line}: {ran:?}");
        for word in words {
            assert!(ran.stderr.contains(word), "{line}: {word:?} is not in {ran:?}");
        }
        ran
    }

    /// The keys of the bucket that begin so, below the prefix.
    pub fn keys(&self, beginning: &str) -> Vec<String> {
        let query = Query {
            prefix: format!("{PREFIX}{beginning}"),
            delimiter: String::new(),
            after: None,
            limit: usize::MAX,
        };
        let page = self.server.store().list(BUCKET, &query).unwrap();
        let keys = page
            .entries
            .iter()
            .map(|record| record.key.strip_prefix(PREFIX).unwrap().to_owned());
        keys.collect()
    }

    /// The bytes of an object.
    pub async fn object(&self, key: &str) -> bytes::Bytes {
        let (_, bytes) = self
            .server
            .store()
            .read(BUCKET, &format!("{PREFIX}{key}"))
            .await
            .unwrap();
        bytes
    }

    /// Replaces an object, as somebody can who holds the bucket.
    pub async fn replace(&self, key: &str, bytes: impl Into<bytes::Bytes>) {
        let key = format!("{PREFIX}{key}");
        self.server
            .store()
            .put(BUCKET, &key, bytes, Meta::default())
            .await
            .unwrap();
    }

    /// The manifest of a version, as a reader believes it.
    pub async fn manifest(&self, name: &str, version: &str) -> Opened<Manifest> {
        let (name, version) = (name.parse().unwrap(), version.parse().unwrap());
        let bytes = self.object(&layout::manifest(&name, &version)).await;
        Manifest::open(&bytes, &self.trust(), &name, &version).unwrap()
    }

    /// The channel of a name, as a reader believes it.
    pub async fn channel(&self, name: &str) -> Channel {
        let name = name.parse().unwrap();
        let bytes = self.object(&layout::channel(&name)).await;
        Channel::open(&bytes, &self.trust(), &name).unwrap().document
    }

    /// Every blob that a version names is there, with its own bytes.
    pub async fn whole(&self, name: &str, version: &str) {
        for (digest, size) in self.manifest(name, version).await.document.blobs() {
            let bytes = self.object(&layout::blob(&digest)).await;
            assert_eq!((Sha256::of(&bytes), bytes.len() as u64), (digest, size));
        }
    }

    /// Whose word counts.
    pub fn trust(&self) -> Trust {
        let read = |role: &str| std::fs::read_to_string(self.dir().join(format!("keys/{role}.pub"))).unwrap();
        Trust::parse([read("release"), read("channel")]).unwrap()
    }
}

/// Text that resembles a script; each `salt` another one, alike but for a line.
pub fn script(lines: usize, salt: &str) -> Vec<u8> {
    let mut text = String::new();
    for line in 0..lines {
        let shade = (line * 7919) % 1013;
        text.push_str(&format!(
            "function f{shade}(a, b) {{ return this.g{line}(a + {shade}, b); }}\n"
        ));
        if line == lines / 2 {
            text.push_str(&format!("var version = \"{salt}\";\n"));
        }
    }
    text.into_bytes()
}
