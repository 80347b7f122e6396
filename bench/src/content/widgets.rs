//! The newest login widgets, fetched with npm and coded once, and kept for the next time. Nothing of them is kept in this
//! project.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use edge::representation::coding::Coding;
use edge::representation::encoder::{Encoder, Quality};

use super::File;
use crate::error::{Error, Result};

/// A widget's script, with its coded forms.
#[derive(Clone, Debug)]
pub(crate) struct Widget {
    /// As it is called in figures.
    pub(crate) name: &'static str,
    pub(crate) version: String,
    pub(crate) file: File,
}

struct Package {
    name: &'static str,
    package: &'static str,
    script: &'static str,
}

const PACKAGES: [Package; 2] = [
    Package {
        name: "auth0-js",
        package: "auth0-js",
        script: "dist/auth0.min.js",
    },
    Package {
        name: "okta-signin-widget",
        package: "@okta/okta-signin-widget",
        script: "dist/js/okta-sign-in.min.js",
    },
];

impl Widget {
    /// All of them, newest, from `folder` if they are there from the last time. Their coded forms are the best there are,
    /// or else what takes no time.
    pub(crate) fn fetch_all(folder: &Path, best: bool) -> Result<Vec<Self>> {
        PACKAGES
            .iter()
            .map(|package| package.fetch(folder, best))
            .collect()
    }
}

impl Package {
    fn fetch(&self, folder: &Path, best: bool) -> Result<Widget> {
        let unpacked = folder.join(self.name);
        if !unpacked.join("package").is_dir() {
            self.unpack(folder, &unpacked)?;
        }
        let version = self.version(&unpacked)?;
        let script = unpacked.join("package").join(self.script);
        let bytes = Bytes::from(fs::read(&script).map_err(|error| Error::file("read", &script, error))?);
        let base = self.script.rsplit('/').next().unwrap_or(self.script);
        let form = |end: &str, make: fn(&[u8]) -> std::io::Result<Vec<u8>>| {
            kept(&unpacked.join(format!("{base}.{end}")), || make(&bytes))
        };
        let (br, gz) = if best {
            (form("br", brotli_best)?, form("gz", gzip_best)?)
        } else {
            let fast_br = |bytes: &[u8]| fast(Coding::Br, bytes);
            let fast_gz = |bytes: &[u8]| fast(Coding::Gzip, bytes);
            (form("fast.br", fast_br)?, form("fast.gz", fast_gz)?)
        };
        Ok(Widget {
            name: self.name,
            file: File {
                path: format!("/{}/{version}/{base}", self.name),
                bytes,
                br: Some(br),
                gz: Some(gz),
            },
            version,
        })
    }

    fn unpack(&self, folder: &Path, unpacked: &Path) -> Result<()> {
        fs::create_dir_all(folder).map_err(|error| Error::file("create", folder, error))?;
        let packed = run(Command::new("npm")
            .args(["pack", "--silent", "--fetch-retries=5", self.package])
            .current_dir(folder))?;
        let archive = folder.join(packed.lines().last().unwrap_or_default().trim());
        // Unpacked beside and moved, so that one who is interrupted leaves nothing half.
        let half = folder.join(format!("{}.half", self.name));
        let _ = fs::remove_dir_all(&half);
        fs::create_dir_all(&half).map_err(|error| Error::file("create", &half, error))?;
        run(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&half))?;
        fs::rename(&half, unpacked).map_err(|error| Error::file("create", unpacked, error))?;
        let _ = fs::remove_file(archive);
        Ok(())
    }

    fn version(&self, unpacked: &Path) -> Result<String> {
        let file = unpacked.join("package/package.json");
        let text = fs::read(&file).map_err(|error| Error::file("read", &file, error))?;
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        let version = json.get("version").and_then(|version| version.as_str());
        version
            .map(str::to_owned)
            .ok_or_else(|| Error::Said(format!("{} names no version", file.display())))
    }
}

/// What is in `file`, or what `make` makes, which is then kept there.
fn kept(file: &PathBuf, make: impl FnOnce() -> std::io::Result<Vec<u8>>) -> Result<Bytes> {
    if let Ok(bytes) = fs::read(file) {
        return Ok(bytes.into());
    }
    let bytes = make().map_err(|error| Error::file("make", file, error))?;
    fs::write(file, &bytes).map_err(|error| Error::file("write", file, error))?;
    Ok(bytes.into())
}

fn fast(coding: Coding, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let Some(mut encoder) = Encoder::new(coding, Quality::Fast) else {
        return Ok(bytes.to_vec());
    };
    Ok([encoder.write(bytes)?, encoder.finish()?].concat())
}

fn brotli_best(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut coder = brotli::CompressorWriter::new(Vec::new(), 64 * 1024, 11, 24);
    coder.write_all(bytes)?;
    Ok(coder.into_inner())
}

fn gzip_best(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let options = zopfli::Options {
        iteration_count: std::num::NonZeroU64::MIN,
        ..zopfli::Options::default()
    };
    let mut coded = Vec::new();
    zopfli::compress(options, zopfli::Format::Gzip, bytes, &mut coded)?;
    Ok(coded)
}

fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|_| Error::Missing {
        what: format!("{name}, to fetch the widgets"),
        install: format!("apt-get install {name}"),
    })?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Said(format!("{name} did not fetch a widget: {why}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
