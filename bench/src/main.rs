//! Measures servers side by side from outside: how much processor time one response costs, and how many there are.
//!
//! h2load asks; the processor time is read from /proc around each run, so the figure holds however busy the machine is with
//! the load itself. Two servers are asked in turn, round by round, so that what disturbs one disturbs the other. It starts
//! no server, and does not judge.

mod disk;
mod h2load;
mod process;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures servers side by side.
#[derive(Parser)]
#[command(name = "bench", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The disk tier: filling it, opening it after a crash, reading from it
    Disk(disk::Arguments),
    /// Processor time for each response of one URL, or of two in turn (needs h2load)
    Hit(Hit),
}

/// What to ask, and how.
#[derive(clap::Args)]
struct Hit {
    /// What to ask for; once or twice
    #[arg(long = "url", value_name = "URL", required = true)]
    urls: Vec<String>,
    /// The process that answers; once for each URL, in the same order. Its children are counted with it
    #[arg(long = "pid", value_name = "PID", required = true)]
    pids: Vec<u32>,
    /// Rounds: each asks every URL once
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    #[command(flatten)]
    load: h2load::Load,
}

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// A URL without a process, or more than two.
    #[error("give one --pid for each --url, and at most two")]
    Pairs,
    /// The load generator.
    #[error(transparent)]
    Load(#[from] h2load::Error),
    /// The process.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The disk tier.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// Nobody reads what is printed.
    #[error("cannot print")]
    Print(#[from] io::Error),
}

/// One run of load on one server.
#[derive(Clone, Copy, Debug)]
struct Sample {
    cpu_micros: f64,
    per_second: f64,
}

fn main() -> ExitCode {
    let measured = match Arguments::parse().command {
        Command::Disk(arguments) => disk::run(&arguments).map_err(Error::from),
        Command::Hit(hit) => measure(&hit),
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            let _ = writeln!(io::stderr(), "bench: {error}{}", cause.unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}

fn measure(hit: &Hit) -> Result<(), Error> {
    if hit.urls.len() != hit.pids.len() || hit.urls.len() > 2 {
        return Err(Error::Pairs);
    }
    let servers: Vec<(&String, u32)> = hit.urls.iter().zip(hit.pids.iter().copied()).collect();
    let mut samples = vec![Vec::new(); servers.len()];
    for round in 0..=hit.rounds {
        for ((url, pid), samples) in servers.iter().zip(&mut samples) {
            let sample = sample(&hit.load, url, *pid)?;
            // The first round fills caches and opens files, and is not counted.
            if round > 0 {
                writeln!(io::stdout(), "{round:>3}  {}  {url}", figures(sample))?;
                samples.push(sample);
            }
        }
    }
    let medians: Vec<Sample> = samples.iter().map(|samples| median_sample(samples)).collect();
    for ((url, _), sample) in servers.iter().zip(&medians) {
        writeln!(io::stdout(), "median  {}  {url}", figures(*sample))?;
    }
    if let [one, other] = medians.as_slice() {
        let (cpu, rate) = (
            one.cpu_micros / other.cpu_micros,
            one.per_second / other.per_second,
        );
        writeln!(
            io::stdout(),
            "first to second: {cpu:.2} of the processor time, {rate:.2} of the rate"
        )?;
    }
    Ok(())
}

fn sample(load: &h2load::Load, url: &str, pid: u32) -> Result<Sample, Error> {
    let before = process::cpu_micros(pid)?;
    let done = load.run(url)?;
    let spent = process::cpu_micros(pid)?.saturating_sub(before);
    Ok(Sample {
        cpu_micros: spent as f64 / done.succeeded as f64,
        per_second: done.per_second,
    })
}

fn figures(sample: Sample) -> String {
    format!(
        "{:>9.2} µs of processor a response, {:>9.0} responses/s",
        sample.cpu_micros, sample.per_second
    )
}

fn median_sample(samples: &[Sample]) -> Sample {
    Sample {
        cpu_micros: median(samples.iter().map(|sample| sample.cpu_micros).collect()),
        per_second: median(samples.iter().map(|sample| sample.per_second).collect()),
    }
}

/// The middle value; of an even number, the mean of the two in the middle. Zero of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let at = |index: usize| values.get(index).copied().unwrap_or_default();
    if values.len().is_multiple_of(2) {
        (at(middle.saturating_sub(1)) + at(middle)) / 2.0
    } else {
        at(middle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let check =
            |values: &[f64], expected: f64| assert_eq!(median(values.to_vec()), expected, "{values:?}");
        check(&[], 0.0);
        check(&[3.0], 3.0);
        check(&[9.0, 1.0, 2.0], 2.0);
        check(&[4.0, 1.0, 3.0, 2.0], 2.5);
    }

    #[test]
    fn each_url_needs_a_process() {
        let measured = |words: &[&str]| {
            let Command::Hit(hit) = Arguments::parse_from([&["bench", "hit"], words].concat()).command else {
                panic!("another command");
            };
            measure(&hit)
        };
        assert!(matches!(
            measured(&["--url", "a", "--url", "b", "--pid", "1"]),
            Err(Error::Pairs)
        ));
        let three = ["--url", "a", "--pid", "1"].repeat(3);
        assert!(matches!(measured(&three), Err(Error::Pairs)));
    }
}
