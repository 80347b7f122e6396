//! The flip: the next channel, signed, over exactly the one that was read.

use std::collections::{BTreeMap, BTreeSet};

use crate::release::envelope::{Document, OpenError, SealError, seal};
use crate::release::integrity::Fields;
use crate::release::{
    Alias, Channel, Manifest, Name, Opened, Pointer, SecretKey, Sha256, Trust, Version, layout,
};
use crate::remote::{self, Body, Expect, Remote, Stored};

/// The channel that is in the bucket.
#[derive(Clone, Debug)]
pub struct InForce {
    /// What it says.
    pub opened: Opened<Channel>,
    /// What a write over it must match.
    pub etag: String,
}

/// Where an alias goes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Move {
    /// The alias.
    pub alias: Alias,
    /// Where it pointed.
    pub from: Option<Version>,
    /// Where it points.
    pub to: Version,
}

/// Why there is no channel to go from.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not to be believed.
    #[error("{key} cannot be believed; nothing was changed")]
    Open {
        /// The channel.
        key: String,
        /// Why.
        source: OpenError,
    },
    /// The bucket could not be read.
    #[error("nothing was changed")]
    Remote(#[from] remote::Error),
}

/// Why it was not flipped.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else flipped it meanwhile.
    #[error("somebody else changed {key} at the same moment, and won: {}; nothing was changed by this run", shown(.winner.as_deref()))]
    Lost {
        /// The channel.
        key: String,
        /// What they wrote.
        winner: Option<Box<Channel>>,
    },
    /// It was written, perhaps.
    #[error("{key} may or may not have been changed: look at `origin-sync status`, and run again")]
    Unknown {
        /// The channel.
        key: String,
        /// What went wrong.
        source: remote::Error,
    },
    /// It cannot be read again.
    #[error("somebody else changed it at the same moment, and what they wrote cannot be read")]
    Read(#[from] ReadError),
    /// It could not be signed.
    #[error("the channel could not be signed; nothing was changed")]
    Seal(#[from] SealError),
}

/// Reads the channel of a name.
pub async fn read(remote: &Remote, name: &Name, trust: &Trust) -> Result<Option<InForce>, ReadError> {
    let key = layout::channel(name);
    let Some(object) = remote.get(&key, Channel::BYTES_MAX as u64).await? else {
        return Ok(None);
    };
    let opened =
        Channel::open(&object.bytes, trust, name).map_err(|source| ReadError::Open { key, source })?;
    Ok(Some(InForce {
        opened,
        etag: object.etag,
    }))
}

/// How the next channel is made.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// A serial that is known to have been in force somewhere; the next one is larger.
    pub serial_seen: u64,
    /// Seconds since 1970.
    pub now: u64,
    /// How long it is good, in seconds.
    pub lifetime: u64,
}

/// The channel with these aliases moved, and without those let go. The fields that browsers check are made by `fill`,
/// once the manifests are known.
pub fn next(
    name: &Name,
    in_force: Option<&Channel>,
    moves: &BTreeMap<Alias, Pointer>,
    gone: &BTreeSet<Alias>,
    terms: Terms,
) -> (Channel, Vec<Move>) {
    let mut aliases = in_force
        .map(|channel| channel.aliases.clone())
        .unwrap_or_default();
    aliases.retain(|alias, _| !gone.contains(alias));
    let mut moved = Vec::new();
    for (alias, to) in moves {
        let before = aliases.get(alias);
        let mut pointer = to.clone();
        pointer.previous = match before {
            Some(before) if before.version == to.version => before.previous.clone(),
            Some(before) => Some(before.version.clone()),
            None => None,
        };
        moved.push(Move {
            alias: alias.clone(),
            from: before.map(|before| before.version.clone()),
            to: to.version.clone(),
        });
        aliases.insert(alias.clone(), pointer);
    }
    let serial = in_force
        .map_or(0, |channel| channel.serial)
        .max(terms.serial_seen);
    let channel = Channel {
        name: name.clone(),
        serial: serial.saturating_add(1),
        created: terms.now,
        expires: terms.now.saturating_add(terms.lifetime),
        aliases,
        integrity: BTreeMap::new(),
    };
    (channel, moved)
}

/// Puts in what browsers check the files of these manifests by, until the channel expires.
pub fn fill(channel: &mut Channel, manifests: &[Manifest], keys: &[&SecretKey]) {
    let pinned = manifests.iter().flat_map(|manifest| &manifest.files);
    let pinned: BTreeSet<Sha256> = pinned
        .filter(|file| file.integrity.is_some())
        .map(|file| file.sha256)
        .collect();
    let expires = Some(channel.expires);
    channel.integrity = pinned
        .into_iter()
        .map(|digest| (digest, Fields::signed(&digest, keys, expires)))
        .collect();
}

/// Writes the channel over the one that was read. Returns the digest of what is there now.
pub async fn write(
    remote: &Remote,
    channel: &Channel,
    over: Option<&InForce>,
    key: &SecretKey,
    trust: &Trust,
) -> Result<Sha256, WriteError> {
    let place = layout::channel(&channel.name);
    let sealed = seal(channel, key)?;
    let body = Body {
        sha256: Sha256::of(&sealed),
        bytes: sealed.into(),
        media_type: "application/json".into(),
        // Between an edge and the bucket there is nothing that should keep it.
        cache_control: "no-cache".into(),
        tags: None,
    };
    let expect = over.map_or(Expect::Absent, |over| Expect::Etag(over.etag.clone()));
    let written = remote.put(&place, &body, &expect).await;
    let stored = written.map_err(|source| WriteError::Unknown {
        key: place.clone(),
        source,
    })?;
    if stored == Stored::Now {
        return Ok(body.sha256);
    }
    let winner = read(remote, &channel.name, trust).await?;
    // It may have been this very write, whose answer was lost on its way.
    match winner {
        Some(winner) if winner.opened.digest == body.sha256 => Ok(body.sha256),
        winner => Err(WriteError::Lost {
            key: place,
            winner: winner.map(|winner| Box::new(winner.opened.document)),
        }),
    }
}

/// A channel on one line.
pub fn shown(channel: Option<&Channel>) -> String {
    let Some(channel) = channel else {
        return "it is gone".to_owned();
    };
    let aliases = channel
        .aliases
        .iter()
        .map(|(alias, pointer)| format!("{alias} -> {}", pointer.version));
    format!(
        "serial {}, {}",
        channel.serial,
        aliases.collect::<Vec<String>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_move_together_and_remember_where_they_were() {
        let name: Name = "lock".parse().unwrap();
        let pointer = |version: &str| Pointer {
            version: version.parse().unwrap(),
            manifest: Sha256::of(version.as_bytes()),
            previous: None,
        };
        let moves = |aliases: &[&str], version: &str| -> BTreeMap<Alias, Pointer> {
            aliases
                .iter()
                .map(|alias| (alias.parse().unwrap(), pointer(version)))
                .collect()
        };
        let none = BTreeSet::new();
        let terms = Terms {
            serial_seen: 0,
            now: 1_000,
            lifetime: 60,
        };
        let (first, _) = next(&name, None, &moves(&["1", "latest"], "1.0.0"), &none, terms);
        assert_eq!((first.serial, first.expires), (1, 1_060));
        let (second, moved) = next(&name, Some(&first), &moves(&["latest"], "2.0.0"), &none, terms);
        assert_eq!(second.serial, 2);
        assert_eq!(moved[0].from.as_ref().unwrap().as_str(), "1.0.0");
        assert_eq!(
            second.aliases["latest"].previous.as_ref().unwrap().as_str(),
            "1.0.0"
        );
        assert_eq!(second.aliases["1"].version.as_str(), "1.0.0");
        // The same again: where it was before stays known.
        let (third, _) = next(&name, Some(&second), &moves(&["latest"], "2.0.0"), &none, terms);
        assert_eq!(
            third.aliases["latest"].previous.as_ref().unwrap().as_str(),
            "1.0.0"
        );
        // An edge has seen a later one: somebody put an old channel into the bucket.
        let seen = Terms {
            serial_seen: 40,
            ..terms
        };
        let gone = BTreeSet::from(["1".parse().unwrap()]);
        let (later, _) = next(&name, Some(&third), &BTreeMap::new(), &gone, seen);
        assert_eq!(later.serial, 41);
        assert_eq!(later.aliases.len(), 1);
    }
}
