//! Media types by extension, with the charset where text has one. S3's own guess is `binary/octet-stream`, which a browser
//! that was told not to sniff refuses to run.

/// The media type of a path.
pub fn media_type(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name
        .rsplit_once('.')
        .map(|(_, extension)| extension.to_ascii_lowercase());
    match extension.as_deref().unwrap_or_default() {
        "js" | "mjs" | "cjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "html" | "htm" => "text/html; charset=utf-8",
        "txt" | "md" | "ts" => "text/plain; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "vtt" => "text/vtt; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "xml" => "application/xml",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        "mp3" => "audio/mpeg",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "zip" => "application/zip",
        "gz" | "tgz" => "application/gzip",
        _ => "application/octet-stream",
    }
}

/// Whether bytes of this type get smaller by a coding.
pub fn compressible(media_type: &str) -> bool {
    let essence = media_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let structured = essence.ends_with("+json") || essence.ends_with("+xml");
    let known = [
        "application/json",
        "application/xml",
        "application/wasm",
        "application/javascript",
        "image/x-icon",
        "font/ttf",
        "font/otf",
    ];
    essence.starts_with("text/") || structured || known.contains(&essence.as_str())
}

/// Whether pages load it with an `integrity` attribute.
pub fn pinnable(media_type: &str) -> bool {
    let essence = media_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    matches!(
        essence.as_str(),
        "text/javascript" | "application/javascript" | "text/css"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_follow_extensions() {
        let check = |path: &str, expected: &str, smaller: bool, pinned: bool| {
            assert_eq!(media_type(path), expected, "{path}");
            assert_eq!(compressible(media_type(path)), smaller, "{path}");
            assert_eq!(pinnable(media_type(path)), pinned, "{path}");
        };
        check("a/lock.min.js", "text/javascript; charset=utf-8", true, true);
        check("A.CSS", "text/css; charset=utf-8", true, true);
        check("a.json", "application/json", true, false);
        check("a.svg", "image/svg+xml", true, false);
        check("a.woff2", "font/woff2", false, false);
        check("a.png", "image/png", false, false);
        check("LICENSE", "application/octet-stream", false, false);
        check("a.b/c", "application/octet-stream", false, false);
    }
}
