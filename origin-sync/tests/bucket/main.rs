//! The bucket, seen from outside: through the client of AWS, and through bare sockets where HTTP is broken on
//! purpose.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod access;
mod faults;
mod objects;
mod uploads;

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::primitives::ByteStream;
use origin_sync::bucket::{Options, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The bucket that every scenario has.
pub const BUCKET: &str = "assets";

/// A served bucket, and a client that signs for it.
pub struct TestBucket {
    /// The server.
    pub server: Server,
    /// Its owner.
    pub client: Client,
    dir: tempfile::TempDir,
}

impl TestBucket {
    /// Served as tests mostly want it.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Served with other options.
    pub async fn with(change: impl FnOnce(&mut Options)) -> Self {
        Self::on(tempfile::tempdir().unwrap(), change).await
    }

    /// Stopped, and served again from the same folder.
    pub async fn restart(self) -> Self {
        self.server.stop().await;
        Self::on(self.dir, |_| {}).await
    }

    async fn on(dir: tempfile::TempDir, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::new(dir.path());
        options.buckets = vec![BUCKET.to_owned()];
        options.durable = false;
        change(&mut options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::start(options, listener).await.unwrap();
        let client = client(&server, Options::SECRET_ACCESS_KEY);
        Self { server, client, dir }
    }

    /// Puts an object; returns its entity tag.
    pub async fn put(&self, key: &str, body: impl Into<Vec<u8>>) -> String {
        let body = ByteStream::from(body.into());
        let put = self
            .client
            .put_object()
            .bucket(BUCKET)
            .key(key)
            .body(body)
            .send()
            .await
            .unwrap();
        put.e_tag.unwrap()
    }

    /// Gets the bytes of an object.
    pub async fn get(&self, key: &str) -> Vec<u8> {
        let got = self
            .client
            .get_object()
            .bucket(BUCKET)
            .key(key)
            .send()
            .await
            .unwrap();
        got.body.collect().await.unwrap().to_vec()
    }

    /// Asks for an object over a connection of its own, without a signature.
    pub async fn ask(&self, key: &str) -> TcpStream {
        let mut socket = TcpStream::connect(self.server.address()).await.unwrap();
        let request = format!("GET /{BUCKET}/{key} HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        socket
    }

    /// Asks for an object as [`TestBucket::ask`] does, and reads until the connection ends.
    pub async fn exchange(&self, key: &str) -> Raw {
        read(self.ask(key).await).await
    }
}

/// A client that signs with this secret, and does not retry.
pub fn client(server: &Server, secret: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(
            Options::ACCESS_KEY_ID,
            secret,
            None,
            None,
            "test",
        ))
        .endpoint_url(format!("http://{}", server.address()))
        .force_path_style(true)
        .retry_config(RetryConfig::disabled())
        .build();
    Client::from_conf(config)
}

/// The status of an answer that was not a success.
pub fn status<T, E>(result: Result<T, SdkError<E>>) -> u16 {
    match result {
        Ok(_) => 200,
        Err(SdkError::ServiceError(error)) => error.raw().status().as_u16(),
        Err(SdkError::ResponseError(error)) => error.raw().status().as_u16(),
        Err(_) => panic!("there was no answer"),
    }
}

/// What came over a socket until it ended.
#[derive(Debug)]
pub struct Raw {
    /// The head, with its empty line.
    pub head: String,
    /// What came behind it.
    pub body: Vec<u8>,
    /// How the connection ended: in order, or with an error.
    pub end: Result<(), std::io::ErrorKind>,
}

impl Raw {
    /// The value of a field of the head.
    pub fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields
            .into_iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or_default()
    }
}

/// Reads until the other side ends the connection.
pub async fn read(mut socket: TcpStream) -> Raw {
    let mut all = Vec::new();
    let end = bounded(async {
        let mut piece = vec![0; 65536];
        loop {
            match socket.read(&mut piece).await {
                Ok(0) => break Ok(()),
                Ok(count) => all.extend_from_slice(&piece[..count]),
                Err(error) => break Err(error.kind()),
            }
        }
    })
    .await;
    let (head, body) = split(&all);
    Raw { head, body, end }
}

/// Waits for something that must come soon.
pub async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .expect("it did not come in time")
}

fn split(all: &[u8]) -> (String, Vec<u8>) {
    let place = all
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .map_or(all.len(), |place| place + 4);
    (
        String::from_utf8_lossy(&all[..place]).into_owned(),
        all[place..].to_vec(),
    )
}
