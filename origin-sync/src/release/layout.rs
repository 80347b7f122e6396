//! Where things are in the bucket, below the prefix that the bucket's users agreed on.
//!
//! | key | what | written |
//! |---|---|---|
//! | `blobs/sha256/<hex>` | bytes under their own digest: files, coded forms, and so dictionaries too | once |
//! | `releases/<name>/<version>.json` | the manifest of a version | once |
//! | `channels/<name>.json` | the channel of a name | at every promotion |

use super::digest::Sha256;
use super::names::{Name, Version};

/// Where all blobs are.
pub const BLOBS: &str = "blobs/sha256/";
/// Where all manifests are.
pub const RELEASES: &str = "releases/";
/// Where all channels are.
pub const CHANNELS: &str = "channels/";

/// The key of a blob. A dictionary is a blob: the file of an earlier release.
pub fn blob(digest: &Sha256) -> String {
    format!("{BLOBS}{digest}")
}

/// The blob of a key, if it is one's.
pub fn blob_of(key: &str) -> Option<Sha256> {
    key.strip_prefix(BLOBS)?.parse().ok()
}

/// The key of a manifest.
pub fn manifest(name: &Name, version: &Version) -> String {
    format!("{RELEASES}{name}/{version}.json")
}

/// Where the manifests of a name are.
pub fn manifests(name: &Name) -> String {
    format!("{RELEASES}{name}/")
}

/// The name and version of a manifest's key, if it is one.
pub fn manifest_of(key: &str) -> Option<(Name, Version)> {
    let (name, version) = key.strip_prefix(RELEASES)?.split_once('/')?;
    Some((name.parse().ok()?, version.strip_suffix(".json")?.parse().ok()?))
}

/// The key of a channel.
pub fn channel(name: &Name) -> String {
    format!("{CHANNELS}{name}.json")
}

/// The name of a channel's key, if it is one.
pub fn channel_of(key: &str) -> Option<Name> {
    key.strip_prefix(CHANNELS)?.strip_suffix(".json")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let name: Name = "auth0.js".parse().unwrap();
        let version: Version = "9.28.0-rc.1".parse().unwrap();
        let digest = Sha256::of(b"");
        assert_eq!(blob_of(&blob(&digest)), Some(digest));
        assert_eq!(manifest(&name, &version), "releases/auth0.js/9.28.0-rc.1.json");
        assert_eq!(
            manifest_of(&manifest(&name, &version)),
            Some((name.clone(), version))
        );
        assert_eq!(channel(&name), "channels/auth0.js.json");
        assert_eq!(channel_of(&channel(&name)), Some(name));
        for other in [
            "",
            "blobs/sha256/x",
            "releases/lock/1",
            "releases/lock/a/b.json",
            "channels/a/b.json",
        ] {
            assert_eq!(blob_of(other), None);
            assert_eq!(manifest_of(other), None);
            assert_eq!(channel_of(other), None);
        }
    }
}
