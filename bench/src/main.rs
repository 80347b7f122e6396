//! Measures the edge beside its peers: processor time for each answer, answers per second, latencies, memory.
//!
//! It starts every server with a configuration of its own (`bench/peers`), in front of one origin, with one certificate;
//! compares every answer with what was to be served; and asks them in turn, so that what disturbs one disturbs the
//! others. The method and its limits stand in `bench/README.md`. It judges no server: it shows figures.

mod arguments;
mod clock;
mod content;
mod disk;
mod error;
mod instructions;
mod load;
mod origin;
mod peer;
mod process;
mod raw;
mod report;
mod run;
mod scenario;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use arguments::{Arguments, Command};
use scenario::Scenario;

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Peers(here) => run::peers(&here),
        Command::Hit(run) => run::run(&[Scenario::Hit], run),
        Command::Large(run) => run::run(&[Scenario::Large], run),
        Command::Handshake(run) => run::run(&[Scenario::Handshake], run),
        Command::Idle(run) => run::run(&[Scenario::Idle], run),
        Command::Latency(run) => run::run(&[Scenario::Latency], run),
        Command::Miss(run) => run::run(&[Scenario::Miss], run),
        Command::Collapse(run) => run::run(&[Scenario::Collapse], run),
        Command::Coding(run) => run::run(&[Scenario::Coding], run),
        Command::Real(run) => run::run(&[Scenario::Real], run),
        Command::All(run) => run::run(&Scenario::ALL, run),
        Command::Disk(asked) => disk::run(&asked)
            .map(|()| ExitCode::SUCCESS)
            .map_err(|error| error::Error::Said(error.to_string())),
        Command::Instructions(asked) => instructions::run(&asked),
        Command::Micro(asked) => instructions::micro(&asked),
        Command::Origin { folder } => origin::serve(folder).map(|()| ExitCode::SUCCESS),
        Command::Raw(asked) => raw::serve(&asked).map(|()| ExitCode::SUCCESS),
        Command::Sdk(asked) => scenario::serve_sdk(&asked).map(|()| ExitCode::SUCCESS),
        Command::Case(asked) => instructions::serve(&asked).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "bench: {error}");
        ExitCode::FAILURE
    })
}
