//! Content decoding: each step gives a bounded piece, the whole ends, and what was encoded decodes to itself.
#![no_main]

use bytes::Bytes;
use edge::representation::encoder::PIECE_MAX;
use edge::representation::{Coding, Decoder, Encoder, Quality};
use libfuzzer_sys::fuzz_target;

/// Where a bomb is let go.
const DECODED_MAX: usize = 16 * 1024 * 1024;

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let codings = [Coding::Br, Coding::Gzip, Coding::Zstd];
    let coding = codings[usize::from(*choice) % codings.len()];
    if choice & 0x80 == 0 {
        let _ = decode(coding, data);
        return;
    }
    let mut encoder = Encoder::new(coding, Quality::Fast).expect("a coding that codes");
    let mut coded = encoder.write(data).expect("memory takes every write").to_vec();
    coded.extend(encoder.finish().expect("memory takes every write"));
    assert_eq!(decode(coding, &coded).as_deref(), Some(data));
});

fn decode(coding: Coding, data: &[u8]) -> Option<Vec<u8>> {
    let mut decoder = Decoder::new(coding)?;
    let mut input = Bytes::copy_from_slice(data);
    let mut decoded = Vec::new();
    loop {
        let piece = decoder.decode(&mut input).ok()?;
        assert!(piece.len() <= PIECE_MAX);
        if piece.is_empty() || decoded.len() > DECODED_MAX {
            break;
        }
        decoded.extend(piece);
    }
    decoder.finish().ok().map(|()| decoded)
}
