//! Coded forms kept between runs, by the digests of what they were made of: what was coded once is read from here, decoded
//! and compared like anything new, so a damaged file of this folder costs time and nothing else.

use std::path::{Path, PathBuf};

use crate::release::Sha256;
use crate::release::coding::{self, CodingError, CodingName, QUALITY_RELEASE};

/// Changes when the coders do, so that what they made before is not looked at.
const CODERS: &str = "brotli-9.1-zopfli-0.8";

/// A folder, or none.
#[derive(Clone, Debug)]
pub struct Cache(Option<PathBuf>);

/// Why something was not coded.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The coder failed.
    #[error(transparent)]
    Coding(#[from] CodingError),
    /// What it made decodes to something else.
    #[error("{name} of {sha256} decodes to something else: it was not used, and this is a bug of the coder")]
    Unequal {
        /// The coding.
        name: CodingName,
        /// The digest of what was coded.
        sha256: Sha256,
    },
}

impl Cache {
    /// Keeps in a folder, or nowhere.
    pub fn new(dir: Option<PathBuf>) -> Self {
        Self(dir)
    }

    /// The folder unless somebody names another: below the user's own cache.
    pub fn default_dir() -> Option<PathBuf> {
        let variable = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let base = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
        base.map(|base| base.join("origin-sync"))
    }

    /// A coded form, made or found, and checked.
    pub fn coded(
        &self,
        name: CodingName,
        bytes: &[u8],
        sha256: &Sha256,
        dictionary: Option<(&[u8], &Sha256)>,
    ) -> Result<Vec<u8>, MakeError> {
        let place = self.place(name, sha256, dictionary.map(|(_, digest)| digest));
        let same = |coded: &[u8]| {
            let dictionary = dictionary.map(|(bytes, _)| bytes);
            let decoded = coding::decode(name, coded, dictionary, bytes.len() as u64);
            decoded.is_ok_and(|decoded| decoded == bytes)
        };
        if let Some(found) = place.as_deref().and_then(|place| std::fs::read(place).ok())
            && same(&found)
        {
            return Ok(found);
        }
        let coded = match (name, dictionary) {
            (CodingName::Dcb, Some((dictionary, _))) => coding::dcb(bytes, dictionary, QUALITY_RELEASE)?,
            (CodingName::Dcb, None) => return Err(CodingError::Dictionary(name).into()),
            (CodingName::Gzip, _) => coding::gzip(bytes)?,
            (CodingName::Br, _) => coding::br(bytes, QUALITY_RELEASE)?,
        };
        if !same(&coded) {
            return Err(MakeError::Unequal {
                name,
                sha256: *sha256,
            });
        }
        if let Some(place) = place {
            keep(&place, &coded);
        }
        Ok(coded)
    }

    /// A dictionary that was fetched before.
    pub fn dictionary(&self, digest: &Sha256) -> Option<Vec<u8>> {
        let bytes = std::fs::read(self.dictionary_place(digest)?).ok()?;
        (Sha256::of(&bytes) == *digest).then_some(bytes)
    }

    /// Keeps a dictionary.
    pub fn keep_dictionary(&self, digest: &Sha256, bytes: &[u8]) {
        if let Some(place) = self.dictionary_place(digest) {
            keep(&place, bytes);
        }
    }

    fn dictionary_place(&self, digest: &Sha256) -> Option<PathBuf> {
        self.0
            .as_ref()
            .map(|dir| dir.join("blobs").join(digest.to_string()))
    }

    fn place(&self, name: CodingName, sha256: &Sha256, dictionary: Option<&Sha256>) -> Option<PathBuf> {
        let against = dictionary.map(|digest| format!("-{digest}")).unwrap_or_default();
        self.0
            .as_ref()
            .map(|dir| dir.join(CODERS).join(format!("{sha256}.{name}{against}")))
    }
}

/// Written beside its place and renamed, so that nobody reads half of it. That it cannot be kept is nobody's trouble.
fn keep(place: &Path, bytes: &[u8]) {
    let Some(dir) = place.parent() else {
        return;
    };
    let draft = place.with_extension(format!("{}.{}", std::process::id(), Sha256::of(bytes)));
    let kept = std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::write(&draft, bytes))
        .and_then(|()| std::fs::rename(&draft, place));
    if let Err(error) = kept {
        tracing::debug!(place = %place.display(), %error, "a coded form is not kept");
        let _ = std::fs::remove_file(&draft);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_coded_is_found_and_what_is_damaged_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(Some(dir.path().to_owned()));
        let bytes = b"function () { return 1 }".repeat(50);
        let digest = Sha256::of(&bytes);
        let coded = cache.coded(CodingName::Br, &bytes, &digest, None).unwrap();
        let place = cache.place(CodingName::Br, &digest, None).unwrap();
        assert_eq!(std::fs::read(&place).unwrap(), coded);
        // Another stream of the same bytes is believed, which shows that the file was read.
        let other = coding::br(&bytes, 3).unwrap();
        assert_ne!(other, coded);
        std::fs::write(&place, &other).unwrap();
        assert_eq!(cache.coded(CodingName::Br, &bytes, &digest, None).unwrap(), other);
        std::fs::write(&place, &coded[..coded.len() - 1]).unwrap();
        assert_eq!(cache.coded(CodingName::Br, &bytes, &digest, None).unwrap(), coded);
        assert_eq!(std::fs::read(&place).unwrap(), coded);
    }

    #[test]
    fn dictionaries_are_hashed_when_they_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(Some(dir.path().to_owned()));
        let digest = Sha256::of(b"old");
        assert_eq!(cache.dictionary(&digest), None);
        cache.keep_dictionary(&digest, b"old");
        assert_eq!(cache.dictionary(&digest).as_deref(), Some(b"old".as_slice()));
        std::fs::write(cache.dictionary_place(&digest).unwrap(), b"odd").unwrap();
        assert_eq!(cache.dictionary(&digest), None);
        Cache::new(None).keep_dictionary(&digest, b"old");
        assert_eq!(Cache::new(None).dictionary(&digest), None);
    }
}
