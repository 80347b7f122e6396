//! Content codings and `Accept-Encoding` (RFC 9110, 8.4.1 and 12.5.3).
//!
//! It decides what a client takes and which of the forms at hand it gets; making a form is the encoder's.

use http::HeaderValue;

use crate::fields::lists;

/// How many members of `Accept-Encoding` are read; those behind are ignored. Browsers send four or five.
pub const MEMBERS_MAX: usize = 32;

/// Up to this many bytes, a body and its head are a packet or two of the ten that a connection may send at once (RFC 6928,
/// section 2): no coding brings it any sooner, and each form costs as much memory as the body again.
pub const SMALL_BYTES: u64 = 1200;

/// A content coding, in the order in which we prefer them when nothing else decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Coding {
    /// Brotli (RFC 7932).
    Br,
    /// Zstandard (RFC 8878, RFC 9659).
    Zstd,
    /// Gzip (RFC 1952).
    Gzip,
    /// No coding.
    Identity,
}

impl Coding {
    /// All codings, in our order of preference.
    pub const ALL: [Self; 4] = [Self::Br, Self::Zstd, Self::Gzip, Self::Identity];

    /// Its name in `Content-Encoding` and `Accept-Encoding`.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Br => "br",
            Self::Gzip => "gzip",
            Self::Identity => "identity",
            Self::Zstd => "zstd",
        }
    }

    /// The coding of that name, in any case; `x-gzip` is gzip (RFC 9110, 8.4.1.3).
    pub fn from_token(token: &str) -> Option<Self> {
        if token.eq_ignore_ascii_case("x-gzip") {
            return Some(Self::Gzip);
        }
        Self::ALL
            .into_iter()
            .find(|coding| token.eq_ignore_ascii_case(coding.token()))
    }

    /// The value of `Content-Encoding`; none for identity.
    pub fn content_encoding(self) -> Option<HeaderValue> {
        (self != Self::Identity).then(|| HeaderValue::from_static(self.token()))
    }

    const fn index(self) -> usize {
        self as usize
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What a client takes: the quality of each coding, in thousandths; 0 is refused.
///
/// - With no `Accept-Encoding`, or an empty one, only identity. RFC 9110 lets us send anything to a client that is silent,
///   but a client that does not know of codings is silent too.
/// - `*` stands for each coding that is not named, identity included.
/// - Identity, neither named nor under a `*`, is acceptable and ranks lowest.
/// - A coding that is named more than once has its lowest quality: what was refused anywhere is not sent.
/// - A malformed member says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AcceptEncoding {
    qualities: [u16; 4],
}

impl AcceptEncoding {
    /// Only identity: what a client says that sends no `Accept-Encoding`.
    pub const IDENTITY: Self = Self {
        qualities: [0, 0, 0, QUALITY_MAX],
    };

    /// Reads all field lines of `Accept-Encoding`. Allocates nothing.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> Self {
        let mut values = values.into_iter();
        let Some(first) = values.next() else {
            return Self::IDENTITY;
        };
        let second = values.next();
        if second.is_none()
            && let Some((_, known)) = COMMON
                .iter()
                .find(|(text, _)| first.as_bytes() == text.as_bytes())
        {
            return *known;
        }
        Self::from_members(lists::members(std::iter::once(first).chain(second).chain(values)))
    }

    /// The quality of `coding`, 0 to 1000.
    pub fn quality(self, coding: Coding) -> u16 {
        self.qualities.get(coding.index()).copied().unwrap_or(0)
    }

    /// Whether `coding` may be sent.
    pub fn accepts(self, coding: Coding) -> bool {
        self.quality(coding) > 0
    }

    /// The codings that may be sent: by quality, and where that is equal by our preference. For choosing a coding to make
    /// when the sizes are not known yet.
    pub fn order(self) -> impl Iterator<Item = Coding> {
        let mut codings = Coding::ALL;
        codings.sort_by_key(|&coding| std::cmp::Reverse(self.quality(coding)));
        codings.into_iter().filter(move |&coding| self.accepts(coding))
    }

    /// The smallest form that the client takes, of those at hand with their sizes; `None` when it takes none of them.
    ///
    /// Of the forms that a client takes, it is better served by the smaller one than by the one it ranks higher: the
    /// quality of a coding only tells whether it may be sent. One wish is honoured: a coding that ranks below identity is
    /// not chosen as long as there is a form that does not. Equal sizes go by our preference.
    pub fn smallest(self, available: impl IntoIterator<Item = (Coding, u64)>) -> Option<Coding> {
        available
            .into_iter()
            .filter(|&(coding, _)| self.accepts(coding))
            .min_by_key(|&(coding, size)| (self.is_below_identity(coding), size, coding))
            .map(|(coding, _)| coding)
    }

    /// All that [`AcceptEncoding::smallest`] looks at, in a byte: clients with equal bytes are always given the same form.
    pub fn normalised(self) -> u8 {
        let bits = |chosen: &dyn Fn(Coding) -> bool| {
            let chosen = Coding::ALL.into_iter().filter(|&coding| chosen(coding));
            chosen.fold(0, |bits, coding| bits | coding.bit())
        };
        let accepted = bits(&|coding| self.accepts(coding));
        let below = bits(&|coding| self.accepts(coding) && self.is_below_identity(coding));
        accepted | below << 4
    }

    fn is_below_identity(self, coding: Coding) -> bool {
        self.quality(coding) < self.quality(Coding::Identity)
    }

    fn from_members<'a>(members: impl Iterator<Item = &'a str>) -> Self {
        let mut named = [None::<u16>; 4];
        let mut others = None::<u16>;
        let mut said_something = false;
        for member in members.take(MEMBERS_MAX) {
            said_something = true;
            let Some((name, quality)) = weighted(member) else {
                continue;
            };
            let slot = if name == "*" {
                Some(&mut others)
            } else {
                Coding::from_token(name).and_then(|coding| named.get_mut(coding.index()))
            };
            if let Some(slot) = slot {
                *slot = Some(slot.map_or(quality, |earlier| earlier.min(quality)));
            }
        }
        if !said_something {
            return Self::IDENTITY;
        }
        let mut qualities = named.map(|quality| quality.or(others).unwrap_or(0));
        if let ([.., None], None, [.., identity]) = (named, others, &mut qualities) {
            *identity = QUALITY_MIN;
        }
        Self { qualities }
    }
}

/// Whether content of this media type gains from coding: text, and the formats that are text or plain tables underneath.
/// Images, sound, video, archives and compressed fonts are coded already.
pub fn compressible(content_type: &str) -> bool {
    let (essence, _) = lists::parameters(content_type);
    let Some((kind, subtype)) = essence.split_once('/') else {
        return false;
    };
    let (kind, subtype) = (kind.to_ascii_lowercase(), subtype.to_ascii_lowercase());
    let structured = ["+json", "+xml", "+text", "+yaml", "+wasm"]
        .iter()
        .any(|suffix| subtype.ends_with(suffix));
    structured
        || match kind.as_str() {
            "text" => true,
            "application" => APPLICATIONS.binary_search(&subtype.as_str()).is_ok(),
            "font" => matches!(subtype.as_str(), "collection" | "otf" | "sfnt" | "ttf"),
            "image" => matches!(
                subtype.as_str(),
                "bmp" | "vnd.microsoft.icon" | "x-icon" | "x-ms-bmp"
            ),
            _ => false,
        }
}

const QUALITY_MAX: u16 = 1000;

/// The lowest quality that is not a refusal.
const QUALITY_MIN: u16 = 1;

/// What browsers and tools send, word for word; in the order br, zstd, gzip, identity.
const COMMON: [(&str, AcceptEncoding); 4] = [
    ("gzip, deflate, br, zstd", common(QUALITY_MAX, QUALITY_MAX)),
    ("gzip, deflate, br", common(QUALITY_MAX, 0)),
    ("gzip, deflate", common(0, 0)),
    ("gzip", common(0, 0)),
];

const fn common(br: u16, zstd: u16) -> AcceptEncoding {
    AcceptEncoding {
        qualities: [br, zstd, QUALITY_MAX, QUALITY_MIN],
    }
}

/// Sorted, for the binary search.
const APPLICATIONS: [&str; 21] = [
    "ecmascript",
    "graphql",
    "javascript",
    "json",
    "json5",
    "jsonl",
    "manifest",
    "rtf",
    "source-map",
    "toml",
    "vnd.ms-fontobject",
    "wasm",
    "x-font-opentype",
    "x-font-otf",
    "x-font-truetype",
    "x-font-ttf",
    "x-javascript",
    "x-ndjson",
    "xml",
    "xml-dtd",
    "yaml",
];

/// A member and its weight (RFC 9110, 12.4.2); `None` when it is malformed.
fn weighted(member: &str) -> Option<(&str, u16)> {
    let Some((name, weight)) = member.split_once(';') else {
        return lists::is_token(member).then_some((member, QUALITY_MAX));
    };
    let name = name.trim_end_matches([' ', '\t']);
    let weight = weight.trim_matches([' ', '\t']);
    let value = weight.strip_prefix("q=").or_else(|| weight.strip_prefix("Q="))?;
    lists::is_token(name).then_some((name, quality(value)?))
}

/// A quality in thousandths: `0` or `1` and up to three decimals, at most 1.
fn quality(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths = decimals
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(3)
        .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(QUALITY_MAX),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accept(lines: &[&str]) -> AcceptEncoding {
        let values: Vec<_> = lines
            .iter()
            .map(|line| HeaderValue::from_bytes(line.as_bytes()).unwrap())
            .collect();
        AcceptEncoding::parse(&values)
    }

    #[test]
    fn the_qualities_a_client_gives() {
        // In the order br, zstd, gzip, identity.
        let check = |lines: &[&str], expected: [u16; 4]| {
            assert_eq!(accept(lines).qualities, expected, "{lines:?}");
        };
        check(&[], [0, 0, 0, 1000]);
        check(&[""], [0, 0, 0, 1000]);
        check(&[" , "], [0, 0, 0, 1000]);
        check(&["gzip"], [0, 0, 1000, 1]);
        check(&["GZip"], [0, 0, 1000, 1]);
        check(&["x-gzip"], [0, 0, 1000, 1]);
        check(&["gzip, deflate, br, zstd"], [1000, 1000, 1000, 1]);
        check(&["gzip, deflate", "br"], [1000, 0, 1000, 1]);
        check(&["gzip", "br", "zstd;q=0.1"], [1000, 100, 1000, 1]);
        check(&["br;q=0.5,gzip;q=0.25"], [500, 0, 250, 1]);
        check(&["br ;\tQ=1.000 , gzip; q=0.001"], [1000, 0, 1, 1]);
        check(&["identity;q=0"], [0, 0, 0, 0]);
        check(&["gzip, identity;q=0"], [0, 0, 1000, 0]);
        check(&["*"], [1000, 1000, 1000, 1000]);
        check(&["*;q=0"], [0, 0, 0, 0]);
        check(&["gzip, *;q=0"], [0, 0, 1000, 0]);
        check(&["identity, *;q=0"], [0, 0, 0, 1000]);
        check(&["*;q=0.1, br;q=0"], [0, 100, 100, 100]);
        check(&["br;q=0., gzip;q=1."], [0, 0, 1000, 1]);
        // Refused anywhere is refused.
        check(&["gzip, gzip;q=0"], [0, 0, 0, 1]);
        check(&["gzip;q=0, x-gzip"], [0, 0, 0, 1]);
        check(&["*;q=0, *"], [0, 0, 0, 0]);
        // A malformed member says nothing.
        for bad in [
            "br;q=2",
            "br;q=1.001",
            "br;q=0.0001",
            "br;q=-1",
            "br;q=",
            "br;q",
            "br;",
            "br;q=.5",
            "br;q=0,5",
            "br;x=1",
            "br q=1",
            "br;q=1;x=1",
            "\"br\"",
            "br/1",
        ] {
            check(&[&format!("gzip, {bad}")], [0, 0, 1000, 1]);
            check(&[bad], [0, 0, 0, 1]);
        }
    }

    #[test]
    fn what_browsers_send_is_read_the_same_either_way() {
        for (text, known) in COMMON {
            let value = HeaderValue::from_static(text);
            assert_eq!(
                AcceptEncoding::from_members(lists::members([&value])),
                known,
                "{text}"
            );
            assert_eq!(AcceptEncoding::parse([&value]), known, "{text}");
        }
    }

    #[test]
    fn members_beyond_the_limit_are_ignored() {
        let many = |count: usize| format!("{}br", "x,".repeat(count));
        assert!(accept(&[&many(MEMBERS_MAX - 1)]).accepts(Coding::Br));
        assert!(!accept(&[&many(MEMBERS_MAX)]).accepts(Coding::Br));
        assert!(accept(&[&many(MEMBERS_MAX)]).accepts(Coding::Identity));
    }

    #[test]
    fn the_order_of_making() {
        use Coding::{Br, Gzip, Identity, Zstd};
        let check = |text: &str, expected: &[Coding]| {
            assert_eq!(accept(&[text]).order().collect::<Vec<_>>(), expected, "{text}");
        };
        check("gzip, deflate, br, zstd", &[Br, Zstd, Gzip, Identity]);
        check("br;q=0.1, gzip", &[Gzip, Br, Identity]);
        check("gzip;q=0.5, identity", &[Identity, Gzip]);
        check("identity;q=0", &[]);
        check("", &[Identity]);
    }

    #[test]
    fn the_smallest_form_that_is_taken() {
        use Coding::{Br, Gzip, Identity, Zstd};
        let all = [(Identity, 1000), (Gzip, 300), (Zstd, 280), (Br, 250)];
        let check = |text: &str, available: &[(Coding, u64)], expected: Option<Coding>| {
            let chosen = accept(&[text]).smallest(available.iter().copied());
            assert_eq!(chosen, expected, "{text} {available:?}");
        };
        check("gzip, deflate, br, zstd", &all, Some(Br));
        check("gzip, br;q=0.1", &all, Some(Br));
        check("gzip, br;q=0", &all, Some(Gzip));
        check("", &all, Some(Identity));
        check("gzip", &[(Identity, 10), (Gzip, 30)], Some(Identity));
        check("gzip, identity;q=0", &[(Identity, 10), (Gzip, 30)], Some(Gzip));
        check("gzip, identity;q=0", &[(Identity, 10)], None);
        check("identity, gzip;q=0.5, br;q=0.5", &all, Some(Identity));
        check("identity;q=0.5, gzip;q=0.4, br;q=0.6", &all, Some(Br));
        check("identity, gzip;q=0.5", &[(Gzip, 300)], Some(Gzip));
        check("gzip, br", &[(Gzip, 300), (Br, 300)], Some(Br));
        check("gzip", &[], None);
    }

    #[test]
    fn what_is_worth_coding() {
        for yes in [
            "text/html",
            "Text/HTML; charset=utf-8",
            "application/javascript",
            "application/json",
            "application/manifest+json",
            "application/ld+json; profile=x",
            "image/svg+xml",
            "application/xml",
            "application/wasm",
            "font/ttf",
            "font/otf",
            "application/vnd.ms-fontobject",
            "image/x-icon",
        ] {
            assert!(compressible(yes), "{yes}");
        }
        for no in [
            "",
            "text",
            "image/png",
            "image/webp",
            "video/mp4",
            "audio/ogg",
            "font/woff2",
            "font/woff",
            "application/zip",
            "application/gzip",
            "application/pdf",
            "application/octet-stream",
            "multipart/byteranges",
        ] {
            assert!(!compressible(no), "{no}");
        }
        assert!(APPLICATIONS.is_sorted());
    }

    #[test]
    fn tokens_are_read_back() {
        for coding in Coding::ALL {
            assert_eq!(Coding::from_token(coding.token()), Some(coding));
            assert_eq!(Coding::from_token(&coding.token().to_uppercase()), Some(coding));
        }
        assert_eq!(Coding::from_token("X-Gzip"), Some(Coding::Gzip));
        assert_eq!(Coding::from_token("deflate"), None);
    }

    /// A member as the client means it: a name, and a quality in thousandths.
    fn member() -> impl Strategy<Value = (&'static str, Option<u16>)> {
        let name = prop::sample::select(vec![
            "br", "zstd", "gzip", "x-gzip", "identity", "*", "deflate", "BR",
        ]);
        let quality = prop_oneof![Just(0), Just(1000), 0..=1000_u16];
        (name, prop::option::of(quality))
    }

    fn written(&(name, quality): &(&str, Option<u16>)) -> String {
        quality.map_or(name.to_owned(), |q| {
            format!("{name}; q={}.{:03}", q / 1000, q % 1000)
        })
    }

    /// RFC 9110, 12.5.3, said again in other words.
    fn model_quality(members: &[(&str, Option<u16>)], coding: Coding) -> u16 {
        let of = |names: &[&str]| {
            let own = members
                .iter()
                .filter(|(name, _)| names.contains(&name.to_ascii_lowercase().as_str()));
            own.map(|(_, quality)| quality.unwrap_or(1000)).min()
        };
        let own = match coding {
            Coding::Gzip => of(&["gzip", "x-gzip"]),
            other => of(&[other.token()]),
        };
        match (own.or(of(&["*"])), coding) {
            (Some(quality), _) => quality,
            (None, Coding::Identity) if members.is_empty() => 1000,
            (None, Coding::Identity) => 1,
            (None, _) => 0,
        }
    }

    fn sizes() -> impl Strategy<Value = Vec<(Coding, u64)>> {
        let size = prop::option::of(1..4_u64);
        (size.clone(), size.clone(), size.clone(), size).prop_map(|(a, b, c, d)| {
            let sizes = Coding::ALL.into_iter().zip([a, b, c, d]);
            sizes.filter_map(|(coding, size)| Some((coding, size?))).collect()
        })
    }

    proptest! {
        #[test]
        fn as_the_model_says(members in prop::collection::vec(member(), 0..6), split in 0..6_usize) {
            let text: Vec<_> = members.iter().map(written).collect();
            let (first, second) = text.split_at(split.min(text.len()));
            let read = accept(&[&first.join(","), &second.join(" , ")]);
            for coding in Coding::ALL {
                prop_assert_eq!(read.quality(coding), model_quality(&members, coding), "{:?} {:?}", coding, text);
                prop_assert_eq!(read.accepts(coding), model_quality(&members, coding) > 0);
            }
        }

        #[test]
        fn nothing_panics_and_order_holds_what_is_accepted(text in "[-a-z*;=., q01]{0,60}") {
            let read = accept(&[&text]);
            prop_assert_eq!(read.order().count(), Coding::ALL.into_iter().filter(|&c| read.accepts(c)).count());
        }

        #[test]
        fn equal_in_normalised_form_is_equal_in_choice(
            one in prop::collection::vec(member(), 0..5),
            other in prop::collection::vec(member(), 0..5),
            available in sizes(),
        ) {
            let read = |members: &[(&'static str, Option<u16>)]| {
                accept(&[&members.iter().map(written).collect::<Vec<_>>().join(",")])
            };
            let (one, other) = (read(&one), read(&other));
            if one.normalised() == other.normalised() {
                prop_assert_eq!(one.smallest(available.clone()), other.smallest(available));
            }
        }
    }
}
