//! Names: the id of a bucket, and the key of a path.

use crate::config;
use crate::origin::Source;

/// Name and region, and what else tells two buckets apart.
pub(super) fn id(config: &config::Bucket) -> Source {
    let place = config
        .endpoint
        .as_deref()
        .map_or(String::new(), |endpoint| format!(" at {endpoint}"));
    let prefix = if config.prefix.is_empty() {
        String::new()
    } else {
        format!("/{}", config.prefix)
    };
    format!("{}{prefix} ({}){place}", config.name, config.region).into()
}

/// The longest key that S3 takes, in bytes.
const KEY_BYTES_MAX: usize = 1024;

/// The key for a canonical path, or `None` when no object can have it: the whole bucket, a key that is not UTF-8 or
/// too long, and dot segments, which some stores resolve across the border of the bucket.
pub(in crate::origin) fn key_of(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.strip_prefix('/')?.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        let mut decoded = [0];
        hex::decode_to_slice(digits, &mut decoded).ok()?;
        bytes.extend(decoded);
    }
    let key = String::from_utf8(bytes).ok()?;
    let sound = !key.is_empty()
        && key.len() <= KEY_BYTES_MAX
        && !key.contains('\0')
        && key.split('/').all(|segment| segment != "." && segment != "..");
    sound.then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_a_key_unless_no_object_can_have_it() {
        let check =
            |path: &str, expected: Option<&str>| assert_eq!(key_of(path).as_deref(), expected, "{path}");
        check("/client/w.js", Some("client/w.js"));
        check("/a%20b/%C3%A9%3f", Some("a b/é?"));
        check("//a", Some("/a"));
        check("/a%2fb", Some("a/b"));
        for none in [
            "",
            "/",
            "a",
            "/%ff",
            "/%",
            "/%2",
            "/%zz",
            "/%00",
            "/..",
            "/a/../b",
            "/a/%2e%2e/b",
            "/a/.",
            "/..%2fb",
        ] {
            check(none, None);
        }
        check("/...", Some("..."));
        check(&format!("/{}", "a".repeat(1024)), Some(&"a".repeat(1024)));
        check(&format!("/{}", "a".repeat(1025)), None);
    }

    #[test]
    fn ids_tell_buckets_apart() {
        let bucket = config::Bucket {
            name: "widgets".to_owned(),
            region: "eu-west-1".to_owned(),
            prefix: String::new(),
            endpoint: None,
            path_style: false,
            canary: None,
        };
        assert_eq!(&*id(&bucket), "widgets (eu-west-1)");
        let other = config::Bucket {
            prefix: "cdn/".to_owned(),
            endpoint: Some("http://127.0.0.1:9000".to_owned()),
            ..bucket
        };
        assert_eq!(&*id(&other), "widgets/cdn/ (eu-west-1) at http://127.0.0.1:9000");
    }
}
