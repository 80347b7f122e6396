//! Media types put right. S3's default is `binary/octet-stream`, which a browser refuses to run under `nosniff`.

use http::HeaderValue;

/// By extension, in order of extension. Text carries its charset, JSON has none (RFC 8259 section 11).
const BY_EXTENSION: &[(&str, &str)] = &[
    ("aac", "audio/aac"),
    ("apng", "image/apng"),
    ("atom", "application/atom+xml"),
    ("avif", "image/avif"),
    ("bmp", "image/bmp"),
    ("br", "application/x-brotli"),
    ("cjs", "text/javascript; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("eot", "application/vnd.ms-fontobject"),
    ("flac", "audio/flac"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/x-icon"),
    ("ics", "text/calendar; charset=utf-8"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("jsonld", "application/ld+json"),
    ("m4a", "audio/mp4"),
    ("map", "application/json"),
    ("md", "text/markdown; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("oga", "audio/ogg"),
    ("ogg", "audio/ogg"),
    ("ogv", "video/ogg"),
    ("otf", "font/otf"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("rss", "application/rss+xml"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("ttf", "font/ttf"),
    ("txt", "text/plain; charset=utf-8"),
    ("vtt", "text/vtt; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("webm", "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("xhtml", "application/xhtml+xml"),
    ("xml", "application/xml"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// What a response at `path` says: what the bucket says, unless that is nothing; with a charset if it is text.
pub(super) fn correct(said: Option<&HeaderValue>, path: &str) -> HeaderValue {
    let text = said
        .and_then(|said| said.to_str().ok())
        .map(str::trim)
        .unwrap_or_default();
    if says_nothing(text) {
        return by_extension(path).map_or(OCTETS, HeaderValue::from_static);
    }
    let corrected = (is_text(text) && !has_charset(text)).then(|| {
        HeaderValue::from_str(&format!("{}; charset=utf-8", text.trim_end_matches([';', ' ']))).ok()
    });
    corrected.flatten().or_else(|| said.cloned()).unwrap_or(OCTETS)
}

fn by_extension(path: &str) -> Option<&'static str> {
    let name = path.rsplit('/').next()?;
    let (_, extension) = name.rsplit_once('.')?;
    let extension = extension.to_ascii_lowercase();
    let place = BY_EXTENSION
        .binary_search_by(|(known, _)| (*known).cmp(&extension))
        .ok()?;
    BY_EXTENSION.get(place).map(|(_, media_type)| *media_type)
}

fn says_nothing(text: &str) -> bool {
    let kind = essence(text);
    kind.is_empty()
        || kind.eq_ignore_ascii_case("binary/octet-stream")
        || kind.eq_ignore_ascii_case("application/octet-stream")
}

fn is_text(text: &str) -> bool {
    let kind = essence(text).to_ascii_lowercase();
    kind.starts_with("text/")
        || matches!(
            kind.as_str(),
            "application/javascript" | "application/x-javascript"
        )
}

fn has_charset(text: &str) -> bool {
    let parameters = text.split(';').skip(1);
    parameters
        .filter_map(|parameter| parameter.split_once('='))
        .any(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
}

/// Type and subtype, without parameters.
fn essence(text: &str) -> &str {
    text.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        assert!(BY_EXTENSION.is_sorted_by(|one, next| one.0 < next.0));
    }

    #[test]
    fn a_type_that_says_nothing_is_put_right_and_text_gets_its_charset() {
        let check = |said: Option<&'static str>, path, expected| {
            let said = said.map(HeaderValue::from_static);
            assert_eq!(correct(said.as_ref(), path), expected, "{said:?} {path}");
        };
        check(None, "/w.js", "text/javascript; charset=utf-8");
        check(
            Some("binary/octet-stream"),
            "/a/w.MJS",
            "text/javascript; charset=utf-8",
        );
        check(
            Some("application/octet-stream; x=y"),
            "/w.css",
            "text/css; charset=utf-8",
        );
        check(Some(""), "/w.wasm", "application/wasm");
        check(None, "/w.js.map", "application/json");
        check(None, "/no-extension", "application/octet-stream");
        check(None, "/dir.js/", "application/octet-stream");
        check(None, "/w.unheard", "application/octet-stream");
        check(
            Some("application/octet-stream"),
            "/w.unheard",
            "application/octet-stream",
        );
        check(Some("text/html"), "/x", "text/html; charset=utf-8");
        check(Some("text/html;"), "/x", "text/html; charset=utf-8");
        check(
            Some("text/html; charset=latin1"),
            "/x",
            "text/html; charset=latin1",
        );
        check(
            Some("text/html; Charset = \"x\""),
            "/x",
            "text/html; Charset = \"x\"",
        );
        check(
            Some("application/javascript"),
            "/x",
            "application/javascript; charset=utf-8",
        );
        check(Some("image/png"), "/x.js", "image/png");
        check(Some("application/json"), "/x", "application/json");
    }
}
