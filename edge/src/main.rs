//! The node's command line: arguments, configuration, start, addresses, wait, drain, exit code.

use std::error::Error;
use std::io::{Stderr, Stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use edge::admin::client::{self, PurgeArgs, ShowArgs, StatusArgs, WarmArgs};
use edge::clock::Clock;
use edge::lifecycle::Signals;
use edge::server::Node;
use edge::telemetry::log;
use edge::tls::command;
use edge::{config, demo};

/// A caching CDN edge node.
#[derive(Parser)]
#[command(name = "edge", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Look at what a node has stored
    #[command(subcommand)]
    Cache(CacheCommand),
    /// List, order, import, export and check the certificates that the nodes share
    Certs(command::Arguments),
    /// Read a configuration file, say all that is wrong with it, and start nothing
    Check {
        /// The configuration file
        #[arg(
            short,
            long,
            value_name = "FILE",
            default_value = "edge.toml",
            env = "EDGE_CONFIG"
        )]
        config: PathBuf,
    },
    /// Serve a sample site from an embedded bucket: no account, no network, no root
    Demo(demo::Arguments),
    /// Purge what a node has stored: by URL, tag, prefix, host, or everything
    Purge(PurgeArgs),
    /// Serve
    Run {
        /// The configuration file
        #[arg(
            short,
            long,
            value_name = "FILE",
            default_value = "edge.toml",
            env = "EDGE_CONFIG"
        )]
        config: PathBuf,
    },
    /// Show how a node is
    Status(StatusArgs),
    /// Have a node fetch URLs before the first client asks for them
    Warm(WarmArgs),
}

#[derive(Subcommand)]
enum CacheCommand {
    /// Show what is stored for a URL, and why it would be served or not
    Show(ShowArgs),
    /// Show what is stored, by tier and site
    Stats(StatusArgs),
    /// Read everything in the disk tier and prove it; what is damaged is dropped, and will be fetched again
    Verify(StatusArgs),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Cache(CacheCommand::Show(arguments)) => {
            ask(async |out, err| client::show(&arguments, out, err).await)
        }
        Command::Cache(CacheCommand::Stats(arguments)) => {
            ask(async |out, err| client::stats(&arguments, out, err).await)
        }
        Command::Cache(CacheCommand::Verify(arguments)) => {
            ask(async |out, err| client::verify(&arguments, out, err).await)
        }
        Command::Certs(arguments) => certificates(&arguments),
        Command::Check { config } => check(&config),
        Command::Demo(arguments) => serve(What::Demo(arguments)),
        Command::Purge(arguments) => ask(async |out, err| client::purge(&arguments, out, err).await),
        Command::Run { config } => serve(What::Configured(config)),
        Command::Status(arguments) => ask(async |out, err| client::status(&arguments, out, err).await),
        Command::Warm(arguments) => ask(async |out, err| client::warm(&arguments, out, err).await),
    };
    outcome.unwrap_or_else(|error| {
        tell(&format!("edge: {}", chain(&*error)));
        ExitCode::FAILURE
    })
}

/// Asks a running node.
fn ask(
    question: impl AsyncFnOnce(&mut Stdout, &mut Stderr) -> client::Exit,
) -> Result<ExitCode, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime
        .block_on(question(&mut std::io::stdout(), &mut std::io::stderr()))
        .into())
}

/// Works on the certificates that the nodes share.
fn certificates(arguments: &command::Arguments) -> Result<ExitCode, Box<dyn Error>> {
    // What comes of each certificate is the command's own answer.
    let _log = log::start_with("warn,certs::keeper=off")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(command::run(arguments, &Clock::real(), &mut std::io::stdout()))?;
    Ok(if done {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What is served.
enum What {
    Demo(demo::Arguments),
    Configured(PathBuf),
}

fn check(path: &Path) -> Result<ExitCode, Box<dyn Error>> {
    let checked = config::check(path, Clock::real().now().to_system_time())?;
    for warning in &checked.warnings {
        tell(&format!("{}: warning: {warning}", path.display()));
    }
    say(&format!(
        "{}: good: {} sites, {} origins",
        path.display(),
        checked.config.sites.len(),
        checked.config.origins.len()
    ));
    Ok(ExitCode::SUCCESS)
}

fn serve(what: What) -> Result<ExitCode, Box<dyn Error>> {
    let log = log::start()?;
    let clock = Clock::real();
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()?;
    let code = control.block_on(async {
        let signals = Signals::listen()?;
        let demo = match &what {
            What::Demo(arguments) => Some(demo::prepare(arguments, &clock).await?),
            What::Configured(_) => None,
        };
        let file = match (&demo, what) {
            (Some(demo), _) => demo.config.clone(),
            (None, What::Configured(file)) => file,
            (None, What::Demo(arguments)) => arguments.state,
        };
        let config = config::load(&file)?;
        let node = Node::start(config, Some(file), clock, control.handle().clone())?;
        for (kind, address) in node.addresses() {
            tracing::info!(%address, kind = kind.token(), "listening");
        }
        if let Some(url) = node.admin_url() {
            tracing::info!(url, "listening for the operator");
        }
        log.register(node.registry());
        if let Some(demo) = &demo {
            say(&demo.welcome);
        }
        Ok::<_, Box<dyn Error>>(node.run(signals).await.code())
    })?;
    control.shutdown_background();
    log.flush(Duration::from_secs(1));
    Ok(ExitCode::from(code))
}

/// An error and what caused it, in one line (or more, where the error itself has more).
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[expect(
    clippy::print_stdout,
    reason = "what the user asked for goes to standard output"
)]
fn say(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "the log may not be there yet")]
fn tell(text: &str) {
    eprintln!("{text}");
}
