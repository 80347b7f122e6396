//! `origin-sync keygen`: a release key and a channel key.

use std::path::PathBuf;

use super::output;
use super::{Code, Failure};
use crate::release::{Role, SecretKey};

/// Where they go.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folder; made if it is missing. Keys that are there are not overwritten
    #[arg(long)]
    out: PathBuf,
    /// Only the key of this role
    #[arg(long, value_name = "release|channel")]
    role: Option<Role>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Code, Failure> {
    std::fs::create_dir_all(&arguments.out).map_err(|error| Failure::failed(error.into()))?;
    for role in [Role::Release, Role::Channel] {
        if arguments.role.is_some_and(|only| only != role) {
            continue;
        }
        let key = SecretKey::generate(role)?;
        let (secret, public) = key.write(&arguments.out)?;
        let (secret, public) = (secret.display(), public.display());
        output::print(&format!(
            "{role}: {secret} is secret, {public} is for the edges' trust:\n  {}\n",
            key.public()
        ))?;
    }
    Ok(Code::Done)
}
