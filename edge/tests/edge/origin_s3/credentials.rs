//! Credentials of the environment. As a process has but one environment, each scenario runs in a process of its own.

use std::path::Path;
use std::process::Command;

use edge::config;
use edge::origin::Kind;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use origin_sync::bucket::Options;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::lab::{Edge, Embedded, once};

/// Patient enough for a chain of sources.
fn timeouts() -> config::OriginTimeouts {
    config::OriginTimeouts {
        attempt: std::time::Duration::from_secs(20),
        ..once()
    }
}

/// Runs the test called `name` in a process with nothing of AWS in its environment but `variables`.
async fn run_apart(name: &str, variables: Vec<(&'static str, String)>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--ignored",
        "--exact",
        &format!("origin_s3::credentials::apart::{name}"),
    ]);
    for (variable, _) in std::env::vars().filter(|(variable, _)| variable.starts_with("AWS_")) {
        command.env_remove(variable);
    }
    command.env("HOME", "/nonexistent").envs(variables);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn write_profile(path: &Path, secret: &str) {
    let id = Options::ACCESS_KEY_ID;
    let text = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
    std::fs::write(path, text).unwrap();
}

#[tokio::test]
async fn variables_are_used() {
    let variables = vec![
        ("AWS_ACCESS_KEY_ID", Options::ACCESS_KEY_ID.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", Options::SECRET_ACCESS_KEY.to_owned()),
    ];
    run_apart("an_object_can_be_read", variables).await;
}

#[tokio::test]
async fn a_profile_that_is_rotated_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("credentials");
    write_profile(&path, "expired");
    let variables = vec![
        ("AWS_SHARED_CREDENTIALS_FILE", path.to_str().unwrap().to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ];
    run_apart("the_profile_is_rotated", variables).await;
}

#[tokio::test]
async fn the_role_of_a_container_is_used() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = format!(
        "{{\"AccessKeyId\":\"{}\",\"SecretAccessKey\":\"{}\",\"Token\":\"\",\"Expiration\":\"2100-01-01T00:00:00Z\"}}",
        Options::ACCESS_KEY_ID,
        Options::SECRET_ACCESS_KEY
    );
    let serve = async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |_: http::Request<Incoming>| {
                let answer = Full::new(Bytes::from(answer.clone()));
                async move { Ok::<_, std::convert::Infallible>(http::Response::new(answer)) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    };
    edge::drain::Drain::default().spawn("container agent", serve);
    let variables = vec![
        (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            format!("http://{address}/role"),
        ),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ];
    run_apart("an_object_can_be_read", variables).await;
}

#[tokio::test]
async fn without_any_the_start_is_quick_and_a_request_says_so() {
    run_apart(
        "there_are_none",
        vec![("AWS_EC2_METADATA_DISABLED", "true".to_owned())],
    )
    .await;
    // A metadata service that never answers holds nothing up but the request that needs it.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    run_apart(
        "there_are_none",
        vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint)],
    )
    .await;
}

/// Run by the scenarios above only.
mod apart {
    use super::*;

    async fn edge() -> (Embedded, Edge) {
        let embedded = Embedded::start().await;
        embedded.server.store();
        embedded.place.put("w.js", "1").await;
        let began = Instant::now();
        let edge = Edge::with(
            vec![embedded.place.config()],
            config::Credentials::Environment,
            timeouts(),
        );
        assert!(
            began.elapsed() < std::time::Duration::from_secs(30),
            "the start took {:?}",
            began.elapsed()
        );
        (embedded, edge)
    }

    #[tokio::test]
    #[ignore = "needs an environment of its own"]
    async fn an_object_can_be_read() {
        let (_embedded, edge) = edge().await;
        assert_eq!(edge.body("/w.js").await.unwrap(), b"1");
    }

    #[tokio::test]
    #[ignore = "needs an environment of its own"]
    async fn the_profile_is_rotated() {
        let (_embedded, edge) = edge().await;
        assert_eq!(
            edge.get("/w.js").await.unwrap_err().kind,
            Kind::CredentialsRefused
        );
        let path = std::env::var("AWS_SHARED_CREDENTIALS_FILE").unwrap();
        write_profile(Path::new(&path), Options::SECRET_ACCESS_KEY);
        assert_eq!(edge.body("/w.js").await.unwrap(), b"1");
    }

    #[tokio::test]
    #[ignore = "needs an environment of its own"]
    async fn there_are_none() {
        let (_embedded, edge) = edge().await;
        let began = Instant::now();
        let error = edge.get("/w.js").await.unwrap_err();
        assert_eq!(error.kind, Kind::CredentialsRefused, "{error}");
        assert!(
            began.elapsed() < std::time::Duration::from_secs(30),
            "{:?}",
            began.elapsed()
        );
    }
}
