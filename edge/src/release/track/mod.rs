//! One release of a site: followed, judged, and kept.
//!
//! A channel comes into force when its signature is good, its serial is higher than any seen, it has not expired, and every
//! manifest that it leads to is there and is the one that it names. Everything else leaves in force what was.

mod channel;
mod manifests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use origin_sync::release::fleet::ReleaseState;
use origin_sync::release::{File, Name, Sha256, Trust, Version};
use tokio::sync::OnceCell;

use super::fetch::{self, Checked};
use super::file::Found;
use super::keep::Keep;
use super::state::{InForce, Release, State};
use super::{Ground, Look, Under};
use crate::clock::Timestamp;
use crate::origin::{Error, Kind, Origin};

/// Versions that are learned of at once; one more is told to come back.
const LEARNING_MAX: usize = 64;

/// Where a release comes from, and who vouches for it.
#[derive(Clone, Debug)]
pub(in crate::release) struct Place {
    pub(in crate::release) site: Arc<str>,
    pub(in crate::release) origin_name: Arc<str>,
    pub(in crate::release) origin: Arc<Origin>,
    pub(in crate::release) folder: Option<std::path::PathBuf>,
    pub(in crate::release) trust: Arc<Trust>,
}

/// One release of a site.
#[derive(Debug)]
pub struct Track {
    name: Name,
    place: Place,
    keep: Option<Keep>,
    ground: Ground,
    state: ArcSwap<State>,
    refreshing: tokio::sync::Mutex<Option<(Timestamp, Error)>>,
    absent: Mutex<HashMap<Version, Timestamp>>,
    learning: Mutex<HashMap<Version, Arc<Learned>>>,
    me: Weak<Self>,
}

/// What came of learning of a version: whether it is there.
type Learned = OnceCell<Result<bool, Error>>;

impl Track {
    /// The release as it was last good.
    pub(in crate::release) fn open(name: Name, place: Place, ground: &Ground) -> Arc<Self> {
        let keep = place.folder.as_ref().map(|folder| Keep::new(folder, &name));
        let track = Arc::new_cyclic(|me| Self {
            name,
            place,
            keep,
            ground: ground.clone(),
            state: ArcSwap::default(),
            refreshing: tokio::sync::Mutex::default(),
            absent: Mutex::default(),
            learning: Mutex::default(),
            me: Weak::clone(me),
        });
        match track.kept() {
            Ok(None) => {}
            Ok(Some(channel)) => track.change(|state| state.channel = Some(Arc::clone(&channel))),
            Err(why) => {
                tracing::error!(release = %track.name, why, "the channel that was kept on disk is not used");
            }
        }
        track
    }

    /// What is released.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The site's own name.
    pub fn site(&self) -> &str {
        &self.place.site
    }

    /// The name of the origin that its buckets belong to.
    pub fn origin_name(&self) -> &str {
        &self.place.origin_name
    }

    /// Where `file` leads under a version or an alias.
    pub(in crate::release) fn look(&self, segment: &str, file: &str) -> Look {
        let state = self.state.load();
        let Some(me) = self.me.upgrade() else {
            return Look::Nothing;
        };
        let aliased = state.channel.as_ref().and_then(|channel| {
            let (alias, _) = channel.opened.document.aliases.get_key_value(segment)?;
            let under = Under {
                channel: Arc::clone(channel),
                alias: alias.clone(),
            };
            Some((channel.alias(segment)?, Some(under)))
        });
        let found = aliased.or_else(|| Some((state.release(segment)?, None)));
        match found {
            Some((release, under)) => match release.file(file) {
                Some(file) => Look::Found(Found {
                    track: me,
                    file: Arc::clone(file),
                    under,
                }),
                None => Look::Nothing,
            },
            None if segment.parse::<Version>().is_err() || (state.asked && self.is_absent(segment)) => {
                Look::Nothing
            }
            None => Look::Unknown(me, segment.into()),
        }
    }

    /// Looks in the bucket for the version or alias that is asked for. Whether there is such a one now is for
    /// [`super::Releases::look`] to say.
    pub async fn learn(&self, segment: &str) -> Result<(), Error> {
        if !self.state.load().asked {
            self.refresh_once().await?;
        }
        let Ok(version) = segment.parse::<Version>() else {
            return Ok(());
        };
        let state = self.state.load_full();
        let is_alias = state
            .channel
            .as_ref()
            .is_some_and(|channel| channel.alias(segment).is_some());
        if is_alias || state.release(segment).is_some() {
            return Ok(());
        }
        let cell = {
            let mut learning = lock(&self.learning);
            if learning.len() >= LEARNING_MAX && !learning.contains_key(&version) {
                let detail = "as many versions are looked for as may be";
                return Err(Error::new(Kind::ConnectionLimitReached, detail));
            }
            Arc::clone(learning.entry(version.clone()).or_default())
        };
        let learned = cell.get_or_init(|| self.look_for(&version)).await.clone();
        lock(&self.learning).remove(&version);
        learned.map(|_| ())
    }

    /// The release of a version whose manifest has this digest.
    pub async fn release(&self, version: &Version, digest: &Sha256) -> Result<Arc<Release>, String> {
        let known = self.state.load().release(version.as_str()).cloned();
        match known {
            Some(known) if known.digest == *digest => Ok(known),
            Some(known) => Err(format!("the manifest in use is {}", known.digest)),
            None => {
                let (opened, _) = self.manifest(version, Some(digest)).await?;
                let release = Arc::new(Release::new(opened));
                self.change(|state| state.learn(Arc::clone(&release)));
                lock(&self.absent).remove(version);
                Ok(release)
            }
        }
    }

    /// The blob of this digest. It is what its digest says.
    pub async fn blob(&self, digest: &Sha256, size: u64) -> Result<Checked, Error> {
        fetch::blob(&self.place.origin, digest, size, &self.ground.metrics).await
    }

    /// The file at `path` that has this digest in some release: what a client may hold as a dictionary.
    pub fn holder(&self, path: &str, digest: &Sha256) -> Option<Arc<File>> {
        self.state.load().holder(path, digest)
    }

    /// The channel that was in force before, while it may stand in.
    pub(in crate::release) fn before(&self) -> Option<Arc<InForce>> {
        let state = self.state.load();
        let (before, until) = state.before.as_ref()?;
        (self.ground.clock.now() < *until).then(|| Arc::clone(before))
    }

    /// What is in force, for whoever asks.
    pub fn shown(&self) -> ReleaseState {
        let state = self.state.load();
        let channel = state.channel.as_ref().map(|channel| &channel.opened.document);
        ReleaseState {
            name: self.name.clone(),
            serial: channel.map(|channel| channel.serial),
            expires: channel.map(|channel| channel.expires),
            aliases: channel.map(|channel| channel.aliases.clone()).unwrap_or_default(),
            degraded: self.degraded(&state),
        }
    }

    pub(in crate::release) fn is_degraded(&self) -> bool {
        self.degraded(&self.state.load()).is_some()
    }

    fn degraded(&self, state: &State) -> Option<String> {
        let expired = state.channel.as_ref().is_some_and(|channel| {
            let document = &channel.opened.document;
            document.expired(self.now())
        });
        let expired = expired.then(|| "the channel in force has expired".to_owned());
        state.degraded.clone().or(expired)
    }

    fn change(&self, change: impl Fn(&mut State)) {
        self.state.rcu(|state| {
            let mut changed = State::clone(state);
            change(&mut changed);
            changed
        });
    }

    fn now(&self) -> u64 {
        u64::try_from(self.ground.clock.now().unix_seconds()).unwrap_or_default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
