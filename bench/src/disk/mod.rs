//! The disk tier by itself: how fast it is filled, how soon it can be used after a crash, and how long a read takes.
//!
//! For each number of responses a child process fills a folder and dies without a word, as by SIGKILL; then the folder is
//! opened here. Responses are stored under keys of their own with bodies of random length around the asked one.

mod beside;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edge::cache::epoch::Position;
use edge::cache::key::Key;
use edge::cache::policy::freshness::{Lifetime, Source};
use edge::cache::store::disk::{Disk, Options};
use edge::cache::store::{Budget, Content, Dressed, Form, Head, Memory, StoredResponse};
use edge::clock::Clock;
use edge::representation::coding::Coding;
use edge::telemetry::metrics::Registry;
use http::{HeaderMap, HeaderValue, StatusCode};

/// Reads that are timed.
const READS: usize = 2_000;

/// The folders' size: more than anything here takes.
const SIZE_BYTES: u64 = 64 << 30;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A folder for the files, on the disk in question; each figure gets one below it, which is removed
    #[arg(long, value_name = "PATH")]
    folder: PathBuf,
    /// How many responses; several times for several figures
    #[arg(long = "entries", value_name = "COUNT", default_values_t = [10_000, 100_000, 1_000_000])]
    entries: Vec<usize>,
    /// Bytes of a body
    #[arg(long, value_name = "COUNT", default_value_t = 1024)]
    body: usize,
    /// Instead: hits out of files by the whole node, beside nginx's proxy_cache
    #[arg(long)]
    beside: bool,
    /// The edge's program, for `--beside`
    #[arg(long, value_name = "PATH")]
    edge: Option<PathBuf>,
    /// Fill the folder itself and die
    #[arg(long, hide = true)]
    fill: bool,
}

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The folder.
    #[error(transparent)]
    Open(#[from] edge::cache::store::disk::OpenError),
    /// Files, threads, the child.
    #[error("the measurement failed")]
    Io(#[from] io::Error),
    /// The servers that were to be compared.
    #[error(transparent)]
    Beside(#[from] crate::error::Error),
    /// What was stored is not there.
    #[error("{0} of {1} responses that were asked for are not there")]
    Lost(usize, usize),
}

/// Measures, and prints a row for each number of responses.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if arguments.beside {
        return Ok(beside::run(arguments.edge.as_deref(), &arguments.folder)?);
    }
    if arguments.fill {
        let count = arguments.entries.first().copied().unwrap_or(0);
        return runtime.block_on(fill(&arguments.folder, count, arguments.body));
    }
    let mut out = io::stdout();
    writeln!(
        out,
        "| responses | filled, per second | MB/s | open after a crash | read p50 | p99 |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    for count in &arguments.entries {
        let folder = arguments.folder.join(format!("figure-{count}"));
        let filled = Command::new(std::env::current_exe()?)
            .arg("disk")
            .arg("--fill")
            .arg("--folder")
            .arg(&folder)
            .args([
                "--entries",
                &count.to_string(),
                "--body",
                &arguments.body.to_string(),
            ])
            .output()?;
        let rate = String::from_utf8_lossy(&filled.stdout).trim().to_owned();
        let row = runtime.block_on(read(&folder, *count))?;
        writeln!(out, "| {count} | {rate} | {row} |")?;
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

fn open(folder: &Path) -> Result<(Disk, Clock), Error> {
    let (clock, registry) = (Clock::real(), Registry::default());
    let options = Options {
        path: folder,
        size: SIZE_BYTES,
        promoted_max: 8 << 20,
        patience: Duration::from_secs(60),
    };
    let memory = Memory::new(Budget::with_patience(64 << 20, options.patience), &registry);
    let disk = Disk::open(&options, &memory, clock.clone(), &registry, Arc::default())?;
    Ok((disk, clock))
}

/// Fills the folder, prints how fast that went, and dies.
async fn fill(folder: &Path, count: usize, body: usize) -> Result<(), Error> {
    let (disk, clock) = open(folder)?;
    let head = Arc::new(head());
    let began = clock.now();
    for n in 0..count {
        let stored = response(&head, n, body);
        disk.offer(&key(n), &stored);
        while !stored.is_offered() {
            // The queue is full, which a node does not wait for, and a measurement does.
            std::thread::sleep(Duration::from_micros(200));
            disk.offer(&key(n), &stored);
        }
    }
    // The last ones may still wait: what is measured is how fast they are taken when that goes on.
    while disk.totals().entries < count as u64 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let seconds = clock.now().since(began).as_secs_f64();
    let mut out = io::stdout();
    let bytes = (count * body) as f64;
    writeln!(
        out,
        "{:.0} | {:.0}",
        count as f64 / seconds,
        bytes / seconds / 1e6
    )?;
    out.flush()?;
    std::process::abort()
}

async fn read(folder: &Path, count: usize) -> Result<String, Error> {
    let began = Clock::real();
    let start = began.now();
    let (disk, clock) = open(folder)?;
    let opened = began.now().since(start);
    let mut times = Vec::with_capacity(READS);
    let mut lost = 0;
    for n in 0..READS {
        let began = clock.now();
        if disk
            .load(&key(n.wrapping_mul(7_919) % count.max(1)))
            .await
            .is_empty()
        {
            lost += 1;
        }
        times.push(clock.now().since(began));
    }
    disk.close(Duration::from_secs(5)).await;
    if lost > 0 {
        return Err(Error::Lost(lost, READS));
    }
    times.sort_unstable();
    let at = |share: usize| times.get(READS * share / 100).copied().unwrap_or_default();
    Ok(format!(
        "{:.3} s | {} µs | {} µs",
        opened.as_secs_f64(),
        at(50).as_micros(),
        at(99).as_micros()
    ))
}

fn key(n: usize) -> Key {
    Key::new(
        "assets",
        "cdn.example",
        &format!("/tenants/{n}/config.json"),
        None,
    )
}

fn response(head: &Arc<Head>, n: usize, body: usize) -> Arc<StoredResponse> {
    let own = Form {
        coding: Coding::Identity,
        suffix: "",
        body: Content::Memory(Bytes::from(vec![n as u8; body])),
        etag: None,
        dressed: Dressed::default(),
        improvable: false,
    };
    Arc::new(StoredResponse::new(Arc::clone(head), own))
}

/// A head like that of a small file of a bucket.
fn head() -> Head {
    let mut fields = HeaderMap::new();
    for (name, value) in [
        ("content-type", "application/json"),
        ("cache-control", "public, max-age=60, stale-while-revalidate=600"),
        ("etag", "\"0123456789abcdef0123456789abcdef\""),
        ("last-modified", "Sat, 21 Nov 2026 10:00:00 GMT"),
        ("date", "Sat, 21 Nov 2026 12:00:00 GMT"),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    Head {
        id: 0,
        status: StatusCode::OK,
        origin_fields: fields.clone(),
        fields,
        source: "assets/eu-west-1".into(),
        vary: None,
        lifetime: Lifetime {
            fresh: Duration::from_secs(60),
            stale_while_revalidate: Duration::from_secs(600),
            stale_if_error: Duration::from_hours(24),
            must_revalidate: false,
            no_cache: false,
            source: Source::MaxAge,
        },
        response_time: Clock::real().now(),
        initial_age: Duration::ZERO,
        position: Position::default(),
        tags: Box::default(),
        coding: Coding::Identity,
        etag: Some(HeaderValue::from_static("\"0123456789abcdef0123456789abcdef\"")),
        last_modified: None,
        codable: true,
        part: None,
        withheld: HeaderMap::new(),
    }
}
