//! The rule file, `origin-sync.toml`: what of a folder is published, as what, and how long it may be kept.
//!
//! ```toml
//! ignore = ["*.map"]
//!
//! [[rule]]
//! path = "*.html"                  # a pattern without a slash is for names, one with a slash for whole paths
//! class = "alias"                  # or "immutable", "config"
//! media_type = "text/html; charset=utf-8"
//! cache_control = "no-cache"       # of plain files; what is released goes by its class
//! tags = ["pages"]
//! codings = false
//! ```
//!
//! The first rule that fits a file is the one that counts. `*` and `?` stop at slashes, `**` does not.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::release::manifest::{check_media_type, check_tags};
use crate::release::{Class, Invalid};

/// The file's name, where it is looked for when nobody names another.
pub const FILE_NAME: &str = "origin-sync.toml";

/// What the file says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Patterns of files that are left out.
    pub ignore: Vec<String>,
    /// The rules, in their order.
    #[serde(rename = "rule")]
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which files it is for.
    pub path: String,
    /// How long they may be kept.
    pub class: Option<Class>,
    /// Their media type.
    pub media_type: Option<String>,
    /// Their Cache-Control, where they are plain files.
    pub cache_control: Option<String>,
    /// What they can be purged by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Whether coded forms are made.
    pub codings: Option<bool>,
}

/// Why a rule file was not used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// It makes no sense.
    #[error("{path}: {why}")]
    Invalid {
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
    /// It is not such a file.
    #[error("{path} is not a rule file")]
    Toml {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<toml::de::Error>,
    },
}

impl Rules {
    /// The rules of a file; of `origin-sync.toml` here if none is named; none if there is none.
    pub fn read(named: Option<&Path>) -> Result<Self, RulesError> {
        let path = match named {
            Some(path) => path,
            None if Path::new(FILE_NAME).exists() => Path::new(FILE_NAME),
            None => return Ok(Self::default()),
        };
        let text = std::fs::read_to_string(path).map_err(|source| RulesError::Read {
            path: path.to_owned(),
            source,
        })?;
        let rules: Self = toml::from_str(&text).map_err(|source| RulesError::Toml {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        rules.check().map_err(|why| RulesError::Invalid {
            path: path.to_owned(),
            why,
        })?;
        Ok(rules)
    }

    /// Whether a file is left out.
    pub fn ignores(&self, path: &str) -> bool {
        self.ignore.iter().any(|pattern| fits(pattern, path))
    }

    /// The rule for a file.
    pub fn rule(&self, path: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| fits(&rule.path, path))
    }

    fn check(&self) -> Result<(), Invalid> {
        for rule in &self.rules {
            check_tags(&rule.tags)?;
            rule.media_type.as_deref().map_or(Ok(()), check_media_type)?;
            let plain = |value: &str| value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
            if !rule.cache_control.as_deref().is_none_or(plain) {
                return Err(Invalid::new(format!(
                    "{:?}: the Cache-Control is no field value",
                    rule.path
                )));
            }
        }
        Ok(())
    }
}

/// Whether a pattern fits a path: its last segment, if the pattern has no slash.
fn fits(pattern: &str, path: &str) -> bool {
    let text = match pattern.contains('/') {
        true => path,
        false => path.rsplit('/').next().unwrap_or(path),
    };
    matches(pattern.trim_start_matches('/').as_bytes(), text.as_bytes())
}

fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', b'*', rest @ ..] => {
            let rest = rest.strip_prefix(b"/").unwrap_or(rest);
            (0..=text.len()).any(|skip| text.get(skip..).is_some_and(|text| matches(rest, text)))
        }
        [b'*', rest @ ..] => {
            let reach = text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
            (0..=reach).any(|skip| text.get(skip..).is_some_and(|text| matches(rest, text)))
        }
        [one, rest @ ..] => match text {
            [first, text @ ..] if one == first || (*one == b'?' && *first != b'/') => matches(rest, text),
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_names_or_paths() {
        let check = |pattern: &str, path: &str, expected: bool| {
            assert_eq!(fits(pattern, path), expected, "{pattern} {path}");
        };
        check("*.map", "a.js.map", true);
        check("*.map", "a/b.map", true);
        check("*.map", "a.map.js", false);
        check("a/*.js", "a/b.js", true);
        check("a/*.js", "a/b/c.js", false);
        check("a/**", "a/b/c.js", true);
        check("**/c.js", "a/b/c.js", true);
        check("**/c.js", "c.js", true);
        check("/a.js", "a.js", true);
        check("?.js", "a.js", true);
        check("?.js", "ab.js", false);
        check("", "a", false);
    }

    #[test]
    fn the_first_rule_counts_and_slips_are_errors() {
        let rules: Rules = toml::from_str(
            "ignore = ['*.map']\n[[rule]]\npath = 'loader.js'\nclass = 'alias'\n[[rule]]\npath = '*.js'\ntags = ['a']\n",
        )
        .unwrap();
        assert!(rules.ignores("x/a.js.map"));
        assert_eq!(rules.rule("x/loader.js").unwrap().class, Some(Class::Alias));
        assert_eq!(rules.rule("x/other.js").unwrap().tags, ["a"]);
        assert!(rules.rule("a.css").is_none());
        for bad in [
            "ignored = []",
            "[[rule]]\nclass = 'alias'",
            "[[rule]]\npath = 'a'\nclass = 'ever'",
        ] {
            assert!(toml::from_str::<Rules>(bad).is_err(), "{bad}");
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rules.toml");
        std::fs::write(&file, "[[rule]]\npath = 'a'\nmedia_type = 'text'\n").unwrap();
        assert!(matches!(
            Rules::read(Some(&file)),
            Err(RulesError::Invalid { .. })
        ));
        assert!(matches!(
            Rules::read(Some(&dir.path().join("none"))),
            Err(RulesError::Read { .. })
        ));
    }
}
