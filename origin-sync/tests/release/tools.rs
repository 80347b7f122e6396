//! The other commands: verify, gc, sync.

use origin_sync::release::{Sha256, layout};

use crate::{PREFIX, World, script};

#[tokio::test]
async fn verify_reads_everything_back() {
    let world = World::new().await;
    world.folder("dist", &[("a.js", &script(100, "a"))]);
    world.good("push dist --name lock --release 1.0.0").await;
    world.good("promote lock 1.0.0 --alias 1").await;
    let said = world.json("verify lock").await;
    // The channel's fields; then file, fields, gzip, br.
    assert_eq!(
        (said[0]["right"].as_u64(), said[1]["right"].as_u64()),
        (Some(1), Some(4)),
        "{said}"
    );
    let manifest = world.manifest("lock", "1.0.0").await.document;
    let coding = &manifest.files[0].codings[0];
    let mut bytes = world.object(&layout::blob(&coding.sha256)).await.to_vec();
    bytes[20] ^= 1;
    world.replace(&layout::blob(&coding.sha256), bytes).await;
    let ran = world.bad("verify lock", 3, &["1 forms are wrong"]).await;
    assert!(ran.stdout.contains(&format!("a.js {}", coding.name)), "{ran:?}");
    world
        .bad("verify other", 2, &["nothing of other is released"])
        .await;
}

#[tokio::test]
async fn gc_keeps_what_is_named_pointed_to_or_young() {
    let world = World::new().await;
    for number in 0..5 {
        world.folder(
            "dist",
            &[("a.js", format!("var a = {number};").as_bytes()), ("b.js", b"b")],
        );
        world
            .good(&format!("push dist --name lock --release 1.0.{number}"))
            .await;
    }
    world.good("promote lock 1.0.0 --alias stable").await;
    world.good("promote lock 1.0.1 --alias stable").await;
    world.replace("blobs/sha256/not-a-digest", b"x".as_slice()).await;
    let orphan = layout::blob(&Sha256::of(b"orphan"));
    world.replace(&orphan, b"orphan".as_slice()).await;
    let before = world.keys("");
    world.good("gc --keep 1").await;
    assert_eq!(world.keys(""), before, "everything is young");
    let said = world.good("gc --keep 1 --min-age-hours 0 --dry-run").await;
    assert!(
        said.contains("2 releases and 3 blobs") && said.contains("would be deleted"),
        "{said}"
    );
    assert_eq!(world.keys(""), before);
    world.good("gc --keep 1 --min-age-hours 0").await;
    let expected = [
        "releases/lock/1.0.0.json",
        "releases/lock/1.0.1.json",
        "releases/lock/1.0.4.json",
    ];
    assert_eq!(world.keys("releases/"), expected);
    for version in ["1.0.0", "1.0.1", "1.0.4"] {
        world.whole("lock", version).await;
    }
    assert!(!world.keys("blobs/").contains(&orphan));
    assert!(
        world
            .keys("blobs/")
            .contains(&"blobs/sha256/not-a-digest".to_owned())
    );
    // A manifest that cannot be believed names nobody knows what: nothing is deleted then.
    world.replace("releases/lock/1.0.4.json", b"{}".as_slice()).await;
    world
        .bad("gc --keep 1 --min-age-hours 0", 1, &["cannot be believed"])
        .await;
}

#[tokio::test]
async fn gc_keeps_the_files_that_deltas_are_against() {
    let world = World::new().await;
    for (version, salt) in [("1.0.0", "a"), ("1.0.1", "b"), ("1.0.2", "c")] {
        world.folder("dist", &[("a.js", &script(200, salt))]);
        world
            .good(&format!(
                "push dist --name lock --release {version} --dictionaries 1"
            ))
            .await;
    }
    let oldest = world.manifest("lock", "1.0.0").await.document.files[0].sha256;
    let before = world.manifest("lock", "1.0.1").await.document.files[0].sha256;
    world.good("gc --keep 1 --min-age-hours 0").await;
    assert_eq!(world.keys("releases/"), ["releases/lock/1.0.2.json"]);
    let blobs = world.keys("blobs/");
    assert!(blobs.contains(&layout::blob(&before)) && !blobs.contains(&layout::blob(&oldest)));
    world.good("verify lock 1.0.2").await;
}

#[tokio::test]
async fn sync_copies_what_changed_with_its_fields() {
    let world = World::new().await;
    let rules =
        "[[rule]]\npath = 'client/*.json'\ncache_control = 'public, max-age=30'\ntags = ['tenants', 'x']\n";
    std::fs::write(world.dir().join("origin-sync.toml"), rules).unwrap();
    world.folder(
        "conf",
        &[
            ("client/a.json", b"{}"),
            ("client/b.json", b"[]"),
            ("robots.txt", b""),
        ],
    );
    let line = "sync conf s3://widgets/cdn";
    assert_eq!(
        world.json(&format!("{line} --dry-run")).await["written"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert!(world.keys("").is_empty());
    world.good(line).await;
    let record = world
        .server
        .store()
        .record("widgets", &format!("{PREFIX}client/a.json"))
        .unwrap();
    assert_eq!(record.meta.content_type.as_deref(), Some("application/json"));
    assert_eq!(record.meta.cache_control.as_deref(), Some("public, max-age=30"));
    assert_eq!(
        record.meta.user.get("surrogate-key").map(String::as_str),
        Some("tenants x")
    );
    let report = world.json(line).await;
    assert_eq!(
        (
            report["same"].as_u64(),
            report["written"].as_array().unwrap().len()
        ),
        (Some(3), 0)
    );
    world.folder("conf", &[("client/a.json", b"{ }")]);
    std::fs::remove_file(world.dir().join("conf/robots.txt")).unwrap();
    world.replace("releases/lock/1.json", b"kept".as_slice()).await;
    let report = world.json(&format!("{line} --delete")).await;
    assert_eq!(report["written"][0], "client/a.json");
    assert_eq!(report["deleted"].as_array().unwrap(), &["robots.txt"]);
    assert_eq!(
        world.keys(""),
        ["client/a.json", "client/b.json", "releases/lock/1.json"]
    );
    world.folder("conf", &[("releases/x.json", b"{}")]);
    world.bad(line, 2, &["releases live there"]).await;
}
