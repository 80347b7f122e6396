//! Real login widgets for the demo, fetched with npm when the user asks for them. Nothing of them is kept in this project.

use std::path::{Path, PathBuf};

use origin_sync::bucket::Store;
use tokio::process::Command;

use super::{Error, site};

/// A package, the versions to fetch, and where its scripts stand in it.
struct Widget {
    package: &'static str,
    name: &'static str,
    versions: &'static [&'static str],
    scripts: &'static [&'static str],
}

const WIDGETS: [Widget; 2] = [
    Widget {
        package: "auth0-js",
        name: "auth0-js",
        versions: &["9.32.0", "10.0.0", "10.2.1"],
        scripts: &["dist/auth0.min.js", "dist/auth0.js"],
    },
    Widget {
        package: "@okta/okta-signin-widget",
        name: "okta-signin-widget",
        versions: &["7.45.3", "7.48.2", "7.49.0"],
        scripts: &["dist/js/okta-sign-in.min.js", "dist/css/okta-sign-in.min.css"],
    },
];

/// Fetches the widgets into `folder` and puts their scripts into the bucket. Returns their paths.
pub(super) async fn put_widgets(store: &Store, folder: &Path) -> Result<Vec<String>, Error> {
    std::fs::create_dir_all(folder).map_err(|error| Error::File(folder.into(), error))?;
    let mut paths = Vec::new();
    for widget in &WIDGETS {
        for version in widget.versions {
            let unpacked = fetch(folder, widget, version).await?;
            for script in widget.scripts {
                let file = unpacked.join("package").join(script);
                let bytes = std::fs::read(&file).map_err(|error| Error::File(file, error))?;
                let base = script.rsplit('/').next().unwrap_or(script);
                let key = format!("{}/{version}/{base}", widget.name);
                let tags = [widget.name, &format!("{}-{version}", widget.name)];
                site::put(store, &key, bytes, "max-age=31536000, immutable", &tags).await?;
                paths.push(format!("/{key}"));
            }
        }
    }
    Ok(paths)
}

/// Fetches and unpacks one version, unless it is there from the last time.
async fn fetch(folder: &Path, widget: &Widget, version: &str) -> Result<PathBuf, Error> {
    let unpacked = folder.join(format!("{}-{version}", widget.name));
    if unpacked.join("package").is_dir() {
        return Ok(unpacked);
    }
    let package = format!("{}@{version}", widget.package);
    std::fs::create_dir_all(&unpacked).map_err(|error| Error::File(unpacked.clone(), error))?;
    let packed = run(
        &package,
        Command::new("npm")
            .args(["pack", "--silent", &package])
            .current_dir(folder),
    )
    .await?;
    let archive = folder.join(packed.lines().last().unwrap_or_default().trim());
    run(
        &package,
        Command::new("tar")
            .arg("-xzf")
            .arg(&archive)
            .arg("-C")
            .arg(&unpacked),
    )
    .await?;
    Ok(unpacked)
}

async fn run(package: &str, command: &mut Command) -> Result<String, Error> {
    let failed = |reason: String| Error::Npm {
        package: package.to_owned(),
        reason,
    };
    let output = command
        .output()
        .await
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
