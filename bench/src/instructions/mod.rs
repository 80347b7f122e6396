//! How many instructions the parts of the request path take, counted by valgrind: a number that no neighbour disturbs, so
//! that a regression shows on any machine.
//!
//! Each case is run many times in a process of its own, where only that is counted, on the one thread that does it. What the
//! kernel does is not in it, and neither is waiting for memory.

mod cases;
mod counted;
mod micro;

pub(crate) use cases::{CaseArguments, serve};
pub(crate) use micro::{Arguments as MicroArguments, run as micro};

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use cases::Case;
use counted::{Counts, Verdict};

use crate::content::Content;
use crate::error::{Error, Result};
use crate::origin::Origin;
use crate::peer::on_path;

/// What to do with the counts.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write the counts into the file instead of comparing with it
    #[arg(long)]
    update: bool,
    /// The committed counts
    #[arg(long, value_name = "FILE", default_value = "bench/instructions.toml")]
    file: PathBuf,
    /// Count a debug build too: its numbers compare with nothing
    #[arg(long)]
    any_build: bool,
}

/// Counts, and compares or updates.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if cfg!(debug_assertions) && !arguments.any_build {
        let why =
            "the committed counts are of a release build: cargo run --release --bin bench -- instructions";
        return Err(Error::Said(why.to_owned()));
    }
    let valgrind = on_path("valgrind").ok_or_else(|| Error::Missing {
        what: "valgrind".to_owned(),
        install: "apt-get install valgrind".to_owned(),
    })?;
    let folder = std::env::temp_dir().join(format!("portico-instructions-{}", std::process::id()));
    let counted = count(&valgrind, &folder);
    let _ = std::fs::remove_dir_all(&folder);
    let counts = counted?;
    if arguments.update {
        counts.write(&arguments.file)?;
        say(&format!("{}: written\n", arguments.file.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let committed = Counts::read(&arguments.file)?;
    let verdict = Verdict::of(&counts, &committed);
    say(&verdict.text)?;
    if verdict.good {
        return Ok(ExitCode::SUCCESS);
    }
    say(
        "more instructions than committed; if that is meant: cargo run --release --bin bench -- instructions --update\n",
    )?;
    Ok(ExitCode::FAILURE)
}

/// Copying and comparing as every processor can: else the libc chooses by what it finds, and counts differ between
/// machines. What aws-lc chooses so is not among the cases. And small memory always from the thread's own lists: else how
/// the heap happens to lie after the start decides over one instruction in twenty.
const PLAIN_LIBC: (&str, &str) = (
    "GLIBC_TUNABLES",
    "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX_Fast_Unaligned_Load,-AVX512F,-AVX512VL,-AVX512BW,-BMI2,-ERMS,-FSRM,-SSE4_1,-SSE4_2:glibc.malloc.tcache_count=65535:glibc.malloc.mxfast=0",
);

/// The function in which valgrind counts.
const COUNTED: &str = "--toggle-collect=*cases::measured*";

fn count(valgrind: &Path, folder: &Path) -> Result<Counts> {
    let origin = origin(folder)?;
    let next = AtomicUsize::new(0);
    let counts = Mutex::new(Counts::default());
    // Each case is a process of its own: they do not disturb each other's counts, only each other's time.
    let count_some = || {
        while let Some(case) = Case::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            let repetitions = case.repetitions();
            let all = callgrind(valgrind, folder, *case, repetitions, &origin)?;
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.set(case.token(), all / repetitions as u64);
        }
        Ok::<_, Error>(())
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(count_some);
        let outcome = count_some();
        other.join().unwrap_or(Ok(())).and(outcome)
    })?;
    Ok(counts.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// An origin with all that the cases ask for.
fn origin(folder: &Path) -> Result<Origin> {
    let content = Content::lay(folder.join("content"))?;
    let script = content.folder.join("script.js");
    // Something that is worth coding.
    let text: String = (0..512)
        .map(|line| format!("export const line{line} = {line} * {line};\n"))
        .collect();
    std::fs::write(&script, text).map_err(|error| Error::file("write", &script, error))?;
    Origin::start(&content.folder, folder.join("origin.log"), None)
}

/// All instructions of a process that runs a case so often.
fn callgrind(valgrind: &Path, folder: &Path, case: Case, repetitions: usize, origin: &Origin) -> Result<u64> {
    let own = std::env::current_exe().map_err(|error| Error::io("find this program", error))?;
    let output = Command::new(valgrind)
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--trace-children=no",
            COUNTED,
        ])
        .arg(own)
        .args([
            "case",
            case.token(),
            &repetitions.to_string(),
            &origin.address.to_string(),
        ])
        .arg(folder)
        .env(PLAIN_LIBC.0, PLAIN_LIBC.1)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::io("start valgrind", error))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = output
        .status
        .success()
        .then(|| said.lines().find_map(|line| line.split_once("Collected : ")))
        .flatten();
    collected
        .and_then(|(_, count)| count.trim().parse().ok())
        .filter(|count| *count > 0)
        .ok_or_else(|| Error::Said(format!("valgrind on {}: {}\n{said}", case.token(), output.status)))
}

fn say(text: &str) -> Result<()> {
    write!(std::io::stdout(), "{text}").map_err(|error| Error::io("print", error))
}
