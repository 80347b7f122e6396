//! A process that was started here, on one core, with what it says in a file; ended when it is dropped, with its children.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::time::Duration;

use super::usage::tree;
use crate::clock;
use crate::error::{Error, Result};

/// How long a process may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to start.
#[derive(Debug)]
pub(crate) struct Spawn<'a> {
    /// For messages.
    pub(crate) name: &'a str,
    /// Program and arguments.
    pub(crate) words: &'a [String],
    /// The core; `None` for any.
    pub(crate) core: Option<usize>,
    /// Environment variables beside our own.
    pub(crate) environment: &'a [(String, String)],
    /// Where its output goes.
    pub(crate) log: PathBuf,
    /// Whether its standard output comes to us instead.
    pub(crate) piped: bool,
}

/// A running process.
#[derive(Debug)]
pub(crate) struct Child {
    inner: process::Child,
    log: PathBuf,
}

impl Spawn<'_> {
    /// Starts it. It is told to end when we end, however that comes.
    pub(crate) fn start(&self) -> Result<Child> {
        let log = File::create(&self.log).map_err(|error| Error::file("create", &self.log, error))?;
        let other = log
            .try_clone()
            .map_err(|error| Error::file("use", &self.log, error))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]);
        if let Some(core) = self.core {
            command.args(["taskset", "--cpu-list", &core.to_string()]);
        }
        command
            .args(self.words)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(if self.piped {
                Stdio::piped()
            } else {
                Stdio::from(log)
            })
            .stderr(other);
        let inner = command.spawn().map_err(|_| Error::Missing {
            what: format!("setpriv or taskset, to start {}", self.name),
            install: "apt-get install util-linux".to_owned(),
        })?;
        Ok(Child {
            inner,
            log: self.log.clone(),
        })
    }
}

impl Child {
    /// Its id.
    pub(crate) fn id(&self) -> u32 {
        self.inner.id()
    }

    /// Its standard output, if that comes to us; once.
    pub(crate) fn output(&mut self) -> Option<process::ChildStdout> {
        self.inner.stdout.take()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<process::ExitStatus> {
        self.inner.try_wait().ok().flatten()
    }

    /// The last lines of what it said.
    pub(crate) fn last_words(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let family = tree(self.id());
        // Masters of workers know best how to end them.
        signal("TERM", &[self.id()]);
        let began = clock::now();
        while self.ended().is_none() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        let (own, name) = (self.id(), |pid: &u32| {
            fs::read_link(format!("/proc/{pid}/exe")).ok()
        });
        let left: Vec<u32> = family
            .into_iter()
            .filter(|pid| *pid != own || self.ended().is_none())
            .filter(|pid| name(pid).is_some())
            .collect();
        if !left.is_empty() {
            signal("KILL", &left);
        }
        let _ = self.inner.wait();
    }
}

/// The cores on which we may run, as the kernel lists them.
pub(crate) fn allowed_cores() -> Vec<usize> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    cores_of(list.unwrap_or_default())
}

/// `0-2,7` are four cores.
fn cores_of(list: &str) -> Vec<usize> {
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}

/// Takes a core for ourselves and all that is started from here without one of its own.
pub(crate) fn pin_self(core: usize) -> Result<()> {
    let output = Command::new("taskset")
        .args(["--all-tasks", "--pid", "--cpu-list", &core.to_string()])
        .arg(process::id().to_string())
        .output()
        .map_err(|_| Error::Missing {
            what: "taskset".to_owned(),
            install: "apt-get install util-linux".to_owned(),
        })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Said(format!(
        "taskset: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}

/// Sends a signal. There is no other way without unsafe code than to ask the shell, whose `kill` is built in.
fn signal(name: &str, pids: &[u32]) {
    let ids: Vec<String> = pids.iter().map(u32::to_string).collect();
    let outcome = Command::new("sh")
        .arg("-c")
        .arg(format!("kill -{name} {} 2>/dev/null", ids.join(" ")))
        .status();
    if let Err(error) = outcome {
        let _ = writeln!(std::io::stderr(), "bench: cannot end {}: {error}", ids.join(" "));
    }
}

fn tail(path: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(15);
    lines
        .iter()
        .skip(from)
        .map(|line| format!("  | {line}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place for what a test's process says, which the test takes away again.
    fn log(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("bench-test-{name}-{}", process::id()))
    }

    #[test]
    fn lists_of_cores_are_read() {
        let check = |list: &str, expected: &[usize]| assert_eq!(cores_of(list), expected, "{list}");
        check("\t0-1\n", &[0, 1]);
        check("3", &[3]);
        check("0-2,7,9-10", &[0, 1, 2, 7, 9, 10]);
        check("", &[]);
        assert!(!allowed_cores().is_empty());
    }

    #[test]
    fn what_is_dropped_is_gone_with_its_children() {
        let log = log("children");
        let words = ["sh", "-c", "trap '' TERM; sleep 600 & echo started; wait"].map(str::to_owned);
        let spawn = Spawn {
            name: "a shell that will not end",
            words: &words,
            core: None,
            environment: &[],
            log: log.clone(),
            piped: false,
        };
        let child = spawn.start().unwrap();
        let began = clock::now();
        while tree(child.id()).len() < 2 || !child.last_words().contains("started") {
            assert!(began.elapsed() < Duration::from_secs(20), "it did not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        let family = tree(child.id());
        drop(child);
        let began = clock::now();
        while family
            .iter()
            .any(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok())
        {
            assert!(began.elapsed() < Duration::from_secs(20), "{family:?} still run");
            std::thread::sleep(Duration::from_millis(5));
        }
        fs::remove_file(log).unwrap();
    }
}
