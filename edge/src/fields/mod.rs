//! The grammar of field lines that every other module shares: lists, structured fields, dates, and the fields that end at
//! each hop.
//!
//! It knows how a field is written, never what one means: directives, validators and ranges are read by their own modules.
//! Pure: no clock, no socket, no allocation beyond what is returned.

pub mod dates;
pub mod hop;
pub mod lists;
pub mod structured;

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue};

/// A number, in as many bytes as it has digits.
pub fn number(n: u64) -> HeaderValue {
    HeaderValue::from_str(itoa::Buffer::new().format(n)).unwrap_or_else(|_| HeaderValue::from(n))
}

/// A copy for keeps: its values lie side by side in one piece of memory, and its fields take no more room than they need.
pub fn packed(fields: &HeaderMap) -> HeaderMap {
    let mut all = BytesMut::with_capacity(fields.values().map(HeaderValue::len).sum());
    for value in fields.values() {
        all.extend_from_slice(value.as_bytes());
    }
    let mut all = all.freeze();
    let mut packed = fields.clone();
    for value in packed.values_mut() {
        let bytes = all.split_to(value.len());
        if let Ok(mut copy) = HeaderValue::from_maybe_shared(bytes) {
            copy.set_sensitive(value.is_sensitive());
            *value = copy;
        }
    }
    packed
}

#[cfg(test)]
mod tests {
    use http::header::{ETAG, VARY, VIA};

    use super::*;

    #[test]
    fn packed_fields_are_the_same_fields_side_by_side() {
        let mut fields = HeaderMap::new();
        fields.append(VARY, HeaderValue::from_static("Accept-Encoding"));
        fields.append(ETAG, HeaderValue::from_bytes(b"\"\xfc\"").unwrap());
        fields.append(VARY, HeaderValue::from_static(""));
        fields.append(VARY, HeaderValue::from_static("Origin"));
        let mut secret = HeaderValue::from_static("1.1 edge");
        secret.set_sensitive(true);
        fields.append(VIA, secret);

        let packed = packed(&fields);
        assert_eq!(packed, fields);
        let marks = |fields: &HeaderMap| fields.values().map(HeaderValue::is_sensitive).collect::<Vec<_>>();
        assert_eq!(marks(&packed), marks(&fields));
        let mut places: Vec<_> = packed
            .values()
            .filter(|value| !value.is_empty())
            .map(|value| value.as_bytes().as_ptr_range())
            .collect();
        places.sort_by_key(|place| place.start);
        assert!(
            places.windows(2).all(|pair| pair[0].end == pair[1].start),
            "{places:?}"
        );
    }
}
