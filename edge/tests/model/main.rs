//! Runs of chance against a model: a whole node with a clock moved by hand, in front of an origin that does as it is
//! told, and a small model of RFC 9111 that says of each answer whether it was allowed, and whether it had to come from
//! the cache.
//!
//! MODEL_STEPS sets how many steps are run in all, MODEL_SEED runs one seed alone, and MODEL_SEED=random those that nobody
//! has run before; without it they are the same each time. A failure prints its seed and the
//! shortest run that was found to fail in the same way.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and says what it ran"
)]
#![allow(
    clippy::large_enum_variant,
    clippy::too_many_lines,
    reason = "a judgement is read from top to bottom, and a plan is small"
)]

mod oracle;
mod origin;
mod plan;
mod world;

use std::time::{Duration, Instant};

use plan::Step;
use world::{Options, Tally};

/// Steps of one run.
const RUN: usize = 2_000;

/// Runs at the same time: most of the time of each is spent waiting.
const SIDE_BY_SIDE: usize = 25;

/// How long a failing run is made shorter.
const SHRINKING: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_that_the_law_forbids_and_every_reuse_that_is_promised() {
    runs(Options::default(), 100_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_hardly_any_memory_nothing_forbidden_is_served_either() {
    runs(
        Options {
            memory_bytes: Some(64 << 10),
        },
        10_000,
    )
    .await;
}

async fn runs(options: Options, steps: usize) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let count = number("MODEL_STEPS")
        .map_or(steps, |steps| steps as usize)
        .div_ceil(RUN);
    let is_exploring = std::env::var("MODEL_SEED").is_ok_and(|text| text == "random");
    let chosen = number("MODEL_SEED");
    let explored = || fastrand::u64(0..1_000_000_000);
    let first = chosen.unwrap_or_else(|| if is_exploring { explored() } else { 1 });
    let seeds: Vec<u64> = (first..).take(if chosen.is_some() { 1 } else { count }).collect();
    println!("seeds {first} to {}, {RUN} steps each", seeds.last().unwrap());
    let mut sum = Tally::default();
    // Several at a time: one waits while others work.
    for pair in seeds.chunks(SIDE_BY_SIDE) {
        let plans: Vec<_> = pair.iter().map(|seed| plan::steps(*seed, RUN)).collect();
        let mut under_way: Vec<_> = plans
            .iter()
            .map(|steps| tokio::spawn(world::run(steps.clone(), options)))
            .collect();
        for ((seed, steps), result) in pair.iter().zip(&plans).zip(under_way.drain(..)) {
            match result.await.unwrap() {
                Ok(tally) => sum.add(&tally),
                Err(failure) => report(*seed, steps, failure, options).await,
            }
        }
    }
    println!("{sum:?}");
    assert!(
        sum.reused > 0 && sum.contacts > 0 && (sum.had_to > 0 || options.memory_bytes.is_some()),
        "the runs tried nothing: {sum:?}"
    );
}

/// Finds a shorter run that fails in the same way, and panics with it.
async fn report(seed: u64, steps: &[Step], failure: world::Failure, options: Options) {
    let until = Instant::now() + SHRINKING;
    let mut shortest = steps[..=failure.step].to_vec();
    let mut last = failure;
    let mut size = shortest.len() / 2;
    while size > 0 && Instant::now() < until {
        let mut at = 0;
        while at < shortest.len() && Instant::now() < until {
            let mut without = shortest.clone();
            without.drain(at..(at + size).min(shortest.len()));
            match world::run(without.clone(), options).await {
                Err(failure) if failure.what_kind() == last.what_kind() => {
                    without.truncate(failure.step + 1);
                    (shortest, last) = (without, failure);
                }
                _ => at += size,
            }
        }
        size /= 2;
    }
    panic!("MODEL_SEED={seed} fails: {}\n{}", last.what, told(&last.story));
}

/// Of a story, what concerns the key of its last step.
fn told(story: &str) -> String {
    let key = |line: &str| {
        line.split([' ', ',', ':'])
            .find(|word| word.starts_with('k') && word.len() == 2)
            .map(str::to_owned)
    };
    let last = story.lines().rfind(|line| !line.starts_with(' ')).and_then(key);
    let mut told = String::new();
    let mut matters = true;
    for line in story.lines() {
        if !line.starts_with(' ') {
            matters = key(line).is_none_or(|key| Some(key) == last);
        }
        if matters {
            told.push_str(line);
            told.push('\n');
        }
    }
    told
}
