//! The binary `origin-sync`: arguments, a runtime, a log on standard error, an exit code.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser;
use origin_sync::command::Arguments;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // s3s calls each missing key an error; what matters of it the bucket says itself.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,s3s=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Colours are for people, unless they said that they want none (no-color.org).
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .init();
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(arguments.run()),
        Err(error) => {
            tracing::error!(%error, "cannot start a runtime");
            ExitCode::FAILURE
        }
    }
}
