//! `origin-sync bucket`: serves a folder as a small S3 until it is told to end.

use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::bucket::{Options, Server};

/// How to serve it.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folder that holds the buckets; made if it is missing.
    #[arg(long)]
    dir: PathBuf,
    /// Where to listen, e.g. 127.0.0.1:9000; port 0 takes a free one.
    #[arg(long)]
    listen: SocketAddr,
    /// A bucket to make if it is missing; may be given more than once.
    #[arg(long = "bucket", value_name = "NAME")]
    buckets: Vec<String>,
    /// The key id that requests are signed with.
    #[arg(long, env = "AWS_ACCESS_KEY_ID", default_value = Options::ACCESS_KEY_ID)]
    access_key_id: String,
    /// The secret that requests are signed with.
    #[arg(
        long,
        env = "AWS_SECRET_ACCESS_KEY",
        default_value = Options::SECRET_ACCESS_KEY,
        hide_env_values = true
    )]
    secret_access_key: String,
    /// Let everyone read objects.
    #[arg(long)]
    anonymous_read: bool,
    /// Let nobody list keys; a missing key is then 403 instead of 404.
    #[arg(long)]
    no_list: bool,
    /// Serve /__faults and /__log, without a signature.
    #[arg(long)]
    faults: bool,
    /// Do not wait for the disk at each write.
    #[arg(long)]
    no_sync: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(arguments.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", arguments.listen))?;
    let server = Server::start(
        Options {
            dir: arguments.dir,
            access_key_id: arguments.access_key_id,
            secret_access_key: arguments.secret_access_key,
            anonymous_read: arguments.anonymous_read,
            list_allowed: !arguments.no_list,
            buckets: arguments.buckets,
            durable: !arguments.no_sync,
            control: arguments.faults,
        },
        listener,
    )
    .await?;
    // The one line on standard output: what a script needs to go on.
    writeln!(std::io::stdout(), "http://{}", server.address())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    server.stop().await;
    Ok(())
}
