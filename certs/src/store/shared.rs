//! Certificates in the shared store: slots, bundles, and the lease by which one node at a time works on a name.
//!
//! A bundle is written first and under a name of its own, then the slot is flipped to it by a conditional write. Whoever finds
//! the slot changed since it was read has lost, and leaves everything as it is.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::seal::{Keyring, Place, SealError};
use super::slot::{Current, Failure, Held, Slot, bundle_key, from_unix, id_of, slot_key, unix};
use super::{Error, Object, Objects, OnlyIf, Tag};
use crate::material::Material;

/// The shared store, as one node sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shared {
    objects: Arc<dyn Objects>,
    keys: Keyring,
    owner: String,
    life: Duration,
}

/// A slot as it was read.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What it says.
    pub slot: Slot,
    tag: Tag,
}

/// What came of asking for a lease.
#[derive(Debug)]
pub enum Taken {
    /// It is ours.
    Ours(Box<Lease>),
    /// Somebody else has it.
    Theirs {
        /// Who.
        owner: String,
    },
}

impl Shared {
    /// The store in `objects`, for the node `owner`, whose leases last for `life` unless they are refreshed.
    pub fn new(objects: Arc<dyn Objects>, keys: Keyring, owner: String, life: Duration) -> Self {
        Self {
            objects,
            keys,
            owner,
            life,
        }
    }

    /// What objects are sealed with.
    pub fn keys(&self) -> &Keyring {
        &self.keys
    }

    /// The objects themselves.
    pub fn objects(&self) -> &dyn Objects {
        &*self.objects
    }

    /// How long a lease lasts that is not refreshed.
    pub fn lease_life(&self) -> Duration {
        self.life
    }

    /// The slot of a certificate, if there is one.
    pub async fn read(&self, id: &str) -> Result<Option<Seen>, Error> {
        let key = slot_key(id);
        let Some(object) = self.objects.get(&key).await? else {
            return Ok(None);
        };
        let slot = parse(&key, &object)?;
        Ok(Some(Seen {
            slot,
            tag: object.tag,
        }))
    }

    /// Every certificate in the store.
    pub async fn ids(&self) -> Result<Vec<String>, Error> {
        let keys = self.objects.list("names/").await?;
        Ok(keys
            .iter()
            .filter_map(|key| id_of(key))
            .map(str::to_owned)
            .collect())
    }

    /// The sealed bundle that a slot names.
    pub async fn sealed(&self, id: &str, serial: &str) -> Result<Vec<u8>, Error> {
        let key = bundle_key(id, serial);
        let object = self.objects.get(&key).await?;
        object
            .map(|object| object.body)
            .ok_or_else(|| Error::damaged(&key, "is missing, though the slot names it"))
    }

    /// What a sealed bundle holds.
    pub fn open(&self, id: &str, serial: &str, sealed: &[u8]) -> Result<Material, Error> {
        let key = bundle_key(id, serial);
        let plain = self
            .keys
            .open(&Place::Bundle { id, serial }, sealed)
            .map_err(|source| Error::Sealed {
                key: key.clone(),
                source,
            })?;
        serde_json::from_slice(&plain).map_err(|_| Error::damaged(&key, "does not read as a bundle"))
    }

    /// Asks for the lease of a certificate. One that has ended is stolen: by one asker alone, since it is by its tag.
    pub async fn take(&self, id: &str, now: SystemTime) -> Result<Taken, Error> {
        let seen = self.read(id).await?;
        let (mut slot, only_if) = match seen {
            Some(seen) => (seen.slot, OnlyIf::Unchanged(seen.tag)),
            None => (Slot::default(), OnlyIf::Absent),
        };
        if let Some(held) = slot.held(now, self.life) {
            return Ok(Taken::Theirs {
                owner: held.owner.clone(),
            });
        }
        slot.lease = Some(self.held(now));
        match self.write(id, &mut slot, only_if).await {
            Ok(tag) => Ok(Taken::Ours(Box::new(Lease {
                shared: self.clone(),
                id: id.to_owned(),
                slot,
                tag,
                alive: true,
            }))),
            Err(error) if error.is_conflict() => Ok(Taken::Theirs {
                owner: "somebody who was faster".to_owned(),
            }),
            Err(error) => Err(error),
        }
    }

    fn held(&self, now: SystemTime) -> Held {
        // Rounded up, so that a lease of a second is not over at once.
        let expires = unix(now + self.life) + 1;
        Held {
            owner: self.owner.clone(),
            expires,
        }
    }

    /// Writes a slot. A refusal may be of a write of our own whose answer got lost: then what is there is ours.
    async fn write(&self, id: &str, slot: &mut Slot, only_if: OnlyIf) -> Result<Tag, Error> {
        let key = slot_key(id);
        slot.writer = format!("{:016x}", fastrand::u64(..));
        let body = serde_json::to_vec(slot).map_err(|error| Error::damaged(&key, error.to_string()))?;
        let refused = match self.objects.put(&key, body.clone(), only_if).await {
            Ok(tag) => return Ok(tag),
            Err(error) => error,
        };
        match self.objects.get(&key).await {
            Ok(Some(object)) if object.body == body => Ok(object.tag),
            _ => Err(refused),
        }
    }
}

/// The right to work on a certificate, until it ends or somebody steals it.
#[derive(Debug)]
pub struct Lease {
    shared: Shared,
    id: String,
    slot: Slot,
    tag: Tag,
    alive: bool,
}

impl Lease {
    /// What the slot said when it was last written by this holder.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Whether nothing has shown yet that it was lost.
    pub fn is_alive(&self) -> bool {
        self.alive
    }

    /// Waits for `work`, and refreshes the lease meanwhile. When it is lost the work is given up.
    pub async fn hold<T>(
        &mut self,
        now: &(dyn Fn() -> SystemTime + Send + Sync),
        work: impl Future<Output = T>,
    ) -> Result<T, Error> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                () = tokio::time::sleep(self.shared.life / 3) => {}
            }
            match self.refresh(now()).await {
                Ok(()) => {}
                // The store may come back before the lease ends.
                Err(Error::Unavailable { .. }) if self.lasts(now()) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether it has not ended yet by the clock.
    pub fn lasts(&self, now: SystemTime) -> bool {
        self.slot
            .lease
            .as_ref()
            .is_some_and(|lease| from_unix(lease.expires) > now)
    }

    /// Moves its end.
    pub async fn refresh(&mut self, now: SystemTime) -> Result<(), Error> {
        let slot = Slot {
            lease: Some(self.shared.held(now)),
            ..self.slot.clone()
        };
        self.write(slot).await
    }

    /// Notes an order under way, so that whoever comes next need not place another.
    pub async fn remember(&mut self, pending: &[u8], now: SystemTime) -> Result<(), Error> {
        let place = Place::Pending { id: &self.id };
        let sealed = self
            .shared
            .keys
            .seal(&place, pending)
            .map_err(|error| self.damaged(&error))?;
        let slot = Slot {
            pending: Some(hex::encode(sealed)),
            lease: Some(self.shared.held(now)),
            ..self.slot.clone()
        };
        self.write(slot).await
    }

    /// The order that an earlier holder left, if it can still be read.
    pub fn pending(&self) -> Option<Vec<u8>> {
        let sealed = hex::decode(self.slot.pending.as_ref()?).ok()?;
        let place = Place::Pending { id: &self.id };
        self.shared.keys.open(&place, &sealed).ok()
    }

    /// Publishes a bundle, and ends the lease. Nothing is written by a holder that has lost it meanwhile.
    pub async fn publish(mut self, material: &Material, now: SystemTime) -> Result<Slot, Error> {
        self.refresh(now).await?;
        let serial = material.serial.clone();
        let key = bundle_key(&self.id, &serial);
        let plain = serde_json::to_vec(material).map_err(|error| Error::damaged(&key, error.to_string()))?;
        let place = Place::Bundle {
            id: &self.id,
            serial: &serial,
        };
        let sealed = self
            .shared
            .keys
            .seal(&place, &plain)
            .map_err(|error| self.damaged(&error))?;
        let objects = Arc::clone(&self.shared.objects);
        match objects.put(&key, sealed, OnlyIf::Absent).await {
            Ok(_) => {}
            // The same certificate was written before, by a holder that was stopped before it could flip the slot.
            Err(error) if error.is_conflict() && self.is_there(&serial).await => {}
            Err(error) => return Err(error),
        }
        let before = self.slot.current.take().map(|current| current.serial);
        let slot = Slot {
            current: Some(Current {
                serial: serial.clone(),
                issued: unix(now),
                not_after: material.not_after,
            }),
            ..Slot::default()
        };
        if let Err(error) = self.write(slot).await {
            if error.is_conflict() {
                // Nobody names it. If this fails it lies there, sealed and unused.
                let _ = objects.delete(&key).await;
            }
            return Err(error);
        }
        // Nodes that read the old slot a moment ago may miss it once; they ask again.
        if let Some(before) = before.filter(|before| *before != serial) {
            let _ = objects.delete(&bundle_key(&self.id, &before)).await;
        }
        Ok(self.slot)
    }

    /// Notes a failure, and ends the lease. `keep` says whether an order under way may still come to something.
    pub async fn fail(mut self, failure: Failure, keep: bool) -> Result<Slot, Error> {
        let slot = Slot {
            lease: None,
            failure: Some(failure),
            pending: self.slot.pending.clone().filter(|_| keep),
            ..self.slot.clone()
        };
        self.write(slot).await?;
        Ok(self.slot)
    }

    /// Ends the lease, and changes nothing else.
    pub async fn release(mut self) -> Result<Slot, Error> {
        let slot = Slot {
            lease: None,
            ..self.slot.clone()
        };
        self.write(slot).await?;
        Ok(self.slot)
    }

    async fn is_there(&self, serial: &str) -> bool {
        let sealed = self.shared.sealed(&self.id, serial).await;
        sealed.is_ok_and(|sealed| self.shared.open(&self.id, serial, &sealed).is_ok())
    }

    async fn write(&mut self, mut slot: Slot) -> Result<(), Error> {
        let only_if = OnlyIf::Unchanged(self.tag.clone());
        match self.shared.write(&self.id, &mut slot, only_if).await {
            Ok(tag) => {
                self.slot = slot;
                self.tag = tag;
                Ok(())
            }
            Err(error) => {
                self.alive &= !error.is_conflict();
                Err(error)
            }
        }
    }

    fn damaged(&self, error: &SealError) -> Error {
        Error::damaged(&slot_key(&self.id), error.to_string())
    }
}

fn parse(key: &str, object: &Object) -> Result<Slot, Error> {
    serde_json::from_slice(&object.body).map_err(|error| Error::damaged(key, error.to_string()))
}
