//! A run: what is here is found, the scenarios are run on it, and what came of them is shown.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::arguments::{Here, Run};
use crate::clock;
use crate::error::{Error, Result};
use crate::peer::{KINDS, Peer, Programs, find_edge, on_path};
use crate::process::{allowed_cores, pin_self};
use crate::report::{About, Piece, Report};
use crate::scenario::{Lab, Plan, Scale, Scenario};

/// Descriptors for ten thousand connections, and twice as many for a proxy's.
const DESCRIPTORS: u64 = 65_536;

/// Shows which peers are here.
pub(crate) fn peers(here: &Here) -> Result<ExitCode> {
    let programs = Programs {
        venv: here.venv.clone(),
    };
    let mut text = String::new();
    for kind in &KINDS {
        let line = match programs.of(kind) {
            Ok(peer) => peer.version,
            Err(_) => format!("missing: {}", programs.install(kind)),
        };
        text.push_str(&format!("{:20} {line}\n", kind.name));
    }
    for (name, package) in TOOLS {
        let line = match on_path(name) {
            Some(path) => path.display().to_string(),
            None => format!("missing: apt-get install {package}"),
        };
        text.push_str(&format!("{name:20} {line}\n"));
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// What measures, beside this program.
const TOOLS: [(&str, &str); 6] = [
    ("h2load", "nghttp2-client"),
    ("wrk", "wrk"),
    ("npm", "npm"),
    ("setpriv", "util-linux"),
    ("taskset", "util-linux"),
    ("valgrind", "valgrind"),
];

/// Runs scenarios; those whose pieces are kept from an earlier run are not run again.
pub(crate) fn run(scenarios: &[Scenario], run: Run) -> Result<ExitCode> {
    let mut left = Vec::new();
    for scenario in scenarios {
        match kept(&run, *scenario)? {
            Some(_) => say(&format!("{}: kept from an earlier run", scenario.token())),
            None => left.push(*scenario),
        }
    }
    let made = if left.is_empty() {
        Vec::new()
    } else {
        measure(&left, &run)?
    };
    // With a folder for pieces, all that are in it make one report.
    let mut pieces = Vec::new();
    for scenario in Scenario::ALL {
        pieces.extend(kept(&run, scenario)?);
    }
    let report = Report::new(if run.pieces.is_some() { pieces } else { made });
    print(&if run.json { report.json()? } else { report.text() })?;
    if let Some(file) = &run.plot {
        report.plot(file)?;
    }
    if let Some(file) = &run.markdown {
        fs::write(file, report.markdown()).map_err(|error| Error::file("write", file, error))?;
    }
    Ok(if report.has_faults() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn kept(run: &Run, scenario: Scenario) -> Result<Option<Piece>> {
    match &run.pieces {
        Some(folder) => Piece::read(folder, scenario),
        None => Ok(None),
    }
}

fn measure(scenarios: &[Scenario], run: &Run) -> Result<Vec<Piece>> {
    let programs = Programs {
        venv: run.here.venv.clone(),
    };
    let edge = find_edge(run.edge.as_deref())?;
    let mut peers = Peer::choose(edge, &named(&run.peers), &programs)?;
    if run.peers.iter().any(|name| name == "none") {
        peers.truncate(1);
    }
    if let Some(before) = &run.before {
        peers.insert(1, Peer::before(find_edge(Some(before))?));
    }
    need(scenarios)?;
    let cores = pin()?;
    descriptors(scenarios, &scale(run))?;
    let scratch = Scratch::make(run.scratch.as_deref(), run.keep)?;
    let plan = Plan {
        peers: peers.clone(),
        scale: scale(run),
        scenarios: scenarios.to_vec(),
        folder: scratch.0.clone(),
        kept: run.content.clone(),
        cores,
    };
    let mut lab = Lab::open(plan)?;
    if cores.is_none() {
        lab.figures
            .note("one core only: servers and load share it".to_owned());
    }
    play(&mut lab, scenarios, &peers, run.pieces.as_deref())
}

/// Runs one scenario after the other, and keeps what comes of each as soon as it is there.
fn play(lab: &mut Lab, scenarios: &[Scenario], peers: &[Peer], folder: Option<&Path>) -> Result<Vec<Piece>> {
    let widgets: Vec<(String, String)> = lab
        .widgets
        .iter()
        .map(|widget| (widget.name.to_owned(), widget.version.clone()))
        .collect();
    let (mut pieces, mut servers) = (Vec::new(), Vec::new());
    for scenario in scenarios {
        let began = clock::now();
        if servers.is_empty() || lab.scale.fresh {
            drop(std::mem::take(&mut servers));
            servers = lab.start_servers();
        }
        scenario.run(lab, &servers)?;
        say(&format!(
            "{}: {} servers, {} s",
            scenario.token(),
            servers.len(),
            began.elapsed().as_secs()
        ));
        let more = if scenario.needs_widgets() {
            &widgets[..]
        } else {
            &[]
        };
        let piece = Piece::new(
            *scenario,
            About::new(peers, more),
            std::mem::take(&mut lab.figures),
        );
        if let Some(folder) = folder {
            piece.write(folder)?;
        }
        pieces.push(piece);
    }
    Ok(pieces)
}

/// How it goes, beside what is printed for programs.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn named(peers: &[String]) -> Vec<String> {
    peers.iter().filter(|name| *name != "none").cloned().collect()
}

fn scale(run: &Run) -> Scale {
    let mut scale = if run.quick { Scale::quick() } else { Scale::full() };
    scale.rounds = run.rounds.map_or(scale.rounds, usize::from);
    scale.seconds = run.seconds.unwrap_or(scale.seconds);
    scale.rate = run.rate.unwrap_or(scale.rate);
    scale.tenants = run.tenants.unwrap_or(scale.tenants);
    scale.patience = run.patience.map_or(scale.patience, Duration::from_secs);
    scale
}

/// What the scenarios cannot do without.
fn need(scenarios: &[Scenario]) -> Result<()> {
    let by_h2load = [Scenario::Hit, Scenario::Large, Scenario::Coding];
    let mut wanted = vec![("setpriv", "util-linux"), ("taskset", "util-linux")];
    if scenarios.iter().any(|scenario| by_h2load.contains(scenario)) {
        wanted.push(("h2load", "nghttp2-client"));
    }
    if scenarios.contains(&Scenario::Hit) {
        wanted.push(("wrk", "wrk"));
    }
    for (name, package) in wanted {
        if on_path(name).is_none() {
            return Err(Error::Missing {
                what: name.to_owned(),
                install: format!("apt-get install {package}"),
            });
        }
    }
    Ok(())
}

/// Servers on the first core that we may use, load on the second.
fn pin() -> Result<Option<(usize, usize)>> {
    let [servers, load, ..] = allowed_cores()[..] else {
        return Ok(None);
    };
    pin_self(load)?;
    Ok(Some((servers, load)))
}

/// Raises the limit of open files: of the load and, inherited, of each server.
fn descriptors(scenarios: &[Scenario], scale: &Scale) -> Result<()> {
    let raised = rlimit::setrlimit(rlimit::Resource::NOFILE, DESCRIPTORS, DESCRIPTORS).is_ok();
    let files = if raised {
        DESCRIPTORS
    } else {
        rlimit::increase_nofile_limit(DESCRIPTORS).unwrap_or_default()
    };
    let wanted = scale.idle as u64 + 500;
    if scenarios.contains(&Scenario::Idle) && files < wanted {
        return Err(Error::Missing {
            what: format!("room for {wanted} open files, where {files} are allowed,"),
            install: format!("ulimit -n {wanted}, as root or by /etc/security/limits.conf"),
        });
    }
    Ok(())
}

/// A folder that is gone when the run is over.
struct Scratch(PathBuf, bool);

impl Scratch {
    fn make(parent: Option<&Path>, keep: bool) -> Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = parent.join(format!("portico-bench-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|error| Error::file("create", &path, error))?;
        let path = path
            .canonicalize()
            .map_err(|error| Error::file("find", &path, error))?;
        // Servers that give up their rights still have to reach what they serve.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(|error| Error::file("open to all", &path, error))?;
        Ok(Self(path, keep))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.1 {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

fn print(text: &str) -> Result<()> {
    write!(std::io::stdout(), "{text}").map_err(|error| Error::io("print", error))
}
