//! Dates: a date that is read is read again from its own writing, whichever of the three forms it came in.
#![no_main]

use edge::fields::dates;
use libfuzzer_sys::fuzz_target;

/// What dates are made of. Each byte of the input stands for one of these, or for itself.
const WORDS: [&str; 24] = [
    "Sun, ",
    "Thu, ",
    "Thu ",
    "THU, ",
    "Thursday, ",
    "06",
    "18",
    " 8",
    "-",
    " ",
    "Nov",
    "Aug",
    "aug",
    "1994",
    "2050",
    "50",
    "08",
    ":",
    "49",
    "37",
    "60",
    " GMT",
    " UTC",
    " gMT",
];

fuzz_target!(|data: &[u8]| {
    let mut text = String::new();
    for &byte in data {
        match WORDS.get(usize::from(byte).wrapping_sub(128)) {
            Some(word) => text.push_str(word),
            None => text.push(char::from(byte)),
        }
    }
    if let Some(time) = dates::parse_str(&text) {
        assert_eq!(dates::parse_str(&dates::format(time)), Some(time));
    }
});
