//! Line ends and framing of HTTP/1: however the bytes are cut, the same ones are spoiled; only a line feed or a fragment's
//! sign ever is; and what is left of a head has no line feed without its CR.
#![no_main]

use edge::http::lines::Lines;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((cut, data)) = data.split_first() else {
        return;
    };
    let (whole, ambiguous) = spoiled(data, data.len());
    for size in [1, usize::from(*cut).max(1)] {
        assert_eq!(spoiled(data, size), (whole.clone(), ambiguous), "cut by {size}");
    }
    assert_eq!(whole.len(), data.len());
    for (before, after) in data.iter().zip(&whole) {
        assert!(before == after || (*after == 0 && matches!(before, b'\n' | b'#')));
    }
    // Up to the end of the first head every line ends with CR and LF, and the target has no fragment.
    let end = whole.windows(4).position(|four| four == b"\r\n\r\n");
    let head = &whole[..end.map_or(0, |at| at + 4)];
    if !matches!(head.first(), None | Some(b'\r' | b'\n')) {
        let bare = |at: usize| head[at] == b'\n' && (at == 0 || head[at - 1] != b'\r');
        assert!(!(0..head.len()).any(bare));
        // A bare LF ends it too; what was made of that is no LF any more.
        let line = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
        assert!(!whole[..line].contains(&b'#'));
    }
});

fn spoiled(data: &[u8], size: usize) -> (Vec<u8>, bool) {
    let (mut lines, mut bytes) = (Lines::default(), data.to_vec());
    if !bytes.is_empty() {
        bytes.chunks_mut(size.max(1)).for_each(|piece| lines.spoil(piece));
    }
    (bytes, lines.is_ambiguous())
}
