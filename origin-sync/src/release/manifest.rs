//! The manifest: which files a version is, by digest. Written once, signed by the release key.
//!
//! It states every form in which a file may be served: the file itself and each coding, each a blob under its own digest.
//! Bytes that no manifest names are not part of a release, whatever the bucket holds.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::coding::CodingName;
use super::digest::{Sha256, Sha384};
use super::envelope::{Document, OpenError, Opened, open};
use super::integrity::Fields;
use super::keys::{Role, Trust};
use super::names::{FilePath, Name, Version};
use super::{Invalid, NUMBER_MAX};

/// Files of one release at most.
pub const FILES_MAX: usize = 10_000;
/// Codings of one file at most.
pub const CODINGS_MAX: usize = 16;
/// Tags of one file at most.
pub const TAGS_MAX: usize = 32;
/// Bytes of one tag at most.
pub const TAG_BYTES_MAX: usize = 256;
/// Bytes of a media type at most.
const MEDIA_TYPE_BYTES_MAX: usize = 200;

/// The files of one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What is released.
    pub name: Name,
    /// Which version of it.
    pub version: Version,
    /// When the manifest was made, in seconds since 1970.
    pub created: u64,
    /// The files, in the order of their paths, each path once.
    pub files: Vec<File>,
}

/// A file of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its path below the version.
    pub path: FilePath,
    /// The digest of its bytes, and so the name of its blob.
    pub sha256: Sha256,
    /// The digest that `integrity` attributes hold.
    pub sha384: Sha384,
    /// How many bytes it has.
    pub size: u64,
    /// The value of its Content-Type, with a charset where there is one.
    pub media_type: String,
    /// How long it may be kept.
    pub class: Class,
    /// What it can be purged by, besides its release.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The coded forms, smallest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codings: Vec<Coding>,
    /// What a browser can check it by, with the release key; for what pages load with an `integrity` attribute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrity: Option<Fields>,
}

/// A coded form of a file. Its blob is served as it is: that of `dcb` begins with the header of RFC 9842, section 4.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coding {
    /// As Content-Encoding says it.
    pub name: CodingName,
    /// The digest of the coded bytes, and so the name of the blob.
    pub sha256: Sha256,
    /// How many coded bytes there are.
    pub size: u64,
    /// The digest of the bytes that the client must hold already; `dcb` has one, and nothing else has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dictionary: Option<Sha256>,
}

/// How long a file may be kept, where it is asked for by its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// For minutes, and stale while it is asked for again: what is also found under a name that moves.
    Alias,
    /// For a minute: what somebody edits.
    Config,
    /// For ever.
    Immutable,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Alias, Self::Config, Self::Immutable];

    /// As documents and rules spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alias => "alias",
            Self::Config => "config",
            Self::Immutable => "immutable",
        }
    }

    /// The Cache-Control that goes with it.
    pub fn cache_control(self) -> &'static str {
        match self {
            Self::Alias => "public, max-age=300, stale-while-revalidate=3600, stale-if-error=86400",
            Self::Config => "public, max-age=60, stale-while-revalidate=3600, stale-if-error=86400",
            Self::Immutable => "public, max-age=31536000, immutable",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Document for Manifest {
    const KIND: &'static str = "portico.manifest.v1";
    const ROLE: Role = Role::Release;
    const BYTES_MAX: usize = 16 * 1024 * 1024;

    fn check(&self) -> Result<(), Invalid> {
        check_number("created", self.created)?;
        if self.files.is_empty() || self.files.len() > FILES_MAX {
            let count = self.files.len();
            return Err(Invalid::new(format!(
                "a release has 1 to {FILES_MAX} files, not {count}"
            )));
        }
        let paths = self.files.iter().zip(self.files.iter().skip(1));
        for (one, next) in paths {
            if one.path >= next.path {
                return Err(Invalid::new(format!(
                    "the path {} is out of order, or there twice",
                    next.path
                )));
            }
        }
        for file in &self.files {
            file.check()
                .map_err(|error| Invalid::new(format!("{}: {error}", file.path)))?;
        }
        Ok(())
    }
}

impl Manifest {
    /// Opens the document that was found where `name` and `version` should be.
    pub fn open(
        bytes: &[u8],
        trust: &Trust,
        name: &Name,
        version: &Version,
    ) -> Result<Opened<Self>, OpenError> {
        let opened = open::<Self>(bytes, trust)?;
        let found = &opened.document;
        if found.name != *name || found.version != *version {
            return Err(OpenError::Misplaced {
                found: format!("{} {}", found.name, found.version),
                wanted: format!("{name} {version}"),
            });
        }
        Ok(opened)
    }

    /// The file at this path.
    pub fn file(&self, path: &str) -> Option<&File> {
        let place = self
            .files
            .binary_search_by(|file| file.path.as_str().cmp(path))
            .ok()?;
        self.files.get(place)
    }

    /// Every blob that the release needs, with its size: files and codings, in order, repeated where files are equal.
    /// Dictionaries are not among them: they are blobs of the releases before.
    pub fn blobs(&self) -> impl Iterator<Item = (Sha256, u64)> + '_ {
        self.files.iter().flat_map(|file| {
            let codings = file.codings.iter().map(|coding| (coding.sha256, coding.size));
            std::iter::once((file.sha256, file.size)).chain(codings)
        })
    }

    /// The tag by which everything of this name is purged.
    pub fn name_tag(name: &Name) -> String {
        format!("release:{name}")
    }

    /// The tag by which what is served under an alias is purged.
    pub fn alias_tag(name: &Name, alias: &str) -> String {
        format!("release:{name}@{alias}")
    }
}

impl File {
    /// The coded form for a client that takes this coding, and holds this dictionary.
    pub fn coding(&self, name: CodingName, dictionary: Option<&Sha256>) -> Option<&Coding> {
        self.codings
            .iter()
            .find(|coding| coding.name == name && coding.dictionary.as_ref() == dictionary)
    }

    fn check(&self) -> Result<(), Invalid> {
        check_number("size", self.size)?;
        check_media_type(&self.media_type)?;
        check_tags(&self.tags)?;
        if self.codings.len() > CODINGS_MAX {
            return Err(Invalid::new(format!("it has more than {CODINGS_MAX} codings")));
        }
        for (place, coding) in self.codings.iter().enumerate() {
            check_number("size", coding.size)?;
            if coding.dictionary.is_some() != (coding.name == CodingName::Dcb) {
                return Err(Invalid::new("dcb has a dictionary, and no other coding has"));
            }
            if coding.dictionary == Some(self.sha256) {
                return Err(Invalid::new("it is its own dictionary"));
            }
            let same = |other: &&Coding| other.name == coding.name && other.dictionary == coding.dictionary;
            if self.codings.iter().take(place).any(|other| same(&other)) {
                return Err(Invalid::new(format!("it has two codings {}", coding.name)));
            }
        }
        match &self.integrity {
            Some(fields) => fields.check(&self.sha256),
            None => Ok(()),
        }
    }
}

pub(super) fn check_number(what: &str, number: u64) -> Result<(), Invalid> {
    if number > NUMBER_MAX {
        return Err(Invalid::new(format!(
            "{what} {number} is larger than {NUMBER_MAX}"
        )));
    }
    Ok(())
}

/// A media type goes into a field as it is: no control characters, and a type and a subtype.
pub(crate) fn check_media_type(media_type: &str) -> Result<(), Invalid> {
    let plain = media_type
        .bytes()
        .all(|byte| byte == b' ' || byte.is_ascii_graphic());
    let essence = media_type.split(';').next().unwrap_or_default();
    let halves = essence.split_once('/').map(|(one, two)| {
        let token = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
        };
        token(one) && token(two)
    });
    if media_type.len() > MEDIA_TYPE_BYTES_MAX || !plain || halves != Some(true) {
        return Err(Invalid::new(format!("{media_type:?} is not a media type")));
    }
    Ok(())
}

/// Tags travel in a field of words between spaces.
pub(crate) fn check_tags(tags: &[String]) -> Result<(), Invalid> {
    if tags.len() > TAGS_MAX {
        return Err(Invalid::new(format!("there are more than {TAGS_MAX} tags")));
    }
    for (place, tag) in tags.iter().enumerate() {
        let plain = tag.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
        if tag.is_empty() || tag.len() > TAG_BYTES_MAX || !plain {
            return Err(Invalid::new(format!("{tag:?} is not a tag")));
        }
        if tags.iter().take(place).any(|other| other == tag) {
            return Err(Invalid::new(format!("the tag {tag:?} is there twice")));
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A manifest with two files, the first of them coded.
    pub(crate) fn manifest() -> Manifest {
        let file = |path: &str, bytes: &[u8], codings: Vec<Coding>| File {
            path: path.parse().unwrap(),
            sha256: Sha256::of(bytes),
            sha384: Sha384::of(bytes),
            size: bytes.len() as u64,
            media_type: "text/javascript; charset=utf-8".into(),
            class: Class::Immutable,
            tags: vec![],
            codings,
            integrity: None,
        };
        let br = Coding {
            name: CodingName::Br,
            sha256: Sha256::of(b"br"),
            size: 2,
            dictionary: None,
        };
        let dcb = Coding {
            name: CodingName::Dcb,
            sha256: Sha256::of(b"d"),
            size: 1,
            dictionary: Some(Sha256::of(b"old")),
        };
        Manifest {
            name: "lock".parse().unwrap(),
            version: "12.5.1".parse().unwrap(),
            created: 1_700_000_000,
            files: vec![
                file("a/b.js", b"ab", vec![dcb, br]),
                file("a/c.js", b"ac", vec![]),
            ],
        }
    }

    #[test]
    fn files_and_codings_are_found() {
        let manifest = manifest();
        assert_eq!(manifest.check(), Ok(()));
        assert_eq!(manifest.file("a/c.js").unwrap().sha256, Sha256::of(b"ac"));
        assert_eq!(manifest.file("a"), None);
        let file = manifest.file("a/b.js").unwrap();
        assert_eq!(file.coding(CodingName::Br, None).unwrap().size, 2);
        assert_eq!(
            file.coding(CodingName::Dcb, Some(&Sha256::of(b"old")))
                .unwrap()
                .size,
            1
        );
        assert_eq!(file.coding(CodingName::Dcb, Some(&Sha256::of(b"older"))), None);
        assert_eq!(file.coding(CodingName::Gzip, None), None);
        assert_eq!(manifest.blobs().count(), 4);
    }

    #[test]
    fn what_a_manifest_must_not_say() {
        type Change = fn(&mut Manifest);
        let check = |change: Change, expected: &str| {
            let mut manifest = manifest();
            change(&mut manifest);
            let error = manifest.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(|manifest| manifest.files.clear(), "1 to 10000 files");
        check(|manifest| manifest.files.reverse(), "out of order");
        check(
            |manifest| manifest.files[1].path = "a/b.js".parse().unwrap(),
            "there twice",
        );
        check(|manifest| manifest.created = 1 << 53, "larger than");
        check(|manifest| manifest.files[0].size = u64::MAX, "a/b.js: size");
        check(
            |manifest| manifest.files[0].media_type = "text".into(),
            "not a media type",
        );
        check(
            |manifest| manifest.files[0].media_type = "text/html\r\nx: y".into(),
            "not a media type",
        );
        check(
            |manifest| manifest.files[0].tags = vec!["a b".into()],
            "not a tag",
        );
        check(
            |manifest| manifest.files[0].tags = vec!["a".into(), "a".into()],
            "there twice",
        );
        check(
            |manifest| manifest.files[0].codings[1].name = CodingName::Dcb,
            "dcb has a dictionary",
        );
        check(
            |manifest| manifest.files[0].codings[0].name = CodingName::Gzip,
            "dcb has a dictionary",
        );
        check(
            |manifest| manifest.files[0].codings[0].dictionary = Some(Sha256::of(b"ab")),
            "its own dictionary",
        );
        check(
            |manifest| {
                let again = manifest.files[0].codings[1].clone();
                manifest.files[0].codings.push(again);
            },
            "two codings br",
        );
        check(
            |manifest| manifest.files[0].integrity = Some(Fields::digest_only(&Sha256::of(b"other"))),
            "another digest",
        );
    }
}
