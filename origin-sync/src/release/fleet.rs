//! What is said between a promotion and the edges, over the admin API of each edge, as JSON.
//!
//! `POST /v1/releases/prewarm` (scope `admin`) with a [`PrewarmRequest`]: the edge opens the manifest, fetches every file
//! and every coding of it, checks the digests, and answers 200 with a [`PrewarmAnswer`], also where some of it went wrong;
//! it answers when it is done. `GET /v1/releases` (scope `read`): a [`ReleasesAnswer`], what it has in force now; with
//! `?refresh=NAME` it first asks the bucket for that channel. Other statuses carry a problem (RFC 9457).
//!
//! Readers take what they know and skip the rest, so that edges and tools of different versions can talk.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::channel::Pointer;
use super::coding::CodingName;
use super::digest::Sha256;
use super::names::{Alias, FilePath, Name, Version};

/// Where an edge is told to fetch a release before it is promoted.
pub const PREWARM_PATH: &str = "/v1/releases/prewarm";
/// Where an edge says what it has in force.
pub const RELEASES_PATH: &str = "/v1/releases";

/// Fetch this release now, and say what came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrewarmRequest {
    /// What is released.
    pub name: Name,
    /// Which version of it.
    pub version: Version,
    /// The digest of the manifest that is meant; an edge that finds another one says so, and fetches nothing.
    pub manifest: Sha256,
}

/// What an edge holds after it was told to fetch a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrewarmAnswer {
    /// The edge's name for itself.
    pub node: String,
    /// The digest of the manifest that it found and believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Sha256>,
    /// Why nothing was fetched: no site has this release, the manifest is missing, or is not believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Each file of the manifest.
    #[serde(default)]
    pub files: Vec<FileAnswer>,
}

/// What an edge holds of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileAnswer {
    /// Its path in the release.
    pub path: FilePath,
    /// The file as it is, and then each coding of the manifest.
    pub forms: Vec<FormAnswer>,
}

/// What an edge holds of one form of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormAnswer {
    /// The coding; absent for the file as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coding: Option<CodingName>,
    /// The dictionary of the coding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dictionary: Option<Sha256>,
    /// The digest that the edge computed over the bytes it holds, coded as they are; absent if it holds none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// Why it holds none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What an edge has in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleasesAnswer {
    /// The edge's name for itself.
    pub node: String,
    /// Each name that a site of it releases.
    pub releases: Vec<ReleaseState>,
}

/// What an edge has in force of one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseState {
    /// The name.
    pub name: Name,
    /// The serial of the channel in force; absent if it never had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<u64>,
    /// When that channel expires, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Where the aliases point.
    #[serde(default)]
    pub aliases: BTreeMap<Alias, Pointer>,
    /// Why it goes on with an older channel than the bucket has, or with an expired one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_skipped_and_what_is_missing_is_absent() {
        let text = r#"{"node": "a", "soon": 1, "releases": [{"name": "lock", "more": []}]}"#;
        let answer: ReleasesAnswer = serde_json::from_str(text).unwrap();
        assert_eq!(answer.releases[0].serial, None);
        let text =
            r#"{"node": "a", "files": [{"path": "a.js", "forms": [{"sha256": null}, {"coding": "br"}]}]}"#;
        let answer: PrewarmAnswer = serde_json::from_str(text).unwrap();
        assert_eq!(answer.files[0].forms[1].coding, Some(CodingName::Br));
        let text = r#"{"node": "a", "files": [{"path": "../a.js", "forms": []}]}"#;
        assert!(serde_json::from_str::<PrewarmAnswer>(text).is_err());
    }
}
