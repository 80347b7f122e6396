//! The plan: every file of a folder, with its digests, its type and its class, before anything is sent.

use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::media::{compressible, media_type, pinnable};
use super::rules::Rules;
use crate::release::manifest::FILES_MAX;
use crate::release::{Class, FilePath, Invalid, Sha256, Sha384};

/// A file that is too large to be one of a release.
pub const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// What is to be published.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The files, in the order of their paths.
    pub files: Vec<Planned>,
    /// What was left out: hidden files, and what the rules ignore.
    pub left_out: Vec<String>,
}

/// A file of a plan.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its path.
    pub path: FilePath,
    /// Where it is.
    pub source: PathBuf,
    /// The digest of its bytes.
    pub sha256: Sha256,
    /// The digest for `integrity` attributes.
    pub sha384: Sha384,
    /// How many bytes it has.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
    /// How long it may be kept.
    pub class: Class,
    /// Its Cache-Control as a plain file.
    pub cache_control: String,
    /// What it can be purged by.
    pub tags: Vec<String>,
    /// Whether coded forms are made.
    pub coded: bool,
    /// Whether a browser is given something to check it by.
    pub pinned: bool,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The file is another one than when it was hashed.
    #[error("{path} changed while it was being published: nothing is visible yet; run again")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing to publish.
    #[error("there is no file to publish in {dir}")]
    Empty {
        /// The folder.
        dir: PathBuf,
    },
    /// Its name cannot be a path.
    #[error("{path}: {why}")]
    Path {
        /// The file.
        path: PathBuf,
        /// Why.
        why: Invalid,
    },
    /// It could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is neither a file nor a folder: a link could lead anywhere, and elsewhere on another machine.
    #[error("{path} is a link or something else that is no file: copy what it stands for")]
    Special {
        /// The file.
        path: PathBuf,
    },
    /// It, or all of them, is too much.
    #[error("{path}: {what}")]
    TooMuch {
        /// The file or folder.
        path: PathBuf,
        /// What the limit is.
        what: String,
    },
}

impl Plan {
    /// Reads and hashes a folder. `class` is for files that no rule gives one.
    pub fn read(dir: &Path, rules: &Rules, class: Class) -> Result<Self, PlanError> {
        let mut plan = Self::default();
        let walk = WalkDir::new(dir).follow_links(false).sort_by_file_name();
        for entry in walk {
            let entry = entry.map_err(|error| PlanError::Read {
                path: error.path().unwrap_or(dir).to_owned(),
                source: error.into(),
            })?;
            if entry.depth() == 0 || entry.file_type().is_dir() {
                continue;
            }
            let source = entry.path();
            let path = path_of(dir, source)?;
            let hidden = path.split('/').any(|segment| segment.starts_with('.'));
            if hidden || rules.ignores(&path) {
                plan.left_out.push(path);
                continue;
            }
            if !entry.file_type().is_file() {
                return Err(PlanError::Special {
                    path: source.to_owned(),
                });
            }
            let path: FilePath = path.parse().map_err(|why| PlanError::Path {
                path: source.to_owned(),
                why,
            })?;
            plan.files.push(planned(source, path, rules, class)?);
        }
        if plan.files.is_empty() {
            return Err(PlanError::Empty { dir: dir.to_owned() });
        }
        plan.files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(plan)
    }

    /// Whether it fits one manifest.
    pub fn check_release(&self, dir: &Path) -> Result<(), PlanError> {
        if self.files.len() > FILES_MAX {
            return Err(PlanError::TooMuch {
                path: dir.to_owned(),
                what: format!(
                    "it has {} files, and a release at most {FILES_MAX}",
                    self.files.len()
                ),
            });
        }
        Ok(())
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

impl Planned {
    /// The bytes that were hashed.
    pub fn bytes(&self) -> Result<Vec<u8>, PlanError> {
        let bytes = read(&self.source)?;
        if Sha256::of(&bytes) != self.sha256 {
            return Err(PlanError::Changed {
                path: self.source.clone(),
            });
        }
        Ok(bytes)
    }
}

fn path_of(dir: &Path, source: &Path) -> Result<String, PlanError> {
    let relative = source.strip_prefix(dir).unwrap_or(source);
    let text = relative.to_str().ok_or_else(|| PlanError::Path {
        path: source.to_owned(),
        why: Invalid::new("its name is not UTF-8"),
    })?;
    Ok(text.to_owned())
}

fn read(source: &Path) -> Result<Vec<u8>, PlanError> {
    let failed = |error| PlanError::Read {
        path: source.to_owned(),
        source: error,
    };
    let length = std::fs::metadata(source).map_err(failed)?.len();
    if length > FILE_BYTES_MAX {
        return Err(PlanError::TooMuch {
            path: source.to_owned(),
            what: format!("it has {length} bytes, more than {FILE_BYTES_MAX}"),
        });
    }
    std::fs::read(source).map_err(failed)
}

fn planned(source: &Path, path: FilePath, rules: &Rules, class: Class) -> Result<Planned, PlanError> {
    let bytes = read(source)?;
    let rule = rules.rule(path.as_str());
    let media_type = rule
        .and_then(|rule| rule.media_type.clone())
        .unwrap_or_else(|| media_type(path.as_str()).to_owned());
    let class = rule.and_then(|rule| rule.class).unwrap_or(class);
    let coded = rule
        .and_then(|rule| rule.codings)
        .unwrap_or_else(|| compressible(&media_type));
    Ok(Planned {
        sha256: Sha256::of(&bytes),
        sha384: Sha384::of(&bytes),
        size: bytes.len() as u64,
        source: source.to_owned(),
        class,
        cache_control: rule
            .and_then(|rule| rule.cache_control.clone())
            .unwrap_or_else(|| class.cache_control().to_owned()),
        tags: rule.map(|rule| rule.tags.clone()).unwrap_or_default(),
        coded: coded && !bytes.is_empty(),
        pinned: pinnable(&media_type),
        media_type,
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn a_folder_becomes_a_plan() {
        let dir = folder(&[
            ("b.js", "b"),
            ("a/x.png", "x"),
            ("a-b.css", "c"),
            (".git/x", ""),
            ("b.js.map", "m"),
            ("e.js", ""),
        ]);
        let rules: Rules =
            toml::from_str("ignore = ['*.map']\n[[rule]]\npath = 'b.js'\nclass = 'alias'").unwrap();
        let plan = Plan::read(dir.path(), &rules, Class::Immutable).unwrap();
        let shown: Vec<(&str, Class, bool, bool)> = plan
            .files
            .iter()
            .map(|file| (file.path.as_str(), file.class, file.coded, file.pinned))
            .collect();
        let immutable = Class::Immutable;
        let expected = [
            ("a-b.css", immutable, true, true),
            ("a/x.png", immutable, false, false),
            ("b.js", Class::Alias, true, true),
            ("e.js", immutable, false, true),
        ];
        assert_eq!(shown, expected);
        assert_eq!(plan.left_out, [".git/x", "b.js.map"]);
        assert_eq!(plan.bytes(), 3);
        std::fs::write(dir.path().join("b.js"), "B").unwrap();
        assert!(matches!(plan.files[2].bytes(), Err(PlanError::Changed { .. })));
    }

    #[test]
    fn what_cannot_be_published_is_named() {
        let plan = |dir: &tempfile::TempDir| Plan::read(dir.path(), &Rules::default(), Class::Immutable);
        assert!(matches!(plan(&folder(&[])), Err(PlanError::Empty { .. })));
        assert!(matches!(
            plan(&folder(&[("a b.js", "")])),
            Err(PlanError::Path { .. })
        ));
        let dir = folder(&[("a.js", "")]);
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("b.js")).unwrap();
        assert!(matches!(plan(&dir), Err(PlanError::Special { .. })));
        let missing = Plan::read(Path::new("/nonexistent"), &Rules::default(), Class::Immutable);
        assert!(matches!(missing, Err(PlanError::Read { .. })));
    }
}
