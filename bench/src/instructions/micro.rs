//! The same cases by the clock, with criterion: nanoseconds of one run of each, beside those of the last time. For a quiet
//! machine; what no neighbour disturbs are the counts.

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use criterion::Criterion;

use super::cases::{Bench, Case};
use crate::error::{Error, Result};
use crate::scenario::block_on;

/// Which cases, and where the last times are kept.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The cases; all, if none is named
    #[arg(value_enum)]
    cases: Vec<Case>,
    /// Where times are kept, for the next run to compare with
    #[arg(long, value_name = "DIR", default_value = "target/criterion")]
    kept: PathBuf,
    /// Seconds for each case
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

/// Measures, and says how it compares.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let folder = std::env::temp_dir().join(format!("portico-micro-{}", std::process::id()));
    let outcome = measure(arguments, &folder);
    let _ = std::fs::remove_dir_all(&folder);
    outcome.map(|()| ExitCode::SUCCESS)
}

fn measure(arguments: &Arguments, folder: &std::path::Path) -> Result<()> {
    let origin = super::origin(folder)?;
    let cases = match arguments.cases.as_slice() {
        [] => &Case::ALL,
        some => some,
    };
    let mut criterion = Criterion::default()
        .without_plots()
        .output_directory(&arguments.kept)
        .measurement_time(Duration::from_secs(arguments.seconds.max(1)));
    let outcome = block_on(async {
        let bench = Bench::start(origin.address, folder).await?;
        for case in cases {
            // criterion takes no errors: the first one is kept, and said afterwards.
            let fault = RefCell::new(None);
            criterion.bench_function(case.token(), |bencher| {
                bencher.iter_custom(|runs| {
                    let runs = usize::try_from(runs).unwrap_or(usize::MAX);
                    bench.run(*case, runs).unwrap_or_else(|why| {
                        fault.borrow_mut().get_or_insert(why);
                        Duration::from_nanos(1)
                    })
                });
            });
            if let Some(why) = fault.take() {
                return Err(format!("{}: {why}", case.token()));
            }
        }
        Ok(())
    })?;
    outcome.map_err(Error::Said)
}
