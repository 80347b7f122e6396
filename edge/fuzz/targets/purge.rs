//! The body of a purge request: refused with a reason, or names in the one spelling of keys, and few.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use edge::admin::purge_of;
use edge::cache::key::canonical_path;
use edge::site::Router;
use libfuzzer_sys::fuzz_target;

static ROUTER: LazyLock<Router> = LazyLock::new(|| {
    let text = "[listen]\nplain = [\"127.0.0.1:0\"]\n[origin.a]\nkind = \"http\"\nurl = \"http://a.test\"\n\
        [[site]]\nhosts = [\"cdn.test\", \"*.wild.test\"]\norigin = \"a\"\nquery = \"sort\"\n";
    let config = edge::config::parse(text, "edge.toml", Path::new(".")).expect("a good configuration");
    Router::new(&config)
});

fuzz_target!(|data: &[u8]| {
    // Nearly always one list of names, as its grammar is where the traps are.
    let body = match data.split_first() {
        Some((b'{', _)) | None => data.to_vec(),
        Some((kind, rest)) => {
            let kind = ["files", "tags", "prefixes", "hosts"][usize::from(kind % 4)];
            let names: Vec<_> = rest
                .split(|&byte| byte == b'\n')
                .map(String::from_utf8_lossy)
                .collect();
            format!("{{{kind:?}:{names:?}}}").into_bytes()
        }
    };
    let purge = match purge_of(&body, &ROUTER) {
        Ok(purge) => purge,
        Err(why) => return assert!(!why.is_empty()),
    };
    let count = purge.urls.len() + purge.tags.len() + purge.prefixes.len() + purge.hosts.len();
    assert!(purge.everything || count > 0);
    assert!(count <= 1000);
    for (host, path) in purge
        .urls
        .iter()
        .map(|url| (&url.host, &url.path))
        .chain(purge.prefixes.iter().map(|prefix| (&prefix.host, &prefix.path)))
    {
        assert!(
            !host.is_empty() && !host.contains(['/', '@', '?', '#']),
            "{host:?}"
        );
        assert_eq!(*host, host.to_ascii_lowercase());
        assert_eq!(canonical_path(path).as_deref(), Ok(&**path), "{path:?}");
    }
});
