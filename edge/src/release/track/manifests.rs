//! Manifests: read from whichever bucket has one to be believed, or from the node's own disk.

use std::sync::Arc;
use std::time::Duration;

use origin_sync::release::envelope::Document as _;
use origin_sync::release::{Manifest, Opened, Sha256, Version, layout};

use super::{Track, lock};
use crate::origin::{Error, Kind};
use crate::release::fetch;
use crate::release::metrics::Rejected;
use crate::release::state::Release;

/// How long it is remembered that a version is not there.
const ABSENT: Duration = Duration::from_secs(10);
/// Versions of which it is remembered; beyond it, all of them are forgotten.
const ABSENT_MAX: usize = 4096;

impl Track {
    /// The manifest of a version, from the first bucket that has one to be believed; and its bytes.
    pub(super) async fn manifest(
        &self,
        version: &Version,
        digest: Option<&Sha256>,
    ) -> Result<(Opened<Manifest>, Vec<u8>), String> {
        let key = layout::manifest(&self.name, version);
        let mut besides = Vec::new();
        let mut first = None;
        loop {
            let got = fetch::object(&self.place.origin, &key, &besides, Manifest::BYTES_MAX as u64).await;
            let why = match got.object {
                Ok(Some(checked)) => match self.believed(&checked.bytes, version, digest) {
                    Ok(opened) => return Ok((opened, checked.bytes.to_vec())),
                    Err(why) => {
                        self.ground.metrics.rejections.inc(Rejected::Manifest);
                        tracing::error!(key, why, "a manifest is not believed");
                        format!("{key}: {why}")
                    }
                },
                Ok(None) => format!("{key} is not there"),
                Err(error) => format!("{key}: {error}"),
            };
            let Some(source) = got.source else {
                return Err(first.unwrap_or(why));
            };
            first.get_or_insert(why);
            besides.push(source);
        }
    }

    pub(super) fn believed(
        &self,
        bytes: &[u8],
        version: &Version,
        digest: Option<&Sha256>,
    ) -> Result<Opened<Manifest>, String> {
        let opened = Manifest::open(bytes, &self.place.trust, &self.name, version);
        let opened = opened.map_err(|error| error.to_string())?;
        match digest {
            Some(digest) if opened.digest != *digest => {
                Err(format!("its digest is {} instead of {digest}", opened.digest))
            }
            _ => Ok(opened),
        }
    }

    /// Looks for a version that nobody asked for yet. Whether it is there.
    pub(super) async fn look_for(&self, version: &Version) -> Result<bool, Error> {
        let key = layout::manifest(&self.name, version);
        let got = fetch::object(&self.place.origin, &key, &[], Manifest::BYTES_MAX as u64).await;
        let opened = match got.object {
            Err(error) if got.source.is_none() => return Err(error),
            Ok(None) => {
                self.note_absent(version);
                return Ok(false);
            }
            Ok(Some(checked)) => self.believed(&checked.bytes, version, None).ok(),
            Err(_) => None,
        };
        let opened = match opened {
            Some(opened) => opened,
            // Another bucket may have one that is believed.
            None => match self.manifest(version, None).await {
                Ok((opened, _)) => opened,
                Err(why) => {
                    self.note_absent(version);
                    return Err(Error::new(Kind::ChecksumMismatch, why));
                }
            },
        };
        let release = Arc::new(Release::new(opened));
        self.change(|state| state.learn(Arc::clone(&release)));
        Ok(true)
    }

    pub(super) fn kept_manifest(
        &self,
        version: &Version,
        digest: &Sha256,
    ) -> Option<(Opened<Manifest>, Vec<u8>)> {
        let bytes = self.keep.as_ref()?.manifest(digest).ok()??;
        let opened = self.believed(&bytes, version, Some(digest)).ok()?;
        Some((opened, bytes))
    }

    pub(super) fn is_absent(&self, version: &str) -> bool {
        let since = lock(&self.absent).get(version).copied();
        since.is_some_and(|since| self.ground.clock.now().since(since) < ABSENT)
    }

    pub(super) fn note_absent(&self, version: &Version) {
        let mut absent = lock(&self.absent);
        if absent.len() >= ABSENT_MAX {
            absent.clear();
        }
        absent.insert(version.clone(), self.ground.clock.now());
    }
}
