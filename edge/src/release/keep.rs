//! What of a release is kept on the node's own disk: the channel in force, and the manifests that it leads to. All of it is
//! as it was signed, and is opened with the keys of the moment when it is read again.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use origin_sync::release::envelope::Document;
use origin_sync::release::{Channel, Manifest, Name, Sha256};

/// The folder of one release of a site.
#[derive(Clone, Debug)]
pub(super) struct Keep(PathBuf);

impl Keep {
    pub(super) fn new(folder: &Path, name: &Name) -> Self {
        Self(folder.join(name.as_str()))
    }

    /// The channel that was last put in force; none if there was none.
    pub(super) fn channel(&self) -> io::Result<Option<Vec<u8>>> {
        read(&self.0.join("channel.json"), Channel::BYTES_MAX)
    }

    /// A manifest that the channel leads to.
    pub(super) fn manifest(&self, digest: &Sha256) -> io::Result<Option<Vec<u8>>> {
        read(&self.manifest_path(digest), Manifest::BYTES_MAX)
    }

    /// Keeps a channel with its manifests, and lets go of the manifests of others. The channel comes last, so that what it
    /// leads to is there when it is.
    pub(super) fn put(&self, channel: &[u8], manifests: &[(Sha256, Vec<u8>)]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        for (digest, bytes) in manifests {
            self.write(&self.manifest_path(digest), bytes)?;
        }
        self.write(&self.0.join("channel.json"), channel)?;
        let wanted: Vec<PathBuf> = manifests
            .iter()
            .map(|(digest, _)| self.manifest_path(digest))
            .collect();
        for entry in std::fs::read_dir(&self.0)?.flatten() {
            let path = entry.path();
            let is_manifest = entry.file_name().to_string_lossy().starts_with("manifest-");
            if is_manifest && !wanted.contains(&path) {
                // One that stays costs its bytes, and is tried again at the next channel.
                let _ = std::fs::remove_file(path);
            }
        }
        Ok(())
    }

    fn manifest_path(&self, digest: &Sha256) -> PathBuf {
        self.0.join(format!("manifest-{digest}.json"))
    }

    /// Replaces a file whole: what is read later is the old one or the new one.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let draft = path.with_extension("draft");
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&draft, path)?;
        File::open(&self.0)?.sync_all()
    }
}

fn read(path: &Path, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_kept_is_read_again_by_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let name: Name = "lock".parse().unwrap();
        let keep = Keep::new(&folder.path().join("cdn.test"), &name);
        assert!(keep.channel().unwrap().is_none());
        let (one, two) = (Sha256::of(b"one"), Sha256::of(b"two"));
        keep.put(b"first", &[(one, b"one".to_vec())]).unwrap();
        keep.put(b"second", &[(two, b"two".to_vec())]).unwrap();
        assert_eq!(keep.channel().unwrap().unwrap(), b"second");
        assert_eq!(keep.manifest(&two).unwrap().unwrap(), b"two");
        assert!(keep.manifest(&one).unwrap().is_none());
        let path = folder.path().join("cdn.test/lock/channel.json");
        assert_eq!(
            std::fs::metadata(path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
