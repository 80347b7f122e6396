//! `edge certs`: what an operator does with certificates by hand. It works on the shared store, so any machine with the
//! configuration will do; the running nodes follow.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use certs::inspect::Inspector;
use certs::keeper::{Listed, Outcome};
use certs::settings::{Challenge, Managed};
use certs::{Keeper, Settings};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::clock::Clock;
use crate::config;

const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
/// With less left than that an operator should know.
const SOON: Duration = Duration::from_secs(7 * 86_400);

/// What `edge certs` is told.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The configuration file
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        default_value = "edge.toml",
        env = "EDGE_CONFIG"
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Say what would keep certificates from being issued, and which end soon
    Check {
        /// The port on which http-01 is asked for
        #[arg(long, default_value_t = 80)]
        http_port: u16,
        /// The DNS server that is asked, where the CA sees another DNS than this machine [default: the machine's]
        #[arg(long, value_name = "ADDRESS:PORT")]
        dns: Option<SocketAddr>,
    },
    /// Write a certificate of the store into two files: NAME.KIND.pem and NAME.KIND.key
    Export {
        /// The first name of the certificate
        name: String,
        /// Where to
        #[arg(long, value_name = "DIR", default_value = ".")]
        out: PathBuf,
    },
    /// Put a certificate that you have into the store, for a name of [[tls.acme]]
    Import {
        /// The first name of the certificate
        name: String,
        /// The chain as PEM, leaf first
        #[arg(long, value_name = "FILE")]
        chain: PathBuf,
        /// Its private key as PEM
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Order what is missing or due, now
    Issue {
        /// The first name of the certificate [default: all]
        name: Option<String>,
        /// Order from Let's Encrypt's staging CA and throw it away: to see whether it would work
        #[arg(long)]
        staging: bool,
    },
    /// Show the certificates of the store
    List {
        /// As JSON, a line each
        #[arg(long)]
        json: bool,
    },
    /// Order now, whether it is due or not
    Renew {
        /// The first name of the certificate [default: all]
        name: Option<String>,
    },
    /// Say how to trust the development CA of the demo; changes nothing by itself
    Trust {
        /// The folder of the demo
        #[arg(long, value_name = "DIR", default_value = ".state/demo")]
        state: PathBuf,
    },
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its variant means")]
pub enum Error {
    #[error(transparent)]
    Config(#[from] config::Errors),
    #[error(transparent)]
    Pair(#[from] certs::Error),
    #[error("{}: cannot be used", .0.display())]
    File(PathBuf, #[source] io::Error),
    #[error("the DNS cannot be asked")]
    Inspect(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the keys of the certificate store")]
    Keys(#[from] certs::store::seal::KeyError),
    #[error("{}: there is no development CA; edge demo makes one", .0.display())]
    NoCa(PathBuf),
    #[error("the configuration orders no certificate: it has no [[tls.acme]]")]
    NothingManaged,
    #[error(
        "{0}: tls-alpn-01 is answered by the process that orders, so the running node orders by itself; \
             SIGHUP makes it look at once"
    )]
    OnlyByNode(String),
    #[error(transparent)]
    Operate(#[from] certs::keeper::OperateError),
    #[error("cannot write what was asked for")]
    Output(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] certs::store::Error),
}

/// Does it. Whether all went well is the exit code.
pub async fn run(arguments: &Arguments, clock: &Clock, out: &mut impl Write) -> Result<bool, Error> {
    if let Command::Trust { state } = &arguments.command {
        return trust(state, out);
    }
    let config = config::load(&arguments.config)?;
    let settings = config.managed.ok_or(Error::NothingManaged)?;
    let (timed, now) = (clock.clone(), clock.now().to_system_time());
    let time: certs::Now = Arc::new(move || timed.now().to_system_time());
    if let Command::Issue { name, .. } | Command::Renew { name } = &arguments.command {
        refuse_what_only_nodes_prove(&settings, name.as_deref())?;
    }
    let keeper = Keeper::open(settings, time, Box::new(|| {}))?;
    match &arguments.command {
        Command::Check { http_port, dns } => {
            keeper.find_accounts().await;
            let answers = Arc::clone(keeper.answers());
            let inspector = Inspector::new(answers, *http_port, *dns).map_err(Error::Inspect)?;
            check(&keeper, &inspector, now, out).await
        }
        Command::Export { name, out: folder } => export(&keeper, name, folder, out).await,
        Command::Import { name, chain, key } => {
            // What is wrong with the files is told by their names; what does not fit the configuration comes after.
            certs::load(chain, key, now)?;
            let bundle = keeper.import(name, read(chain)?, read(key)?).await?;
            writeln!(out, "{name}: imported, valid until {}", date(bundle.not_after))?;
            Ok(true)
        }
        Command::Issue { name, staging } => {
            let outcomes = match staging {
                true => keeper.rehearse(name.as_deref(), STAGING).await?,
                false => keeper.order_now(name.as_deref(), false).await?,
            };
            let word = match staging {
                true => "would be issued",
                false => ISSUED,
            };
            tell(&outcomes, word, Outcome::is_settled, out)
        }
        Command::List { json } => list(&keeper, *json, out).await,
        Command::Renew { name } => {
            let outcomes = keeper.order_now(name.as_deref(), true).await?;
            // What was to be renewed now and is not has not gone well, for whatever good reason.
            tell(&outcomes, ISSUED, |outcome| *outcome == Outcome::Issued, out)
        }
        Command::Trust { state } => trust(state, out),
    }
}

/// A failed order makes all nodes wait, so one that cannot succeed is not placed.
fn refuse_what_only_nodes_prove(settings: &Settings, name: Option<&str>) -> Result<(), Error> {
    let chosen = |managed: &&Managed| name.is_none_or(|name| managed.name() == name);
    let mut chosen = settings.managed.iter().filter(chosen);
    match chosen.find(|managed| matches!(managed.acme.challenge, Challenge::TlsAlpn01)) {
        Some(managed) => Err(Error::OnlyByNode(managed.name().to_owned())),
        None => Ok(()),
    }
}

const ISSUED: &str = "issued; the nodes take it up at their next look";

fn tell(
    outcomes: &[(String, Outcome)],
    issued: &str,
    is_good: impl Fn(&Outcome) -> bool,
    out: &mut impl Write,
) -> Result<bool, Error> {
    let mut good = true;
    for (id, outcome) in outcomes {
        let text = match outcome {
            Outcome::Issued => issued.to_owned(),
            Outcome::Waiting(until) => format!("nothing is ordered before {}", date(*until)),
            Outcome::Busy(owner) => format!("{owner} is at work on it"),
            Outcome::Failed(reason) => format!("failed: {reason}"),
            Outcome::Lost => "the lease was lost; another node goes on".to_owned(),
            Outcome::NoKey => "is sealed with a key that is not among tls.store's".to_owned(),
            Outcome::StoreDown(reason) => format!("the store cannot be asked: {reason}"),
        };
        good &= is_good(outcome);
        writeln!(out, "{id}: {text}")?;
    }
    Ok(good)
}

async fn list(keeper: &Keeper, as_json: bool, out: &mut impl Write) -> Result<bool, Error> {
    let listed = keeper.list().await?;
    for one in &listed {
        if as_json {
            let failure = one.failure.as_ref().map(
                |(count, reason, until)| json!({"count": count, "reason": reason, "retry_at": date(*until)}),
            );
            let bundle = one.bundle.as_ref();
            let line = json!({
                "certificate": one.id, "names": one.names, "serial": bundle.map(|bundle| &bundle.serial),
                "not_after": one.not_after().map(date), "refused": one.refused, "lease": one.holder,
                "failure": failure,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        writeln!(out, "{}: {}", one.id, summary(one))?;
    }
    Ok(true)
}

fn summary(one: &Listed) -> String {
    let mut text = match (one.not_after(), &one.refused) {
        (Some(end), _) => format!("valid until {}", date(end)),
        (None, Some(reason)) => format!("cannot serve: {reason}"),
        (None, None) => "none yet".to_owned(),
    };
    if let Some(holder) = &one.holder {
        text.push_str(&format!("; {holder} is at work"));
    }
    if let Some((count, reason, until)) = &one.failure {
        text.push_str(&format!(
            "; failed ({count} in a row), again at {}: {reason}",
            date(*until)
        ));
    }
    text
}

async fn check(
    keeper: &Keeper,
    inspector: &Inspector,
    now: SystemTime,
    out: &mut impl Write,
) -> Result<bool, Error> {
    let mut warnings = Vec::new();
    for one in keeper.list().await? {
        match &one.bundle {
            Some(bundle) => {
                warnings.extend(
                    bundle
                        .warnings
                        .iter()
                        .map(|warning| format!("{}: {warning}", one.id)),
                );
                if bundle.remaining(now) < SOON {
                    warnings.push(format!("{}: ends at {}", one.id, date(bundle.not_after)));
                }
            }
            None => warnings.push(format!("{}: {}", one.id, summary(&one))),
        }
        if let Some((count, reason, _)) = &one.failure {
            warnings.push(format!("{}: failed ({count} in a row): {reason}", one.id));
        }
    }
    for managed in &keeper.settings().managed {
        warnings.extend(inspector.inspect(managed).await);
    }
    for warning in &warnings {
        writeln!(out, "warning: {warning}")?;
    }
    writeln!(out, "{} certificates, {} warnings", keeper.len(), warnings.len())?;
    Ok(warnings.is_empty())
}

async fn export(keeper: &Keeper, name: &str, folder: &Path, out: &mut impl Write) -> Result<bool, Error> {
    for (id, material) in keeper.export(name).await? {
        let stem = id.replace('/', ".");
        for (extension, text, mode) in [("pem", &material.chain, 0o644), ("key", &material.key, 0o600)] {
            let file = folder.join(format!("{stem}.{extension}"));
            let failed = |error| Error::File(file.clone(), error);
            // Never over one that is there: its mode might let others read the key.
            let mut open = std::fs::OpenOptions::new();
            let mut written = open
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&file)
                .map_err(failed)?;
            written.write_all(text.as_bytes()).map_err(failed)?;
            writeln!(out, "{}", file.display())?;
        }
    }
    Ok(true)
}

fn trust(state: &Path, out: &mut impl Write) -> Result<bool, Error> {
    let ca = state.join("ca").join("ca.pem");
    let ca = std::fs::canonicalize(&ca).map_err(|_| Error::NoCa(ca))?;
    let shown = ca.display();
    writeln!(
        out,
        "The development CA is {shown}\nIt vouches only for local names and private addresses. To trust it on this machine:\n\n  \
         Debian, Ubuntu:  sudo cp {shown} /usr/local/share/ca-certificates/portico-dev.crt && sudo update-ca-certificates\n  \
         Fedora, RHEL:    sudo trust anchor {shown}\n  \
         macOS:           sudo security add-trusted-cert -d -k /Library/Keychains/System.keychain {shown}\n  \
         Windows:         certutil -addstore -user Root {shown}\n  \
         Chromium, Linux: certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n portico-dev -i {shown}\n  \
         Firefox:         Settings, Certificates, Authorities, Import\n  \
         curl, once:      curl --cacert {shown} https://localhost:8443/\n"
    )?;
    Ok(true)
}

fn read(file: &Path) -> Result<String, Error> {
    std::fs::read_to_string(file).map_err(|error| Error::File(file.into(), error))
}

fn date(time: SystemTime) -> String {
    httpdate::fmt_http_date(time)
}
