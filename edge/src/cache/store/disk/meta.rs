//! A stored response without its bytes, as it is written: its key, its head, and which forms its body holds.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::frame::META_MAX;
use super::wire::{In, Out};
use crate::cache::epoch::Position;
use crate::cache::key::Key;
use crate::cache::policy::freshness::{Lifetime, Source};
use crate::cache::policy::vary::VaryKey;
use crate::cache::store::Head;
use crate::cache::tag::Tag;
use crate::clock::Timestamp;
use crate::representation::coding::Coding;
use crate::representation::encoder;

/// A form, and where it lies in the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormAt {
    /// Its coding.
    pub coding: Coding,
    /// How it was coded; empty for the origin's own form.
    pub suffix: &'static str,
    /// Whether a better one may still be made.
    pub improvable: bool,
    /// Its first byte in the body.
    pub first: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// What a record says.
#[derive(Clone, Debug)]
pub(super) struct Meta {
    pub(super) key: Key,
    pub(super) head: Head,
    pub(super) forms: Vec<FormAt>,
}

/// How a site's own form, decoded here, is called.
const DECODED: &str = "identity";

/// The bytes of a response's metadata; `None` when there are too many.
pub(super) fn encode(key: &Key, head: &Head, forms: &[FormAt]) -> Option<Vec<u8>> {
    let mut out = Out(Vec::with_capacity(1024));
    out.text(key.origin());
    out.text(key.host());
    out.text(key.path());
    out.option(key.query(), Out::text);
    write_head(&mut out, head);
    out.count(forms.len());
    for form in forms {
        out.text(form.coding.token());
        out.text(form.suffix);
        out.flag(form.improvable);
        out.u64(form.first);
        out.u64(form.length);
    }
    (out.0.len() <= META_MAX).then_some(out.0)
}

/// The metadata that these bytes are.
pub(super) fn decode(bytes: &[u8]) -> Option<Meta> {
    let mut from = In(bytes);
    let key = key(&mut from)?;
    let head = read_head(&mut from)?;
    let forms = from.many(|from| {
        Some(FormAt {
            coding: coding(from)?,
            suffix: suffix(from.text()?)?,
            improvable: from.flag()?,
            first: from.u64()?,
            length: from.u64()?,
        })
    })?;
    from.is_done().then_some(Meta { key, head, forms })
}

/// The host of the key, and the epoch: all that a start wants to know. Whether the rest can be understood shows when the
/// response is read; its bytes were proved.
pub(super) fn skim(bytes: &[u8]) -> Option<(&str, Position)> {
    let mut from = In(bytes);
    let (_, host, _) = (from.bytes()?, from.text()?, from.bytes()?);
    from.option(In::bytes)?;
    from.u16()?;
    for _ in 0..2 {
        // Fields: names and values.
        for _ in 0..from.count()? {
            from.bytes()?;
            from.bytes()?;
        }
    }
    from.bytes()?;
    from.option(|from| {
        for _ in 0..from.count()? {
            from.bytes()?;
            from.option(In::bytes)?;
        }
        Some(())
    })?;
    read_lifetime(&mut from)?;
    from.i64()?;
    from.u64()?;
    let position = Position::from_number(from.u64()?);
    Some((host, position))
}

/// The key at the beginning of metadata.
pub(super) fn key(from: &mut In<'_>) -> Option<Key> {
    let (origin, host, path) = (from.text()?, from.text()?, from.text()?);
    let query = from.option(In::text)?;
    Some(Key::new(origin, host, path, query))
}

fn write_head(out: &mut Out, head: &Head) {
    // Named one by one, so that a new part of a head cannot be forgotten here.
    let Head {
        id: _,
        status,
        fields,
        origin_fields,
        source,
        vary,
        lifetime,
        response_time,
        initial_age,
        position,
        tags,
        coding,
        etag,
        last_modified,
        codable,
        // Parts are kept in memory only, and what is stored has no fields for one client.
        part: _,
        withheld: _,
    } = head;
    out.u16(status.as_u16());
    out.fields(fields);
    out.fields(origin_fields);
    out.text(source);
    out.option(vary.as_ref(), |out, vary| {
        let fields: Vec<_> = vary.fields().collect();
        out.count(fields.len());
        for (name, value) in fields {
            out.text(name.as_str());
            out.option(value, Out::bytes);
        }
    });
    write_lifetime(out, lifetime);
    out.i64(response_time.unix_micros());
    out.u64(micros(*initial_age));
    out.u64(position.number());
    out.count(tags.len());
    tags.iter().for_each(|tag| out.text(tag.as_str()));
    out.text(coding.token());
    out.option(etag.as_ref(), |out, etag| out.bytes(etag.as_bytes()));
    out.option(last_modified.map(Timestamp::unix_micros), Out::i64);
    out.flag(*codable);
}

fn read_head(from: &mut In<'_>) -> Option<Head> {
    Some(Head {
        id: 0,
        status: StatusCode::from_u16(from.u16()?).ok()?,
        fields: from.fields()?,
        origin_fields: from.fields()?,
        source: Arc::from(from.text()?),
        vary: from.option(|from| {
            let fields = from.many(|from| {
                let name = HeaderName::from_bytes(from.bytes()?).ok()?;
                let value = from.option(In::bytes)?.map(Into::into);
                Some((name, value))
            })?;
            Some(VaryKey::of_fields(fields))
        })?,
        lifetime: read_lifetime(from)?,
        response_time: Timestamp::from_unix_micros(from.i64()?),
        initial_age: Duration::from_micros(from.u64()?),
        position: Position::from_number(from.u64()?),
        tags: from.many(|from| Tag::new(from.text()?))?.into(),
        coding: coding(from)?,
        etag: from.option(|from| HeaderValue::from_bytes(from.bytes()?).ok())?,
        last_modified: from.option(In::i64)?.map(Timestamp::from_unix_micros),
        codable: from.flag()?,
        part: None,
        withheld: HeaderMap::new(),
    })
}

fn write_lifetime(out: &mut Out, lifetime: &Lifetime) {
    let Lifetime {
        fresh,
        stale_while_revalidate,
        stale_if_error,
        must_revalidate,
        no_cache,
        source,
    } = lifetime;
    out.u64(micros(*fresh));
    out.u64(micros(*stale_while_revalidate));
    out.u64(micros(*stale_if_error));
    out.flag(*must_revalidate);
    out.flag(*no_cache);
    let place = SOURCES.iter().position(|known| known == source);
    out.u8(place
        .and_then(|place| u8::try_from(place).ok())
        .unwrap_or(u8::MAX));
}

fn read_lifetime(from: &mut In<'_>) -> Option<Lifetime> {
    Some(Lifetime {
        fresh: Duration::from_micros(from.u64()?),
        stale_while_revalidate: Duration::from_micros(from.u64()?),
        stale_if_error: Duration::from_micros(from.u64()?),
        must_revalidate: from.flag()?,
        no_cache: from.flag()?,
        source: *SOURCES.get(usize::from(from.u8()?))?,
    })
}

/// Where lifetimes come from, by their numbers in the format. New ones are added at the end.
const SOURCES: [Source; 8] = [
    Source::Default,
    Source::Expires,
    Source::Heuristic,
    Source::MaxAge,
    Source::Negative,
    Source::None,
    Source::Rule,
    Source::SMaxage,
];

fn coding(from: &mut In<'_>) -> Option<Coding> {
    Coding::from_token(from.text()?)
}

/// The suffix of this name, if this version still makes such forms: bytes that are named otherwise are no good.
fn suffix(name: &str) -> Option<&'static str> {
    let known = encoder::SUFFIXES.into_iter().chain(["", DECODED]);
    known.into_iter().find(|suffix| *suffix == name)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn head() -> Head {
        let mut fields = HeaderMap::new();
        fields.insert("content-type", HeaderValue::from_static("text/javascript"));
        let vary = vec![
            (
                HeaderName::from_static("accept-language"),
                Some(b"de".as_slice().into()),
            ),
            (HeaderName::from_static("x-none"), None),
        ];
        Head {
            id: 0,
            status: StatusCode::OK,
            origin_fields: fields.clone(),
            fields,
            source: "assets/eu".into(),
            vary: Some(VaryKey::of_fields(vary)),
            lifetime: Lifetime {
                fresh: Duration::from_secs(60),
                stale_while_revalidate: Duration::from_secs(10),
                stale_if_error: Duration::from_hours(24),
                must_revalidate: false,
                no_cache: true,
                source: Source::SMaxage,
            },
            response_time: Timestamp::from_unix_seconds(1_700_000_000),
            initial_age: Duration::from_millis(1500),
            position: Position::from_number(7),
            tags: vec![Tag::new("release-1").unwrap()].into(),
            coding: Coding::Identity,
            etag: Some(HeaderValue::from_static("\"a\"")),
            last_modified: Some(Timestamp::from_unix_seconds(1_600_000_000)),
            codable: true,
            part: None,
            withheld: HeaderMap::new(),
        }
    }

    #[test]
    fn a_head_comes_back_as_it_was() {
        let key = Key::new("assets", "cdn.example", "/a.js", Some("v=1"));
        let forms = vec![
            FormAt {
                coding: Coding::Identity,
                suffix: "",
                improvable: false,
                first: 0,
                length: 10,
            },
            FormAt {
                coding: Coding::Br,
                suffix: "br11",
                improvable: false,
                first: 10,
                length: 4,
            },
        ];
        let bytes = encode(&key, &head(), &forms).unwrap();
        let meta = decode(&bytes).unwrap();
        assert_eq!(meta.key, key);
        assert_eq!(meta.forms, forms);
        assert_eq!(skim(&bytes), Some(("cdn.example", head().position)));
        assert_eq!(format!("{:?}", meta.head), format!("{:?}", head()));
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn a_head_that_is_too_long_is_not_written() {
        let mut head = head();
        head.fields
            .insert("x-long", HeaderValue::from_bytes(&vec![b'a'; META_MAX]).unwrap());
        let key = Key::new("assets", "cdn.example", "/a.js", None);
        assert!(encode(&key, &head, &[]).is_none());
    }
}
