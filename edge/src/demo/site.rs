//! What the demo's bucket holds: the sample site, or a folder of the user's.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use origin_sync::bucket::{Meta, Query, Store};

use super::{BUCKET, Error};

const PAGE: &str = include_str!("../../demo/index.html");
const SCRIPT: &str = include_str!("../../demo/login.js");
const TENANT: &str = include_str!("../../demo/acme.json");

/// Where the sample script stands.
const SCRIPT_KEY: &str = "login/1.0.0/login.js";

/// How deep a folder may be nested: a loop of links ends here.
const DEPTH_MAX: usize = 32;

/// Takes away what the last demo left: another folder's files would be served beside this one's.
pub(super) async fn clear(store: &Store) -> Result<(), Error> {
    let query = Query {
        limit: 1000,
        ..Query::default()
    };
    let failed = |error| Error::Clear(error);
    loop {
        let page = store.list(BUCKET, &query).map_err(failed)?;
        for record in &page.entries {
            store.delete(BUCKET, &record.key).await.map_err(failed)?;
        }
        if page.next.is_none() {
            return Ok(());
        }
    }
}

/// Puts the sample site; its page expects the edge on `port`. Returns the path of its script.
pub(super) async fn put_sample(store: &Store, port: u16) -> Result<String, Error> {
    let integrity = format!(
        "sha384-{}",
        STANDARD.encode(digest::digest(&digest::SHA384, SCRIPT.as_bytes()))
    );
    let page = PAGE
        .replace("@@CDN@@", &format!("https://cdn.localhost:{port}"))
        .replace("@@SRI@@", &integrity);
    put(store, "index.html", page.into_bytes(), "max-age=60", &["page"]).await?;
    put(
        store,
        SCRIPT_KEY,
        SCRIPT.into(),
        "max-age=31536000, immutable",
        &["login", "login-1.0.0"],
    )
    .await?;
    put(
        store,
        "tenants/acme.json",
        TENANT.into(),
        "max-age=60",
        &["tenant", "tenant-acme"],
    )
    .await?;
    Ok(format!("/{SCRIPT_KEY}"))
}

/// Puts every file below `dir`. Returns the path of its largest script, or else of its largest file, to try.
pub(super) async fn put_folder(store: &Store, dir: &Path) -> Result<String, Error> {
    let mut best = (false, 0, String::from("/"));
    for file in files(dir)? {
        let Ok(relative) = file.strip_prefix(dir) else {
            continue;
        };
        let key = relative.to_string_lossy().replace('\\', "/");
        let bytes = std::fs::read(&file).map_err(|error| Error::File(file.clone(), error))?;
        best = best.max((key.ends_with(".js"), bytes.len(), format!("/{}", escaped(&key))));
        put(store, &key, bytes, "", &[]).await?;
    }
    Ok(best.2)
}

/// Puts one object, in the place of what was there. The origin finds its media type by its name.
pub(super) async fn put(
    store: &Store,
    key: &str,
    body: Vec<u8>,
    cache_control: &str,
    tags: &[&str],
) -> Result<(), Error> {
    let mut meta = Meta::default();
    if !cache_control.is_empty() {
        meta.cache_control = Some(cache_control.to_owned());
    }
    if !tags.is_empty() {
        meta.user.insert("surrogate-key".to_owned(), tags.join(" "));
    }
    let put = store.put(BUCKET, key, body, meta).await;
    put.map(drop).map_err(|error| Error::Put(key.to_owned(), error))
}

/// All files below `dir`, hidden ones left out.
fn files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut open = vec![(dir.to_owned(), 0)];
    while let Some((folder, depth)) = open.pop() {
        let fault = |error| Error::File(folder.clone(), error);
        for entry in std::fs::read_dir(&folder).map_err(fault)? {
            let path = entry.map_err(fault)?.path();
            let hidden = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with('.'));
            match path.is_dir() {
                _ if hidden => {}
                true if depth < DEPTH_MAX => open.push((path, depth + 1)),
                true => {}
                false => found.push(path),
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A key as it stands in a URL.
fn escaped(key: &str) -> String {
    let mut path = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'~' => path.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => path.push(char::from(byte)),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_takes_the_place_of_what_was_there() {
        let (state, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(state.path(), false).unwrap();
        store.create_bucket(BUCKET).unwrap();
        put_sample(&store, 8443).await.unwrap();
        std::fs::create_dir(folder.path().join("a b")).unwrap();
        for (name, text) in [
            ("a b/big.js", "longer"),
            ("small.js", "1"),
            ("page.html", "the longest"),
            (".hidden", ""),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }

        clear(&store).await.unwrap();
        let shown = put_folder(&store, folder.path()).await.unwrap();

        assert_eq!(shown, "/a%20b/big.js");
        let query = Query {
            limit: 100,
            ..Query::default()
        };
        let keys: Vec<_> = store
            .list(BUCKET, &query)
            .unwrap()
            .entries
            .iter()
            .map(|it| it.key.clone())
            .collect();
        assert_eq!(keys, ["a b/big.js", "page.html", "small.js"]);
    }

    #[tokio::test]
    async fn the_sample_page_names_its_script_by_digest() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path(), false).unwrap();
        store.create_bucket(BUCKET).unwrap();
        put_sample(&store, 9443).await.unwrap();
        let (_, page) = store.read(BUCKET, "index.html").await.unwrap();
        let page = String::from_utf8(page.to_vec()).unwrap();
        let (_, script) = store.read(BUCKET, SCRIPT_KEY).await.unwrap();
        let digest = STANDARD.encode(digest::digest(&digest::SHA384, &script));
        assert!(page.contains(&format!("integrity=\"sha384-{digest}\"")), "{page}");
        assert!(
            page.contains("src=\"https://cdn.localhost:9443/login/1.0.0/login.js\""),
            "{page}"
        );
        assert!(!page.contains("@@"), "{page}");
    }
}
