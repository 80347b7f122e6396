//! A delta that no release brought: made here, small enough to be worth it, and decoded again before anybody is sent it.
//! It computes for as long as it takes; callers put it where that does no harm.

use bytes::Bytes;
use origin_sync::release::CodingName;
use origin_sync::release::coding::{self, QUALITY_ON_DEMAND};

/// A delta is worth it below this share of what the client would get without one.
const PERCENT_MAX: u64 = 70;

/// Files above this many bytes get the deltas that their release brought, and no others.
pub const BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The delta from `dictionary` to `bytes`, if it is much smaller than `otherwise`.
pub fn make(bytes: &[u8], dictionary: &[u8], otherwise: u64) -> Option<Bytes> {
    let coded = coding::dcb(bytes, dictionary, QUALITY_ON_DEMAND).ok()?;
    if coded.len() as u64 * 100 >= otherwise * PERCENT_MAX {
        return None;
    }
    let decoded = coding::decode(CodingName::Dcb, &coded, Some(dictionary), bytes.len() as u64);
    match decoded {
        Ok(decoded) if decoded == bytes => Some(coded.into()),
        Ok(_) | Err(_) => {
            tracing::error!("a delta does not decode to what it was made of; it is not served");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_is_made_where_it_is_worth_it() {
        let old: Vec<u8> = (0..4000_u32)
            .flat_map(|n| format!("f({n});\n").into_bytes())
            .collect();
        let mut new = old.clone();
        new.extend_from_slice(b"g();\n");
        let delta = make(&new, &old, 5_000).unwrap();
        assert!(delta.len() < 200, "{}", delta.len());
        let decoded = coding::decode(CodingName::Dcb, &delta, Some(&old), new.len() as u64);
        assert_eq!(decoded.unwrap(), new);
        assert!(make(&new, &old, 40).is_none());
    }
}
