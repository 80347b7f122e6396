//! Copies on this node's own disk, sealed as they came: with them it starts while the store is down.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::bundle::Bundle;
use crate::material::Material;
use crate::private_file;
use crate::store::Keyring;
use crate::store::seal::Place;

/// A folder of copies.
#[derive(Clone, Debug)]
pub(super) struct Local {
    folder: PathBuf,
    keys: Keyring,
}

#[derive(Serialize, Deserialize)]
struct Copy {
    serial: String,
    sealed: String,
}

impl Local {
    pub(super) fn new(folder: &Path, keys: Keyring) -> Self {
        Self {
            folder: folder.into(),
            keys,
        }
    }

    /// The copy of a certificate, if it is there and can serve now. One that cannot is as good as none.
    pub(super) fn bundle(&self, id: &str, name: &str, now: SystemTime) -> Option<Arc<Bundle>> {
        let file = self.file(id);
        let text = fs::read(&file).ok()?;
        let opened = self.open(id, name, &text, now);
        if opened.is_none() {
            tracing::warn!(file = %file.display(), "the copy of a certificate cannot be used");
        }
        opened
    }

    /// Keeps a copy. A disk that is full must not keep a certificate from serving.
    pub(super) async fn keep(&self, id: &str, serial: &str, sealed: &[u8]) {
        let copy = Copy {
            serial: serial.to_owned(),
            sealed: hex::encode(sealed),
        };
        let file = self.file(id);
        let Ok(text) = serde_json::to_vec(&copy) else {
            return;
        };
        let folder = self.folder.clone();
        let written = tokio::task::spawn_blocking(move || write(&folder, &file, &text)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(id, %error, "no copy of the certificate could be kept on this node");
        }
    }

    pub(super) fn thumbprints(&self) -> HashMap<String, Arc<str>> {
        let read = fs::read(self.folder.join("accounts.json")).ok();
        let parsed = read.and_then(|text| serde_json::from_slice::<HashMap<String, String>>(&text).ok());
        parsed
            .unwrap_or_default()
            .into_iter()
            .map(|(directory, thumbprint)| (directory, Arc::from(thumbprint)))
            .collect()
    }

    pub(super) fn keep_thumbprints(&self, thumbprints: &HashMap<String, Arc<str>>) {
        let thumbprints: HashMap<&str, &str> = thumbprints
            .iter()
            .map(|(directory, thumbprint)| (directory.as_str(), &**thumbprint))
            .collect();
        let written = serde_json::to_vec(&thumbprints)
            .map_err(std::io::Error::other)
            .and_then(|text| write(&self.folder, &self.folder.join("accounts.json"), &text));
        if let Err(error) = written {
            tracing::warn!(%error, "no copy of the accounts' thumbprints could be kept on this node");
        }
    }

    fn open(&self, id: &str, name: &str, text: &[u8], now: SystemTime) -> Option<Arc<Bundle>> {
        let copy: Copy = serde_json::from_slice(text).ok()?;
        let place = Place::Bundle {
            id,
            serial: &copy.serial,
        };
        let plain = self.keys.open(&place, &hex::decode(&copy.sealed).ok()?).ok()?;
        let material: Material = serde_json::from_slice(&plain).ok()?;
        material.bundle(name, &copy.serial, now).ok()
    }

    fn file(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{}.bundle", id.replace('/', "+")))
    }
}

fn write(folder: &Path, file: &Path, text: &[u8]) -> std::io::Result<()> {
    private_file::create_folder(folder)?;
    private_file::write(file, text)
}
