//! The command line of `origin-sync`: a module for each command.

mod bucket;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The S3 side of Portico.
#[derive(Debug, Parser)]
#[command(name = "origin-sync", version, about, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a folder as a small S3.
    Bucket(bucket::Arguments),
}

impl Arguments {
    /// Does what was asked. An error is printed with all its causes, and makes the exit code 1.
    pub async fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Bucket(arguments) => bucket::run(arguments).await,
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!("{}", chain(error.as_ref()));
                ExitCode::FAILURE
            }
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }
}
