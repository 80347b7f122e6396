//! The channel of a release: asked for, judged, put in force, and kept.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use origin_sync::release::channel::Step;
use origin_sync::release::envelope::Document as _;
use origin_sync::release::{Channel, Opened, Sha256, Version, layout};

use super::Track;
use crate::clock::Timestamp;
use crate::origin::Error;
use crate::release::fetch;
use crate::release::metrics::Rejected;
use crate::release::state::{InForce, Release};

/// How long what was in force before may stand in for what cannot be had.
const BEFORE: Duration = Duration::from_secs(86_400);
/// How long a failure to reach the bucket answers for the next who ask.
const FAILED: Duration = Duration::from_secs(1);

/// What a look at the bucket's channel came to.
enum Read {
    /// It is in force.
    Good,
    /// It is newer, and everything that it leads to is there.
    Taken(Box<Taken>),
    /// It is not to be followed, for this reason.
    Bad(String),
    /// There is none.
    Missing,
}

struct Taken {
    channel: InForce,
    bytes: Vec<u8>,
    manifests: Vec<(Sha256, Vec<u8>)>,
}

/// The releases that a channel leads to, and the bytes of their manifests.
type Pinned = (HashMap<Version, Arc<Release>>, Vec<(Sha256, Vec<u8>)>);

impl Track {
    /// Follows the channel, every `poll` or so, until the release is dropped or a drain begins.
    pub(in crate::release) fn follow(&self, poll: Duration) {
        let (me, drain) = (Weak::clone(&self.me), self.ground.drain.clone());
        self.ground.drain.spawn("release-channel", async move {
            while let Some(track) = me.upgrade() {
                track.refresh().await;
                drop(track);
                // Not all nodes at once.
                let pause = poll.mul_f64(0.8 + 0.4 * fastrand::f64());
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = drain.begun() => return,
                }
            }
        });
    }

    /// Asks the bucket for the channel now.
    pub async fn refresh(&self) {
        let mut last = self.refreshing.lock().await;
        *last = self
            .read_channel()
            .await
            .err()
            .map(|error| (self.ground.clock.now(), error));
    }

    /// As [`Track::refresh`], unless that was done, or failed, a moment ago.
    pub(super) async fn refresh_once(&self) -> Result<(), Error> {
        let mut last = self.refreshing.lock().await;
        if self.state.load().asked {
            return Ok(());
        }
        let now = self.ground.clock.now();
        if let Some((_, error)) = last.as_ref().filter(|(at, _)| now.since(*at) < FAILED) {
            return Err(error.clone());
        }
        let read = self.read_channel().await;
        *last = read.clone().err().map(|error| (self.ground.clock.now(), error));
        read
    }

    /// Asks one bucket after the other, until one has a channel that may be followed.
    async fn read_channel(&self) -> Result<(), Error> {
        let key = layout::channel(&self.name);
        let (mut besides, mut why, mut missing) = (Vec::new(), None, false);
        let unreachable = loop {
            let got = fetch::object(&self.place.origin, &key, &besides, Channel::BYTES_MAX as u64).await;
            let Some(source) = got.source else {
                break got.object.err();
            };
            let read = match got.object {
                Ok(Some(checked)) => self.judge(&checked.bytes).await,
                Ok(None) => Read::Missing,
                Err(error) => Read::Bad(error.to_string()),
            };
            match read {
                Read::Good => {
                    self.settle(None);
                    return Ok(());
                }
                Read::Taken(taken) => {
                    self.take(*taken).await;
                    return Ok(());
                }
                Read::Missing => missing = true,
                Read::Bad(reason) => {
                    tracing::warn!(release = %self.name, bucket = &*source, reason, "a channel is not followed");
                    why.get_or_insert(reason);
                }
            }
            besides.push(source);
        };
        let in_force = self.state.load().channel.is_some();
        match (why, missing, unreachable) {
            (Some(why), ..) => self.settle(Some(why)),
            (None, true, _) if in_force => self.settle(Some("the bucket has no channel any more".into())),
            (None, true, _) => self.settle(None),
            (None, false, Some(error)) => {
                self.ground.review();
                tracing::warn!(release = %self.name, %error, "no bucket could be asked for the channel");
                return Err(error);
            }
            (None, false, None) => {}
        }
        Ok(())
    }

    /// What these bytes are to the channel in force.
    async fn judge(&self, bytes: &[u8]) -> Read {
        let opened = match Channel::open(bytes, &self.place.trust, &self.name) {
            Ok(opened) => opened,
            Err(error) => {
                self.ground.metrics.rejections.inc(Rejected::Channel);
                return Read::Bad(format!("the bucket's channel: {error}"));
            }
        };
        let state = self.state.load_full();
        let serial = opened.document.serial;
        let in_force = state.channel.as_ref().map(|channel| &channel.opened);
        let step = in_force.map_or(Step::Newer, |in_force| Channel::step(in_force, &opened));
        match step {
            // What was kept of it may have been lost; then it is put together again.
            Step::Same if state.channel.as_ref().is_some_and(|channel| channel.is_whole()) => {
                return Read::Good;
            }
            Step::Forked => {
                self.ground.metrics.rejections.inc(Rejected::Channel);
                return Read::Bad(format!(
                    "the bucket's channel has serial {serial} and says something else"
                ));
            }
            Step::Older => {
                let ours = in_force.map_or(0, |in_force| in_force.document.serial);
                return Read::Bad(format!("the bucket's channel has serial {serial}, below {ours}"));
            }
            Step::Newer | Step::Same => {}
        }
        if step == Step::Newer && opened.document.expired(self.now()) {
            return Read::Bad(format!("the bucket's channel, serial {serial}, has expired"));
        }
        match self.pinned(&opened).await {
            Ok((releases, manifests)) => Read::Taken(Box::new(Taken {
                channel: InForce { opened, releases },
                bytes: bytes.to_vec(),
                manifests,
            })),
            Err(why) => Read::Bad(format!("the bucket's channel, serial {serial}: {why}")),
        }
    }

    /// The releases that a channel leads to, each by the very manifest that it names.
    async fn pinned(&self, channel: &Opened<Channel>) -> Result<Pinned, String> {
        let mut releases = HashMap::new();
        let mut manifests = Vec::new();
        for pointer in channel.document.aliases.values() {
            if releases.contains_key(&pointer.version) {
                continue;
            }
            let (opened, bytes) = match self.kept_manifest(&pointer.version, &pointer.manifest) {
                Some(kept) => kept,
                None => self.manifest(&pointer.version, Some(&pointer.manifest)).await?,
            };
            manifests.push((pointer.manifest, bytes));
            releases.insert(pointer.version.clone(), Arc::new(Release::new(opened)));
        }
        Ok((releases, manifests))
    }

    /// Puts a channel in force: first on disk, so that a restart does not go back behind it.
    async fn take(&self, taken: Taken) {
        let Taken {
            channel,
            bytes,
            manifests,
        } = taken;
        let mut degraded = None;
        if let Some(keep) = self.keep.clone() {
            let put = tokio::task::spawn_blocking(move || keep.put(&bytes, &manifests)).await;
            if let Err(error) = put.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
                tracing::error!(release = %self.name, %error, "the channel cannot be kept on disk");
                degraded = Some(format!("the channel cannot be kept on disk: {error}"));
            }
        }
        let channel = Arc::new(channel);
        let until = Timestamp::from_unix_micros(
            self.ground.clock.now().unix_micros() + i64::try_from(BEFORE.as_micros()).unwrap_or_default(),
        );
        tracing::info!(release = %self.name, serial = channel.opened.document.serial, "a channel is in force");
        self.change(|state| {
            state.before = state.channel.take().map(|before| (before, until));
            for release in channel.releases.values() {
                state.learn(Arc::clone(release));
            }
            state.channel = Some(Arc::clone(&channel));
        });
        self.ground.metrics.flips.inc();
        self.settle(degraded);
    }

    /// Notes what the last look came to.
    fn settle(&self, degraded: Option<String>) {
        let was = self.state.load().degraded.clone();
        if let Some(why) = degraded.as_ref().filter(|why| Some(*why) != was.as_ref()) {
            tracing::error!(release = %self.name, site = self.site(), why, "what was last good stays in force");
        }
        self.change(|state| {
            state.asked = true;
            state.degraded.clone_from(&degraded);
        });
        self.ground.review();
    }

    /// The channel that was kept, if it is still believed, with what it leads to.
    pub(super) fn kept(&self) -> Result<Option<Arc<InForce>>, String> {
        let Some(keep) = &self.keep else {
            return Ok(None);
        };
        let Some(bytes) = keep.channel().map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let opened =
            Channel::open(&bytes, &self.place.trust, &self.name).map_err(|error| error.to_string())?;
        let mut releases = HashMap::new();
        for pointer in opened.document.aliases.values() {
            // One that is lost is learned of again when the bucket can be asked; the serial counts all the same.
            if let Some((manifest, _)) = self.kept_manifest(&pointer.version, &pointer.manifest) {
                releases.insert(pointer.version.clone(), Arc::new(Release::new(manifest)));
            }
        }
        Ok(Some(Arc::new(InForce { opened, releases })))
    }
}
