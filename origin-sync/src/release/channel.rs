//! The channel: which version each alias points to. The only thing about releases that ever changes.
//!
//! All aliases of a name are in one document, so they move together or not at all. Its serial only grows: going back to an
//! earlier version is a new serial too, and a reader never believes a lower one than it has seen. It expires, so that
//! whoever holds the bucket can keep an old one in place for no longer than that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Invalid;
use super::digest::Sha256;
use super::envelope::{Document, OpenError, Opened, open};
use super::integrity::Fields;
use super::keys::{Role, Trust};
use super::manifest::check_number;
use super::names::{Alias, Name, Version};

/// Aliases of one channel at most.
pub const ALIASES_MAX: usize = 256;
/// Files of one channel that have fields to be checked by, at most.
pub const FIELDS_MAX: usize = 10_000;

/// Where the aliases of a name point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// What is released.
    pub name: Name,
    /// Grows by one at every change.
    pub serial: u64,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// When it stops being good, in seconds since 1970. A reader goes on with it, and says that it is degraded.
    pub expires: u64,
    /// The aliases.
    pub aliases: BTreeMap<Alias, Pointer>,
    /// What a browser can check files under an alias by, with the channel key: for each file that an alias leads to and
    /// that pages load with an `integrity` attribute, by the digest of the file. Never sent once it has expired: a browser
    /// refuses an expired signature whether the page asks for one or not.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub integrity: BTreeMap<Sha256, Fields>,
}

/// Where an alias points: a version, and the very manifest of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pointer {
    /// The version.
    pub version: Version,
    /// The digest of the manifest's bytes: also the release key cannot change what an alias leads to.
    pub manifest: Sha256,
    /// The version that it pointed to before this one: where a rollback goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Version>,
}

/// What a channel that was read is to the one in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It has the serial of the one in force and says something else: two were signed, and one of them must be wrong.
    /// Keep what is in force.
    Forked,
    /// It is newer: take it.
    Newer,
    /// It is older: a replica that lags, or somebody who turns back time. Keep what is in force.
    Older,
    /// It is the one in force.
    Same,
}

impl Document for Channel {
    const KIND: &'static str = "portico.channel.v1";
    const ROLE: Role = Role::Channel;
    const BYTES_MAX: usize = 8 * 1024 * 1024;

    fn check(&self) -> Result<(), Invalid> {
        check_number("serial", self.serial)?;
        check_number("created", self.created)?;
        check_number("expires", self.expires)?;
        if self.serial == 0 {
            return Err(Invalid::new("serials begin with 1"));
        }
        if self.expires <= self.created {
            return Err(Invalid::new("it expires before it was made"));
        }
        if self.aliases.len() > ALIASES_MAX {
            return Err(Invalid::new(format!("there are more than {ALIASES_MAX} aliases")));
        }
        if self.integrity.len() > FIELDS_MAX {
            return Err(Invalid::new(format!(
                "there are fields for more than {FIELDS_MAX} files"
            )));
        }
        for (digest, fields) in &self.integrity {
            fields.check(digest)?;
        }
        Ok(())
    }
}

impl Channel {
    /// Opens the document that was found where the channel of `name` should be. Whether it is still good is for
    /// [`Channel::expired`] and [`Channel::step`] to say.
    pub fn open(bytes: &[u8], trust: &Trust, name: &Name) -> Result<Opened<Self>, OpenError> {
        let opened = open::<Self>(bytes, trust)?;
        if opened.document.name != *name {
            return Err(OpenError::Misplaced {
                found: opened.document.name.to_string(),
                wanted: name.to_string(),
            });
        }
        Ok(opened)
    }

    /// Whether it has stopped being good at `now`, in seconds since 1970.
    pub fn expired(&self, now: u64) -> bool {
        now >= self.expires
    }

    /// What `read` is to the one in force.
    pub fn step(in_force: &Opened<Self>, read: &Opened<Self>) -> Step {
        match read.document.serial.cmp(&in_force.document.serial) {
            std::cmp::Ordering::Greater => Step::Newer,
            std::cmp::Ordering::Less => Step::Older,
            std::cmp::Ordering::Equal if read.digest == in_force.digest => Step::Same,
            std::cmp::Ordering::Equal => Step::Forked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::envelope::seal;
    use crate::release::keys::SecretKey;

    fn channel(serial: u64) -> Channel {
        let pointer = |version: &str| Pointer {
            version: version.parse().unwrap(),
            manifest: Sha256::of(version.as_bytes()),
            previous: None,
        };
        let aliases = [("12", "12.5.1"), ("latest", "12.5.1"), ("11", "11.9.0")];
        Channel {
            name: "lock".parse().unwrap(),
            serial,
            created: 1_000,
            expires: 2_000,
            aliases: aliases
                .map(|(alias, version)| (alias.parse().unwrap(), pointer(version)))
                .into(),
            integrity: BTreeMap::new(),
        }
    }

    #[test]
    fn serials_only_grow() {
        let key = SecretKey::generate(Role::Channel).unwrap();
        let trust = Trust::new([key.public()]);
        let opened =
            |channel: &Channel| Channel::open(&seal(channel, &key).unwrap(), &trust, &channel.name).unwrap();
        let in_force = opened(&channel(7));
        assert_eq!(Channel::step(&in_force, &opened(&channel(8))), Step::Newer);
        assert_eq!(Channel::step(&in_force, &opened(&channel(6))), Step::Older);
        assert_eq!(Channel::step(&in_force, &opened(&channel(7))), Step::Same);
        let mut other = channel(7);
        other.aliases.clear();
        assert_eq!(Channel::step(&in_force, &opened(&other)), Step::Forked);
        let elsewhere = Channel::open(
            &seal(&channel(7), &key).unwrap(),
            &trust,
            &"auth0.js".parse().unwrap(),
        );
        assert!(matches!(elsewhere, Err(OpenError::Misplaced { .. })));
    }

    #[test]
    fn a_channel_expires_at_its_second() {
        assert!(!channel(1).expired(1_999));
        assert!(channel(1).expired(2_000));
    }

    #[test]
    fn aliases_that_stand_there_twice_are_refused() {
        let key = SecretKey::generate(Role::Channel).unwrap();
        let trust = Trust::new([key.public()]);
        let text = String::from_utf8(seal(&channel(1), &key).unwrap()).unwrap();
        let alias = format!(
            r#""12":{{"manifest":"{}","version":"12.5.1"}}"#,
            Sha256::of(b"12.5.1")
        );
        let twice = text.replacen(&alias, &format!("{alias},{alias}"), 1);
        assert_ne!(text, twice);
        let error = Channel::open(twice.as_bytes(), &trust, &"lock".parse().unwrap()).unwrap_err();
        assert!(matches!(error, OpenError::NotCanonical), "{error}");
    }

    #[test]
    fn what_a_channel_must_not_say() {
        type Change = fn(&mut Channel);
        let check = |change: Change, expected: &str| {
            let mut channel = channel(1);
            change(&mut channel);
            let error = channel.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        assert_eq!(channel(1).check(), Ok(()));
        check(|channel| channel.serial = 0, "begin with 1");
        check(|channel| channel.serial = 1 << 53, "larger than");
        check(|channel| channel.expires = channel.created, "before it was made");
        check(
            |channel| {
                channel
                    .integrity
                    .insert(Sha256::of(b"a"), Fields::digest_only(&Sha256::of(b"b")));
            },
            "another digest",
        );
    }
}
