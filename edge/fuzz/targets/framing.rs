//! The framing of an application's answer: what is taken has one length, or is in chunks alone, or ends with the connection.
#![no_main]

use edge::origin::http::verdict::{judge, judge_relayed};
use edge::origin::{Ask, AskedRange, Condition};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(([high, low, flags], lines)) = data.split_first_chunk() else {
        return;
    };
    let Ok(status) = StatusCode::from_u16(100 + u16::from_le_bytes([*low, *high]) % 900) else {
        return;
    };
    let mut fields = HeaderMap::new();
    for line in lines.split(|&byte| byte == b'\n').take(6) {
        let (name, line) = match line.split_first() {
            Some((b'T', rest)) => (header::TRANSFER_ENCODING, rest),
            _ => (header::CONTENT_LENGTH, line),
        };
        if let Ok(value) = HeaderValue::from_bytes(line) {
            fields.append(name, value);
        }
    }
    let ask = Ask {
        range: (flags & 1 == 1).then_some(AskedRange::Suffix(1)),
        condition: (flags & 2 == 2).then(|| Condition {
            etag: None,
            last_modified: None,
            source: "a".into(),
        }),
        ..Ask::default()
    };
    let Ok(length) = judge_relayed(status, &fields) else {
        assert!(judge(status, &fields, &ask).is_err());
        return;
    };
    assert!((200..600).contains(&status.as_u16()));
    let lengths: Vec<_> = fields.get_all(header::CONTENT_LENGTH).iter().collect();
    let codings: Vec<_> = fields.get_all(header::TRANSFER_ENCODING).iter().collect();
    match length {
        Some(length) => {
            assert!(codings.is_empty() && lengths.len() == 1);
            let digits = lengths[0].to_str().expect("digits").trim_start_matches('0');
            assert_eq!(digits, length.to_string().trim_start_matches('0'));
        }
        None => {
            assert!(lengths.is_empty() && codings.len() <= 1);
            let is_chunked = |value: &&HeaderValue| {
                let text = value.as_bytes().trim_ascii();
                text.trim_ascii()
                    .to_ascii_lowercase()
                    .windows(7)
                    .any(|seven| seven == b"chunked")
            };
            assert!(codings.iter().all(is_chunked));
        }
    }
    match judge(status, &fields, &ask) {
        Ok(same) => assert_eq!(same, length),
        Err(_) => assert!(
            matches!(status.as_u16(), 206 | 304),
            "only these have to be asked for"
        ),
    }
});
