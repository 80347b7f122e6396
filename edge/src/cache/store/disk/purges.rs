//! The purges beside what they purge: on record before they are acknowledged, and read before anything is served.
//!
//! The record is kept twice, written and synced one after the other, so that a crash leaves one of them whole, and damage to
//! one takes nothing away. Should both be damaged, or end before what the stored responses know of, everything stored is
//! purged: too much rather than too little.

use std::io;
use std::sync::{Mutex, PoisonError};

use super::Disk;
use super::frame::{FILE_HEADER, Place, file_header, read_file_header};
use super::io::{Handle, Io};
use super::wire::{In, Out};
use crate::cache::epoch::{Epochs, Journal, Position, Prefix, Purge, Url};
use crate::cache::tag::Tag;

/// The two copies.
const COPIES: [&str; 2] = ["purges.a", "purges.b"];

/// The number that both have as files: they are the same.
const FILE: u32 = u32::MAX;

/// A record this long is written anew, when it is also twice as long as it was when that was done last.
const LONG_BYTES: u64 = 4 * 1024 * 1024;

/// The journal on the disk.
#[derive(Debug)]
struct OnRecord {
    io: Io,
    store: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    copies: Vec<(Handle, u64)>,
    /// Its length when it was last written anew.
    fresh_bytes: u64,
}

impl Disk {
    /// The purges that are on record, to which further ones are added.
    ///
    /// # Errors
    ///
    /// When the record cannot be written: then nothing on the disk may be used.
    pub fn purges(&self) -> io::Result<Epochs> {
        let shared = &self.0.shared;
        let (io, store) = (&shared.io, shared.store);
        let mut copies = Vec::new();
        for name in COPIES {
            match io.read(name) {
                Ok(bytes) => copies.push(read(&bytes, store)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => copies.push(None),
                Err(error) => {
                    tracing::warn!(%error, name, "a copy of the purges cannot be read");
                    copies.push(None);
                }
            }
        }
        let is_sound = copies.iter().flatten().any(|copy| copy.is_whole);
        let mut all: Vec<(Position, Purge)> = copies
            .into_iter()
            .flatten()
            .flat_map(|copy| copy.purges)
            .collect();
        all.sort_by_key(|(position, _)| *position);
        all.dedup();
        let known = all.last().map_or(0, |(position, _)| position.number());
        let is_new = shared.index().entries() == 0;
        let last = known.max(self.position());
        if !is_new && (!is_sound || known < self.position()) {
            tracing::error!("the record of purges is damaged: everything in the disk cache counts as purged");
            let everything = Purge {
                everything: true,
                ..Purge::default()
            };
            all.push((Position::from_number(last + 1), everything));
        }
        let journal = OnRecord {
            io: io.clone(),
            store,
            state: Mutex::new(State {
                copies: Vec::new(),
                fresh_bytes: 0,
            }),
        };
        let last = Position::from_number(last);
        let epochs = Epochs::restored(&all, last, Box::new(Nowhere));
        let mut compact = epochs.all();
        // The position itself is on record too, so that what is stored from here on is never beyond it.
        compact.push((epochs.last(), Purge::default()));
        journal.rewrite(&compact)?;
        Ok(Epochs::restored(&compact, last, Box::new(journal)))
    }
}

/// What stands in while the record is read.
#[derive(Debug)]
struct Nowhere;

impl Journal for Nowhere {
    fn note(&self, _: Position, _: &Purge) -> io::Result<()> {
        Ok(())
    }

    fn is_long(&self) -> bool {
        false
    }

    fn rewrite(&self, _: &[(Position, Purge)]) -> io::Result<()> {
        Ok(())
    }
}

impl Journal for OnRecord {
    fn note(&self, position: Position, purge: &Purge) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outcome = Err(io::ErrorKind::NotFound.into());
        for (file, end) in &mut state.copies {
            let bytes = record(self.place(*end), position, purge);
            let noted = file.write_at(*end, &bytes).and_then(|()| file.sync());
            match noted {
                Ok(()) => {
                    *end += bytes.len() as u64;
                    outcome = Ok(());
                }
                Err(error) => {
                    tracing::error!(%error, "a copy of the record of purges cannot be written");
                    // One copy is enough; the next start writes both anew.
                    if outcome.is_err() {
                        outcome = Err(error);
                    }
                }
            }
        }
        outcome
    }

    fn is_long(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = state.copies.iter().map(|(_, end)| *end).max().unwrap_or(0);
        longest > LONG_BYTES && longest > state.fresh_bytes * 2
    }

    fn rewrite(&self, all: &[(Position, Purge)]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = file_header(self.store, FILE);
        for (position, purge) in all {
            let place = self.place(bytes.len() as u64);
            bytes.extend_from_slice(&record(place, *position, purge));
        }
        let mut copies = Vec::new();
        for name in COPIES {
            let next = format!("{name}.new");
            let file = self.io.create(&next)?;
            file.write_at(0, &bytes)?;
            file.sync()?;
            // The other copy is as it was until this one is in its place.
            self.io.rename(&next, name)?;
            self.io.sync_folder()?;
            copies.push((file, bytes.len() as u64));
        }
        state.fresh_bytes = bytes.len() as u64;
        state.copies = copies;
        Ok(())
    }
}

impl OnRecord {
    fn place(&self, at: u64) -> Place {
        Place {
            store: self.store,
            file: FILE,
            offset: u32::try_from(at).unwrap_or(u32::MAX),
        }
    }
}

/// What a copy holds.
struct Copy {
    purges: Vec<(Position, Purge)>,
    /// Whether it was read to its very end.
    is_whole: bool,
}

fn read(bytes: &[u8], store: u64) -> Option<Copy> {
    let (_, owner, file) = read_file_header(bytes)?;
    if owner != store || file != FILE {
        return None;
    }
    let mut copy = Copy {
        purges: Vec::new(),
        is_whole: false,
    };
    let mut at = FILE_HEADER;
    while let Some(rest) = bytes.get(at..) {
        if rest.is_empty() {
            copy.is_whole = true;
            break;
        }
        let place = Place {
            store,
            file: FILE,
            offset: u32::try_from(at).unwrap_or(u32::MAX),
        };
        let mut from = In(rest);
        let payload = from.u32().zip(from.bytes());
        let Some((_, payload)) = payload.filter(|(crc, payload)| place.chunk(0, payload) == *crc) else {
            break;
        };
        let Some(purge) = decode(payload) else {
            break;
        };
        copy.purges.push(purge);
        at += 8 + payload.len();
    }
    Some(copy)
}

fn record(place: Place, position: Position, purge: &Purge) -> Vec<u8> {
    let mut payload = Out::default();
    encode(&mut payload, position, purge);
    let mut out = Out::default();
    out.u32(place.chunk(0, &payload.0));
    out.bytes(&payload.0);
    out.0
}

fn encode(out: &mut Out, position: Position, purge: &Purge) {
    let Purge {
        urls,
        tags,
        prefixes,
        hosts,
        everything,
        soft,
    } = purge;
    out.u64(position.number());
    out.flag(*everything);
    out.flag(*soft);
    out.count(urls.len());
    for url in urls {
        out.text(&url.host);
        out.text(&url.path);
        out.option(url.query.as_deref(), Out::text);
    }
    out.count(tags.len());
    tags.iter().for_each(|tag| out.text(tag.as_str()));
    out.count(prefixes.len());
    for prefix in prefixes {
        out.text(&prefix.host);
        out.text(&prefix.path);
    }
    out.count(hosts.len());
    hosts.iter().for_each(|host| out.text(host));
}

fn decode(payload: &[u8]) -> Option<(Position, Purge)> {
    let mut from = In(payload);
    let position = Position::from_number(from.u64()?);
    let (everything, soft) = (from.flag()?, from.flag()?);
    let urls = from.many(|from| {
        Some(Url {
            host: from.text()?.into(),
            path: from.text()?.into(),
            query: from.option(In::text)?.map(Into::into),
        })
    })?;
    let tags = from.many(|from| Tag::new(from.text()?))?;
    let prefixes = from.many(|from| {
        Some(Prefix {
            host: from.text()?.into(),
            path: from.text()?.into(),
        })
    })?;
    let hosts = from.many(|from| from.text().map(Into::into))?;
    let purge = Purge {
        urls,
        tags,
        prefixes,
        hosts,
        everything,
        soft,
    };
    from.is_done().then_some((position, purge))
}
