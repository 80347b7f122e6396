//! Range: what is selected lies inside the representation, and is never much more than it.
#![no_main]

use edge::representation::range::{RANGES_MAX, Selection, select};
use http::HeaderValue;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((length, value)) = data.split_first_chunk::<8>() else {
        return;
    };
    let length = u64::from_le_bytes(*length);
    // The unit is nearly always the one that there is.
    let unit = if length & 1 == 0 { "bytes=" } else { "" };
    let Ok(value) = HeaderValue::from_bytes(&[unit.as_bytes(), value].concat()) else {
        return;
    };
    let ranges = match select(&value, length) {
        Selection::Single(range) => vec![range],
        Selection::Multiple(ranges) => ranges,
        _ => return,
    };
    assert!(ranges.len() <= RANGES_MAX);
    assert!(
        ranges
            .iter()
            .all(|range| range.start < range.end && range.end <= length)
    );
});
