//! Promoting: what is asked of edges, what moves, and what goes back.

use origin_sync::bucket::{Fault, Rule};
use origin_sync::release::layout;

use crate::edge::{Edge, Lie};
use crate::{PREFIX, World, script};

/// A world with two releases that differ in a line.
async fn world() -> World {
    let world = World::new().await;
    for (version, salt) in [("1.0.0", "a"), ("1.0.1", "b")] {
        world.folder("dist", &[("lock.js", &script(200, salt)), ("logo.png", b"png")]);
        world
            .good(&format!("push dist --name lock --release {version}"))
            .await;
    }
    world
}

fn place(edge: &Edge) -> String {
    format!(
        "--edge http://{}={} --site http://cdn.example",
        edge.address, edge.address
    )
}

#[tokio::test]
async fn aliases_move_together_and_go_back() {
    let world = world().await;
    world
        .good("promote lock 1.0.0 --alias 1 --alias 1.0 --alias latest")
        .await;
    let first = world.channel("lock").await;
    assert_eq!((first.serial, first.aliases.len()), (1, 3));
    world.good("promote lock 1.0.1 --alias 1 --alias latest").await;
    let second = world.channel("lock").await;
    assert_eq!(second.aliases["1"].version.as_str(), "1.0.1");
    assert_eq!(second.aliases["1.0"].version.as_str(), "1.0.0");
    assert_eq!(
        second.aliases["1"].manifest,
        world.manifest("lock", "1.0.1").await.digest
    );

    world.server.clear_log();
    let said = world.good("rollback lock --alias 1 --alias latest").await;
    assert!(said.contains("lock 1: 1.0.1 -> 1.0.0"), "{said}");
    let third = world.channel("lock").await;
    assert_eq!(
        (third.serial, third.aliases["latest"].version.as_str()),
        (3, "1.0.0")
    );
    let written = world
        .server
        .log()
        .into_iter()
        .filter(|seen| seen.method == "PUT")
        .count();
    assert_eq!(written, 1, "a rollback sends nothing but the channel");
    world.good("rollback lock --alias latest --to 1.0.1").await;
    assert_eq!(
        world.channel("lock").await.aliases["latest"].version.as_str(),
        "1.0.1"
    );
    // Without a version the channel is signed again, as it is.
    world.good("promote lock --expires-days 60").await;
    let again = world.channel("lock").await;
    assert_eq!(again.serial, 5);
    assert!(again.expires > third.expires + 29 * 24 * 3600);
    world.good("promote lock --remove 1.0").await;
    assert_eq!(world.channel("lock").await.aliases.len(), 2);
    let status = world.good("status").await;
    assert!(
        status.contains("lock: 2 releases") && status.contains("serial 6"),
        "{status}"
    );
}

#[tokio::test]
async fn fields_for_browsers_are_signed_for_every_alias_until_the_channel_expires() {
    let world = world().await;
    world.good("promote lock 1.0.0 --alias 1.0").await;
    world.good("promote lock 1.0.1 --alias 1").await;
    let channel = world.channel("lock").await;
    let key = world
        .trust()
        .of(origin_sync::release::Role::Channel)
        .next()
        .copied()
        .unwrap();
    for version in ["1.0.0", "1.0.1"] {
        let digest = world
            .manifest("lock", version)
            .await
            .document
            .file("lock.js")
            .unwrap()
            .sha256;
        let fields = &channel.integrity[&digest];
        assert_eq!(fields.verify(&digest, channel.created).unwrap(), [key]);
        assert!(fields.verify(&digest, channel.expires).is_err());
    }
    assert_eq!(channel.integrity.len(), 2);
    let versioned = world.good("sri lock 1.0.1 --site https://cdn.example").await;
    assert!(
        versioned.starts_with(r#"<script src="https://cdn.example/lock/1.0.1/lock.js" integrity="sha384-"#),
        "{versioned}"
    );
    assert!(
        versioned.contains(" ed25519-") && versioned.contains(r#"crossorigin="anonymous""#),
        "{versioned}"
    );
    let alias = world.good("sri lock 1 --site https://cdn.example").await;
    assert!(alias.contains(&format!(r#"integrity="{key}""#)), "{alias}");
}

#[tokio::test]
async fn edges_fetch_before_and_are_asked_after() {
    let world = world().await;
    let edge = Edge::start(&world, Lie::None).await;
    let report = world
        .json(&format!(
            "promote lock 1.0.1 --alias 1 --alias latest {}",
            place(&edge)
        ))
        .await;
    let node = &report["nodes"][0];
    // Two files; gzip, br and a delta of one of them; two aliases.
    assert_eq!(
        (node["prewarmed"].as_u64(), node["served"].as_u64()),
        (Some(5), Some(10)),
        "{report}"
    );
    assert_eq!(
        (node["serial"].as_u64(), node["wrong"].as_array().unwrap().len()),
        (Some(1), 0)
    );
    let asked = edge.asked();
    assert_eq!(asked[0], "POST /v1/releases/prewarm");
    let purge = r#"POST /v1/purge {"soft":true,"tags":["release:lock@1","release:lock@latest"]}"#;
    let purged = asked.iter().position(|asked| asked == purge);
    let served = asked.iter().position(|asked| asked == "GET /lock/1/lock.js");
    assert!(purged.unwrap() < served.unwrap(), "{asked:?}");
    let status = world
        .good(&format!("status lock --edge http://{}", edge.address))
        .await;
    assert!(status.contains("scripted"), "{status}");
    world.good(&format!("verify lock {}", place(&edge))).await;
}

#[tokio::test]
async fn an_edge_that_does_not_hold_the_release_stops_the_flip() {
    let world = world().await;
    for (lie, word) in [
        (Lie::Digest, "instead of"),
        (Lie::Refuse, "no site releases this"),
    ] {
        let edge = Edge::start(&world, lie).await;
        let line = format!("promote lock 1.0.1 --alias 1 {}", place(&edge));
        let ran = world.bad(&line, 3, &["nothing was changed"]).await;
        assert!(ran.stdout.contains(word), "{ran:?}");
    }
    world
        .bad(
            "promote lock 1.0.1 --alias 1 --edge http://127.0.0.1:1",
            3,
            &["nothing was changed"],
        )
        .await;
    assert!(world.keys("channels/").is_empty());
    // The canary is asked alone, and the others never.
    let bad = Edge::start(&world, Lie::Digest).await;
    let good = Edge::start(&world, Lie::None).await;
    let line = format!(
        "promote lock 1.0.1 --alias 1 {} --canary http://{}",
        place(&good),
        bad.address
    );
    world.bad(&line, 3, &["nothing was changed"]).await;
    assert_eq!((bad.asked().len(), good.asked().len()), (1, 0));
}

#[tokio::test]
async fn an_edge_that_serves_something_else_moves_the_aliases_back() {
    let world = world().await;
    world.good("promote lock 1.0.0 --alias 1").await;
    let edge = Edge::start(&world, Lie::Serve).await;
    let line = format!("promote lock 1.0.1 --alias 1 --alias new {}", place(&edge));
    let ran = world.bad(&line, 3, &["were not moved back"]).await;
    assert!(ran.stdout.contains("SHA-256"), "{ran:?}");
    assert_eq!(world.channel("lock").await.aliases["1"].version.as_str(), "1.0.1");
    world.good("promote lock 1.0.0 --alias 1 --remove new").await;
    let ran = world
        .bad(
            &format!("{line} --auto-rollback"),
            3,
            &["the aliases were moved back"],
        )
        .await;
    assert!(ran.stdout.contains("serial 5"), "{ran:?}");
    let channel = world.channel("lock").await;
    assert_eq!(
        (channel.serial, channel.aliases["1"].version.as_str()),
        (5, "1.0.0")
    );
    assert!(!channel.aliases.contains_key("new"));
}

#[tokio::test]
async fn an_old_channel_in_the_bucket_does_not_turn_back_serials() {
    let world = world().await;
    world.good("promote lock 1.0.0 --alias 1").await;
    let old = world.object("channels/lock.json").await;
    world.good("promote lock 1.0.1 --alias 1").await;
    world.replace("channels/lock.json", old).await;
    let edge = Edge::start(&world, Lie::Serial(41)).await;
    world
        .good(&format!(
            "promote lock 1.0.1 --alias 1 --edge http://{}",
            edge.address
        ))
        .await;
    assert_eq!(world.channel("lock").await.serial, 42);
}

#[tokio::test]
async fn what_a_flip_would_stand_on_is_looked_at_first() {
    let world = world().await;
    world
        .bad(
            "promote lock 9.9.9 --alias 1",
            1,
            &["releases/lock/9.9.9.json is not there"],
        )
        .await;
    world
        .bad("promote lock 1.0.1 --alias 1.0.0", 2, &["would hide it"])
        .await;
    world.bad("rollback lock --alias 1", 2, &["no alias 1"]).await;
    let digest = world
        .manifest("lock", "1.0.1")
        .await
        .document
        .file("logo.png")
        .unwrap()
        .sha256;
    let key = layout::blob(&digest);
    world
        .server
        .store()
        .delete("widgets", &format!("{PREFIX}{key}"))
        .await
        .unwrap();
    world
        .bad(
            "promote lock 1.0.1 --alias 1",
            1,
            &["1 blobs of lock 1.0.1", "push it again"],
        )
        .await;
    world.replace(&key, b"png".as_slice()).await;
}

#[tokio::test]
async fn documents_of_somebody_who_holds_the_bucket_and_no_key_are_not_believed() {
    let world = world().await;
    let stranger = World::new().await;
    stranger.folder("dist", &[("lock.js", b"evil")]);
    stranger.good("push dist --name lock --release 1.0.1").await;
    stranger.good("promote lock 1.0.1 --alias 1").await;
    let good = world.object("releases/lock/1.0.1.json").await;
    world
        .replace(
            "releases/lock/1.0.1.json",
            stranger.object("releases/lock/1.0.1.json").await,
        )
        .await;
    world
        .bad(
            "promote lock 1.0.1 --alias 1",
            1,
            &["cannot be believed", "is not trusted"],
        )
        .await;
    world
        .replace(
            "releases/lock/1.0.1.json",
            world.object("releases/lock/1.0.0.json").await,
        )
        .await;
    world
        .bad("promote lock 1.0.1 --alias 1", 1, &["the document of lock 1.0.0"])
        .await;
    world.replace("releases/lock/1.0.1.json", good).await;
    world
        .replace("channels/lock.json", stranger.object("channels/lock.json").await)
        .await;
    world
        .bad(
            "promote lock 1.0.1 --alias 1",
            1,
            &["channels/lock.json cannot be believed"],
        )
        .await;
}

#[tokio::test]
async fn a_flip_whose_answer_was_lost_is_found_again_and_a_failed_one_says_so() {
    let world = world().await;
    let rule = |fault: Fault| {
        Rule::new(fault)
            .key(format!("{PREFIX}channels/lock.json"))
            .method("PUT")
    };
    world.server.faults().add(rule(Fault::WrongLength(10)).times(1));
    world.good("promote lock 1.0.0 --alias 1").await;
    assert_eq!(world.channel("lock").await.serial, 1);
    world
        .server
        .faults()
        .add(rule(Fault::Status(403, "AccessDenied".into())));
    world
        .bad(
            "promote lock 1.0.1 --alias 1",
            1,
            &["may or may not", "channels/lock.json", "403"],
        )
        .await;
}
