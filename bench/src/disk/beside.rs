//! Hits that come out of files: the edge's disk tier beside nginx's proxy_cache, over TLS and HTTP/1.1, with every byte of every
//! answer compared. First the files are written, by asking for each object until the origin is not asked any more; then hits
//! are asked for at random while the page cache holds the files; then each once after the page cache has let go of them.
//!
//! The edge has so little memory here that hardly anything is answered from it. Reading ahead is the kernel's affair: where
//! several objects lie in one file, the first of them may bring its neighbours along.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::content::{Content, Object};
use crate::error::{Error, Result};
use crate::load::{Ask, Closed, Done, Groups, Judge, Mix, Protocol};
use crate::origin::Origin;
use crate::peer::{Certificate, EDGE_DISK, Ground, Peer, Programs, Server, find_edge};
use crate::process::pin_self;
use crate::scenario::block_on;

/// Lengths of objects, and how many of each: nginx holds a file open for each, and may have few.
const CASES: [(usize, u64); 2] = [(10 * 1024, 10_000), (1024 * 1024, 500)];

/// Requests at once.
const AT_ONCE: usize = 16;

/// How often the page cache's hits are asked for, each server in turn, and for how long.
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(4);

/// No part of this takes longer.
const PART_MAX: Duration = Duration::from_secs(600);

/// Measures, and prints a row for each server and length.
pub(super) fn run(edge: Option<&Path>, folder: &Path) -> Result<()> {
    let programs = Programs {
        venv: PathBuf::from("target/bench-venv"),
    };
    let mut peers = Peer::choose(find_edge(edge)?, &["nginx-cache".to_owned()], &programs)?;
    if let Some(own) = peers.first_mut() {
        own.kind = &EDGE_DISK;
    }
    let cores = (std::thread::available_parallelism().map_or(1, usize::from) > 1).then_some((0, 1));
    if let Some((_, load)) = cores {
        pin_self(load)?;
    }
    fs::create_dir_all(folder).map_err(|error| Error::file("create", folder, error))?;
    let folder = folder
        .canonicalize()
        .map_err(|error| Error::file("find", folder, error))?;
    let content = Arc::new(Content::lay(folder.join("content"))?);
    let origin = Origin::start(
        &content.folder,
        folder.join("origin.log"),
        cores.map(|(_, load)| load),
    )?;
    let ground = Ground {
        certificate: Certificate::make(&folder)?,
        origin: origin.address,
        core: cores.map(|(servers, _)| servers),
        // Octets have none.
        better_forms: false,
        folder,
        content,
    };
    let mut out = std::io::stdout();
    let mut print = |line: &str| writeln!(out, "{line}").map_err(|error| Error::io("print", error));
    print(
        "| server | object | written, per second | MB/s | passes | hits from the page cache, per second | CPU µs each | p50 ms | p99 ms | hits from the device, per second | p50 ms | p99 ms |",
    )?;
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")?;
    for (bytes, count) in CASES {
        for row in compare(&ground, &origin, &peers, bytes, count)? {
            print(&row)?;
        }
    }
    Ok(())
}

/// A server with its files.
struct Filled {
    server: Server,
    /// Where its cache's files are.
    files: PathBuf,
    /// Objects in each second, until it held them all.
    written: f64,
    /// How often all were asked for until then.
    passes: usize,
    warm: Option<(Done, u64)>,
}

fn compare(
    ground: &Ground,
    origin: &Origin,
    peers: &[Peer],
    bytes: usize,
    count: u64,
) -> Result<Vec<String>> {
    let load = |server: &Server, requests, duration| -> Result<Closed> {
        Ok(Closed {
            door: server.door(ground, Protocol::H1, Groups::Classic, false)?,
            judge: Arc::new(Judge::new(Arc::clone(&ground.content))),
            connections: AT_ONCE,
            streams: 1,
            duration,
            requests,
        })
    };
    let run = |server: &Server, closed: Closed, mix: Objects| -> Result<Done> {
        block_on(closed.run(mix))?.map_err(|why| server.load(why))
    };
    let objects = |order| Objects {
        bytes,
        count,
        order,
        next: 0,
    };
    let mut filled = Vec::new();
    for peer in peers {
        let (server, files) = start(ground, peer)?;
        let mut passes = 0;
        let mut spent = Duration::ZERO;
        // A cache may skip what its disk does not take as fast as it comes: only what it holds at last is written.
        loop {
            let asked = origin.asked()?;
            let began = crate::clock::now();
            run(&server, load(&server, count, PART_MAX)?, objects(Order::Each))?;
            if origin.asked()? == asked {
                break;
            }
            spent += began.elapsed();
            passes += 1;
            if spent > PART_MAX {
                return Err(server.load(format!("it does not hold {count} objects after {passes} passes")));
            }
        }
        filled.push(Filled {
            server,
            files: files.join("cache"),
            written: count as f64 / spent.as_secs_f64(),
            passes,
            warm: None,
        });
    }
    for _ in 0..ROUNDS {
        for Filled { server, warm, .. } in &mut filled {
            let (asked, spent) = (origin.asked()?, server.spent());
            let done = run(server, load(server, u64::MAX, ROUND)?, objects(Order::Random))?;
            let nanos = server.spent().since(&spent);
            let misses = origin.asked()? - asked;
            if misses * 100 > done.answered {
                return Err(server.load(format!("{misses} of {} were no hits", done.answered)));
            }
            // The best of the rounds: what disturbs it only makes it slower.
            if warm
                .as_ref()
                .is_none_or(|(best, _)| best.per_second() < done.per_second())
            {
                *warm = Some((done, nanos));
            }
        }
    }
    let mut rows = Vec::new();
    for each in &filled {
        forget(&each.files)?;
        let cold = load(&each.server, count, PART_MAX)?;
        let cold = run(&each.server, cold, objects(Order::Shuffled))?;
        rows.push(row(each, bytes, &cold)?);
    }
    Ok(rows)
}

/// Starts a server; and the folder that it made for itself.
fn start(ground: &Ground, peer: &Peer) -> Result<(Server, PathBuf)> {
    let known = folders(ground, peer)?;
    let server = Server::start(peer, ground)?;
    let made = folders(ground, peer)?
        .into_iter()
        .find(|path| !known.contains(path));
    let made = made.ok_or_else(|| Error::Said(format!("{} has no folder", peer.name())))?;
    Ok((server, made))
}

/// A line of the table.
fn row(filled: &Filled, bytes: usize, cold: &Done) -> Result<String> {
    let (written, passes) = (filled.written, filled.passes);
    let warm = filled.warm.as_ref();
    let (warm, nanos) = warm.ok_or_else(|| Error::Said("no rounds".to_owned()))?;
    let millis = |done: &Done, share| done.millis(share).unwrap_or_default();
    Ok(format!(
        "| {} | {} KiB | {written:.0} | {:.0} | {passes} | {:.0} | {:.0} | {:.2} | {:.2} | {:.0} | {:.2} | {:.2} |",
        filled.server.kind.name,
        bytes / 1024,
        written * bytes as f64 / 1e6,
        warm.per_second(),
        *nanos as f64 / 1000.0 / warm.answered.max(1) as f64,
        millis(warm, 0.5),
        millis(warm, 0.99),
        cold.per_second(),
        millis(cold, 0.5),
        millis(cold, 0.99),
    ))
}

/// The folders of a peer's servers.
fn folders(ground: &Ground, peer: &Peer) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(&ground.folder).map_err(|error| Error::file("read", &ground.folder, error))?;
    let begins = format!("{}-", peer.name());
    let ours = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(&begins))
    };
    Ok(entries.flatten().map(|entry| entry.path()).filter(ours).collect())
}

/// Has the page cache let go of all files under `folder`, written first.
fn forget(folder: &Path) -> Result<()> {
    let failed = |error| Error::io("empty the page cache", error);
    Command::new("sync")
        .arg("-f")
        .arg(folder)
        .status()
        .map_err(failed)?;
    let find = Command::new("find")
        .arg(folder)
        .args([
            "-type",
            "f",
            "-exec",
            "dd",
            "if={}",
            "iflag=nocache",
            "count=0",
            "status=none",
            ";",
        ])
        .status()
        .map_err(failed)?;
    if find.success() {
        return Ok(());
    }
    Err(Error::Said("dd cannot empty the page cache".to_owned()))
}

/// In which order objects are asked for.
#[derive(Clone, Copy)]
enum Order {
    /// One after the other, each once.
    Each,
    /// Any, again and again.
    Random,
    /// Each once, as if shuffled.
    Shuffled,
}

/// Objects of one length.
struct Objects {
    bytes: usize,
    count: u64,
    order: Order,
    next: u64,
}

impl Mix for Objects {
    fn next(&mut self) -> Ask {
        let number = match self.order {
            Order::Each => self.next,
            Order::Random => fastrand::u64(..self.count),
            // A step that shares no divisor with the count comes by all of them.
            Order::Shuffled => self.next.wrapping_mul(7_919) % self.count,
        };
        self.next += 1;
        Ask::plain(Object::Cold {
            number: 1_000_000 + number,
            bytes: self.bytes,
        })
    }
}
