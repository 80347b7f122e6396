//! How records and bodies lie in files, and the checksums that tell a byte in its place from any other.
//!
//! A *log* file holds records one after the other: a header, the metadata, and for small responses the body. When it is
//! full a directory of its records is written behind them. A *body* file holds one body and nothing else. A body lies in
//! chunks of 64 KiB, each followed by a CRC-32 over the cache's own number, the file's, the record's place, the chunk's
//! place, and its bytes: a chunk that is right, but stands elsewhere, is as wrong as a flipped bit. All numbers are
//! little-endian.

use super::wire::{In, Out};

/// Bytes of a body under one checksum.
pub(super) const CHUNK: usize = 64 * 1024;

/// Bytes of a record's header.
pub(super) const RECORD_HEADER: usize = 48;

/// Bytes at the start of each file.
pub(super) const FILE_HEADER: usize = 32;

/// What every record begins with, so that the next good one is found behind a damaged one.
pub(super) const RECORD_MAGIC: [u8; 4] = *b"PrtR";

const FILE_MAGIC: [u8; 8] = *b"PORTICO\n";
const DIRECTORY_MAGIC: [u8; 8] = *b"PrtDirec";

/// The format of everything in the folder. One that is not ours is set aside, not misread.
pub(super) const VERSION: u32 = 1;

/// Bytes of metadata at most: a key and twice the fields of a response. Responses with more are not kept on disk.
pub(super) const META_MAX: usize = 128 * 1024;

/// Where something lies: which cache, which file, and for a record at which offset (a body file has 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) store: u64,
    pub(super) file: u32,
    pub(super) offset: u32,
}

impl Place {
    fn hasher(self, what: u8) -> crc32fast::Hasher {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&[what]);
        hasher.update(&self.store.to_le_bytes());
        hasher.update(&self.file.to_le_bytes());
        hasher.update(&self.offset.to_le_bytes());
        hasher
    }

    /// The checksum of the chunk at `index` of the body at this place.
    pub(super) fn chunk(self, index: u64, bytes: &[u8]) -> u32 {
        let mut hasher = self.hasher(b'c');
        hasher.update(&index.to_le_bytes());
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A response with its body behind it.
    Inline,
    /// A response whose body is a file of its own.
    External,
    /// Nothing under this key counts any more.
    Gone,
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: Kind,
    /// Which key.
    pub(super) fingerprint: u64,
    /// Which of the key's stored responses.
    pub(super) variant: u32,
    pub(super) meta_length: u32,
    pub(super) body_length: u64,
    /// The body's file; 0 for a body behind the record.
    pub(super) body_file: u32,
    /// When it was written, in seconds since 1970.
    pub(super) written: u32,
}

impl Record {
    /// The header's bytes for a record at `place` with this metadata.
    pub(super) fn encode(&self, place: Place, meta: &[u8]) -> Vec<u8> {
        let mut out = Out(Vec::with_capacity(RECORD_HEADER));
        out.0.extend_from_slice(&RECORD_MAGIC);
        out.u32(match self.kind {
            Kind::Inline => 1,
            Kind::External => 2,
            Kind::Gone => 3,
        });
        out.u64(self.fingerprint);
        out.u32(self.variant);
        out.u32(self.meta_length);
        out.u64(self.body_length);
        out.u32(self.body_file);
        out.u32(self.written);
        out.u32(0);
        let crc = checksum(place, &out.0, meta);
        out.u32(crc);
        out.0
    }

    /// The header at the start of `bytes`, not yet proved, and its checksum.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = In(bytes.get(..RECORD_HEADER)?);
        if from.take(4)? != RECORD_MAGIC {
            return None;
        }
        let kind = match from.u32()? {
            1 => Kind::Inline,
            2 => Kind::External,
            3 => Kind::Gone,
            _ => return None,
        };
        let record = Self {
            kind,
            fingerprint: from.u64()?,
            variant: from.u32()?,
            meta_length: from.u32()?,
            body_length: from.u64()?,
            body_file: from.u32()?,
            written: from.u32()?,
        };
        let is_sane =
            record.meta_length as usize <= META_MAX && (record.body_file == 0) != (kind == Kind::External);
        is_sane.then_some(record)
    }

    /// The record at the start of `bytes` and its metadata, if it was written for `place` and is as it was written.
    pub(super) fn prove(bytes: &[u8], place: Place) -> Option<(Self, &[u8])> {
        let record = Self::decode(bytes)?;
        let (header, rest) = bytes.split_at_checked(RECORD_HEADER)?;
        let meta = rest.get(..record.meta_length as usize)?;
        let (covered, crc) = header.split_last_chunk::<4>()?;
        (checksum(place, covered, meta) == u32::from_le_bytes(*crc)).then_some((record, meta))
    }

    /// Bytes of the whole record in its log.
    pub(super) fn length(&self) -> u64 {
        let body = match self.kind {
            Kind::Inline => chunked(self.body_length),
            Kind::External | Kind::Gone => 0,
        };
        (RECORD_HEADER as u64 + u64::from(self.meta_length)).saturating_add(body)
    }
}

fn checksum(place: Place, covered: &[u8], meta: &[u8]) -> u32 {
    let mut hasher = place.hasher(b'r');
    hasher.update(covered);
    hasher.update(meta);
    hasher.finalize()
}

/// Bytes that a body of `length` takes with its checksums.
pub(super) fn chunked(length: u64) -> u64 {
    length.saturating_add(length.div_ceil(CHUNK as u64).saturating_mul(4))
}

/// Appends `body` to `out` in chunks; its first chunk has the number `index`.
pub(super) fn write_chunks(out: &mut Vec<u8>, place: Place, mut index: u64, body: &[u8]) {
    for chunk in body.chunks(CHUNK) {
        out.extend_from_slice(chunk);
        out.extend_from_slice(&place.chunk(index, chunk).to_le_bytes());
        index += 1;
    }
}

/// The bytes of `body`, which lies in chunks from number `index` on, without their checksums; `None` if any is wrong.
/// They stay where they are, closed up, so that a read takes no more memory than what is read.
pub(super) fn read_chunks(mut bytes: Vec<u8>, place: Place, mut index: u64) -> Option<Vec<u8>> {
    let (mut from, mut to) = (0, 0);
    while from < bytes.len() {
        let end = bytes.len().min(from + CHUNK + 4);
        let (chunk, crc) = bytes.get(from..end)?.split_last_chunk::<4>()?;
        if place.chunk(index, chunk) != u32::from_le_bytes(*crc) {
            return None;
        }
        let length = chunk.len();
        bytes.copy_within(from..from + length, to);
        to += length;
        from = end;
        index += 1;
    }
    bytes.truncate(to);
    Some(bytes)
}

/// The first bytes of a file.
pub(super) fn file_header(store: u64, file: u32) -> Vec<u8> {
    let mut out = Out(Vec::with_capacity(FILE_HEADER));
    out.0.extend_from_slice(&FILE_MAGIC);
    out.u32(VERSION);
    out.u32(file);
    out.u64(store);
    out.u32(0);
    let crc = crc32fast::hash(&out.0);
    out.u32(crc);
    out.0
}

/// What the first bytes of a file say: the version, and if that is ours the cache's number and the file's.
pub(super) fn read_file_header(bytes: &[u8]) -> Option<(u32, u64, u32)> {
    let bytes = bytes.get(..FILE_HEADER)?;
    let (covered, crc) = bytes.split_last_chunk::<4>()?;
    let mut from = In(covered);
    if from.take(8)? != FILE_MAGIC || crc32fast::hash(covered) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (version, file) = (from.u32()?, from.u32()?);
    Some((version, from.u64()?, file))
}

/// A record as the directory of its log tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) record: Record,
    pub(super) offset: u32,
    /// Its site, as a place in the directory's list of names.
    pub(super) site: u16,
}

/// What is written behind the records of a full log.
#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    pub(super) sites: Vec<Box<str>>,
    pub(super) listed: Vec<Listed>,
    /// The highest epoch at which any of its responses was fetched.
    pub(super) position: u64,
}

/// Bytes of one record in a directory.
pub(super) const LISTED_BYTES: u64 = 39;

/// Bytes of the end of a directory, by which it is found.
pub(super) const DIRECTORY_END: usize = 32;

impl Directory {
    /// Its bytes, for a log whose records end at `end`.
    pub(super) fn encode(&self, store: u64, file: u32, end: u64) -> Vec<u8> {
        let mut out = Out(Vec::with_capacity(
            self.listed.len() * LISTED_BYTES as usize + 1024,
        ));
        out.count(self.sites.len());
        self.sites.iter().for_each(|site| out.text(site));
        out.u64(self.position);
        out.count(self.listed.len());
        for listed in &self.listed {
            let record = &listed.record;
            out.u8(match record.kind {
                Kind::Inline => 1,
                Kind::External => 2,
                Kind::Gone => 3,
            });
            out.u16(listed.site);
            out.u64(record.fingerprint);
            out.u32(record.variant);
            out.u32(record.meta_length);
            out.u64(record.body_length);
            out.u32(record.body_file);
            out.u32(record.written);
            out.u32(listed.offset);
        }
        let place = Place {
            store,
            file,
            offset: 0,
        };
        let length = out.0.len() as u64;
        let mut hasher = place.hasher(b'd');
        hasher.update(&end.to_le_bytes());
        hasher.update(&out.0);
        out.0.extend_from_slice(&DIRECTORY_MAGIC);
        out.u64(end);
        out.u64(length);
        out.u32(0);
        out.u32(hasher.finalize());
        out.0
    }

    /// Where the directory begins and how long it is, from the last bytes of a file.
    pub(super) fn locate(bytes: &[u8]) -> Option<(u64, u64)> {
        let mut from = In(bytes.get(..DIRECTORY_END)?);
        (from.take(8)? == DIRECTORY_MAGIC).then_some(())?;
        Some((from.u64()?, from.u64()?))
    }

    /// The directory that these bytes are, its end included, if it is this log's and as it was written.
    pub(super) fn decode(bytes: &[u8], store: u64, file: u32, end: u64) -> Option<Self> {
        let (covered, trailer) = bytes.split_at_checked(bytes.len().checked_sub(DIRECTORY_END)?)?;
        let (_, crc) = trailer.split_last_chunk::<4>()?;
        let place = Place {
            store,
            file,
            offset: 0,
        };
        let mut hasher = place.hasher(b'd');
        hasher.update(&end.to_le_bytes());
        hasher.update(covered);
        if hasher.finalize() != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut from = In(covered);
        let sites = from.many(|from| from.text().map(Into::into))?;
        let position = from.u64()?;
        let count = from.count()?;
        let mut listed = Vec::with_capacity(count.min(covered.len() / LISTED_BYTES as usize));
        for _ in 0..count {
            listed.push(Self::entry(&mut from)?);
        }
        from.is_done().then_some(Self {
            sites,
            listed,
            position,
        })
    }

    fn entry(from: &mut In<'_>) -> Option<Listed> {
        let kind = match from.u8()? {
            1 => Kind::Inline,
            2 => Kind::External,
            3 => Kind::Gone,
            _ => return None,
        };
        let site = from.u16()?;
        let record = Record {
            kind,
            fingerprint: from.u64()?,
            variant: from.u32()?,
            meta_length: from.u32()?,
            body_length: from.u64()?,
            body_file: from.u32()?,
            written: from.u32()?,
        };
        Some(Listed {
            record,
            offset: from.u32()?,
            site,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        store: 1,
        file: 2,
        offset: 32,
    };

    fn record() -> Record {
        Record {
            kind: Kind::Inline,
            fingerprint: 77,
            variant: 5,
            meta_length: 4,
            body_length: 3,
            body_file: 0,
            written: 9,
        }
    }

    fn elsewhere() -> [Place; 3] {
        [
            Place { store: 9, ..PLACE },
            Place { file: 9, ..PLACE },
            Place { offset: 9, ..PLACE },
        ]
    }

    #[test]
    fn a_record_is_proved_only_where_it_was_written_and_as_it_was_written() {
        let mut bytes = record().encode(PLACE, b"meta");
        assert_eq!(bytes.len(), RECORD_HEADER);
        bytes.extend_from_slice(b"meta");
        assert_eq!(Record::prove(&bytes, PLACE), Some((record(), &b"meta"[..])));
        for place in elsewhere() {
            assert_eq!(Record::prove(&bytes, place), None, "{place:?}");
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(Record::prove(&flipped, PLACE), None, "flipped at {at}");
            assert_eq!(Record::prove(&bytes[..at], PLACE), None, "cut at {at}");
        }
    }

    #[test]
    fn a_chunk_is_right_in_its_own_place_only() {
        let body: Vec<u8> = (0..CHUNK * 2 + 10).map(|n| (n / 7) as u8).collect();
        let mut bytes = Vec::new();
        write_chunks(&mut bytes, PLACE, 0, &body);
        assert_eq!(bytes.len() as u64, chunked(body.len() as u64));
        assert_eq!(read_chunks(bytes.clone(), PLACE, 0).as_ref(), Some(&body));
        // From the middle, as a range is read.
        let second = &bytes[CHUNK + 4..];
        assert_eq!(read_chunks(second.to_vec(), PLACE, 1).unwrap(), &body[CHUNK..]);
        assert_eq!(
            read_chunks(second.to_vec(), PLACE, 0),
            None,
            "another chunk's place"
        );
        for place in elsewhere() {
            assert_eq!(read_chunks(bytes.clone(), place, 0), None, "{place:?}");
        }
        for at in [0, CHUNK - 1, CHUNK, CHUNK + 3, CHUNK + 4, bytes.len() - 1] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x80;
            assert_eq!(read_chunks(flipped, PLACE, 0), None, "flipped at {at}");
        }
        assert_eq!(read_chunks(vec![0; bytes.len()], PLACE, 0), None, "zeros");
        assert_eq!(
            read_chunks(bytes[..bytes.len() - 2].to_vec(), PLACE, 0),
            None,
            "cut"
        );
    }

    #[test]
    fn a_directory_comes_back_whole_or_not_at_all() {
        let directory = Directory {
            sites: vec!["cdn.example".into()],
            listed: vec![
                Listed {
                    record: record(),
                    offset: 32,
                    site: 0,
                };
                3
            ],
            position: 12,
        };
        let bytes = directory.encode(1, 2, 500);
        let tail = &bytes[bytes.len() - DIRECTORY_END..];
        assert_eq!(
            Directory::locate(tail),
            Some((500, (bytes.len() - DIRECTORY_END) as u64))
        );
        let read = Directory::decode(&bytes, 1, 2, 500).unwrap();
        assert_eq!(
            (read.listed, read.position, read.sites),
            (directory.listed, 12, directory.sites)
        );
        assert!(Directory::decode(&bytes, 1, 3, 500).is_none(), "another file's");
        for at in 0..bytes.len() - DIRECTORY_END {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            assert!(Directory::decode(&flipped, 1, 2, 500).is_none(), "{at}");
        }
    }

    #[test]
    fn a_file_says_whose_it_is() {
        let bytes = file_header(42, 7);
        assert_eq!(bytes.len(), FILE_HEADER);
        assert_eq!(read_file_header(&bytes), Some((VERSION, 42, 7)));
        for at in 0..FILE_HEADER {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(read_file_header(&flipped), None, "{at}");
        }
    }
}
