//! Pushing: what is stored, in which order, and what is refused.

use origin_sync::bucket::{Fault, Rule};
use origin_sync::release::{CodingName, Sha256, layout};

use crate::{PREFIX, World, script};

const PUSH: &str = "push dist --name lock --release";

#[tokio::test]
async fn a_folder_becomes_a_release_and_its_manifest_comes_last() {
    let world = World::new().await;
    let lock = script(400, "1");
    world.folder(
        "dist",
        &[
            ("lock.min.js", &lock),
            ("css/lock.css", b"a{}"),
            ("logo.png", b"\x89PNG"),
            (".hidden", b""),
        ],
    );
    let report = world.json(&format!("{PUSH} 1.0.0")).await;
    assert_eq!(report["outcome"], "pushed");
    assert_eq!(report["left_out"][0], ".hidden");
    let manifest = world.manifest("lock", "1.0.0").await;
    assert_eq!(report["manifest"], manifest.digest.to_string());
    let paths: Vec<&str> = manifest
        .document
        .files
        .iter()
        .map(|file| file.path.as_str())
        .collect();
    assert_eq!(paths, ["css/lock.css", "lock.min.js", "logo.png"]);
    let file = manifest.document.file("lock.min.js").unwrap();
    assert_eq!(file.media_type, "text/javascript; charset=utf-8");
    assert_eq!(file.sha256, Sha256::of(&lock));
    let names: Vec<CodingName> = file.codings.iter().map(|coding| coding.name).collect();
    assert_eq!(names, [CodingName::Br, CodingName::Gzip]);
    assert_eq!(
        file.integrity.as_ref().unwrap().verify(&file.sha256, 0).unwrap(),
        [manifest.key]
    );
    assert!(manifest.document.file("logo.png").unwrap().codings.is_empty());
    world.whole("lock", "1.0.0").await;

    let seen = world.server.log();
    let written: Vec<&str> = seen
        .iter()
        .filter(|seen| seen.method == "PUT")
        .map(|seen| seen.key.as_str())
        .collect();
    assert_eq!(
        written.last(),
        Some(&format!("{PREFIX}releases/lock/1.0.0.json").as_str())
    );
    let conditions = seen
        .iter()
        .filter(|seen| seen.method == "PUT")
        .map(|seen| seen.if_none_match.as_deref());
    assert!(conditions.into_iter().all(|condition| condition == Some("*")));
}

#[tokio::test]
async fn the_next_release_brings_deltas_and_stores_nothing_twice() {
    let world = World::new().await;
    for (version, salt) in [("1.0.0", "a"), ("1.0.1", "b"), ("1.0.2", "c")] {
        world.folder(
            "dist",
            &[("lock.js", &script(600, salt)), ("same.js", &script(50, "same"))],
        );
        world.good(&format!("{PUSH} {version}")).await;
        world.whole("lock", version).await;
    }
    let [one, two, three] = ["1.0.0", "1.0.1", "1.0.2"];
    let first = world.manifest("lock", one).await.document;
    let second = world.manifest("lock", two).await.document;
    let third = world.manifest("lock", three).await.document;
    let digest = |manifest: &origin_sync::release::Manifest| manifest.file("lock.js").unwrap().sha256;
    let file = third.file("lock.js").unwrap();
    let br = file.coding(CodingName::Br, None).unwrap().size;
    for earlier in [digest(&first), digest(&second)] {
        let delta = file.coding(CodingName::Dcb, Some(&earlier)).unwrap();
        assert!(delta.size * 10 < br, "{} against {br}", delta.size);
    }
    assert_eq!(third.file("same.js"), first.file("same.js"));
    assert_eq!(
        world
            .keys(&layout::blob(&third.file("same.js").unwrap().sha256))
            .len(),
        1
    );
    // A delta goes by what changed.
    let diff = world.good("diff lock 1.0.1 1.0.2").await;
    assert!(
        diff.contains("lock.js  changed") && diff.contains("1 files are the same"),
        "{diff}"
    );
    // Fewer releases back, fewer deltas.
    world.folder("dist", &[("lock.js", &script(600, "d"))]);
    world.good(&format!("{PUSH} 1.0.3 --dictionaries 1")).await;
    let codings = &world.manifest("lock", "1.0.3").await.document.files[0].codings;
    assert_eq!(
        codings
            .iter()
            .filter(|coding| coding.name == CodingName::Dcb)
            .count(),
        1
    );
}

#[tokio::test]
async fn a_version_is_pushed_once() {
    let world = World::new().await;
    world.folder("dist", &[("lock.js", b"var a = 1;"), ("other.js", b"2")]);
    world.good(&format!("{PUSH} 1.0.0")).await;
    let before = world.object("releases/lock/1.0.0.json").await;
    assert_eq!(world.json(&format!("{PUSH} 1.0.0")).await["outcome"], "already");
    world.folder("dist", &[("lock.js", b"var a = 2;")]);
    let (old, new) = (
        Sha256::of(b"var a = 1;").to_string(),
        Sha256::of(b"var a = 2;").to_string(),
    );
    let words = [
        "releases/lock/1.0.0.json",
        "nothing was changed",
        "lock.js",
        old.as_str(),
        new.as_str(),
    ];
    let ran = world.bad(&format!("{PUSH} 1.0.0"), 3, &words).await;
    assert!(!ran.stderr.contains("other.js"));
    std::fs::remove_file(world.dir().join("dist/other.js")).unwrap();
    world.folder("dist", &[("lock.js", b"var a = 1;")]);
    world
        .bad(&format!("{PUSH} 1.0.0"), 3, &["other.js", "none"])
        .await;
    assert_eq!(world.object("releases/lock/1.0.0.json").await, before);
    assert_eq!(world.keys(&layout::blob(&Sha256::of(b"var a = 2;"))).len(), 0);
}

#[tokio::test]
async fn a_dry_run_writes_nothing_and_says_the_sizes() {
    let world = World::new().await;
    world.folder("dist", &[("lock.js", &script(300, "a"))]);
    let said = world.good(&format!("{PUSH} 1.0.0 --dry-run")).await;
    assert!(
        said.contains("lock.js") && said.contains("would store 3 blobs"),
        "{said}"
    );
    let report = world.json(&format!("{PUSH} 1.0.0 --dry-run")).await;
    assert_eq!(report["outcome"], "planned");
    assert!(report["files"][0]["br"].as_u64().unwrap() < report["files"][0]["gzip"].as_u64().unwrap());
    assert!(world.keys("").is_empty());
}

#[tokio::test]
async fn a_push_that_breaks_shows_nothing_and_goes_on_where_it_ended() {
    let world = World::new().await;
    world.folder(
        "dist",
        &[("a.js", &script(300, "a")), ("b.js", &script(300, "b"))],
    );
    let denied = Fault::Status(403, "AccessDenied".into());
    let key = layout::blob(&Sha256::of(&script(300, "b")));
    let rule = Rule::new(denied.clone())
        .key(format!("{PREFIX}{key}"))
        .method("PUT");
    let rule = world.server.faults().add(rule);
    let words = [
        "PUT",
        key.as_str(),
        "403 AccessDenied",
        "the manifest is not",
        "run again",
    ];
    world.bad(&format!("{PUSH} 1.0.0"), 3, &words).await;
    assert!(world.keys("releases/").is_empty());
    world.server.faults().remove(rule);

    let rule = Rule::new(denied)
        .key(format!("{PREFIX}releases/lock/1.0.0.json"))
        .method("PUT");
    let rule = world.server.faults().add(rule);
    world
        .bad(
            &format!("{PUSH} 1.0.0"),
            1,
            &["all blobs are in the bucket", "releases/lock/1.0.0.json"],
        )
        .await;
    world.server.faults().remove(rule);

    world.server.clear_log();
    let report = world.json(&format!("{PUSH} 1.0.0")).await;
    assert_eq!(
        (report["outcome"].as_str(), report["blobs_stored"].as_u64()),
        (Some("pushed"), Some(0))
    );
    world.whole("lock", "1.0.0").await;
}

#[tokio::test]
async fn a_manifest_whose_answer_was_lost_is_found_again() {
    let world = World::new().await;
    world.folder("dist", &[("a.js", b"var a;")]);
    // The write is done, its answer never comes: the next attempt meets what this one wrote.
    let key = format!("{PREFIX}releases/lock/1.0.0.json");
    let rule = Rule::new(Fault::WrongLength(10)).key(key).method("PUT").times(1);
    world.server.faults().add(rule);
    assert_eq!(world.json(&format!("{PUSH} 1.0.0")).await["outcome"], "pushed");
}

#[tokio::test]
async fn slow_answers_and_conflicts_of_s3_are_tried_again() {
    let world = World::new().await;
    world.folder("dist", &[("a.js", b"var a;")]);
    let faults = world.server.faults();
    faults.add(Rule::new(Fault::SlowDown).method("PUT").times(1));
    faults.add(
        Rule::new(Fault::Status(409, "ConditionalRequestConflict".into()))
            .method("PUT")
            .times(3),
    );
    world.good(&format!("{PUSH} 1.0.0")).await;
    world.whole("lock", "1.0.0").await;
}

#[tokio::test]
async fn blobs_with_other_bytes_are_not_believed() {
    let world = World::new().await;
    world.folder("dist", &[("a.js", b"var a;")]);
    let key = layout::blob(&Sha256::of(b"var a;"));
    world.replace(&key, "evil!!".as_bytes()).await;
    world.bad(&format!("{PUSH} 1.0.0"), 3, &["trust", &key]).await;
    world.replace(&key, "longer than it should be".as_bytes()).await;
    world
        .bad(
            &format!("{PUSH} 1.0.0"),
            3,
            &["it is there with other bytes", &key],
        )
        .await;
    assert!(world.keys("releases/").is_empty());
}

#[tokio::test]
async fn blobs_that_are_gone_are_made_again() {
    let world = World::new().await;
    for (version, salt) in [("1.0.0", "a"), ("1.0.1", "b")] {
        world.folder("dist", &[("a.js", &script(300, salt))]);
        world.good(&format!("{PUSH} {version}")).await;
    }
    let manifest = world.manifest("lock", "1.0.1").await.document;
    for (digest, _) in manifest.blobs() {
        let key = format!("{PREFIX}{}", layout::blob(&digest));
        world.server.store().delete("widgets", &key).await.unwrap();
    }
    let report = world.json(&format!("{PUSH} 1.0.1")).await;
    assert_eq!(
        (report["outcome"].as_str(), report["blobs_stored"].as_u64()),
        (Some("already"), Some(4))
    );
    world.whole("lock", "1.0.1").await;
}

#[tokio::test]
async fn large_files_go_in_parts_and_are_written_once_too() {
    let world = World::new().await;
    let large: Vec<u8> = (0..17_u32 * 1024 * 1024)
        .map(|place| (place.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    world.folder("dist", &[("video.mp4", &large)]);
    world.good(&format!("{PUSH} 1.0.0")).await;
    world.whole("lock", "1.0.0").await;
    let completed = world
        .server
        .log()
        .into_iter()
        .find(|seen| seen.method == "POST" && seen.query.contains("uploadId"));
    assert_eq!(completed.unwrap().if_none_match.as_deref(), Some("*"));
    assert_eq!(world.json(&format!("{PUSH} 1.0.0")).await["blobs_stored"], 0);
    world.good("verify lock").await;
}

#[tokio::test]
async fn what_cannot_be_used_is_said_before_anything_is_sent() {
    let world = World::new().await;
    world.folder("dist", &[("a.js", b"var a;")]);
    world.server.clear_log();
    world
        .bad("push nowhere --name lock --release 1", 1, &["nowhere"])
        .await;
    world
        .bad(
            "push dist --name lock --release 1 --rules nothing.toml",
            2,
            &["nothing.toml"],
        )
        .await;
    world
        .bad(
            "push dist --name lock --release 1 --release-key keys/channel.key",
            1,
            &["is a channel key"],
        )
        .await;
    world
        .bad("push dist --name lock --release 1 --to file:///x", 1, &["s3://"])
        .await;
    assert!(world.server.log().is_empty());
    std::fs::write(
        world.dir().join("origin-sync.toml"),
        "[[rule]]\npath = '*.js'\nclass = 'alias'\ntags = ['t']\n",
    )
    .unwrap();
    world.good(&format!("{PUSH} 1.0.0")).await;
    let file = &world.manifest("lock", "1.0.0").await.document.files[0];
    assert_eq!((file.class.as_str(), file.tags[0].as_str()), ("alias", "t"));
}
