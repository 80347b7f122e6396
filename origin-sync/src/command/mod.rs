//! The command line of `origin-sync`: a module for each command.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused, or done in part: what it says tells which. Results go to
//! standard output, everything else to standard error.

mod bucket;
mod gc;
mod keygen;
mod look;
mod options;
mod output;
mod policy;
mod promote;
mod push;
mod sync;
mod verify;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::promote::Error as PromoteError;
use crate::push::Error as PushError;

/// The S3 side of Portico.
#[derive(Debug, Parser)]
#[command(name = "origin-sync", version, about, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a folder as a small S3
    Bucket(bucket::Arguments),
    /// Say what two releases differ in
    Diff(look::DiffArguments),
    /// Delete old releases and the blobs that nothing names
    Gc(gc::Arguments),
    /// Make the release key and the channel key
    Keygen(keygen::Arguments),
    /// Print a bucket policy by which S3 itself refuses to overwrite releases
    Policy(policy::Arguments),
    /// Move aliases to a release: edges fetch it, one write moves all, edges are asked what they serve
    Promote(promote::Arguments),
    /// Make a release of a folder
    Push(push::Arguments),
    /// Move aliases back
    Rollback(promote::RollbackArguments),
    /// Print the tags by which pages load a release with its integrity pinned
    Sri(look::SriArguments),
    /// Say which aliases point where
    Status(look::StatusArguments),
    /// Copy a folder of plain files, such as tenants' configuration
    Sync(sync::Arguments),
    /// Read releases back and compare every form of every file
    Verify(verify::Arguments),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Partly = 3,
}

/// Why a command did not do all that it was asked.
#[derive(Debug)]
struct Failure {
    code: Code,
    error: Box<dyn Error>,
}

impl Failure {
    fn failed(error: Box<dyn Error>) -> Self {
        Self {
            code: Code::Failed,
            error,
        }
    }

    fn partly(text: impl Into<String>) -> Self {
        Self {
            code: Code::Partly,
            error: text.into().into(),
        }
    }

    fn usage(text: impl Into<String>) -> Self {
        Self {
            code: Code::Usage,
            error: text.into().into(),
        }
    }

    fn usage_of(error: &(dyn Error + 'static)) -> Self {
        Self::usage(chain(error))
    }
}

/// Errors that fail a command.
macro_rules! fails {
    ($($error:ty),+ $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::failed(error.into())
            }
        })+
    };
}

fails!(
    Box<dyn Error>,
    crate::promote::flip::ReadError,
    crate::promote::line::Error,
    crate::push::plan::PlanError,
    crate::release::keys::KeyError,
    crate::remote::Error,
);

impl From<PushError> for Failure {
    fn from(error: PushError) -> Self {
        let code = match &error {
            PushError::Changed { .. } | PushError::Lost { .. } | PushError::Store { .. } => Code::Partly,
            _ => Code::Failed,
        };
        Self {
            code,
            error: error.into(),
        }
    }
}

impl From<PromoteError> for Failure {
    fn from(error: PromoteError) -> Self {
        let code = match &error {
            PromoteError::Mismatch(_)
            | PromoteError::Prewarm(_)
            | PromoteError::Write(crate::promote::flip::WriteError::Lost { .. }) => Code::Partly,
            PromoteError::AliasIsVersion { .. } => Code::Usage,
            _ => Code::Failed,
        };
        Self {
            code,
            error: error.into(),
        }
    }
}

impl Arguments {
    /// Does what was asked. An error is printed with all its causes, and decides the exit code.
    pub async fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Bucket(arguments) => bucket::run(arguments)
                .await
                .map(|()| Code::Done)
                .map_err(Failure::from),
            Command::Diff(arguments) => look::diff(arguments).await,
            Command::Gc(arguments) => gc::run(arguments).await,
            Command::Keygen(arguments) => keygen::run(&arguments),
            Command::Policy(arguments) => policy::run(&arguments),
            Command::Promote(arguments) => promote::run(arguments).await,
            Command::Push(arguments) => push::run(arguments).await,
            Command::Rollback(arguments) => promote::rollback(arguments).await,
            Command::Sri(arguments) => look::sri(arguments).await,
            Command::Status(arguments) => look::status(arguments).await,
            Command::Sync(arguments) => sync::run(arguments).await,
            Command::Verify(arguments) => verify::run(arguments).await,
        };
        let code = result.unwrap_or_else(|failure| {
            tracing::error!("{}", chain(failure.error.as_ref()));
            failure.code
        });
        ExitCode::from(code as u8)
    }
}

/// How many coders may run at once.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |error| (**error).source());
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

    #[test]
    fn commands_are_spelled_as_the_documents_spell_them() {
        let check = |line: &str, good: bool| {
            let parsed = Arguments::try_parse_from(line.split_whitespace());
            assert_eq!(
                parsed.is_ok(),
                good,
                "{line}: {:?}",
                parsed.err().map(|error| error.to_string())
            );
        };
        let bucket = "--bucket s3://widgets/cdn";
        check("origin-sync keygen --out keys", true);
        check("origin-sync keygen", false);
        check(
            "origin-sync push dist --name lock --release 12.5.1 --to s3://widgets/cdn --dry-run --json",
            true,
        );
        check(
            "origin-sync push dist --name ../x --release 12.5.1 --to s3://widgets/cdn",
            false,
        );
        check(
            "origin-sync push dist --name lock --release 12/5 --to s3://widgets/cdn",
            false,
        );
        check(
            &format!("origin-sync promote lock 12.5.1 --alias 12 --alias 12.5 --alias latest {bucket}"),
            true,
        );
        check(&format!("origin-sync promote lock {bucket}"), true);
        check(&format!("origin-sync promote lock 12.5.1 {bucket}"), false);
        check(&format!("origin-sync promote lock --alias 12 {bucket}"), false);
        check(
            &format!(
                "origin-sync promote lock 1 --alias a --edge http://a:1=b:2 --canary http://c:1 --auto-rollback {bucket}"
            ),
            true,
        );
        check(
            &format!("origin-sync promote lock 1 --alias a --edge a:1 {bucket}"),
            false,
        );
        check(
            &format!("origin-sync rollback lock --alias 12 --to 12.5.0 {bucket}"),
            true,
        );
        check(&format!("origin-sync rollback lock {bucket}"), false);
        check(&format!("origin-sync status {bucket}"), true);
        check(&format!("origin-sync verify lock {bucket}"), true);
        check(&format!("origin-sync diff lock 12.5.0 12.5.1 {bucket}"), true);
        check(
            &format!("origin-sync sri lock 12.5.1 --site https://cdn.example.com {bucket}"),
            true,
        );
        check(&format!("origin-sync gc --keep 20 {bucket}"), true);
        check(&format!("origin-sync gc --keep 0 {bucket}"), false);
        check("origin-sync sync dir s3://widgets/tenants", true);
        check("origin-sync policy s3://widgets/cdn", true);
    }
}
